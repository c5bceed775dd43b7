/* The effect of each setting. They are read when an engine is created, so each is in the environment for that
 * call only; the log is set up once per process, so its settings are tried in children. */
#include <dirent.h>
#include <sys/stat.h>

#include "fake.h"
#include "peer.h"

#define BYTES (4 * MIB)
#define END_MS 20000
#define CLASS_END_MS 5000
#define UNSET_MS 2500
#define LANE_BYTES (64 * MIB)

static peer_t peer;

struct setting {
    const char *name, *value;
};

static void settings_on(const struct setting *settings) {
    for (; settings->name != NULL; settings++) setenv(settings->name, settings->value, 1);
}

static void settings_off(const struct setting *settings) {
    for (; settings->name != NULL; settings++) unsetenv(settings->name);
}

/* An engine created under up to four settings. */
#define ENGINE_WITH(...) engine_with((const struct setting[]){__VA_ARGS__, {NULL, NULL}})
static transfer_engine_t engine_with(const struct setting *settings) {
    settings_on(settings);
    transfer_engine_t engine = engine_open();
    settings_off(settings);
    return engine;
}

static segment_id_t open_peer(transfer_engine_t engine) {
    segment_id_t target = openSegment(engine, peer.name);
    if (target <= 0) harness_give_up("opening the peer");
    return target;
}

/* A write of `len` bytes looked at in the peer's memory, then a read of them. */
static bool round_trip(transfer_engine_t engine, size_t len, uint64_t seed) {
    segment_id_t target = open_peer(engine);
    unsigned char *own = registered_bytes(engine, len);
    pattern_fill(own, len, seed);
    bool ok = transfer_once(engine, request(OPCODE_WRITE, own, target, peer.base, len), END_MS) == STATUS_COMPLETED &&
              pattern_matches(peer.view, len, seed);
    memset(own, 0, len);
    ok = ok && transfer_once(engine, request(OPCODE_READ, own, target, peer.base, len), END_MS) == STATUS_COMPLETED &&
         pattern_matches(own, len, seed);
    ok = unregisterLocalMemory(engine, own) == 0 && ok;
    munmap(own, len);
    return ok;
}

static void unregistered_source(void) {
    unsigned char *own = map_bytes(4096);
    transfer_engine_t engine = engine_open();
    CHECK_ERROR("default: an unregistered source is refused",
                transfer_once(engine, request(OPCODE_WRITE, own, open_peer(engine), peer.base, 4096), END_MS), -3);
    destroyTransferEngine(engine);
    engine = ENGINE_WITH({"MC_TCP_ALLOW_UNREGISTERED_SOURCE", "1"});
    pattern_fill(own, 4096, 1);
    CHECK_EQ("MC_TCP_ALLOW_UNREGISTERED_SOURCE=1: it is accepted",
             transfer_once(engine, request(OPCODE_WRITE, own, open_peer(engine), peer.base, 4096), END_MS), STATUS_COMPLETED);
    CHECK("and arrives", pattern_matches(peer.view, 4096, 1));
    memset(own, 0, 4096);
    CHECK_EQ("so is a destination",
             transfer_once(engine, request(OPCODE_READ, own, open_peer(engine), peer.base, 4096), END_MS), STATUS_COMPLETED);
    CHECK("which is filled", pattern_matches(own, 4096, 1));
    destroyTransferEngine(engine);
    munmap(own, 4096);
}

static batch_id_t submit_to_silence(transfer_engine_t engine, const fake_t *fake) {
    unsigned char *own = registered_bytes(engine, 4096);
    segment_id_t target = openSegment(engine, fake->name);
    transfer_request_t r = request(OPCODE_WRITE, own, target, FAKE_BASE, 4096);
    batch_id_t batch = batch_open(engine, 1);
    CHECK_EQ("a write to a silent peer", submitTransfer(engine, batch, &r, 1), 0);
    return batch;
}

static void registered_again(void) {
    unsigned char *own = map_bytes(8192);
    buffer_entry_t both[] = {{own, 4096}, {own + 4096, 4096}}, overlap[] = {{own + 4096, 4096}, {own, 4095}};
    void *addresses[] = {own, own + 4096};
    transfer_engine_t engine = engine_open();
    CHECK_EQ("a region", registerLocalMemory(engine, own, 4096, "cpu:0", 1), 0);
    CHECK_ERROR("default: again, exactly, it overlaps", registerLocalMemory(engine, own, 4096, "cpu:0", 1), -7);
    CHECK_ERROR("  in a batch, too", registerLocalMemoryBatch(engine, both, 2, "cpu:0"), -7);
    CHECK_ERROR("  of which nothing stays", unregisterLocalMemory(engine, own + 4096), -3);
    destroyTransferEngine(engine);
    engine = ENGINE_WITH({"MC_ALLOW_REREGISTER", "1"});
    segment_id_t target = open_peer(engine);
    transfer_request_t write = request(OPCODE_WRITE, own, target, peer.base, 4096);
    CHECK_EQ("MC_ALLOW_REREGISTER=1: a region", registerLocalMemory(engine, own, 4096, "cpu:0", 1), 0);
    CHECK_EQ("  again", registerLocalMemory(engine, own, 4096, "cpu:0", 1), 0);
    CHECK_EQ("  in a batch with a new one", registerLocalMemoryBatch(engine, both, 2, "cpu:0"), 0);
    CHECK_ERROR("  another length overlaps", registerLocalMemory(engine, own, 4095, "cpu:0", 1), -7);
    CHECK_ERROR("  another location too", registerLocalMemory(engine, own, 4096, "cpu:1", 1), -7);
    CHECK_ERROR("  and other access", registerLocalMemory(engine, own, 4096, "cpu:0", 0), -7);
    CHECK_ERROR("  a batch counts as a whole or not at all", registerLocalMemoryBatch(engine, overlap, 2, "cpu:0"), -7);
    CHECK_EQ("  unregistered once of three times", unregisterLocalMemory(engine, own), 0);
    CHECK_EQ("  in a batch, the other one's only time", unregisterLocalMemoryBatch(engine, addresses, 2), 0);
    CHECK_ERROR("  the other one is gone", unregisterLocalMemory(engine, own + 4096), -3);
    pattern_fill(own, 4096, 3);
    CHECK_EQ("  the first one is usable to the last", transfer_once(engine, write, END_MS), STATUS_COMPLETED);
    CHECK("  with the right bytes", pattern_matches(peer.view, 4096, 3));
    CHECK_EQ("  the last time", unregisterLocalMemory(engine, own), 0);
    CHECK_ERROR("  then it is gone", transfer_once(engine, write, END_MS), -3);
    CHECK_ERROR("  and once more is too often", unregisterLocalMemory(engine, own), -3);
    destroyTransferEngine(engine);
    munmap(own, 8192);
}

static void ends_in_time(const char *name, transfer_engine_t engine, const fake_t *fake, int want) {
    mte_task_error_info_t why = {0};
    int64_t start = now_ms();
    batch_id_t batch = submit_to_silence(engine, fake);
    CHECK_EQ(name, await_task(engine, batch, 0, CLASS_END_MS), want);
    CHECK("after its second, within five", now_ms() - start >= 900 && now_ms() - start < CLASS_END_MS);
    CHECK_EQ("its error", mte_task_error(engine, batch, 0, &why), 0);
    CHECK_EQ("is of class TIMEOUT", why.error_class, MTE_CLASS_TIMEOUT);
    CHECK_EQ("freed", freeBatchID(engine, batch), 0);
    destroyTransferEngine(engine);
}

static void timeouts(void) {
    fake_t *fake = fake_start(FAKE_SILENT);
    ends_in_time("MC_SLICE_TIMEOUT=1: FAILED",
                 ENGINE_WITH({"MC_SLICE_TIMEOUT", "1"}, {"MC_TCP_STATUS_TIMEOUT_SEC", "30"}), fake, STATUS_FAILED);
    ends_in_time("MC_REPORT_TIMEOUT=1: TIMEOUT",
                 ENGINE_WITH({"MC_SLICE_TIMEOUT", "1"}, {"MC_REPORT_TIMEOUT", "1"}, {"MC_TCP_STATUS_TIMEOUT_SEC", "30"}), fake,
                 STATUS_TIMEOUT);
    ends_in_time("MC_TCP_STATUS_TIMEOUT_SEC=1 without MC_SLICE_TIMEOUT: FAILED",
                 ENGINE_WITH({"MC_TCP_STATUS_TIMEOUT_SEC", "1"}), fake, STATUS_FAILED);
    transfer_engine_t engine = ENGINE_WITH({"MC_SLICE_TIMEOUT", "-1"}, {"MC_TCP_STATUS_TIMEOUT_SEC", "30"});
    batch_id_t batch = submit_to_silence(engine, fake);
    CHECK_ERROR("MC_SLICE_TIMEOUT=-1 is as unset: it goes on", mte_wait_batch(engine, batch, UNSET_MS), -4);
    CHECK_ERROR("and cannot be freed", freeBatchID(engine, batch), -4);
    destroyTransferEngine(engine);
    fake_stop(fake);
}

static void framing(void) {
    transfer_engine_t engine = ENGINE_WITH({"MC_TCP_PROTO", "1"});
    unsigned char *own = registered_bytes(engine, 4096);
    pattern_fill(own, 4096, 2);
    CHECK_EQ("MC_TCP_PROTO=1: a write completes",
             transfer_once(engine, request(OPCODE_WRITE, own, open_peer(engine), peer.base, 4096), END_MS), STATUS_COMPLETED);
    bool arrived;
    WAIT_UNTIL(arrived, pattern_matches(peer.view, 4096, 2), END_MS);
    CHECK("and is applied afterwards", arrived);
    destroyTransferEngine(engine);

    engine = ENGINE_WITH({"MC_TCP_PROTO", "1"}, {"MC_STRICT", "1"});
    mte_task_error_info_t why = {0};
    unsigned char *more = registered_bytes(engine, 4096);
    memset(more, 0xff, 4096);
    transfer_request_t r = request(OPCODE_WRITE, more, open_peer(engine), peer.base, 4096);
    batch_id_t batch = batch_open(engine, 1);
    CHECK_EQ("with MC_STRICT=1: it is accepted", submitTransfer(engine, batch, &r, 1), 0);
    CHECK_EQ("and FAILED", await_task(engine, batch, 0, END_MS), STATUS_FAILED);
    CHECK_EQ("its error", mte_task_error(engine, batch, 0, &why), 0);
    CHECK_EQ("is of class UNSUPPORTED", why.error_class, MTE_CLASS_UNSUPPORTED);
    CHECK_EQ("freed", freeBatchID(engine, batch), 0);
    CHECK("nothing was written", pattern_matches(peer.view, 4096, 2));
    destroyTransferEngine(engine);
    engine = ENGINE_WITH({"MC_STRICT", "1"});
    CHECK("MC_STRICT=1 alone: transfers with status frames", round_trip(engine, 4096, 3));
    destroyTransferEngine(engine);
    munmap(own, 4096);
    munmap(more, 4096);
}

static bool has_loopback6(void) {
    struct sockaddr_in6 a = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool ok = fd >= 0 && bind(fd, (struct sockaddr *)&a, sizeof a) == 0;
    if (fd >= 0) close(fd);
    return ok;
}

static transfer_engine_t engine6(void) {
    transfer_engine_t engine = createTransferEngine("P2PHANDSHAKE", "::1", "", 0, 0);
    if (engine == NULL) harness_give_up("an engine on ::1");
    if (installTransport(engine, "tcp", NULL) == NULL) harness_give_up("tcp on ::1");
    return engine;
}

static void ipv6(void) {
    if (!has_loopback6()) {
        SKIP("MC_USE_IPV6", "this machine has no ::1");
        return;
    }
    char name[128], want[64];
    setenv("MC_USE_IPV6", "", 1);
    transfer_engine_t server = engine6(), client = engine6();
    unsetenv("MC_USE_IPV6");
    engine_name(server, name, sizeof name);
    snprintf(want, sizeof want, "[::1]:%u", (unsigned)name_port(name));
    CHECK("MC_USE_IPV6: a port", name_port(name) != 0);
    CHECK_STR("the name has brackets", name, want);
    unsigned char *there = registered_bytes(server, MIB), *here = registered_bytes(client, MIB);
    segment_id_t target = openSegment(client, name);
    CHECK("a second engine opens it", target > 0);
    pattern_fill(here, MIB, 4);
    CHECK_EQ("and writes to it",
             transfer_once(client, request(OPCODE_WRITE, here, target, (uintptr_t)there, MIB), END_MS), STATUS_COMPLETED);
    CHECK("the bytes are there", pattern_matches(there, MIB, 4));
    memset(here, 0, MIB);
    CHECK_EQ("and reads", transfer_once(client, request(OPCODE_READ, here, target, (uintptr_t)there, MIB), END_MS),
             STATUS_COMPLETED);
    CHECK("the same", pattern_matches(here, MIB, 4));
    destroyTransferEngine(client);
    destroyTransferEngine(server);
    munmap(there, MIB);
    munmap(here, MIB);
}

static void transports(void) {
    transfer_engine_t engine = createTransferEngine("P2PHANDSHAKE", "127.0.0.1", "", 0, 0);
    REQUIRE("auto_discover 0: an engine", engine != NULL);
    CHECK_ERROR("without a transport", openSegment(engine, peer.name), -1);
    destroyTransferEngine(engine);
    setenv("MC_FORCE_TCP", "0", 1);
    engine = createTransferEngine("P2PHANDSHAKE", "127.0.0.1", "", 0, 0);
    unsetenv("MC_FORCE_TCP");
    REQUIRE("MC_FORCE_TCP set, auto_discover 0: an engine", engine != NULL);
    CHECK("with a transport", round_trip(engine, 4096, 5));
    destroyTransferEngine(engine);
    if (access("/sys/class/infiniband", F_OK) == 0) {
        SKIP("auto_discover 1", "this host has RDMA devices");
        return;
    }
    engine = createTransferEngine("P2PHANDSHAKE", "127.0.0.1", "", 0, 1);
    REQUIRE("auto_discover 1: an engine", engine != NULL);
    CHECK("with a transport", round_trip(engine, 4096, 6));
    destroyTransferEngine(engine);
    setenv("MC_FORCE_HCA", "", 1);
    CHECK_NULL("MC_FORCE_HCA without a NIC", createTransferEngine("P2PHANDSHAKE", "127.0.0.1", "", 0, 1), -6);
    unsetenv("MC_FORCE_HCA");
    setenv("MC_CUSTOM_TOPO_JSON", "/no/such/file", 1);
    engine = createTransferEngine("P2PHANDSHAKE", "127.0.0.1", "", 0, 1);
    unsetenv("MC_CUSTOM_TOPO_JSON");
    REQUIRE("MC_CUSTOM_TOPO_JSON that cannot be read: an engine", engine != NULL);
    destroyTransferEngine(engine);
}

static bool ports_within(transfer_engine_t engine, int from, int to) {
    char name[128];
    engine_name(engine, name, sizeof name);
    int handshake = name_port(name), data = data_port(name);
    printf("#     ports %d and %d\n", handshake, data);
    return handshake >= from && handshake <= to && data >= from && data <= to && handshake != data;
}

static void ports(void) {
    static const struct {
        const char *name, *min, *max;
        int from, to;
    } rows[] = {
        {"MC_MIN_RPC_PORT..MC_MAX_RPC_PORT 21000..21050", "21000", "21050", 21000, 21050},
        {"a range with its ends exchanged", "21050", "21000", 15000, 17000},
        {"a range into the ephemeral ports", "21000", "40000", 15000, 17000},
        {"a first port that is no number", "x", "16000", 15000, 16000},
    };
    transfer_engine_t engine = engine_open();
    CHECK("default: ports in 15000..17000", ports_within(engine, 15000, 17000));
    destroyTransferEngine(engine);
    for (size_t i = 0; i < COUNT(rows); i++) {
        engine = ENGINE_WITH({"MC_MIN_RPC_PORT", rows[i].min}, {"MC_MAX_RPC_PORT", rows[i].max});
        CHECK(rows[i].name, ports_within(engine, rows[i].from, rows[i].to));
        destroyTransferEngine(engine);
    }
    engine = ENGINE_WITH({"MC_MIN_PRC_PORT", "21100"}, {"MC_MAX_PRC_PORT", "21150"});
    CHECK("the misspelt names", ports_within(engine, 21100, 21150));
    destroyTransferEngine(engine);
}

/* The data plane's geometry never changes the bytes. */
static void geometry(void) {
    static const struct setting rows[] = {
        {"MC_TCP_STRIPE_SIZE", "65536"}, {"MC_TCP_LANES_PER_PEER", "1"}, {"MC_TCP_LANES_PER_PEER", "16"},
        {"MC_TCP_MAX_CONNECTIONS_PER_PEER", "2"}, {"MC_TCP_THREADS", "3"}, {"MC_TCP_BUSY_POLL_US", "0"},
        {"MC_TCP_SOCKET_BUFFER", "65536"}, {"MC_TCP_ENABLE_CONNECTION_POOL", "no"},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        char name[96];
        transfer_engine_t engine = ENGINE_WITH(rows[i]);
        snprintf(name, sizeof name, "%s=%s: 1 MiB, then 4 MiB written and read", rows[i].name, rows[i].value);
        CHECK(name, round_trip(engine, MIB, 10 + i) && round_trip(engine, BYTES, 30 + i));
        destroyTransferEngine(engine);
    }
    transfer_engine_t engine = ENGINE_WITH({"MC_TCP_THREADS", "1"});
    size_t one = thread_count();
    destroyTransferEngine(engine);
    engine = ENGINE_WITH({"MC_TCP_THREADS", "3"});
    CHECK_EQ("MC_TCP_THREADS=3 has two threads more than 1", thread_count(), one + 2);
    destroyTransferEngine(engine);
}

static int held_by(fake_t *fake) {
    pthread_mutex_lock(&fake->lock);
    int held = fake->held_count;
    pthread_mutex_unlock(&fake->lock);
    return held;
}

/* Connections that a silent peer has from one engine while a read waits that is large enough for all of them. */
static void lanes(void) {
    static const struct {
        const char *value;
        int lanes;
    } rows[] = {{"1", 1}, {"3", 3}, {"8", 8}};
    for (size_t i = 0; i < COUNT(rows); i++) {
        char name[96];
        int most = 0;
        fake_t *fake = fake_start(FAKE_SILENT);
        transfer_engine_t engine = ENGINE_WITH({"MC_TCP_LANES_PER_PEER", rows[i].value}, {"MC_SLICE_TIMEOUT", "1"});
        unsigned char *own = registered_bytes(engine, LANE_BYTES);
        transfer_request_t r = request(OPCODE_READ, own, openSegment(engine, fake->name), FAKE_BASE, LANE_BYTES);
        batch_id_t batch = batch_open(engine, 1);
        if (submitTransfer(engine, batch, &r, 1) != 0) harness_give_up("a read from a silent peer");
        transfer_status_t status = {0};
        for (int64_t end = now_ms() + CLASS_END_MS; now_ms() < end; nap()) {
            int held = held_by(fake);
            most = held > most ? held : most;
            if (getTransferStatus(engine, batch, 0, &status) != 0 || status.status != STATUS_WAITING) break;
        }
        CHECK_EQ("a read from a silent peer fails", status.status, STATUS_FAILED);
        snprintf(name, sizeof name, "MC_TCP_LANES_PER_PEER=%s: that many connections", rows[i].value);
        CHECK_EQ(name, most, rows[i].lanes);
        destroyTransferEngine(engine);
        fake_stop(fake);
        munmap(own, LANE_BYTES);
    }
}

/* The child of `log_files`. */
static int one_engine(void) {
    alarm(60);
    transfer_engine_t engine = engine_open();
    unsigned char *own = registered_bytes(engine, 4096);
    int status = transfer_once(engine, request(OPCODE_WRITE, own, LOCAL_SEGMENT, (uintptr_t)own + 2048, 2048), END_MS);
    destroyTransferEngine(engine);
    return status != STATUS_COMPLETED;
}

/* Bytes that the child wrote to standard error; its wait status in `status`. */
static size_t run_logging(const char *dir, const char *level, int *status) {
    char self[4096] = "";
    int err = memfd_create("stderr", MFD_CLOEXEC);
    if (err < 0 || readlink("/proc/self/exe", self, sizeof self - 1) < 0) harness_give_up("a child that logs");
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(err, STDERR_FILENO);
        setenv("MC_LOG_LEVEL", level, 1);
        if (dir != NULL) setenv("MC_LOG_DIR", dir, 1);
        else unsetenv("MC_LOG_DIR");
        execl(self, "test-log", "--log", (char *)NULL);
        _exit(127);
    }
    *status = child_reap(pid, END_MS);
    struct stat written = {0};
    if (fstat(err, &written) != 0) harness_give_up("standard error of a child");
    close(err);
    return (size_t)written.st_size;
}

/* Removes the files in `dir` and the folder: how many files that are not empty there were. */
static size_t sweep(const char *dir) {
    size_t files = 0;
    DIR *d = opendir(dir);
    for (struct dirent *e; d != NULL && (e = readdir(d)) != NULL;) {
        char path[4096];
        struct stat s;
        snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        if (stat(path, &s) != 0 || !S_ISREG(s.st_mode)) continue;
        printf("#     %s, %lld bytes\n", e->d_name, (long long)s.st_size);
        files += s.st_size > 0;
        unlink(path);
    }
    if (d != NULL) closedir(d);
    rmdir(dir);
    return files;
}

static void log_files(void) {
    char dir[] = "/tmp/te-log-XXXXXX";
    int status;
    REQUIRE("a folder for log files", mkdtemp(dir) != NULL);
    size_t written = run_logging(dir, "INFO", &status);
    CHECK_EQ("MC_LOG_DIR: the child works", status, 0);
    CHECK_EQ("its standard error is empty", written, 0);
    CHECK("a log file is in the folder", sweep(dir) >= 1);
    written = run_logging(NULL, "INFO", &status);
    CHECK_EQ("without MC_LOG_DIR: the child works", status, 0);
    CHECK("MC_LOG_LEVEL=INFO: it logs to standard error", written > 0);
    written = run_logging(NULL, "ERROR", &status);
    CHECK_EQ("MC_LOG_LEVEL=ERROR: the child works", status, 0);
    CHECK_EQ("and has nothing to say", written, 0);
}

int main(int argc, char **argv) {
    peer_dispatch(argc, argv);
    if (argc == 2 && strcmp(argv[1], "--log") == 0) return one_engine();
    harness_begin();
    peer = peer_start(BYTES, NULL);
    unregistered_source();
    registered_again();
    timeouts();
    framing();
    ipv6();
    transports();
    ports();
    geometry();
    lanes();
    log_files();
    CHECK_EQ("the peer ends in order", peer_stop(&peer), 0);
    return harness_finish();
}

/* The codes of error.h that RDMA gives, by real triggers, and two transports in one engine. Run again by itself as
 * `--no-library`: with a libibverbs that is none. */
#include <sys/stat.h>

#include "rdma.h"
#include "wire.h"

#define BYTES (4 * MIB)
#define BLOCK (256 * KIB)

static char text[512];

static const char *last_text(void) {
    mte_last_error(text, sizeof text);
    printf("#     %s\n", text);
    return text;
}

/* An engine that lacks RDMA still serves TCP. */
static void tcp_works(transfer_engine_t engine) {
    CHECK("  and TCP can be installed", installTransport(engine, "tcp", NULL) != NULL);
    unsigned char *a = registered_bytes(engine, BLOCK);
    transfer_engine_t other = engine_open();
    unsigned char *b = registered_bytes(other, BLOCK);
    char name[128];
    engine_name(other, name, sizeof name);
    pattern_fill(a, BLOCK, 1);
    CHECK_EQ("  and moves bytes", move_one(engine, openSegment(engine, name), OPCODE_WRITE, a, (uintptr_t)b, BLOCK).completed, 1);
    CHECK("  the right ones", pattern_matches(b, BLOCK, 1));
    destroyTransferEngine(other);
    munmap(a, BLOCK);
    munmap(b, BLOCK);
}

/* In a process of its own, whose libibverbs.so.1 is a text file. */
static int without_library(void) {
    harness_begin();
    transfer_engine_t engine = bare_engine();
    CHECK_NULL("-6 without libibverbs", rdma_install(engine, "sim0"), -6);
    CHECK("  the text says so", strstr(last_text(), "libibverbs") != NULL);
    CHECK_NULL("  again", rdma_install(engine, "sim0"), -6);
    tcp_works(engine);
    destroyTransferEngine(engine);
    setenv("MC_CUSTOM_TOPO_JSON", "", 1);
    engine = createTransferEngine("P2PHANDSHAKE", "127.0.0.1", "", 0, 1);
    CHECK("auto_discover falls back to TCP", engine != NULL);
    destroyTransferEngine(engine);
    return harness_finish();
}

static void no_library(void) {
    char folder[] = "/tmp/te-no-verbs-XXXXXX", file[64], path[4200], self[4096] = "";
    const char *old = getenv("LD_LIBRARY_PATH");
    if (mkdtemp(folder) == NULL || readlink("/proc/self/exe", self, sizeof self - 1) < 0) harness_give_up("a folder");
    snprintf(file, sizeof file, "%s/libibverbs.so.1", folder);
    FILE *f = fopen(file, "w");
    if (f == NULL || fputs("no library\n", f) < 0 || fclose(f) != 0) harness_give_up("a file that is no library");
    snprintf(path, sizeof path, "%s:%s", folder, old == NULL ? "" : old);
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        setenv("LD_LIBRARY_PATH", path, 1);
        execl(self, "test-no-library", "--no-library", (char *)NULL);
        _exit(127);
    }
    CHECK_EQ("a process without libibverbs", child_reap(pid, WAIT_MS), 0);
    unlink(file);
    rmdir(folder);
}

static void no_device(void) {
    transfer_engine_t engine = bare_engine();
    CHECK_NULL("-6: an unknown device", rdma_install(engine, "mlx5_99"), -6);
    CHECK("  the text names it", strstr(last_text(), "mlx5_99") != NULL);
    CHECK_NULL("-6: a matrix without NICs", installTransport(engine, "rdma", (void *[]){"{}", NULL}), -6);
    CHECK_NULL("-103: a matrix that is no JSON", installTransport(engine, "rdma", (void *[]){"{", NULL}), -103);
    CHECK_NULL("-103: a matrix of another shape", installTransport(engine, "rdma", (void *[]){"{\"cpu:0\":[[\"sim0\"]]}", NULL}), -103);
    CHECK("the engine stays without a transport", openSegment(engine, "127.0.0.1:1") < 0 && mte_last_error(NULL, 0) == -1);
    CHECK("one of two devices is enough", rdma_install(engine, "mlx5_99,sim0") != NULL);
    CHECK("  and is the one in use", links_show(engine, "\"device\":\"sim0\"") && !links_show(engine, "\"device\":\"mlx5_99\",\"gid\""));
    CHECK("a second time gives the same", rdma_install(engine, "sim1") != NULL && !links_show(engine, "\"device\":\"sim1\",\"gid\""));
    destroyTransferEngine(engine);
    engine = bare_engine();
    nics_do("port sim3 down\n");
    transport_t got = engine;
    for (int64_t end = now_ms() + 5000; got != NULL && now_ms() < end;) {
        if ((got = rdma_install(engine, "sim3")) != NULL) {
            destroyTransferEngine(engine);
            engine = bare_engine();
        }
    }
    CHECK("-6: a device whose port is down", got == NULL && mte_last_error(NULL, 0) == -6);
    CHECK("  the text says so", strstr(last_text(), "not active") != NULL);
    tcp_works(engine);
    destroyTransferEngine(engine);
    nics_do("port sim3 up\n");
}

static void addresses(void) {
    transfer_engine_t engine = rdma_engine("sim0");
    peer_t peer = rdma_peer(BYTES, "sim2", NULL);
    segment_id_t target = openSegment(engine, peer.name);
    unsigned char *mine = registered_bytes(engine, BYTES), *foreign = map_bytes(4096);
    batch_id_t batch = batch_open(engine, 4);
    transfer_request_t outside = request(OPCODE_WRITE, mine, target, peer.base + BYTES - 4, 8);
    transfer_request_t before = request(OPCODE_WRITE, mine, target, peer.base - 1, 8);
    transfer_request_t wrapped = request(OPCODE_WRITE, mine, target, UINT64_MAX - 3, 8);
    transfer_request_t unregistered = request(OPCODE_WRITE, foreign, target, peer.base, 8);
    CHECK_ERROR("-3: a target range with its end outside", submitTransfer(engine, batch, &outside, 1), -3);
    CHECK_ERROR("-3: a target range with its start outside", submitTransfer(engine, batch, &before, 1), -3);
    CHECK_ERROR("-3: a target range that wraps around", submitTransfer(engine, batch, &wrapped, 1), -3);
    CHECK_ERROR("-3: a source that is not registered", submitTransfer(engine, batch, &unregistered, 1), -3);
    CHECK_EQ("  the batch stays empty", freeBatchID(engine, batch), 0);
    CHECK_ERROR("-202: an unmapped address", registerLocalMemory(engine, (void *)(uintptr_t)4096, 4096, "cpu:0", 1), -202);
    CHECK("  with a text", strstr(last_text(), "sim0") != NULL);
    CHECK_EQ("  private memory cannot be reached", peer_unregister(&peer, 0) | peer_register(&peer, 0, BYTES, 0), 0);
    CHECK_EQ("  sync", syncSegmentCache(engine), 0);
    CHECK_EQ("-3: memory that is registered for the peer itself", transfer_once(engine, request(OPCODE_WRITE, mine, target, peer.base, 8), WAIT_MS), -3);
    CHECK_EQ("the peer ends in order", peer_stop(&peer), 0);
    destroyTransferEngine(engine);
    munmap(mine, BYTES);
    munmap(foreign, 4096);
    munmap(peer.view, BYTES);
}

/* One engine with both, and peers with both, with one, with the other. */
static void both_transports(void) {
    transfer_engine_t engine = bare_engine();
    CHECK("TCP and RDMA in one engine", installTransport(engine, "tcp", NULL) != NULL && rdma_install(engine, "sim0") != NULL);
    unsigned char *mine = registered_bytes(engine, BYTES);
    peer_t both = rdma_peer(BYTES, "sim2", "PEER_TCP=1"), tcp = rdma_peer(BYTES, "", "PEER_TCP=1"), rdma = rdma_peer(BYTES, "sim2", NULL);
    static const char *const names[] = {"with both", "with TCP only", "with RDMA only"};
    const peer_t *const peers[] = {&both, &tcp, &rdma};
    char name[128];
    for (size_t i = 0; i < COUNT(peers); i++) {
        uint64_t slices = slices_done(engine, "sim0");
        segment_id_t target = openSegment(engine, peers[i]->name);
        pattern_fill(mine, BLOCK, i);
        snprintf(name, sizeof name, "a peer %s is reached", names[i]);
        CHECK_EQ(name, move_one(engine, target, OPCODE_WRITE, mine, peers[i]->base, BLOCK).completed, 1);
        CHECK("  with the right bytes", pattern_matches(peers[i]->view, BLOCK, i));
        CHECK_EQ(i == 1 ? "  not over the NIC" : "  over the NIC", slices_done(engine, "sim0") > slices, i != 1);
    }
    transfer_engine_t plain = engine_open();
    unsigned char *other = registered_bytes(plain, BYTES);
    pattern_fill(other, BLOCK, 9);
    CHECK_EQ("an engine with TCP reaches the peer with both", move_one(plain, openSegment(plain, both.name), OPCODE_WRITE, other, both.base, BLOCK).completed, 1);
    CHECK("  with the right bytes", pattern_matches(both.view, BLOCK, 9));
    batch_id_t batch = batch_open(plain, 1);
    transfer_request_t r = request(OPCODE_WRITE, other, openSegment(plain, rdma.name), rdma.base, 8);
    CHECK_ERROR("-6: an engine with TCP cannot reach the peer with RDMA", submitTransfer(plain, batch, &r, 1), -6);
    CHECK("  the text says what to install", strstr(last_text(), "rdma") != NULL);
    CHECK_EQ("  the batch stays empty", freeBatchID(plain, batch), 0);
    nic_load_stat_t stats[4];
    size_t count = COUNT(stats);
    CHECK_EQ("getNicLoadStats", getNicLoadStats(engine, stats, &count), 0);
    CHECK("  shows the NIC and its rate", count == 1 && strcmp(stats[0].device_name, "sim0") == 0 && stats[0].ewma_bandwidth_bps > 0);
    CHECK_EQ("the peers end in order", peer_stop(&both) | peer_stop(&tcp) | peer_stop(&rdma), 0);
    destroyTransferEngine(engine);
    destroyTransferEngine(plain);
    munmap(mine, BYTES);
    munmap(other, BYTES);
}

/* Connections of this project's engines agree on the number of queue pairs. */
static void queue_pair_counts(void) {
    static const char *const counts[][2] = {{"1", "4"}, {"4", "1"}, {"8", "2"}};
    for (size_t i = 0; i < COUNT(counts); i++) {
        char setting[64], name[128];
        setenv("MC_NUM_QP_PER_EP", counts[i][0], 1);
        transfer_engine_t engine = rdma_engine("sim0");
        unsetenv("MC_NUM_QP_PER_EP");
        snprintf(setting, sizeof setting, "MC_NUM_QP_PER_EP=%s", counts[i][1]);
        peer_t peer = rdma_peer(BYTES, "sim2", setting);
        unsigned char *mine = registered_bytes(engine, BYTES);
        snprintf(name, sizeof name, "%s queue pairs here and %s there", counts[i][0], counts[i][1]);
        CHECK_EQ(name, move_row(engine, openSegment(engine, peer.name), OPCODE_WRITE, mine, peer.base, 65536, 64).completed, 64);
        CHECK_EQ("  the peer ends in order", peer_stop(&peer), 0);
        destroyTransferEngine(engine);
        munmap(mine, BYTES);
        munmap(peer.view, BYTES);
    }
}

int main(int argc, char **argv) {
    peer_dispatch(argc, argv);
    if (argc == 2 && strcmp(argv[1], "--no-library") == 0) return without_library();
    harness_begin();
    no_library();
    no_device();
    addresses();
    both_transports();
    queue_pair_counts();
    return harness_finish();
}

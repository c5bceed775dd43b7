/* What known programs take for granted when they call the API, as checks. */
#include <pthread.h>

#include "fake.h"
#include "peer.h"

#define BYTES (256 * KIB)
#define LONG_MESSAGE (200 * 1024)

static transfer_engine_t engine;
static unsigned char *bytes;
static segment_id_t id;

static notify_msg_t note(const char *name, const char *msg) {
    notify_msg_t n = {(char *)(uintptr_t)name, (char *)(uintptr_t)msg};
    return n;
}

static void status_and_ids(const peer_t *peer) {
    transfer_status_t status = {.status = 77, .transferred_bytes = 99};
    transfer_request_t r = request(OPCODE_WRITE, bytes, id, peer->base, 4096);
    transfer_request_t bad = request(OPCODE_WRITE, bytes, id, 4096, 8);
    batch_id_t batch = batch_open(engine, 4), unused = batch_open(engine, 1024);
    CHECK_EQ("a refused submit", submitTransfer(engine, batch, &bad, 1), -3);
    CHECK_EQ("leaves the batch usable", submitTransfer(engine, batch, &r, 1), 0);
    CHECK_EQ("a second submit", submitTransfer(engine, batch, &r, 1), 0);
    CHECK_EQ("task ids continue: 0", await_task(engine, batch, 0, 20000), STATUS_COMPLETED);
    CHECK_EQ("task ids continue: 1", await_task(engine, batch, 1, 20000), STATUS_COMPLETED);
    CHECK("an error leaves the status untouched", getTransferStatus(engine, batch, 2, &status) != 0 &&
                                                      status.status == 77 && status.transferred_bytes == 99);
    CHECK_EQ("a finished batch is freed", freeBatchID(engine, batch), 0);
    CHECK_EQ("a batch that was never used is freed", freeBatchID(engine, unused), 0);
    batch = batch_open(engine, 1);
    CHECK_EQ("a refused submit again", submitTransfer(engine, batch, &bad, 1), -3);
    CHECK_EQ("a batch whose only submit was refused is freed", freeBatchID(engine, batch), 0);
}

static void timeouts_are_failures(void) {
    fake_t *fake = fake_start(FAKE_SILENT);
    transfer_request_t r = request(OPCODE_READ, bytes, openSegment(engine, fake->name), FAKE_BASE, 4096);
    batch_id_t batch = batch_open(engine, 1);
    CHECK_EQ("a read from a silent peer", submitTransfer(engine, batch, &r, 1), 0);
    CHECK_EQ("ends as FAILED when it runs out of time", await_task(engine, batch, 0, 30000), STATUS_FAILED);
    CHECK_EQ("a failed batch is freed", freeBatchID(engine, batch), 0);
    fake_stop(fake);
}

static void names(const peer_t *peer) {
    char own[64], again[64], slash[160];
    engine_name(engine, own, sizeof own);
    transfer_engine_t ported = createTransferEngine("P2PHANDSHAKE", "127.0.0.1:12345", "", 0, 1);
    REQUIRE("auto_discover 1 gives an engine", ported != NULL);
    engine_name(ported, again, sizeof again);
    CHECK("the port in the name is ignored", strncmp(again, "127.0.0.1:", 10) == 0 && name_port(again) != 12345);
    CHECK_EQ("the segment name is what getLocalIpAndPort gives", openSegment(ported, again), 0);
    CHECK("and others open it by that", openSegment(engine, again) > 0);
    if (access("/sys/class/infiniband", F_OK) == 0)
        SKIP("auto_discover without a NIC installs TCP", "this host has RDMA devices");
    else
        CHECK("auto_discover without a NIC installs TCP", data_port(again) != 0);
    destroyTransferEngine(ported);
    snprintf(slash, sizeof slash, "/%s", peer->name);
    CHECK_EQ("the own name is handle 0", openSegment(engine, own), 0);
    CHECK_EQ("opening again gives the same id", openSegment(engine, peer->name), id);
    CHECK_EQ("a leading slash is stripped", openSegment(engine, slash), id);
    int64_t start = now_ms();
    CHECK("a dead peer is negative", openSegment(engine, "127.0.0.1:1") < 0);
    CHECK("in bounded time", now_ms() - start < 10000);
}

static void no_ops(const peer_t *peer) {
    transfer_request_t r = request(OPCODE_WRITE, bytes, id, peer->base, 4096);
    CHECK_EQ("closeSegment is 0", closeSegment(engine, id), 0);
    CHECK_EQ("also twice", closeSegment(engine, id), 0);
    CHECK_EQ("a closed handle syncs", syncSegmentCache(engine), 0);
    CHECK_EQ("and transfers", transfer_once(engine, r, 20000), STATUS_COMPLETED);
    CHECK_EQ("uninstallTransport is 0", uninstallTransport(engine, "tcp"), 0);
    CHECK_EQ("and changes nothing", transfer_once(engine, r, 20000), STATUS_COMPLETED);
}

static void batch_notification(peer_t *peer) {
    transfer_request_t two[2] = {request(OPCODE_WRITE, bytes, id, peer->base, 4096),
                                 request(OPCODE_WRITE, bytes + 4096, id, peer->base + 4096, 4096)};
    batch_id_t batch = batch_open(engine, 2);
    CHECK_EQ("a batch with a notification", submitTransferWithNotify(engine, batch, two, 2, note("n", "m")), 0);
    CHECK_EQ("task 0", await_task(engine, batch, 0, 20000), STATUS_COMPLETED);
    CHECK_EQ("task 1", await_task(engine, batch, 1, 20000), STATUS_COMPLETED);
    CHECK_EQ("its notification is on its way", await_delivery(engine, batch, NULL, 20000), MTE_NOTIFICATION_DELIVERED);
    CHECK_STR("sent by the poll that saw every task COMPLETED", peer_notifications(peer).text, "n=m;");
    for (int i = 0; i < 5; i++) await_task(engine, batch, (size_t)i % 2, 1000);
    CHECK_EQ("exactly once", peer_notifications(peer).count, 0);
    CHECK_EQ("the batch is freed", freeBatchID(engine, batch), 0);

    fake_t *fake = fake_start(FAKE_REJECT);
    transfer_request_t mixed[2] = {two[0], request(OPCODE_WRITE, bytes, openSegment(engine, fake->name), FAKE_BASE, 8)};
    batch = batch_open(engine, 2);
    CHECK_EQ("a batch that half fails", submitTransferWithNotify(engine, batch, mixed, 2, note("x", "y")), 0);
    CHECK_EQ("its good task", await_task(engine, batch, 0, 20000), STATUS_COMPLETED);
    CHECK_EQ("its bad task", await_task(engine, batch, 1, 20000), STATUS_FAILED);
    await_task(engine, batch, 0, 1000);
    CHECK_EQ("the half failed batch is freed", freeBatchID(engine, batch), 0);
    CHECK_EQ("a marker behind it", genNotifyInEngine(engine, (uint64_t)id, note("marker", "")), 0);
    CHECK_STR("no notification when one task failed", peer_notifications(peer).text, "marker=;");
    fake_stop(fake);
}

static void plain_notifications(peer_t *peer) {
    char expected[256] = "", text[16];
    static char message[LONG_MESSAGE + 1];
    bool sent = true;
    for (int i = 0; i < 20; i++) {
        snprintf(text, sizeof text, "%d", i);
        sent = sent && genNotifyInEngine(engine, (uint64_t)id, note(text, "m")) == 0;
        snprintf(expected + strlen(expected), sizeof expected - strlen(expected), "%s=m;", text);
    }
    CHECK("twenty notifications are sent", sent);
    CHECK_STR("first in, first out, there when the call returns", peer_notifications(peer).text, expected);
    for (size_t i = 0; i < LONG_MESSAGE; i++) message[i] = (char)(1 + i % 127);
    CHECK_EQ("200 KB with control characters", genNotifyInEngine(engine, (uint64_t)id, note("\"\\\n\t\x01", message)), 0);
    uint64_t digest = fnv1a(fnv1a(FNV_START, "\"\\\n\t\x01", 6), message, LONG_MESSAGE + 1);
    struct peer_reply got = peer_notifications(peer);
    CHECK("arrive byte for byte", got.count == 1 && got.digest == digest);
    const char *utf8 = "gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x9a\x80";
    CHECK_EQ("UTF-8", genNotifyInEngine(engine, (uint64_t)id, note("u", utf8)), 0);
    digest = fnv1a(fnv1a(FNV_START, "u", 2), utf8, strlen(utf8) + 1);
    CHECK("arrives byte for byte", peer_notifications(peer).digest == digest);
    int size = 77;
    notify_msg_t *none = getNotifsFromEngine(engine, &size);
    CHECK("an empty queue writes size 0", none == NULL && size == 0);
    CHECK_EQ("freeNotifsMsgBuf(NULL, 0)", freeNotifsMsgBuf(none, size), 0);
    char reply[256];
    uint16_t port = name_port(peer->name);
    CHECK_EQ("a receiver answers with its type",
             frame_exchange(port, 2, "{\"name\":\"n\",\"notify_msg\":\"m\"}\n", reply, sizeof reply), 2);
    CHECK("and a notify_msg that is not empty",
          strstr(reply, "\"notify_msg\":\"") != NULL && strstr(reply, "\"notify_msg\":\"\"") == NULL);
    peer_notifications(peer);
}

static void buffers(const peer_t *peer) {
    unsigned char *source = registered_bytes(engine, BYTES);
    pattern_fill(source, BYTES, 7);
    transfer_request_t r = request(OPCODE_WRITE, source, id, peer->base, BYTES);
    CHECK_EQ("a write completes", transfer_once(engine, r, 20000), STATUS_COMPLETED);
    memset(source, 0xee, BYTES);
    CHECK("COMPLETED means visible and the source no longer read", pattern_matches(peer->view, BYTES, 7));
    CHECK_EQ("unregister", unregisterLocalMemory(engine, source), 0);
    munmap(source, BYTES);

    transfer_engine_t careless = engine_open();
    unsigned char *freed = registered_bytes(careless, BYTES);
    pattern_fill(freed, BYTES, 8);
    r.source = freed;
    r.target_id = openSegment(careless, peer->name);
    CHECK_EQ("an engine transfers", transfer_once(careless, r, 20000), STATUS_COMPLETED);
    munmap(freed, BYTES);
    destroyTransferEngine(careless);
    CHECK("destroy touches no registered memory, unmapped or not", true);
}

static void registration(void) {
    unsigned char *area = map_bytes(4 * 4096);
    buffer_entry_t bad[3] = {{area, 4096}, {area + 8192, 4096}, {area + 8192 + 100, 10}};
    buffer_entry_t adjacent[2] = {{area, 4096}, {area + 4096, 4096}};
    void *all[2] = {area, area + 4096};
    CHECK_EQ("a list that fails", registerLocalMemoryBatch(engine, bad, 3, "*"), -7);
    CHECK_EQ("leaves nothing behind", unregisterLocalMemory(engine, area), -3);
    CHECK_EQ("adjacent regions are fine", registerLocalMemoryBatch(engine, adjacent, 2, "*"), 0);
    CHECK_EQ("and go as a list", unregisterLocalMemoryBatch(engine, all, 2), 0);
    CHECK_EQ("an unknown location is accepted", registerLocalMemory(engine, area, 4096, "attic", 1), 0);
    CHECK_EQ("and unregistered", unregisterLocalMemory(engine, area), 0);
    munmap(area, 4 * 4096);
}

struct worker {
    pthread_t thread;
    const peer_t *peer;
    unsigned index;
    int failures;
};

static void *work(void *arg) {
    struct worker *w = arg;
    unsigned char *mine = bytes + w->index * 8192;
    for (int i = 0; i < 200; i++) {
        pattern_fill(mine, 4096, w->index * 1000u + (unsigned)i);
        transfer_request_t r = request(OPCODE_WRITE, mine, id, w->peer->base + w->index * 8192, 4096);
        w->failures += transfer_once(engine, r, 20000) != STATUS_COMPLETED;
        w->failures += !pattern_matches(w->peer->view + w->index * 8192, 4096, w->index * 1000u + (unsigned)i);
    }
    return NULL;
}

static void eight_threads(const peer_t *peer) {
    struct worker workers[8] = {0};
    int failures = 0;
    for (unsigned i = 0; i < 8; i++) {
        workers[i].peer = peer;
        workers[i].index = i;
        if (pthread_create(&workers[i].thread, NULL, work, &workers[i]) != 0) harness_give_up("a thread");
    }
    for (unsigned i = 0; i < 8; i++) {
        pthread_join(workers[i].thread, NULL);
        failures += workers[i].failures;
    }
    CHECK_EQ("8 threads on one engine work", failures, 0);
}

static void creation(void) {
    static const char *const urls[] = {"gopher://127.0.0.1/", "://", "", "redis://", "etcd://"};
    char *broken[2] = {(char *)(uintptr_t)"[1", NULL}, *none[2] = {NULL, NULL};
    transport_t tcp = installTransport(engine, "tcp", (void **)none);
    CHECK("installTransport twice gives the same handle", tcp != NULL && tcp == installTransport(engine, "tcp", NULL));
    CHECK("malformed matrix JSON gives NULL", installTransport(engine, "rdma", (void **)broken) == NULL);
    CHECK("an unknown protocol gives NULL", installTransport(engine, "smoke", NULL) == NULL);
    for (size_t i = 0; i < COUNT(urls); i++) {
        transfer_engine_t e = createTransferEngine(urls[i], "127.0.0.1", "", 0, 0);
        printf("#     \"%s\" gives %s\n", urls[i], e == NULL ? "NULL" : "an engine");
        if (i < 3) CHECK("a URL that is not supported gives NULL, never an abort", e == NULL);
        destroyTransferEngine(e);
    }
}

static void graceful_exit(void) {
    int status, fds[2];
    char ready;
    if (pipe(fds) != 0) harness_give_up("a pipe");
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        dup2(fds[1], PEER_SOCKET);
        execl("/proc/self/exe", "consumers", "--graceful", (char *)NULL);
        _exit(127);
    }
    close(fds[1]);
    REQUIRE("an engine with graceful shutdown", read(fds[0], &ready, 1) == 1);
    kill(child, SIGTERM);
    status = child_reap(child, 20000);
    CHECK_EQ("exits with 128 + signal number", status < 0 ? status : WEXITSTATUS(status), 143);
    close(fds[0]);
}

static int graceful_child(void) {
    alarm(WATCHDOG_SECONDS);
    transfer_engine_t e = engine_open();
    enableGracefulShutdown(e);
    if (write(PEER_SOCKET, "r", 1) != 1) return 1;
    for (;;) pause();
}

int main(int argc, char **argv) {
    peer_dispatch(argc, argv);
    if (argc == 2 && strcmp(argv[1], "--graceful") == 0) return graceful_child();
    harness_begin();
    setenv("MC_TCP_STATUS_TIMEOUT_SEC", "2", 1);
    peer_t peer = peer_start(BYTES, NULL);
    engine = engine_open();
    bytes = registered_bytes(engine, BYTES);
    id = openSegment(engine, peer.name);
    REQUIRE("the peer opens", id > 0);
    timeouts_are_failures();
    status_and_ids(&peer);
    names(&peer);
    no_ops(&peer);
    batch_notification(&peer);
    plain_notifications(&peer);
    buffers(&peer);
    registration();
    eight_threads(&peer);
    creation();
    graceful_exit();
    unsigned char *stray = map_bytes(4096);
    transfer_request_t r = request(OPCODE_WRITE, stray, id, peer.base, 8);
    CHECK_EQ("a source that is not registered is -3 by default", transfer_once(engine, r, 20000), -3);
    CHECK_EQ("the peer ends in order", peer_stop(&peer), 0);
    destroyTransferEngine(engine);
    return harness_finish();
}

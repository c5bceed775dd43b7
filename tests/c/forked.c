/* A fork with a live engine: the child's calls fail at once, its copies of the sockets are closed, and the
 * parent notices nothing. */
#include "peer.h"
#include "wire.h"

#define BYTES (64 * KIB)
#define CALL_MS 1000
#define RECYCLED 64

static transfer_engine_t engine;
static unsigned char *bytes;
static batch_id_t live;

static void child_calls(const char *peer_name) {
    char text[64];
    unsigned char *more = map_bytes(4096);
    buffer_entry_t entry = {more, 4096};
    void *address = more;
    int size = 7;
    notify_msg_t note = {text, text};
    transfer_status_t status;
    transfer_request_t r = request(OPCODE_WRITE, bytes, LOCAL_SEGMENT, (uintptr_t)bytes + 4096, 8);
    int64_t start = now_ms();
    text[0] = '\0';
    CHECK("child: discoverTopology", discoverTopology(engine) < 0);
    CHECK("child: getLocalIpAndPort", getLocalIpAndPort(engine, text, sizeof text) < 0);
    CHECK("child: installTransport", installTransport(engine, "tcp", NULL) == NULL);
    CHECK("child: openSegment", openSegment(engine, peer_name) < 0);
    CHECK("child: openSegmentNoCache", openSegmentNoCache(engine, peer_name) < 0);
    CHECK("child: registerLocalMemory", registerLocalMemory(engine, more, 4096, "cpu:0", 1) < 0);
    CHECK("child: unregisterLocalMemory", unregisterLocalMemory(engine, bytes) < 0);
    CHECK("child: registerLocalMemoryBatch", registerLocalMemoryBatch(engine, &entry, 1, "cpu:0") < 0);
    CHECK("child: unregisterLocalMemoryBatch", unregisterLocalMemoryBatch(engine, &address, 1) < 0);
    CHECK("child: allocateBatchID", allocateBatchID(engine, 1) == INVALID_BATCH);
    CHECK("child: submitTransfer", submitTransfer(engine, live, &r, 1) < 0);
    CHECK("child: submitTransferWithNotify", submitTransferWithNotify(engine, live, &r, 1, note) < 0);
    CHECK("child: getTransferStatus", getTransferStatus(engine, live, 0, &status) < 0);
    CHECK("child: freeBatchID", freeBatchID(engine, live) < 0);
    CHECK("child: getNotifsFromEngine", getNotifsFromEngine(engine, &size) == NULL);
    CHECK("child: genNotifyInEngine", genNotifyInEngine(engine, 0, note) < 0);
    CHECK("child: syncSegmentCache", syncSegmentCache(engine) < 0);
    CHECK("child: mte_wait_batch", mte_wait_batch(engine, live, -1) < 0);
    CHECK("child: mte_last_error has a text", mte_last_error(text, sizeof text) < 0 && text[0] != '\0');
    destroyTransferEngine(engine);
    CHECK("child: all of it at once", now_ms() - start < CALL_MS);
}

/* Forks; the child reports `r` when its checks are done and lives until `hold` is closed. */
static pid_t fork_child(const char *peer_name, int ready, int hold, int hold_writer, bool by_exit) {
    fflush(NULL);
    pid_t pid = fork();
    if (pid != 0) return pid;
    char end;
    alarm(WATCHDOG_SECONDS);
    close(hold_writer);
    atomic_store(&harness_checks, 0);
    atomic_store(&harness_failures, 0);
    child_calls(peer_name);
    fflush(NULL);
    if (write(ready, "r", 1) != 1) _exit(9);
    while (read(hold, &end, 1) > 0) continue;
    if (by_exit) exit(atomic_load(&harness_failures) != 0);
    _exit(atomic_load(&harness_failures) != 0);
}

static int writes_that_fail(const peer_t *peer, segment_id_t target, int count) {
    int wrong = 0;
    for (int i = 0; i < count; i++) {
        pattern_fill(bytes, 4096, (uint64_t)i);
        wrong += transfer_once(engine, request(OPCODE_WRITE, bytes, target, peer->base, 4096), 20000) != STATUS_COMPLETED;
        wrong += !pattern_matches(peer->view, 4096, (uint64_t)i);
    }
    return wrong;
}

static void one_fork(peer_t *peer, segment_id_t target, bool by_exit) {
    int ready[2], hold[2];
    char byte;
    if (pipe(ready) != 0 || pipe(hold) != 0) harness_give_up("pipes");
    pid_t child = fork_child(peer->name, ready[1], hold[0], hold[1], by_exit);
    REQUIRE("the child has made its calls", read(ready[0], &byte, 1) == 1);
    CHECK_EQ("the parent's transfers go on while the child lives", writes_that_fail(peer, target, 100), 0);
    close(hold[1]);
    int status = child_reap(child, 20000);
    CHECK_EQ(by_exit ? "the child leaves by exit" : "the child leaves by _exit", status, 0);
    CHECK_EQ("the parent's transfers go on after it", writes_that_fail(peer, target, 100), 0);
    close(ready[0]);
    close(ready[1]);
    close(hold[0]);
}

/* The numbers of a dead engine's sockets belong to the program again, in the child as well. */
static void recycled_numbers(void) {
    int fds[RECYCLED], lost = 0, status;
    for (int i = 0; i < 3; i++) destroyTransferEngine(engine_open());
    for (int i = 0; i < RECYCLED; i++) fds[i] = memfd_create("recycled", MFD_CLOEXEC);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        for (int i = 0; i < RECYCLED; i++) lost += fcntl(fds[i], F_GETFD) < 0;
        _exit(lost);
    }
    status = child_reap(child, 20000);
    CHECK_EQ("a child keeps descriptors that reuse a dead engine's numbers", status < 0 ? status : WEXITSTATUS(status), 0);
    for (int i = 0; i < RECYCLED; i++) close(fds[i]);
}

int main(int argc, char **argv) {
    peer_dispatch(argc, argv);
    harness_begin();
    char own[128], byte;
    int ready[2], hold[2];
    recycled_numbers();
    peer_t peer = peer_start(BYTES, NULL);
    engine = engine_open();
    bytes = registered_bytes(engine, BYTES);
    segment_id_t target = openSegment(engine, peer.name);
    REQUIRE("the peer opens", target > 0);
    CHECK_EQ("a transfer before", writes_that_fail(&peer, target, 1), 0);
    live = batch_open(engine, 4);
    one_fork(&peer, target, false);
    one_fork(&peer, target, true);
    CHECK_EQ("the batch that the children tried is untouched", freeBatchID(engine, live), 0);
    live = batch_open(engine, 4);

    engine_name(engine, own, sizeof own);
    uint16_t handshake_port = name_port(own), data = data_port(own);
    CHECK("both ports are known", handshake_port != 0 && data != 0);
    if (pipe(ready) != 0 || pipe(hold) != 0) harness_give_up("pipes");
    pid_t child = fork_child(peer.name, ready[1], hold[0], hold[1], false);
    REQUIRE("a third child lives", read(ready[0], &byte, 1) == 1);
    destroyTransferEngine(engine);
    int fd = wire_connect(handshake_port);
    CHECK("the handshake port is closed although the child lives", fd < 0 && errno == ECONNREFUSED);
    fd = wire_connect(data);
    CHECK("the data port is closed although the child lives", fd < 0 && errno == ECONNREFUSED);
    close(hold[1]);
    CHECK_EQ("the third child ends in order", child_reap(child, 20000), 0);
    CHECK_EQ("the peer ends in order", peer_stop(&peer), 0);
    return harness_finish();
}

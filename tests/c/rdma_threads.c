/* RDMA while no thread can be made: connections wait or say so, memory is registered all the same, and all works again as
 * soon as threads can be made. */
#include "rdma.h"
#include "threads.h"

#define BYTES (64 * MIB)
#define SOON_MS 5000

/* The limit is lifted while the task still waits. */
static void connecting(void) {
    peer_t peer = rdma_peer(MIB, "sim2", NULL);
    transfer_engine_t engine = rdma_engine("sim0");
    unsigned char *mine = registered_bytes(engine, MIB);
    segment_id_t target = openSegment(engine, peer.name);
    REQUIRE("the peer opens", target > 0);
    pattern_fill(mine, MIB, 1);
    threads_refuse();
    batch_id_t batch = submit_row(engine, target, OPCODE_WRITE, mine, peer.base, MIB, 1);
    bool failed = false;
    WAIT_UNTIL(failed, attempts_failed(engine, "sim0") > 0, SOON_MS);
    CHECK("without threads, an attempt to connect fails at once", failed);
    CHECK("  threads were asked for", threads_allow() > 0);
    int64_t start = now_ms();
    struct outcome outcome = batch_outcome(engine, batch, 1, WAIT_MS);
    outcome_show("the task that waited", &outcome);
    CHECK_EQ("with threads, the task that waited goes through", outcome.completed, 1);
    CHECK("  soon", now_ms() - start < SOON_MS);
    CHECK("  with the right bytes", pattern_matches(peer.view, MIB, 1));
    destroyTransferEngine(engine);
    CHECK_EQ("the peer ends in order", peer_stop(&peer), 0);
}

static void failing(void) {
    setenv("MC_RETRY_CNT", "2", 1);
    peer_t peer = rdma_peer(MIB, "sim2", NULL);
    transfer_engine_t engine = rdma_engine("sim0");
    unsigned char *mine = registered_bytes(engine, MIB);
    segment_id_t target = openSegment(engine, peer.name);
    REQUIRE("another peer opens", target > 0);
    threads_refuse();
    struct outcome outcome = move_one(engine, target, OPCODE_WRITE, mine, peer.base, MIB);
    threads_allow();
    outcome_show("the task", &outcome);
    CHECK_EQ("without threads, a task fails", outcome.failed, 1);
    CHECK_EQ("  with class RESOURCE", outcome.why.error_class, MTE_CLASS_RESOURCE);
    CHECK("  retryable", outcome.why.retryable != 0);
    int64_t start = now_ms();
    CHECK_EQ("with threads, the next one goes through", move_one(engine, target, OPCODE_WRITE, mine, peer.base, MIB).completed, 1);
    CHECK("  soon", now_ms() - start < SOON_MS);
    destroyTransferEngine(engine);
    CHECK_EQ("the peer ends in order", peer_stop(&peer), 0);
    unsetenv("MC_RETRY_CNT");
}

static void registering(void) {
    transfer_engine_t engine = rdma_engine("sim0,sim1,sim2,sim3");
    unsigned char *mine = map_bytes(BYTES);
    threads_refuse();
    CHECK_EQ("without threads, 64 MiB are registered on four NICs", registerLocalMemory(engine, mine, BYTES, "cpu:0", 1), 0);
    CHECK("  threads were asked for", threads_allow() > 0);
    CHECK_EQ("  and can be unregistered", unregisterLocalMemory(engine, mine), 0);
    CHECK_EQ("with threads, they are registered too", registerLocalMemory(engine, mine, BYTES, "cpu:0", 1), 0);
    CHECK_EQ("  and can be unregistered", unregisterLocalMemory(engine, mine), 0);
    destroyTransferEngine(engine);
}

int main(int argc, char **argv) {
    peer_dispatch(argc, argv);
    harness_begin();
    registering();
    connecting();
    failing();
    threads_refuse();
    transfer_engine_t engine = createTransferEngine("P2PHANDSHAKE", "127.0.0.1", "", 0, 0);
    CHECK("without threads, no engine is made", engine == NULL);
    threads_allow();
    engine = bare_engine();
    threads_refuse();
    CHECK_NULL("without threads, RDMA is not installed", rdma_install(engine, "sim0"), ERR_MEMORY);
    threads_allow();
    CHECK("with threads, it is", rdma_install(engine, "sim0") != NULL);
    destroyTransferEngine(engine);
    return harness_finish();
}

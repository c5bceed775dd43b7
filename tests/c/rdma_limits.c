/* P6, P9, P13, P14: more work than queues hold, more peers than connections are allowed, and connections that fail over
 * and over. Limits delay; nothing leaks. */
#include "rdma.h"

#define MANY 100000
#define BYTES (16 * MIB)
#define PEERS 4
#define CYCLES 200

/* P13: far more requests than the queue pairs and the completion queue take. */
static void crowded(const char *wr, const char *cqe) {
    setenv("MC_MAX_WR", wr, 1);
    setenv("MC_MAX_CQE_PER_CTX", cqe, 1);
    transfer_engine_t engine = rdma_engine("sim0,sim1");
    unsetenv("MC_MAX_WR");
    unsetenv("MC_MAX_CQE_PER_CTX");
    peer_t peer = rdma_peer(BYTES, "sim2,sim3", NULL);
    unsigned char *memory = registered_bytes(engine, BYTES);
    segment_id_t target = openSegment(engine, peer.name);
    pattern_fill(memory, (size_t)MANY * 64, 1);
    printf("#     MC_MAX_WR=%s MC_MAX_CQE_PER_CTX=%s\n", wr, cqe);
    for (int sleeping = 0; sleeping < 2; sleeping++) {
        memset(peer.view, 0, BYTES);
        int64_t start = now_ms();
        batch_id_t batch = submit_row(engine, target, OPCODE_WRITE, memory, peer.base, 64, MANY);
        if (sleeping) CHECK_EQ("p13: a sleeping caller is woken", mte_wait_batch(engine, batch, WAIT_MS), 0);
        struct outcome outcome = batch_outcome(engine, batch, MANY, WAIT_MS);
        printf("#     %lld ms\n", (long long)(now_ms() - start));
        CHECK_EQ("p13: 100000 requests of one batch complete", outcome.completed, MANY);
        CHECK("  with the right bytes", pattern_matches(peer.view, (size_t)MANY * 64, 1));
    }
    CHECK("  without a failed attempt", attempts_failed(engine, "sim0") + attempts_failed(engine, "sim1") == 0);
    /* Two segments compete for the completion queue's room. */
    peer_t other = rdma_peer(BYTES, "sim2", NULL);
    segment_id_t second = openSegment(engine, other.name);
    batch_id_t one = submit_row(engine, target, OPCODE_WRITE, memory, peer.base, 64, 10000);
    batch_id_t two = submit_row(engine, second, OPCODE_WRITE, memory, other.base, 64, 10000);
    CHECK_EQ("p13: two segments share a small completion queue", batch_outcome(engine, two, 10000, WAIT_MS).completed, 10000);
    CHECK_EQ("  and both are done", batch_outcome(engine, one, 10000, WAIT_MS).completed, 10000);
    CHECK_EQ("the peers end in order", peer_stop(&peer) | peer_stop(&other), 0);
    destroyTransferEngine(engine);
    munmap(memory, BYTES);
    munmap(peer.view, BYTES);
    munmap(other.view, BYTES);
}

/* More peers than connections; `side` says whose limit it is. */
static void evicted(const char *policy, bool at_target) {
    transfer_engine_t targets[PEERS];
    unsigned char *there[PEERS];
    segment_id_t ids[PEERS];
    setenv("MC_ENDPOINT_STORE_TYPE", policy, 1);
    setenv("MC_MAX_EP_PER_CTX", "2", 1);
    transfer_engine_t one = rdma_engine("sim0");
    if (!at_target) unsetenv("MC_MAX_EP_PER_CTX");
    unsigned char *memory = registered_bytes(one, MIB);
    int wrong = 0;
    for (int i = 0; i < PEERS; i++) {
        char name[128];
        targets[i] = rdma_engine("sim1");
        there[i] = registered_bytes(targets[i], MIB);
        engine_name(targets[i], name, sizeof name);
        ids[i] = openSegment(one, name);
    }
    unsetenv("MC_MAX_EP_PER_CTX");
    unsetenv("MC_ENDPOINT_STORE_TYPE");
    size_t threads = 0, fds = 0;
    bool seen = false;
    for (int round = 0; round < 40; round++) {
        for (int i = 0; i < PEERS; i++) {
            pattern_fill(memory, 65536, (uint64_t)(round * PEERS + i));
            wrong += move_row(one, ids[i], OPCODE_WRITE, memory, (uintptr_t)there[i], 4096, 16).completed != 16;
            wrong += !pattern_matches(there[i], 65536, (uint64_t)(round * PEERS + i));
        }
        if (round == 9) threads = lasting_thread_count(), fds = fd_count();
        seen |= links_show(at_target ? targets[0] : one, at_target ? "connected anew" : "evicted");
    }
    char name[128];
    snprintf(name, sizeof name, "%s, MC_MAX_EP_PER_CTX=2%s: transfers to four peers in turn", policy, at_target ? " on both sides" : "");
    CHECK_EQ(name, wrong, 0);
    CHECK("  some connections went for others", seen);
    /* The sockets of the last handshakes go within seconds; what is left behind stays. */
    bool settled;
    WAIT_UNTIL(settled, lasting_thread_count() <= threads + 1 && fd_count() <= fds, WAIT_MS);
    CHECK("  leave nothing behind", settled);
    /* All at once: none is idle, so the limit gives way. */
    batch_id_t batches[PEERS];
    for (int i = 0; i < PEERS; i++) batches[i] = submit_row(one, ids[i], OPCODE_WRITE, memory, (uintptr_t)there[i], 1024, 1000);
    for (int i = 0; i < PEERS; i++) wrong += batch_outcome(one, batches[i], 1000, WAIT_MS).completed != 1000;
    CHECK_EQ("  and to all four at once", wrong, 0);
    CHECK("  no attempt is counted as failed", attempts_failed(one, "sim0") == 0);
    destroyTransferEngine(one);
    munmap(memory, MIB);
    for (int i = 0; i < PEERS; i++) {
        destroyTransferEngine(targets[i]);
        munmap(there[i], MIB);
    }
}

/* Each direction connects by itself, at the same moment. */
static void simultaneous(void) {
    int wrong = 0;
    for (int round = 0; round < 20; round++) {
        transfer_engine_t a = rdma_engine("sim0"), b = rdma_engine("sim1");
        unsigned char *left = registered_bytes(a, MIB), *right = registered_bytes(b, MIB);
        char a_name[128], b_name[128];
        engine_name(a, a_name, sizeof a_name);
        engine_name(b, b_name, sizeof b_name);
        segment_id_t to_b = openSegment(a, b_name), to_a = openSegment(b, a_name);
        batch_id_t there = submit_row(a, to_b, OPCODE_WRITE, left, (uintptr_t)right, 4096, 16);
        batch_id_t back = submit_row(b, to_a, OPCODE_WRITE, right + 65536, (uintptr_t)left + 65536, 4096, 16);
        struct outcome first = batch_outcome(a, there, 16, WAIT_MS), second = batch_outcome(b, back, 16, WAIT_MS);
        if (first.completed != 16) outcome_show("there", &first);
        if (second.completed != 16) outcome_show("back", &second);
        wrong += first.completed != 16 || second.completed != 16;
        destroyTransferEngine(a);
        destroyTransferEngine(b);
        munmap(left, MIB);
        munmap(right, MIB);
    }
    CHECK_EQ("p06: 20 pairs of engines that connect to each other at the same moment", wrong, 0);
}

/* P9: each cycle a work request fails, the connection goes, and another one is made. */
static void cycles(void) {
    static const char *const statuses[] = {"REM_ACCESS_ERR", "RETRY_EXC_ERR", "LOC_PROT_ERR", "GENERAL_ERR"};
    transfer_engine_t engine = rdma_engine("sim0,sim1,sim2,sim3");
    peer_t peer = rdma_peer(BYTES, "sim2,sim3", NULL);
    unsigned char *memory = registered_bytes(engine, BYTES);
    segment_id_t target = openSegment(engine, peer.name);
    int failed = 0, felt = 0;
    size_t threads = 0, fds = 0;
    for (int i = 0; i < CYCLES; i++) {
        char fault[64], nic[8];
        snprintf(nic, sizeof nic, "sim%d", i % 4);
        snprintf(fault, sizeof fault, "error %s 1 %s\n", nic, statuses[i / 4 % 4]);
        uint64_t before = attempts_failed(engine, nic);
        bool now = false;
        nics_do(fault);
        for (int64_t end = now_ms() + WAIT_MS; !now && now_ms() < end;) {
            failed += 16 - move_row(engine, target, OPCODE_WRITE, memory, peer.base, 65536, 16).completed;
            now = attempts_failed(engine, nic) > before;
        }
        felt += now;
        if (i == CYCLES / 4) threads = lasting_thread_count(), fds = fd_count();
    }
    printf("#     %zu threads then, %zu now; %zu descriptors then, %zu now\n", threads, lasting_thread_count(), fds, fd_count());
    CHECK_EQ("p09: 200 connections fail", felt, CYCLES);
    CHECK_EQ("  and no task does", failed, 0);
    bool settled;
    WAIT_UNTIL(settled, lasting_thread_count() <= threads + 1, WAIT_MS);
    CHECK("p14: with as many threads as before", settled);
    WAIT_UNTIL(settled, fd_count() <= fds + 1, WAIT_MS);
    CHECK("  and as many descriptors", settled);
    CHECK_EQ("the peer ends in order", peer_stop(&peer), 0);
    destroyTransferEngine(engine);
    munmap(memory, BYTES);
    munmap(peer.view, BYTES);
}

/* P14: engines that come and go, with peers that stay and know them. */
static void engines_that_come_and_go(void) {
    peer_t peer = rdma_peer(BYTES, "sim2", NULL);
    size_t threads = 0, fds = 0;
    int wrong = 0;
    for (int i = 0; i < 40; i++) {
        if (i == 10) threads = lasting_thread_count(), fds = fd_count();
        transfer_engine_t engine = rdma_engine("sim0");
        unsigned char *memory = registered_bytes(engine, MIB);
        wrong += move_row(engine, openSegment(engine, peer.name), OPCODE_WRITE, memory, peer.base, 4096, 16).completed != 16;
        destroyTransferEngine(engine);
        munmap(memory, MIB);
    }
    CHECK_EQ("40 engines one after the other reach the same peer", wrong, 0);
    CHECK_EQ("p14: and leave no thread", lasting_thread_count(), threads);
    CHECK_EQ("  and no descriptor", fd_count(), fds);
    CHECK_EQ("the peer ends in order", peer_stop(&peer), 0);
    munmap(peer.view, BYTES);
}

int main(int argc, char **argv) {
    peer_dispatch(argc, argv);
    harness_begin();
    crowded("16", "32");
    crowded("1", "2");
    evicted("SIEVE", false);
    evicted("FIFO", false);
    evicted("SIEVE", true);
    simultaneous();
    cycles();
    engines_that_come_and_go();
    return harness_finish();
}

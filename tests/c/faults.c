/* P2, P3, P4, P15, P17: dead, stopped, silent and withdrawing peers. SIGPIPE keeps its default here. */
#include <pthread.h>

#include "fake.h"
#include "peer.h"

#define PEER_BYTES (128 * MIB)
#define BLOCK (4 * MIB)
#define TASKS 32
#define POISON 0xa5
#define END_MS 60000
#define WARM_STOP_MS 4000
#define COLD_STOP_MS 10000
#define UNREGISTER_MS 5000
#define DESTROY_MS 5000

static transfer_engine_t engine;
static unsigned char *source;

static batch_id_t submit_blocks(segment_id_t target, uint64_t base, int opcode) {
    transfer_request_t r[TASKS];
    batch_id_t batch = batch_open(engine, TASKS);
    for (size_t i = 0; i < TASKS; i++) r[i] = request(opcode, source, target, base + i * BLOCK, BLOCK);
    CHECK_EQ("a batch of 32 blocks is accepted", submitTransfer(engine, batch, r, TASKS), 0);
    return batch;
}

static bool any_started(batch_id_t batch) {
    for (size_t i = 0; i < TASKS; i++) {
        transfer_status_t status = {0};
        if (getTransferStatus(engine, batch, i, &status) == 0 && (status.transferred_bytes > 0 || status.status == STATUS_COMPLETED))
            return true;
    }
    return false;
}

struct ends {
    int completed, failed, endless, without_reason;
};

static struct ends await_all(batch_id_t batch, size_t tasks) {
    struct ends ends = {0};
    for (size_t i = 0; i < tasks; i++) {
        mte_task_error_info_t why = {0};
        int status = await_task(engine, batch, i, END_MS);
        if (status == STATUS_COMPLETED) ends.completed++;
        else if (status != STATUS_FAILED) ends.endless++;
        else {
            ends.failed++;
            if (mte_task_error(engine, batch, i, &why) != 0 || why.code >= 0 || why.error_class == 0 || why.text[0] == '\0')
                ends.without_reason++;
        }
    }
    return ends;
}

static void killed_peer(void) {
    struct sigaction pipe_action;
    peer_t peer = peer_start(PEER_BYTES, NULL);
    segment_id_t target = openSegment(engine, peer.name);
    pattern_fill(source, BLOCK, 21);
    batch_id_t batch = submit_blocks(target, peer.base, OPCODE_WRITE);
    bool started;
    WAIT_UNTIL(started, any_started(batch), END_MS);
    CHECK("the transfer is under way", started);
    peer_pause(&peer);
    batch_id_t second = submit_blocks(target, peer.base, OPCODE_WRITE);
    peer_kill(&peer);
    struct ends first_ends = await_all(batch, TASKS), second_ends = await_all(second, TASKS);
    printf("#     first batch: %d completed, %d failed\n", first_ends.completed, first_ends.failed);
    CHECK_EQ("p03: every task of the killed transfer ends", first_ends.endless, 0);
    CHECK_EQ("p03: every task submitted before the kill fails", second_ends.failed, TASKS);
    CHECK_EQ("p16: every failure has a reason", first_ends.without_reason + second_ends.without_reason, 0);
    int wrong = 0;
    for (size_t i = 0; i < TASKS; i++) {
        transfer_status_t status = {0};
        getTransferStatus(engine, batch, i, &status);
        wrong += status.status == STATUS_COMPLETED && !pattern_matches(peer.view + i * BLOCK, BLOCK, 21);
    }
    CHECK_EQ("p01: what reads COMPLETED arrived before the kill", wrong, 0);
    CHECK_EQ("the first batch is freed", freeBatchID(engine, batch), 0);
    CHECK_EQ("the second batch is freed", freeBatchID(engine, second), 0);
    CHECK("SIGPIPE has its default action", sigaction(SIGPIPE, NULL, &pipe_action) == 0 && pipe_action.sa_handler == SIG_DFL);

    transfer_request_t r = request(OPCODE_READ, source, target, peer.base, 4096);
    batch = batch_open(engine, 1);
    CHECK_EQ("closed port: a read is accepted", submitTransfer(engine, batch, &r, 1), 0);
    second_ends = await_all(batch, 1);
    CHECK_EQ("p03: closed port: it fails", second_ends.failed, 1);
    CHECK_EQ("p16: with a reason", second_ends.without_reason, 0);
    CHECK_EQ("and is freed", freeBatchID(engine, batch), 0);
    munmap(peer.view, PEER_BYTES);
}

static void stopped_during(int opcode, bool warm) {
    peer_t peer = peer_start(MIB, NULL);
    transfer_request_t r = request(opcode, source, openSegment(engine, peer.name), peer.base, 4096);
    mte_task_error_info_t why = {0};
    batch_id_t batch = batch_open(engine, 1);
    if (warm) CHECK_EQ("a transfer before the stop", transfer_once(engine, r, END_MS), STATUS_COMPLETED);
    peer_pause(&peer);
    int64_t start = now_ms();
    CHECK_EQ(warm ? "a request to a stopped peer is accepted" : "a first request to a stopped peer is accepted",
             submitTransfer(engine, batch, &r, 1), 0);
    CHECK_EQ("p17: it fails, and never completes", await_task(engine, batch, 0, END_MS), STATUS_FAILED);
    printf("#     after %lld ms\n", (long long)(now_ms() - start));
    CHECK("p03: within its deadlines", now_ms() - start < (warm ? WARM_STOP_MS : COLD_STOP_MS));
    CHECK_EQ("its error", mte_task_error(engine, batch, 0, &why), 0);
    CHECK_EQ("p16: of class TIMEOUT", why.error_class, MTE_CLASS_TIMEOUT);
    CHECK_EQ("it is freed", freeBatchID(engine, batch), 0);
    peer_resume(&peer);
    bool recovered;
    WAIT_UNTIL(recovered, transfer_once(engine, r, 10000) == STATUS_COMPLETED, 10000);
    CHECK("p04: after SIGCONT a new transfer succeeds", recovered);
    CHECK_EQ("the stopped peer ends in order", peer_stop(&peer), 0);
    munmap(peer.view, MIB);
}

static void stopped_peer(void) {
    stopped_during(OPCODE_WRITE, true);
    stopped_during(OPCODE_READ, true);
    stopped_during(OPCODE_WRITE, false);
    stopped_during(OPCODE_READ, false);
}

static void withdrawn_at_the_peer(void) {
    peer_t peer = peer_start(PEER_BYTES, NULL);
    segment_id_t target = openSegment(engine, peer.name);
    batch_id_t batch = submit_blocks(target, peer.base, OPCODE_WRITE);
    bool started;
    WAIT_UNTIL(started, any_started(batch), END_MS);
    int64_t start = now_ms();
    CHECK_EQ("the peer unregisters a region in use", peer_unregister(&peer, 0), 0);
    CHECK("in bounded time", started && now_ms() - start < UNREGISTER_MS);
    memset(peer.view, POISON, PEER_BYTES);
    struct ends ends = await_all(batch, TASKS);
    printf("#     %d completed, %d failed\n", ends.completed, ends.failed);
    CHECK_EQ("every task ends", ends.endless, 0);
    CHECK_EQ("p16: every failure has a reason", ends.without_reason, 0);
    CHECK("p02: nothing is written after unregister returned", all_bytes(peer.view, PEER_BYTES, POISON));
    CHECK_EQ("the batch is freed", freeBatchID(engine, batch), 0);
    CHECK_EQ("the peer registers again", peer_register(&peer, 0, PEER_BYTES, 1), 0);
    bool recovered;
    WAIT_UNTIL(recovered, transfer_once(engine, request(OPCODE_WRITE, source, target, peer.base, 4096), 10000) == STATUS_COMPLETED, 10000);
    CHECK("p04: and transfers go on", recovered);
    CHECK_EQ("the withdrawing peer ends in order", peer_stop(&peer), 0);
    munmap(peer.view, PEER_BYTES);
}

static void withdrawn_here(void) {
    fake_t *fake = fake_start(FAKE_SILENT);
    unsigned char *area = registered_bytes(engine, MIB);
    transfer_request_t r = request(OPCODE_READ, area, openSegment(engine, fake->name), FAKE_BASE, MIB);
    batch_id_t batch = batch_open(engine, 1);
    transfer_status_t status = {0};
    CHECK_EQ("a read that never ends", submitTransfer(engine, batch, &r, 1), 0);
    int64_t start = now_ms();
    CHECK_EQ("unregister the region it uses", unregisterLocalMemory(engine, area), 0);
    CHECK("returns in bounded time", now_ms() - start < UNREGISTER_MS);
    CHECK_EQ("its status", getTransferStatus(engine, batch, 0, &status), 0);
    CHECK_EQ("p02: the task is FAILED when it returns", status.status, STATUS_FAILED);
    munmap(area, MIB);
    CHECK_EQ("the batch is freed", freeBatchID(engine, batch), 0);
    fake_stop(fake);
}

static bool stays_poisoned(const unsigned char *area, size_t len, int64_t ms) {
    bool touched;
    WAIT_UNTIL(touched, !all_bytes(area, len, POISON), ms);
    return !touched;
}

static void late_answer(void) {
    static unsigned char answer[8 + 4096] = {0, 0, 0, 0, 'V', 'T', 'C', 'M'};
    fake_t *fake = fake_start(FAKE_SILENT);
    unsigned char *area = registered_bytes(engine, 4096);
    transfer_request_t r = request(OPCODE_READ, area, openSegment(engine, fake->name), FAKE_BASE, 4096);
    CHECK_EQ("a read runs out of time", transfer_once(engine, r, END_MS), STATUS_FAILED);
    memset(area, POISON, 4096);
    fake_send_late(fake, answer, sizeof answer);
    CHECK("p02: an answer that comes too late touches nothing", stays_poisoned(area, 4096, 300));
    CHECK_EQ("unregister", unregisterLocalMemory(engine, area), 0);
    munmap(area, 4096);
    fake_send_late(fake, answer, sizeof answer);
    fake_stop(fake);
    CHECK("p02: nor faults when the memory is gone", true);
}

static void hangups(void) {
    fake_t *fake = fake_start(FAKE_HANGUP);
    segment_id_t target = openSegment(engine, fake->name);
    static const int opcodes[] = {OPCODE_WRITE, OPCODE_READ};
    for (size_t i = 0; i < COUNT(opcodes); i++) {
        transfer_request_t r = request(opcodes[i], source, target, FAKE_BASE, BLOCK);
        CHECK_EQ("p17: a peer that hangs up fails the task", transfer_once(engine, r, END_MS), STATUS_FAILED);
    }
    int tried = atomic_load(&fake->requests);
    CHECK("within few attempts", tried >= 1 && tried <= 40);
    fake_stop(fake);
}

static void destroyed_in_flight(void) {
    fake_t *fake = fake_start(FAKE_SILENT);
    transfer_engine_t doomed = engine_open();
    unsigned char *area = registered_bytes(doomed, MIB);
    segment_id_t target = openSegment(doomed, fake->name);
    batch_id_t batch = batch_open(doomed, 16);
    size_t threads = thread_count();
    for (int i = 0; i < 16; i++) {
        transfer_request_t r = request(i % 2 ? OPCODE_READ : OPCODE_WRITE, area, target, FAKE_BASE, MIB);
        if (submitTransfer(doomed, batch, &r, 1) != 0) CHECK("submit to a silent peer", false);
    }
    int64_t start = now_ms();
    destroyTransferEngine(doomed);
    CHECK("p15: destroy returns with transfers in flight", now_ms() - start < DESTROY_MS);
    printf("#     after %lld ms\n", (long long)(now_ms() - start));
    memset(area, POISON, MIB);
    CHECK("p02: nothing is written after destroy", stays_poisoned(area, MIB, 100));
    munmap(area, MIB);
    CHECK("p09: its threads are gone", thread_count() < threads);
    fake_stop(fake);
}

static void unmapped_after_each(void) {
    peer_t peer = peer_start(MIB, NULL);
    segment_id_t target = openSegment(engine, peer.name);
    int wrong = 0;
    for (int i = 0; i < 200; i++) {
        unsigned char *area = registered_bytes(engine, 65536);
        pattern_fill(area, 65536, (uint64_t)i);
        wrong += transfer_once(engine, request(i % 2 ? OPCODE_READ : OPCODE_WRITE, area, target, peer.base, 65536), END_MS) != STATUS_COMPLETED;
        wrong += i % 2 == 0 && !pattern_matches(peer.view, 65536, (uint64_t)i);
        wrong += unregisterLocalMemory(engine, area) != 0;
        munmap(area, 65536);
    }
    CHECK_EQ("p02: 200 buffers unmapped right after the terminal status", wrong, 0);
    CHECK_EQ("that peer ends in order", peer_stop(&peer), 0);
    munmap(peer.view, MIB);
}

int main(int argc, char **argv) {
    peer_dispatch(argc, argv);
    harness_begin();
    signal(SIGPIPE, SIG_DFL);
    setenv("MC_TCP_STATUS_TIMEOUT_SEC", "2", 1);
    setenv("MC_HANDSHAKE_CONNECT_TIMEOUT", "1", 1);
    setenv("MC_HANDSHAKE_TIMEOUT", "2", 1);
    engine = engine_open();
    source = registered_bytes(engine, BLOCK);
    killed_peer();
    stopped_peer();
    withdrawn_at_the_peer();
    withdrawn_here();
    late_answer();
    hangups();
    destroyed_in_flight();
    unmapped_after_each();
    destroyTransferEngine(engine);
    return harness_finish();
}

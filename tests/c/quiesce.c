/* P2, P3, P15: a batch that is given up, or whose peer is stopped, ends soon; its memory may be unmapped at once; and when
 * the peer has confirmed it, nothing of it arrives there any more. */
#include <pthread.h>

#include "peer.h"

#define SLOTS 48
#define BYTES (SLOTS * MIB)
#define END_MS 60000
/* Far less than MC_TCP_STATUS_TIMEOUT_SEC, which would end the tasks as well. */
#define SOON_MS 15000

static transfer_engine_t engine;
static unsigned char *bytes;

/* WRITEs of all SLOTS, a task each, to a peer that takes none of them in. */
static batch_id_t write_all(const peer_t *peer, segment_id_t target) {
    transfer_request_t requests[SLOTS];
    batch_id_t batch = batch_open(engine, SLOTS);
    for (size_t i = 0; i < SLOTS; i++)
        requests[i] = request(OPCODE_WRITE, bytes + i * MIB, target, peer->base + i * MIB, MIB);
    CHECK_EQ("WRITEs to a stopped peer", submitTransfer(engine, batch, requests, SLOTS), 0);
    return batch;
}

/* How many tasks have this answer of mte_task_drained. */
static size_t count_drained(batch_id_t batch, int wanted) {
    size_t count = 0;
    for (size_t i = 0; i < SLOTS; i++) {
        int drained = -1;
        if (mte_task_drained(engine, batch, i, &drained) == 0 && drained == wanted) count++;
    }
    return count;
}

static mte_batch_status_t status_of(batch_id_t batch) {
    mte_batch_status_t status = {0};
    CHECK_EQ("mte_batch_status", mte_batch_status(engine, batch, &status, NULL, 0), 0);
    return status;
}

/* Once everything is drained the peer's range is its own: what it holds then, it keeps. */
static void stays_quiet(const peer_t *peer, batch_id_t batch) {
    bool drained;
    CHECK_EQ("no task is drained while the peer stands still", count_drained(batch, MTE_DRAINED_NO) > 0, 1);
    peer_resume(peer);
    WAIT_UNTIL(drained, count_drained(batch, MTE_DRAINED_YES) == SLOTS, END_MS);
    CHECK("the peer goes on, and every task is drained", drained);
    memset(peer->view, 0x5a, BYTES);
    bool changed;
    WAIT_UNTIL(changed, !all_bytes(peer->view, BYTES, 0x5a), 500);
    CHECK("from then on nothing arrives", !changed);
}

/* The local memory goes away with the terminal status, as under a reader that would fault or copy garbage. */
static void unmap_and_map(void) {
    CHECK_EQ("unregistered", unregisterLocalMemory(engine, bytes), 0);
    munmap(bytes, BYTES);
    bytes = registered_bytes(engine, BYTES);
}

static void works(const peer_t *peer, segment_id_t target, uint64_t seed) {
    pattern_fill(bytes, BYTES, seed);
    transfer_request_t r = request(OPCODE_WRITE, bytes, target, peer->base, BYTES);
    batch_id_t batch = batch_open(engine, 1);
    CHECK_EQ("a WRITE afterwards", submitTransfer(engine, batch, &r, 1), 0);
    CHECK_EQ("completes", await_task(engine, batch, 0, END_MS), STATUS_COMPLETED);
    CHECK("with its bytes", pattern_matches(peer->view, BYTES, seed));
    int drained = -1;
    CHECK_EQ("and is drained", mte_task_drained(engine, batch, 0, &drained), 0);
    CHECK_EQ("on both sides", drained, MTE_DRAINED_YES);
    mte_batch_status_t status = status_of(batch);
    mte_task_report_t report = {0};
    CHECK_EQ("in full", mte_task_report(engine, batch, 0, &report), 0);
    CHECK("nothing is wrong", report.status == STATUS_COMPLETED && report.code == 0 && report.text[0] == '\0' &&
                                  report.attempts == 1 && report.transferred_bytes == BYTES);
    CHECK("and it went from phase to phase", report.connected_us >= 0 && report.posted_us >= report.connected_us &&
                                                 report.completed_us >= report.posted_us);
    CHECK("one task, all of its bytes", status.tasks == 1 && status.completed == 1 && status.failed == 0 &&
                                            status.transferred_bytes == BYTES);
    CHECK_EQ("freed", freeBatchID(engine, batch), 0);
}

static void stopped(const peer_t *peer, segment_id_t target) {
    mte_task_error_info_t why = {0};
    transfer_status_t each[SLOTS];
    mte_batch_status_t status = {0};
    peer_pause(peer);
    int64_t began = now_ms();
    batch_id_t batch = write_all(peer, target);
    CHECK_EQ("the end of every task", mte_wait_batch(engine, batch, SOON_MS), 0);
    printf("note  a stopped peer was known after %lld ms\n", (long long)(now_ms() - began));
    CHECK_EQ("all in one call", mte_batch_status(engine, batch, &status, each, SLOTS), 0);
    CHECK("none of them runs", status.tasks == SLOTS && status.completed + status.failed == SLOTS && status.failed > 0);
    bool same = true;
    for (size_t i = 0; i < SLOTS; i++) {
        transfer_status_t one = {0};
        getTransferStatus(engine, batch, i, &one);
        same = same && one.status == each[i].status && one.transferred_bytes == each[i].transferred_bytes;
    }
    CHECK("and each as getTransferStatus tells it", same);
    CHECK_EQ("why", mte_task_error(engine, batch, SLOTS - 1, &why), 0);
    CHECK_EQ("the peer did not answer", why.error_class, MTE_CLASS_TIMEOUT);
    CHECK_EQ("which may pass", why.retryable, 1);
    CHECK("the peer is named", why.peer[0] != '\0' && strstr(peer->name, why.peer) != NULL);
    mte_task_report_t report = {0};
    CHECK_EQ("in full", mte_task_report(engine, batch, 0, &report), 0);
    CHECK("the same reason", report.code == why.code && report.error_class == why.error_class && report.retryable == 1);
    CHECK("where", strstr(report.peer, why.peer) != NULL && report.nic[0] != '\0' && strstr(report.rail, " -> ") != NULL);
    CHECK("when", report.posted_us >= 0 && report.completed_us > report.posted_us && report.attempts == 1);
    unmap_and_map();
    stays_quiet(peer, batch);
    CHECK_EQ("freed", freeBatchID(engine, batch), 0);
}

static void canceled(const peer_t *peer, segment_id_t target) {
    mte_task_error_info_t why = {0};
    peer_pause(peer);
    batch_id_t batch = write_all(peer, target);
    CHECK_ERROR("a running batch is not freed", freeBatchID(engine, batch), ERR_BATCH_BUSY);
    int64_t began = now_ms();
    CHECK_EQ("canceled", mte_cancel_batch(engine, batch), 0);
    CHECK_EQ("the end of every task", mte_wait_batch(engine, batch, SOON_MS), 0);
    printf("note  a canceled batch had ended after %lld ms\n", (long long)(now_ms() - began));
    mte_batch_status_t status = status_of(batch);
    CHECK("none of them runs", status.completed + status.failed == SLOTS && status.failed > 0);
    CHECK_EQ("why", mte_task_error(engine, batch, SLOTS - 1, &why), 0);
    CHECK("because it was canceled", why.error_class == MTE_CLASS_CANCELED && strstr(why.text, "cancel") != NULL);
    CHECK_EQ("canceled again", mte_cancel_batch(engine, batch), 0);
    unmap_and_map();
    stays_quiet(peer, batch);
    CHECK_EQ("freed", freeBatchID(engine, batch), 0);
    CHECK_ERROR("a freed batch", mte_cancel_batch(engine, batch), -1);
    CHECK_ERROR("a freed batch", mte_batch_status(engine, batch, &status, NULL, 0), -1);
}

/* A neighbour on the same connections is not harmed. */
static void neighbours(const peer_t *peer, segment_id_t target) {
    for (int round = 0; round < 20; round++) {
        transfer_request_t mine[SLOTS / 2], other[SLOTS / 2];
        batch_id_t kept = batch_open(engine, SLOTS / 2), given_up = batch_open(engine, SLOTS / 2);
        pattern_fill(bytes, BYTES, 100 + (uint64_t)round);
        for (size_t i = 0; i < SLOTS / 2; i++) {
            size_t at = i * MIB, far = (SLOTS / 2 + i) * MIB;
            mine[i] = request(OPCODE_WRITE, bytes + at, target, peer->base + at, MIB);
            other[i] = request(OPCODE_WRITE, bytes + far, target, peer->base + far, MIB);
        }
        submitTransfer(engine, given_up, other, SLOTS / 2);
        submitTransfer(engine, kept, mine, SLOTS / 2);
        mte_cancel_batch(engine, given_up);
        bool ended = mte_wait_batch(engine, given_up, END_MS) == 0 && mte_wait_batch(engine, kept, END_MS) == 0;
        mte_batch_status_t status = {0};
        mte_batch_status(engine, kept, &status, NULL, 0);
        if (!ended || status.completed != SLOTS / 2 || !pattern_matches(peer->view, BYTES / 2, 100 + (uint64_t)round)) {
            CHECK("the neighbour of a canceled batch completes", false);
            mte_task_error_info_t why = {0};
            for (size_t i = 0; i < SLOTS / 2; i++)
                if (mte_task_error(engine, kept, i, &why) == 0 && why.code != 0) printf("note  %s\n", why.text);
            return;
        }
        freeBatchID(engine, kept);
        freeBatchID(engine, given_up);
    }
    harness_pass("the neighbours of 20 canceled batches completed");
}

static batch_id_t raced;
static pthread_barrier_t turn;
#define RACES 60

static void *submit_raced(void *arg) {
    transfer_request_t *r = arg;
    for (int round = 0; round < RACES; round++) {
        pthread_barrier_wait(&turn);
        submitTransfer(engine, raced, r, 1);
        pthread_barrier_wait(&turn);
    }
    return NULL;
}

/* The submit call of another thread has added its task, and has yet to send it or is about to. */
static void canceled_while_submitted(const peer_t *peer, segment_id_t target) {
    transfer_request_t r = request(OPCODE_WRITE, bytes, target, peer->base, MIB);
    pthread_t submitter;
    int missed = 0, undrained = 0;
    mte_task_error_info_t why = {0};
    pthread_barrier_init(&turn, NULL, 2);
    if (pthread_create(&submitter, NULL, submit_raced, &r) != 0) harness_give_up("a thread");
    for (int round = 0; round < RACES; round++) {
        /* So that a connection is there and idle. */
        transfer_once(engine, request(OPCODE_WRITE, bytes, target, peer->base, 1), END_MS);
        peer_pause(peer);
        raced = batch_open(engine, 1);
        mte_batch_status_t status = {0};
        pthread_barrier_wait(&turn);
        while (mte_batch_status(engine, raced, &status, NULL, 0) == 0 && status.tasks == 0) sched_yield();
        mte_cancel_batch(engine, raced);
        pthread_barrier_wait(&turn);
        bool ended = mte_wait_batch(engine, raced, END_MS) == 0;
        /* Another class: it ran on, until the peer was found dead. */
        missed += !ended || mte_task_error(engine, raced, 0, &why) != 0 || why.error_class != MTE_CLASS_CANCELED;
        peer_resume(peer);
        int drained = -1;
        bool quiet;
        WAIT_UNTIL(quiet, mte_task_drained(engine, raced, 0, &drained) == 0 && drained == MTE_DRAINED_YES, END_MS);
        undrained += !quiet;
        freeBatchID(engine, raced);
    }
    pthread_join(submitter, NULL);
    pthread_barrier_destroy(&turn);
    CHECK_EQ("tasks that a cancel beside their submit call has missed", missed, 0);
    CHECK_EQ("and that are not drained", undrained, 0);
}

/* destroy is quick whatever the peer does. */
static void destroyed_beside_a_stopped_peer(const peer_t *peer) {
    transfer_engine_t here = engine;
    engine = engine_open();
    unsigned char *mine = registered_bytes(engine, MIB);
    segment_id_t target = openSegment(engine, peer->name);
    transfer_request_t r = request(OPCODE_WRITE, mine, target, peer->base, MIB);
    batch_id_t batch = batch_open(engine, 1000);
    peer_pause(peer);
    for (int i = 0; i < 1000; i++) submitTransfer(engine, batch, &r, 1);
    int64_t began = now_ms();
    destroyTransferEngine(engine);
    int64_t took = now_ms() - began;
    printf("note  destroy took %lld ms\n", (long long)took);
    munmap(mine, MIB);
    peer_resume(peer);
    engine = here;
    CHECK("destroy ends soon", took < SOON_MS);
}

int main(int argc, char **argv) {
    peer_dispatch(argc, argv);
    harness_begin();
    engine = engine_open();
    bytes = registered_bytes(engine, BYTES);
    peer_t peer = peer_start(BYTES, NULL);
    segment_id_t target = openSegment(engine, peer.name);
    REQUIRE("the peer opens", target > 0);
    works(&peer, target, 1);
    stopped(&peer, target);
    works(&peer, target, 2);
    canceled(&peer, target);
    works(&peer, target, 3);
    neighbours(&peer, target);
    canceled_while_submitted(&peer, target);
    destroyed_beside_a_stopped_peer(&peer);
    works(&peer, target, 4);
    batch_id_t batch;
    peer_pause(&peer);
    batch = write_all(&peer, target);
    peer_kill(&peer);
    CHECK_EQ("with the peer dead, the end of every task", mte_wait_batch(engine, batch, SOON_MS), 0);
    CHECK("and none is COMPLETED whose bytes are missing", status_of(batch).completed == 0);
    /* On one host the kernel tells that the process is gone, and it was the peer that would have moved the bytes. */
    const char *transport = getenv("TEST_TRANSPORT");
    if (transport != NULL && strcmp(transport, "shm") == 0)
        CHECK_EQ("and drained on both sides", count_drained(batch, MTE_DRAINED_YES), SLOTS);
    else
        CHECK_EQ("drained on both sides is nothing that nobody has confirmed", count_drained(batch, MTE_DRAINED_YES) < SLOTS, 1);
    CHECK_EQ("freed", freeBatchID(engine, batch), 0);
    destroyTransferEngine(engine);
    return harness_finish();
}

/* Over NICs: every size and batch shape with verified bytes, loopback, waiting, notifications, several threads. */
#include <pthread.h>

#include "rdma.h"

#define BYTES (9 * MIB)
#define THREADS 4
#define ROUNDS 60
#define BLOCK (20 * KIB)

static transfer_engine_t engine;
static unsigned char *source, *sink;

/* Where a segment's memory is, for requests and for us. */
struct place {
    const char *name;
    segment_id_t target;
    uint64_t base;
    unsigned char *view;
};

static void sizes(const struct place *to) {
    static const size_t rows[] = {1, 7, 64, 4096, 65536, 81920, 81921, MIB + 3, 8 * MIB};
    char name[128];
    for (size_t i = 0; i < COUNT(rows); i++) {
        size_t from = 3 * i, at = 5 * i + 1, len = rows[i];
        pattern_fill(source + from, len, i);
        memset(to->view, 0x5a, at + len + 64);
        memset(sink, 0, len);
        snprintf(name, sizeof name, "write and read %zu bytes, %s", len, to->name);
        int written = transfer_once(engine, request(OPCODE_WRITE, source + from, to->target, to->base + at, len), WAIT_MS);
        bool there = pattern_matches(to->view + at, len, i) && all_bytes(to->view, at, 0x5a) && all_bytes(to->view + at + len, 64, 0x5a);
        int read = transfer_once(engine, request(OPCODE_READ, sink, to->target, to->base + at, len), WAIT_MS);
        CHECK_EQ(name, written, STATUS_COMPLETED);
        CHECK("  the bytes are there and nowhere else", there);
        CHECK("  and come back", read == STATUS_COMPLETED && pattern_matches(sink, len, i));
    }
    CHECK_EQ("a request of no bytes", transfer_once(engine, request(OPCODE_WRITE, source, to->target, to->base, 0), WAIT_MS), STATUS_COMPLETED);
}

/* Writes into the first half, reads of the second, in turn. */
static void mixed_batch(const struct place *to, size_t count) {
    const size_t block = 4096 + 8, half = BYTES / 2;
    char name[128];
    transfer_request_t *r = calloc(count, sizeof *r);
    size_t wrong = 0;
    batch_id_t batch = batch_open(engine, count);
    pattern_fill(source, count * block, count);
    for (size_t i = 0; i < count; i++) {
        bool read = i % 2 != 0;
        if (read) pattern_fill(to->view + half + i * block, block, 1000 + i);
        r[i] = read ? request(OPCODE_READ, sink + i * block, to->target, to->base + half + i * block, block)
                    : request(OPCODE_WRITE, source + i * block, to->target, to->base + i * block, block);
    }
    snprintf(name, sizeof name, "a batch of %zu mixed requests, %s", count, to->name);
    CHECK_EQ(name, submitTransfer(engine, batch, r, count), 0);
    CHECK_EQ("  is waited for", mte_wait_batch(engine, batch, WAIT_MS), 0);
    for (size_t i = 0; i < count; i++) {
        transfer_status_t status = {0};
        bool read = i % 2 != 0;
        wrong += getTransferStatus(engine, batch, i, &status) != 0 || status.status != STATUS_COMPLETED || status.transferred_bytes != block;
        wrong += read ? !pattern_matches(sink + i * block, block, 1000 + i) : memcmp(to->view + i * block, source + i * block, block) != 0;
    }
    CHECK_EQ("  every task completed with the right bytes", wrong, 0);
    CHECK_EQ("  and is freed", freeBatchID(engine, batch), 0);
    free(r);
}

static void waiting(const struct place *to) {
    int fd = -1;
    batch_id_t batch = batch_open(engine, 2);
    transfer_request_t r = request(OPCODE_WRITE, source, to->target, to->base, 8 * MIB);
    pattern_fill(source, 8 * MIB, 77);
    CHECK_EQ("a batch has a descriptor", mte_batch_fd(engine, batch, &fd), 0);
    for (int round = 0; round < 2; round++) {
        struct pollfd p = {fd, POLLIN, 0};
        CHECK_EQ("submit", submitTransfer(engine, batch, &r, 1), 0);
        CHECK_EQ("the descriptor becomes readable although nobody polls", poll(&p, 1, WAIT_MS), 1);
        CHECK_EQ("the task is COMPLETED by then", await_task(engine, batch, (size_t)round, 0), STATUS_COMPLETED);
    }
    CHECK("with the right bytes", pattern_matches(to->view, 8 * MIB, 77));
    CHECK_EQ("the batch is freed", freeBatchID(engine, batch), 0);
}

static void notified(peer_t *peer, const struct place *to) {
    notify_msg_t note = {"done", "with a text"};
    batch_id_t batch = batch_open(engine, 4);
    transfer_request_t r[4];
    for (size_t i = 0; i < 4; i++) r[i] = request(OPCODE_WRITE, source + i * MIB, to->target, to->base + i * MIB, MIB);
    CHECK_EQ("a batch with a notification", submitTransferWithNotify(engine, batch, r, 4, note), 0);
    CHECK_EQ("  all tasks complete", batch_outcome(engine, batch, 4, WAIT_MS).completed, 4);
    struct peer_reply got;
    bool came;
    WAIT_UNTIL(came, (got = peer_notifications(peer)).count > 0, WAIT_MS);
    CHECK("  the peer is notified", came && got.count == 1 && strcmp(got.text, "done=with a text;") == 0);
}

struct worker {
    pthread_t thread;
    const struct place *to;
    size_t index;
    long wrong;
};

static void *work(void *arg) {
    struct worker *w = arg;
    const size_t span = 4 * BLOCK, at = w->index * span;
    unsigned char *mine = map_bytes(span);
    w->wrong += registerLocalMemory(engine, mine, span, "cpu:0", 1) != 0;
    for (uint64_t round = 0; round < ROUNDS; round++) {
        uint64_t seed = w->index << 32 | round;
        pattern_fill(mine, span, seed);
        w->wrong += move_row(engine, w->to->target, OPCODE_WRITE, mine, w->to->base + at, BLOCK, 4).completed != 4;
        w->wrong += !pattern_matches(w->to->view + at, span, seed);
        memset(mine, 0, span);
        w->wrong += move_row(engine, w->to->target, OPCODE_READ, mine, w->to->base + at, BLOCK, 4).completed != 4;
        w->wrong += !pattern_matches(mine, span, seed);
    }
    w->wrong += unregisterLocalMemory(engine, mine) != 0;
    munmap(mine, span);
    return NULL;
}

static void threads(const struct place *to) {
    struct worker workers[THREADS] = {0};
    long wrong = 0;
    for (size_t i = 0; i < THREADS; i++) {
        workers[i] = (struct worker){.to = to, .index = i};
        if (pthread_create(&workers[i].thread, NULL, work, &workers[i]) != 0) harness_give_up("a thread");
    }
    for (size_t i = 0; i < THREADS; i++) {
        pthread_join(workers[i].thread, NULL);
        wrong += workers[i].wrong;
    }
    CHECK_EQ("four threads write and read with memory of their own", wrong, 0);
}

static void all_of(const struct place *to) {
    static const size_t batches[] = {1, 16, 1000};
    sizes(to);
    for (size_t i = 0; i < COUNT(batches); i++) mixed_batch(to, batches[i]);
    waiting(to);
    threads(to);
}

static void two_peers_at_once(const struct place *one, const struct place *other) {
    transfer_request_t r[64];
    batch_id_t batch = batch_open(engine, COUNT(r));
    pattern_fill(source, 64 * BLOCK, 5);
    memset(one->view, 0, 64 * BLOCK);
    memset(other->view, 0, 64 * BLOCK);
    for (size_t i = 0; i < COUNT(r); i++) {
        const struct place *to = i % 2 ? one : other;
        r[i] = request(OPCODE_WRITE, source + i * BLOCK, to->target, to->base + i * BLOCK, BLOCK);
    }
    CHECK_EQ("one batch to two segments", submitTransfer(engine, batch, r, COUNT(r)), 0);
    CHECK_EQ("  all tasks complete", batch_outcome(engine, batch, COUNT(r), WAIT_MS).completed, (int)COUNT(r));
    int wrong = 0;
    for (size_t i = 0; i < COUNT(r); i++) {
        const struct place *to = i % 2 ? one : other, *not = i % 2 ? other : one;
        wrong += memcmp(to->view + i * BLOCK, source + i * BLOCK, BLOCK) != 0 || !all_bytes(not->view + i * BLOCK, BLOCK, 0);
    }
    CHECK_EQ("  each with its bytes", wrong, 0);
}

int main(int argc, char **argv) {
    peer_dispatch(argc, argv);
    harness_begin();
    char own[128], near_name[128];
    peer_t peer = rdma_peer(BYTES, "sim2,sim3", NULL), other = rdma_peer(BYTES, "sim0", NULL);
    engine = rdma_engine("sim0,sim1");
    source = registered_bytes(engine, BYTES);
    sink = registered_bytes(engine, BYTES);
    struct place far = {"two NICs to two", openSegment(engine, peer.name), peer.base, peer.view};
    struct place single = {"two NICs to one", openSegment(engine, other.name), other.base, other.view};
    REQUIRE("the peers open", far.target > 0 && single.target > 0);
    all_of(&far);
    sizes(&single);
    two_peers_at_once(&far, &single);
    notified(&peer, &far);
    CHECK("both NICs carried data", slices_done(engine, "sim0") > 0 && slices_done(engine, "sim1") > 0);

    engine_name(engine, own, sizeof own);
    REQUIRE("the own name is LOCAL_SEGMENT", openSegment(engine, own) == LOCAL_SEGMENT);
    unsigned char *mine = registered_bytes(engine, BYTES);
    struct place local = {"the own segment", LOCAL_SEGMENT, (uintptr_t)mine, mine};
    all_of(&local);

    transfer_engine_t neighbour = rdma_engine("sim0");
    unsigned char *theirs = registered_bytes(neighbour, BYTES);
    engine_name(neighbour, near_name, sizeof near_name);
    struct place near = {"another engine of this process", openSegment(engine, near_name), (uintptr_t)theirs, theirs};
    REQUIRE("another engine of this process opens", near.target > 0);
    all_of(&near);
    CHECK("no attempt has failed", attempts_failed(engine, "sim0") == 0 && attempts_failed(engine, "sim1") == 0);

    destroyTransferEngine(neighbour);
    CHECK_EQ("the peers end in order", peer_stop(&peer) | peer_stop(&other), 0);
    destroyTransferEngine(engine);
    return harness_finish();
}

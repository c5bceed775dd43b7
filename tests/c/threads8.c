/* Eight threads on one engine, threads that share one batch, and threads that race to free one. */
#include <pthread.h>

#include "peer.h"

#define THREADS 8
#define ROUNDS 150
#define BLOCK (16 * KIB)
#define SHARED_TASKS 2000
#define FREE_RACES 500

static transfer_engine_t engine;
static peer_t peer;
static segment_id_t target;

struct worker {
    pthread_t thread;
    size_t index;
    long wrong;
};

static long run(void *(*body)(void *), size_t count) {
    struct worker workers[THREADS] = {0};
    long wrong = 0;
    for (size_t i = 0; i < count; i++) {
        workers[i].index = i;
        if (pthread_create(&workers[i].thread, NULL, body, &workers[i]) != 0) harness_give_up("a thread");
    }
    for (size_t i = 0; i < count; i++) {
        pthread_join(workers[i].thread, NULL);
        wrong += workers[i].wrong;
    }
    return wrong;
}

/* Everything a caller does, with memory of its own. */
static void *everything(void *arg) {
    struct worker *w = arg;
    char name[32];
    size_t at = w->index * 2 * BLOCK;
    for (uint64_t round = 0; round < ROUNDS; round++) {
        unsigned char *mine = map_bytes(2 * BLOCK);
        uint64_t seed = w->index << 32 | round;
        batch_id_t batch = allocateBatchID(engine, 4);
        transfer_request_t out[2] = {request(OPCODE_WRITE, mine, target, peer.base + at, BLOCK),
                                     request(OPCODE_WRITE, mine + BLOCK, target, peer.base + at + BLOCK, BLOCK)};
        transfer_request_t in[2] = {request(OPCODE_READ, mine, target, peer.base + at, BLOCK),
                                    request(OPCODE_READ, mine + BLOCK, target, peer.base + at + BLOCK, BLOCK)};
        notify_msg_t note = {name, name};
        snprintf(name, sizeof name, "%zu.%llu", w->index, (unsigned long long)round);
        pattern_fill(mine, 2 * BLOCK, seed);
        w->wrong += registerLocalMemory(engine, mine, 2 * BLOCK, "cpu:0", 1) != 0;
        w->wrong += openSegment(engine, peer.name) != target;
        w->wrong += submitTransferWithNotify(engine, batch, out, 2, note) != 0;
        w->wrong += await_task(engine, batch, 0, 30000) != STATUS_COMPLETED;
        w->wrong += await_task(engine, batch, 1, 30000) != STATUS_COMPLETED;
        w->wrong += !pattern_matches(peer.view + at, 2 * BLOCK, seed);
        memset(mine, 0, 2 * BLOCK);
        w->wrong += submitTransfer(engine, batch, in, 2) != 0;
        w->wrong += mte_wait_batch(engine, batch, 30000) != 0;
        w->wrong += !pattern_matches(mine, 2 * BLOCK, seed);
        w->wrong += freeBatchID(engine, batch) != 0;
        if (round % 16 == 0) w->wrong += syncSegmentCache(engine) != 0;
        w->wrong += unregisterLocalMemory(engine, mine) != 0;
        munmap(mine, 2 * BLOCK);
    }
    return NULL;
}

static batch_id_t shared;
static unsigned char *shared_source;
static atomic_int accepted;

static void *submit_shared(struct worker *w) {
    for (;;) {
        int slot = atomic_fetch_add(&accepted, 1);
        if (slot >= SHARED_TASKS) return NULL;
        transfer_request_t r = request(OPCODE_WRITE, shared_source + slot * 64, target, peer.base + (uint64_t)slot * 64, 64);
        w->wrong += submitTransfer(engine, shared, &r, 1) != 0;
    }
}

static void *poll_shared(struct worker *w) {
    for (size_t task = 0; task < SHARED_TASKS;) {
        transfer_status_t status;
        int rc = getTransferStatus(engine, shared, task, &status);
        if (rc == 0 && status.status == STATUS_COMPLETED) task++;
        else if (rc == 0 && status.status != STATUS_WAITING) w->wrong++, task++;
        else sched_yield();
    }
    return NULL;
}

static void *share(void *arg) {
    struct worker *w = arg;
    return w->index < 2 ? submit_shared(w) : poll_shared(w);
}

static batch_id_t raced;
static pthread_barrier_t start_line, finish_line;
static atomic_int freed, refused;

static void *race_to_free(void *arg) {
    struct worker *w = arg;
    for (int i = 0; i < FREE_RACES; i++) {
        if (w->index == 0) {
            transfer_request_t r = request(OPCODE_WRITE, shared_source, LOCAL_SEGMENT, (uintptr_t)shared_source + 64, 8);
            raced = batch_open(engine, 1);
            w->wrong += submitTransfer(engine, raced, &r, 1) != 0;
            w->wrong += await_task(engine, raced, 0, 30000) != STATUS_COMPLETED;
            atomic_store(&freed, 0);
            atomic_store(&refused, 0);
        }
        pthread_barrier_wait(&start_line);
        int rc = freeBatchID(engine, raced);
        atomic_fetch_add(rc == 0 ? &freed : &refused, 1);
        w->wrong += rc != 0 && rc != -1;
        pthread_barrier_wait(&finish_line);
        if (w->index == 0) w->wrong += atomic_load(&freed) != 1 || atomic_load(&refused) != 3;
    }
    return NULL;
}

int main(int argc, char **argv) {
    peer_dispatch(argc, argv);
    harness_begin();
    peer = peer_start(THREADS * 2 * BLOCK, NULL);
    engine = engine_open();
    target = openSegment(engine, peer.name);
    REQUIRE("the peer opens", target > 0);
    CHECK_EQ("eight threads register, open, submit, poll, free and notify", run(everything, THREADS), 0);
    int heard = 0;
    bool all;
    WAIT_UNTIL(all, (heard += peer_notifications(&peer).count) >= THREADS * ROUNDS, 30000);
    CHECK("each batch is notified", all);
    CHECK_EQ("exactly once", heard, THREADS * ROUNDS);

    shared_source = registered_bytes(engine, SHARED_TASKS * 64);
    pattern_fill(shared_source, SHARED_TASKS * 64, 5);
    shared = batch_open(engine, SHARED_TASKS);
    CHECK_EQ("two threads submit to one batch, two others poll it", run(share, 4), 0);
    CHECK("with the right bytes", pattern_matches(peer.view, SHARED_TASKS * 64, 5));
    CHECK_EQ("the shared batch is freed", freeBatchID(engine, shared), 0);

    pthread_barrier_init(&start_line, NULL, 4);
    pthread_barrier_init(&finish_line, NULL, 4);
    CHECK_EQ("of four threads that free one batch exactly one gets 0, the others -1", run(race_to_free, 4), 0);
    CHECK_EQ("the peer ends in order", peer_stop(&peer), 0);
    destroyTransferEngine(engine);
    return harness_finish();
}

/* P1: after COMPLETED every byte of a write is at the destination, under noise: 0 torn. Both processes map
 * the destination, so it is looked at without another transfer. */
#include <pthread.h>

#include "peer.h"

#define WRITES 100000
#define BLOCK 4096
#define SLOTS 64
#define NOISE_THREADS 2
#define NOISE_BLOCK (256 * KIB)
#define NOISE_AT ((size_t)SLOTS * BLOCK)
#define BYTES (NOISE_AT + NOISE_THREADS * NOISE_BLOCK)

static transfer_engine_t engine;
static segment_id_t target;
static peer_t peer;
static atomic_bool stop;

static void *make_noise(void *arg) {
    size_t at = NOISE_AT + (size_t)(uintptr_t)arg * NOISE_BLOCK;
    unsigned char *bytes = registered_bytes(engine, NOISE_BLOCK);
    uintptr_t failures = 0;
    while (!atomic_load(&stop)) {
        transfer_request_t r = request(OPCODE_WRITE, bytes, target, peer.base + at, NOISE_BLOCK);
        failures += transfer_once(engine, r, 30000) != STATUS_COMPLETED;
    }
    return (void *)failures;
}

int main(int argc, char **argv) {
    peer_dispatch(argc, argv);
    harness_begin();
    peer = peer_start(BYTES, NULL);
    engine = engine_open();
    unsigned char *source = registered_bytes(engine, (size_t)SLOTS * BLOCK);
    target = openSegment(engine, peer.name);
    REQUIRE("the peer opens", target > 0);

    pthread_t noise[NOISE_THREADS];
    for (size_t i = 0; i < NOISE_THREADS; i++)
        if (pthread_create(&noise[i], NULL, make_noise, (void *)(uintptr_t)i) != 0) harness_give_up("a thread");

    long torn = 0, failed = 0, refused = 0;
    int64_t end = now_ms() + 55000;
    long done = 0;
    for (uint64_t round = 0; done < WRITES && now_ms() < end; round++) {
        batch_id_t batch = batch_open(engine, SLOTS);
        transfer_request_t r[SLOTS];
        for (size_t i = 0; i < SLOTS; i++) {
            pattern_fill(source + i * BLOCK, BLOCK, round * SLOTS + i);
            r[i] = request(OPCODE_WRITE, source + i * BLOCK, target, peer.base + i * BLOCK, BLOCK);
        }
        refused += submitTransfer(engine, batch, r, SLOTS) != 0;
        for (size_t i = 0; i < SLOTS; i++) {
            if (await_task(engine, batch, i, 30000) != STATUS_COMPLETED) failed++;
            else if (!pattern_matches(peer.view + i * BLOCK, BLOCK, round * SLOTS + i)) torn++;
        }
        failed += freeBatchID(engine, batch) != 0;
        done += SLOTS;
    }
    atomic_store(&stop, true);
    uintptr_t noise_failures = 0;
    for (size_t i = 0; i < NOISE_THREADS; i++) {
        void *failures;
        pthread_join(noise[i], &failures);
        noise_failures += (uintptr_t)failures;
    }
    CHECK_EQ("p01: torn writes", torn, 0);
    CHECK_EQ("p01: failed writes", failed, 0);
    CHECK_EQ("p01: refused submits", refused, 0);
    CHECK_EQ("p01: failed noise", noise_failures, 0);
    printf("#     %ld of %d writes in the time\n", done, WRITES);
    CHECK("p01: 100000 writes were made", done >= WRITES);
    CHECK_EQ("the peer ends in order", peer_stop(&peer), 0);
    destroyTransferEngine(engine);
    return harness_finish();
}

/* Engines of two processes on this host beside memcpy and process_vm_readv, all in turn in one run. Prints a line of JSON per
 * measurement: rates in GB/s, processor seconds of both processes per GB, latencies in microseconds. Arguments: transport (shm),
 * rounds (7), bytes of the working set of each side (268435456), "shared" for memory of mte_allocate_shared. */
#include <sys/uio.h>

#define PEER_ENGINE sharing_engine

#include "harness.h"

/* The peer's memory that is measured, if it is shared: beside the arena. */
static transfer_engine_t sharing_engine(void) {
    transfer_engine_t made = engine_open();
    const char *len = getenv("BENCH_SHARED");
    void *shared;
    if (len != NULL && (mte_allocate_shared(made, strtoull(len, NULL, 10), 0, -1, &shared) != 0 ||
                        registerLocalMemory(made, shared, strtoull(len, NULL, 10), "cpu:0", 1) != 0))
        harness_give_up("shared memory of the peer");
    return made;
}

#include "peer.h"

#define MOST_ROUNDS 99

static transfer_engine_t engine;
static unsigned char *bytes;
static size_t len;

static double seconds(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double part(double *values, size_t count, double share) {
    qsort(values, count, sizeof *values, by_size);
    return values[(size_t)(share * (double)(count - 1))];
}

/* Moves `total` bytes in blocks; the way is one of these. */
enum way { MEMCPY, VM_READ, READ, WRITE, WAYS };
static const char *const NAMES[WAYS] = {"memcpy", "process_vm_readv", "read", "write"};

static void move(enum way way, const peer_t *peer, segment_id_t target, size_t block, size_t batch, size_t total) {
    static transfer_request_t requests[4096];
    for (size_t done = 0; done < total;) {
        if (way == MEMCPY) {
            memcpy(bytes + done % len, peer->view + done % len, block);
            done += block;
            continue;
        }
        if (way == VM_READ) {
            struct iovec to = {bytes + done % len, block}, from = {(void *)(uintptr_t)(peer->base + done % len), block};
            if (process_vm_readv(peer->pid, &to, 1, &from, 1, 0) != (ssize_t)block) harness_give_up("process_vm_readv");
            done += block;
            continue;
        }
        size_t count = 0;
        for (; count < batch && done < total; count++, done += block)
            requests[count] = request(way == READ ? OPCODE_READ : OPCODE_WRITE, bytes + done % len, target, peer->base + done % len, block);
        batch_id_t id = batch_open(engine, count);
        if (submitTransfer(engine, id, requests, count) != 0) harness_give_up("submit");
        for (size_t i = 0; i < count; i++) {
            transfer_status_t status = {0};
            do {
                if (getTransferStatus(engine, id, i, &status) != 0) harness_give_up("status");
            } while (status.status == STATUS_WAITING);
            if (status.status != STATUS_COMPLETED) harness_give_up("a request failed");
        }
        freeBatchID(engine, id);
    }
}

static void rates(const peer_t *peer, segment_id_t target, size_t block, size_t batch, size_t rounds) {
    double rate[WAYS][MOST_ROUNDS], cpu[WAYS][MOST_ROUNDS];
    size_t total = block * batch < 64 * MIB ? 64 * MIB : 4 * block * batch;
    clockid_t theirs;
    if (clock_getcpuclockid(peer->pid, &theirs) != 0) harness_give_up("the peer's clock");
    for (size_t round = 0; round < rounds; round++)
        for (int way = 0; way < WAYS; way++) {
            double used = seconds(CLOCK_PROCESS_CPUTIME_ID) + seconds(theirs), began = seconds(CLOCK_MONOTONIC);
            move(way, peer, target, block, batch, total);
            double took = seconds(CLOCK_MONOTONIC) - began;
            used = seconds(CLOCK_PROCESS_CPUTIME_ID) + seconds(theirs) - used;
            rate[way][round] = (double)total / took / 1e9;
            cpu[way][round] = used / ((double)total / 1e9);
        }
    for (int way = 0; way < WAYS; way++)
        printf("{\"what\":\"rate\",\"way\":\"%s\",\"block\":%zu,\"batch\":%zu,\"gb_s\":%.3f,\"least\":%.3f,\"most\":%.3f,\"cpu_s_gb\":%.3f}\n", NAMES[way],
               block, batch, part(rate[way], rounds, 0.5), part(rate[way], rounds, 0), part(rate[way], rounds, 1), part(cpu[way], rounds, 0.5));
}

static void latencies(const peer_t *peer, segment_id_t target, size_t block) {
    enum { COUNT_ = 20000 };
    static double took[WAYS][COUNT_];
    for (int way = 0; way < WAYS; way++) move(way, peer, target, block, 1, 1000 * block);
    for (size_t i = 0; i < COUNT_; i++)
        for (int way = 0; way < WAYS; way++) {
            double began = seconds(CLOCK_MONOTONIC);
            move(way, peer, target, block, 1, block);
            took[way][i] = (seconds(CLOCK_MONOTONIC) - began) * 1e6;
        }
    for (int way = 0; way < WAYS; way++)
        printf("{\"what\":\"latency\",\"way\":\"%s\",\"block\":%zu,\"p50_us\":%.2f,\"p99_us\":%.2f,\"p999_us\":%.2f}\n", NAMES[way], block,
               part(took[way], COUNT_, 0.5), part(took[way], COUNT_, 0.99), part(took[way], COUNT_, 0.999));
}

int main(int argc, char **argv) {
    peer_dispatch(argc, argv);
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc > 1) setenv("TEST_TRANSPORT", argv[1], 1);
    else setenv("TEST_TRANSPORT", "shm", 0);
    size_t rounds = argc > 2 ? strtoull(argv[2], NULL, 10) : 7;
    len = argc > 3 ? strtoull(argv[3], NULL, 10) : 256 * MIB;
    if (rounds == 0 || rounds > MOST_ROUNDS) return 2;
    engine = engine_open();
    bool shared = argc > 4 && strcmp(argv[4], "shared") == 0;
    char setting[64];
    void *memory;
    snprintf(setting, sizeof setting, "BENCH_SHARED=%zu", len);
    if (!shared) {
        bytes = registered_bytes(engine, len);
    } else if (mte_allocate_shared(engine, len, 0, -1, &memory) != 0 || registerLocalMemory(engine, memory, len, "cpu:0", 1) != 0) {
        harness_give_up("shared memory");
    } else {
        bytes = memory;
    }
    memset(bytes, 1, len);
    peer_t peer = peer_start(len, shared ? setting : NULL);
    memset(peer.view, 2, len);
    segment_id_t target = openSegment(engine, peer.name);
    if (shared) {
        mte_buffer_t buffers[4];
        size_t count = COUNT(buffers);
        if (mte_segment_buffers(engine, target, buffers, &count) != 0 || count != 2) harness_give_up("the peer's buffers");
        peer.base = buffers[buffers[0].addr == peer.base].addr;
    }
    /* The connection is there afterwards, and the pages of both sides. */
    move(READ, &peer, target, MIB, 1, len);
    move(WRITE, &peer, target, MIB, 1, len);
    latencies(&peer, target, 4 * KIB);
    static const size_t rows[][2] = {{4 * KIB, 128}, {64 * KIB, 16}, {MIB, 16}, {16 * MIB, 4}, {64 * MIB, 1}};
    for (size_t i = 0; i < COUNT(rows); i++)
        if (rows[i][0] <= len) rates(&peer, target, rows[i][0], rows[i][1], rounds);
    peer_stop(&peer);
    destroyTransferEngine(engine);
    return 0;
}

/* What a caller pays for each part of a transfer, one part at a time, for benches/instructions.py: it runs this program under
 * callgrind, which counts the instructions between `measured_begin` and `measured_end` on the calling thread, and nothing else.
 *
 *     instructions rdma | held | tcp | local
 *
 * Both engines are in this process. Over RDMA the NICs are those of tests/simverbs without time and copies; in `held` they
 * take half a second for everything, so that tasks are still running when they are asked for. */
#include <errno.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <valgrind/callgrind.h>

#include "transfer_engine_c.h"
#include "transfer_engine_ext.h"

#define KIB ((uint64_t)1 << 10)
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define ROUNDS 25
#define WARM_UP 10
#define HELD_ROUNDS 9
#define MOST 128
#define BUFFER (16 * KIB * KIB)

static bool measuring;
/* Of this thread, the library's among them: the linker resolves its calls to the functions of this program. */
static _Thread_local size_t allocations;

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *old, size_t size);
void *__libc_memalign(size_t alignment, size_t size);

void *malloc(size_t size) {
    allocations++;
    return __libc_malloc(size);
}

void *calloc(size_t count, size_t size) {
    allocations++;
    return __libc_calloc(count, size);
}

void *realloc(void *old, size_t size) {
    allocations++;
    return __libc_realloc(old, size);
}

int posix_memalign(void **memory, size_t alignment, size_t size) {
    allocations++;
    return (*memory = __libc_memalign(alignment, size)) == NULL ? ENOMEM : 0;
}

static void measured_begin(void) {
    allocations = 0;
    if (measuring) CALLGRIND_TOGGLE_COLLECT;
}

/* What was counted belongs to `part` of `shape`, which did `units` of something. */
static void measured_end(const char *part, const char *shape, size_t units) {
    char name[128];
    if (!measuring) return;
    CALLGRIND_TOGGLE_COLLECT;
    snprintf(name, sizeof name, "%s, %s|%zu|%zu", part, shape, units, allocations);
    CALLGRIND_DUMP_STATS_AT(name);
}

static void give_up(const char *what) {
    char why[512] = "";
    int code = mte_last_error(why, sizeof why);
    fprintf(stderr, "instructions: could not %s: error %d, %s\n", what, code, why);
    exit(1);
}

static transfer_engine_t start(const char *transport) {
    static char matrix[] = "{\"cpu:0\":[[\"sim0\"],[]]}";
    void *nics[] = {matrix, NULL};
    bool rdma = strcmp(transport, "rdma") == 0;
    transfer_engine_t engine = createTransferEngine("P2PHANDSHAKE", "127.0.0.1", "", 0, 0);
    if (engine == NULL) give_up("create an engine");
    if (installTransport(engine, transport, rdma ? nics : NULL) == NULL) give_up("install the transport");
    return engine;
}

static unsigned char *registered(transfer_engine_t engine) {
    unsigned char *memory = mmap(NULL, BUFFER, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED || registerLocalMemory(engine, memory, BUFFER, "cpu:0", 1) != 0) give_up("register memory");
    return memory;
}

static int state_of(transfer_engine_t engine, batch_id_t batch, size_t task) {
    transfer_status_t status;
    if (getTransferStatus(engine, batch, task, &status) != 0) give_up("ask for a status");
    return status.status;
}

static bool runs(int state) { return state == STATUS_WAITING || state == STATUS_PENDING; }

/* Asks for all tasks in turn until each has ended. */
static void await_all(transfer_engine_t engine, batch_id_t batch, size_t count) {
    for (size_t task = 0; task < count; task++) {
        int state;
        while (runs(state = state_of(engine, batch, task))) sched_yield();
        if (state != STATUS_COMPLETED) give_up("complete a task");
    }
}

struct pair {
    transfer_engine_t engine;
    segment_id_t target;
    unsigned char *memory;
    uint64_t remote;
};

static batch_id_t allocate(struct pair *p, size_t count) {
    batch_id_t batch = allocateBatchID(p->engine, count);
    if (batch == INVALID_BATCH) give_up("allocate a batch");
    return batch;
}

static void fill(struct pair *p, transfer_request_t *requests, size_t count, uint64_t length) {
    for (size_t i = 0; i < count; i++)
        requests[i] = (transfer_request_t){.opcode = OPCODE_WRITE, .source = p->memory + i * length, .target_id = p->target,
                                           .target_offset = p->remote + i * length, .length = length};
}

static batch_id_t submitted(struct pair *p, const char *shape, size_t count, uint64_t length) {
    transfer_request_t requests[MOST];
    fill(p, requests, count, length);
    batch_id_t batch = allocate(p, count);
    measured_begin();
    int result = submitTransfer(p->engine, batch, requests, count);
    measured_end("submit", shape, count);
    if (result != 0) give_up("submit");
    return batch;
}

static void submit_and_ask(struct pair *p, const char *shape, size_t count, uint64_t length) {
    batch_id_t batch = submitted(p, shape, count, length);
    await_all(p->engine, batch, count);
    measured_begin();
    for (size_t task = 0; task < count; task++) state_of(p->engine, batch, task);
    measured_end("status when it is done", shape, count);
    if (freeBatchID(p->engine, batch) != 0) give_up("free a batch");
}

/* What ended before it was asked for does not count. */
static void ask_while_it_runs(struct pair *p, const char *shape, size_t count, uint64_t length) {
    bool measure = measuring;
    measuring = false;
    batch_id_t batch = submitted(p, shape, count, length);
    measuring = measure;
    bool all = true;
    measured_begin();
    for (size_t task = 0; task < count; task++) all &= runs(state_of(p->engine, batch, task));
    if (all) {
        measured_end("status while it runs", shape, count);
    } else if (measuring) {
        CALLGRIND_TOGGLE_COLLECT;
        CALLGRIND_ZERO_STATS;
    }
    await_all(p->engine, batch, count);
    if (freeBatchID(p->engine, batch) != 0) give_up("free a batch");
}

/* Over NICs without time, the first question after a submit call finds all completions there. What was counted is written out
 * for milliseconds, in which other threads would take them: so nothing else is counted before. */
static void retire(struct pair *p, const char *shape, size_t count, uint64_t length) {
    transfer_request_t requests[MOST];
    fill(p, requests, count, length);
    batch_id_t batch = allocate(p, count);
    if (submitTransfer(p->engine, batch, requests, count) != 0) give_up("submit");
    measured_begin();
    state_of(p->engine, batch, count - 1);
    measured_end("retire", shape, count);
    await_all(p->engine, batch, count);
    if (freeBatchID(p->engine, batch) != 0) give_up("free a batch");
}

/* All that a caller does for a batch, and how it is usually done: task after task is asked for. */
static void whole_round(struct pair *p, const char *shape, size_t count, uint64_t length) {
    transfer_request_t requests[MOST];
    fill(p, requests, count, length);
    measured_begin();
    batch_id_t batch = allocate(p, count);
    int submitted = submitTransfer(p->engine, batch, requests, count);
    bool all = submitted == 0;
    for (size_t task = 0; all && task < count; task++)
        for (unsigned tries = 0; runs(state_of(p->engine, batch, task));)
            if (++tries > 1000) sched_yield();
    int freed = freeBatchID(p->engine, batch);
    measured_end("everything", shape, count);
    if (!all || freed != 0) give_up("move a batch");
}

static void ids(struct pair *p) {
    measured_begin();
    batch_id_t batch = allocateBatchID(p->engine, 64);
    int freed = freeBatchID(p->engine, batch);
    measured_end("allocate and free a batch", "64 tasks", 1);
    if (freed != 0) give_up("free a batch");
}

int main(int argc, char **argv) {
    static const struct { const char *name; size_t count; uint64_t length; } shapes[] = {
        {"1 x 4 KiB", 1, 4 * KIB}, {"64 x 4 KiB", 64, 4 * KIB}, {"128 x 64 KiB", 128, 64 * KIB},
    };
    const char *what = argc == 2 ? argv[1] : "";
    bool held = strcmp(what, "held") == 0, local = strcmp(what, "local") == 0;
    bool rdma = held || strcmp(what, "rdma") == 0;
    if (!rdma && !local && strcmp(what, "tcp") != 0) return 2;
    transfer_engine_t target = start(rdma ? "rdma" : "tcp");
    char name[256];
    if (getLocalIpAndPort(target, name, sizeof name) != 0) give_up("learn a name");
    struct pair p = {.engine = local ? target : start(rdma ? "rdma" : "tcp")};
    p.memory = registered(p.engine);
    p.remote = (uint64_t)(uintptr_t)registered(target);
    if ((p.target = openSegment(p.engine, name)) < 0) give_up("open the segment");
    for (int i = 0; i < (held ? 1 + HELD_ROUNDS : WARM_UP + ROUNDS); i++) {
        measuring = i >= (held ? 1 : WARM_UP);
        for (size_t s = 0; s < COUNT(shapes); s++) {
            const char *shape = shapes[s].name;
            size_t count = shapes[s].count;
            uint64_t length = shapes[s].length;
            if (!held) submit_and_ask(&p, shape, count, length);
            else if (s != 2) ask_while_it_runs(&p, shape, count, length);
            if (!rdma || held) continue;
            retire(&p, shape, count, length);
            whole_round(&p, shape, count, length);
        }
        if (rdma && !held) ids(&p);
    }
    destroyTransferEngine(p.engine);
    if (!local) destroyTransferEngine(target);
    return 0;
}

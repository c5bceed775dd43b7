/* What every C test shares: one printed line per check, a watchdog, a deadline clock, byte patterns,
 * and engines on 127.0.0.1 over TCP, or over what TEST_TRANSPORT names. */
#ifndef TESTS_C_HARNESS_H
#define TESTS_C_HARNESS_H

#include <dirent.h>
#include <poll.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "error.h"
#include "transfer_engine_c.h"
#include "transfer_engine_ext.h"

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define WATCHDOG_SECONDS 120

static atomic_int harness_checks;
static atomic_int harness_failures;

static inline void harness_begin(void) {
    alarm(WATCHDOG_SECONDS);
    setvbuf(stdout, NULL, _IOLBF, 0);
    setenv("MC_LOG_LEVEL", "ERROR", 0);
}

static inline int harness_finish(void) {
    printf("%d checks, %d failed\n", atomic_load(&harness_checks), atomic_load(&harness_failures));
    fflush(stdout);
    return atomic_load(&harness_failures) != 0;
}

static inline bool harness_pass(const char *name) {
    atomic_fetch_add(&harness_checks, 1);
    printf("ok    %s\n", name);
    return true;
}

static inline bool harness_fail(const char *file, int line, const char *name, const char *detail) {
    char text[512] = "";
    int code = mte_last_error(text, sizeof text);
    atomic_fetch_add(&harness_checks, 1);
    atomic_fetch_add(&harness_failures, 1);
    printf("FAIL  %s:%d: %s: %s; last error %d: %s\n", file, line, name, detail, code, text);
    return false;
}

static inline bool harness_true(const char *file, int line, const char *name, bool ok,
                                const char *expression) {
    return ok ? harness_pass(name) : harness_fail(file, line, name, expression);
}

static inline bool harness_eq(const char *file, int line, const char *name, const char *expression,
                              long long got, long long want) {
    char detail[768];
    if (got == want) return harness_pass(name);
    snprintf(detail, sizeof detail, "%s: got %lld, expected %lld", expression, got, want);
    return harness_fail(file, line, name, detail);
}

static inline bool harness_str(const char *file, int line, const char *name, const char *got,
                               const char *want) {
    char detail[768];
    if (strcmp(got, want) == 0) return harness_pass(name);
    snprintf(detail, sizeof detail, "got \"%.300s\", expected \"%.300s\"", got, want);
    return harness_fail(file, line, name, detail);
}

/* A failed call returned `want`, and this thread's last error is that code with a text. */
static inline bool harness_error(const char *file, int line, const char *name, const char *expression,
                                 long long got, int want) {
    char detail[1280], text[512] = "";
    int code = mte_last_error(text, sizeof text);
    if (got == want && code == want && text[0] != '\0') return harness_pass(name);
    snprintf(detail, sizeof detail, "%s: got %lld with last error %d \"%.200s\", expected %d", expression,
             got, code, text, want);
    return harness_fail(file, line, name, detail);
}

#define CHECK(name, condition) harness_true(__FILE__, __LINE__, (name), (condition), #condition)
#define CHECK_EQ(name, got, want) \
    harness_eq(__FILE__, __LINE__, (name), #got, (long long)(got), (long long)(want))
#define CHECK_STR(name, got, want) harness_str(__FILE__, __LINE__, (name), (got), (want))
#define CHECK_ERROR(name, call, want) \
    harness_error(__FILE__, __LINE__, (name), #call, (long long)(call), (want))
/* For calls that return a handle: NULL, and the code is the last error. */
#define CHECK_NULL(name, call, want) \
    harness_error(__FILE__, __LINE__, (name), #call, (call) == NULL ? (want) : 1, (want))
#define REQUIRE(name, condition)                            \
    do {                                                    \
        if (!CHECK((name), (condition))) exit(harness_finish()); \
    } while (0)
#define SKIP(name, why) printf("SKIP  %s: %s\n", (name), (why))

static inline int64_t now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static inline void nap(void) { poll(NULL, 0, 1); }

/* Evaluates `condition` until it holds or `ms` have passed, and leaves the last value in `ok`. */
#define WAIT_UNTIL(ok, condition, ms)                                                     \
    for (int64_t wait_end_ = now_ms() + (ms); !((ok) = (condition)) && now_ms() < wait_end_;) nap()

static inline uint64_t mix64(uint64_t x) {
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static inline uint64_t next_random(uint64_t *state) { return mix64((*state)++); }

static inline void pattern_fill(void *out, size_t len, uint64_t seed) {
    unsigned char *bytes = out;
    for (size_t i = 0; i < len; i += 8) {
        uint64_t word = mix64(seed * 0x100000001b3u + i / 8);
        memcpy(bytes + i, &word, len - i < 8 ? len - i : 8);
    }
}

static inline bool pattern_matches(const void *in, size_t len, uint64_t seed) {
    const unsigned char *bytes = in;
    for (size_t i = 0; i < len; i += 8) {
        uint64_t word = mix64(seed * 0x100000001b3u + i / 8);
        if (memcmp(bytes + i, &word, len - i < 8 ? len - i : 8) != 0) return false;
    }
    return true;
}

static inline bool all_bytes(const void *in, size_t len, unsigned char value) {
    const unsigned char *bytes = in;
    return len == 0 || (bytes[0] == value && memcmp(bytes, bytes + 1, len - 1) == 0);
}

static inline uint64_t fnv1a(uint64_t hash, const void *in, size_t len) {
    const unsigned char *bytes = in;
    for (size_t i = 0; i < len; i++) hash = (hash ^ bytes[i]) * 0x100000001b3u;
    return hash;
}
#define FNV_START 0xcbf29ce484222325u

static inline void *map_bytes(size_t len) {
    void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) {
        perror("mmap");
        exit(1);
    }
    return p;
}

static inline void harness_give_up(const char *what) {
    char text[512] = "";
    int code = mte_last_error(text, sizeof text);
    printf("FAIL  cannot go on: %s; last error %d: %s\n", what, code, text);
    exit(1);
}

static inline transfer_engine_t engine_open(void) {
    transfer_engine_t engine = createTransferEngine("P2PHANDSHAKE", "127.0.0.1", "", 0, 0);
    if (engine == NULL) harness_give_up("createTransferEngine");
    const char *transport = getenv("TEST_TRANSPORT");
    if (transport == NULL) transport = "tcp";
    if (installTransport(engine, transport, NULL) == NULL) harness_give_up(transport);
    return engine;
}

static inline void engine_name(transfer_engine_t engine, char *out, size_t len) {
    if (getLocalIpAndPort(engine, out, len) != 0) harness_give_up("getLocalIpAndPort");
}

static inline void *registered_bytes(transfer_engine_t engine, size_t len) {
    void *p = map_bytes(len);
    if (registerLocalMemory(engine, p, len, "cpu:0", 1) != 0) harness_give_up("registerLocalMemory");
    return p;
}

static inline batch_id_t batch_open(transfer_engine_t engine, size_t size) {
    batch_id_t batch = allocateBatchID(engine, size);
    if (batch == INVALID_BATCH) harness_give_up("allocateBatchID");
    return batch;
}

static inline transfer_request_t request(int opcode, void *local, segment_id_t target, uint64_t remote,
                                         uint64_t len) {
    transfer_request_t r = {.opcode = opcode, .source = local, .target_id = target, .target_offset = remote,
                            .length = len};
    return r;
}

/* Polls one task to its end; STATUS_WAITING when `ms` pass first, a negative code when polling fails. */
static inline int await_task(transfer_engine_t engine, batch_id_t batch, size_t task, int64_t ms) {
    int64_t end = now_ms() + ms;
    for (unsigned spins = 0;; spins++) {
        transfer_status_t status;
        int rc = getTransferStatus(engine, batch, task, &status);
        if (rc != 0) return rc < 0 ? rc : -rc;
        if (status.status != STATUS_WAITING && status.status != STATUS_PENDING) return status.status;
        if (now_ms() >= end) return STATUS_WAITING;
        if (spins < 200) sched_yield();
        else nap();
    }
}

/* What became of the batch's notification, once it is on its way; MTE_NOTIFICATION_SENDING when `ms` pass first. */
static inline int await_delivery(transfer_engine_t engine, batch_id_t batch, mte_task_error_info_t *why, int64_t ms) {
    int64_t end = now_ms() + ms;
    for (;;) {
        int state = -1, rc = mte_batch_notification(engine, batch, &state, why);
        if (rc != 0) return rc;
        if (state != MTE_NOTIFICATION_SENDING || now_ms() >= end) return state;
        nap();
    }
}

/* One request in a batch of its own: the final status, or the negative code of the refused submit. */
static inline int transfer_once(transfer_engine_t engine, transfer_request_t r, int64_t ms) {
    batch_id_t batch = batch_open(engine, 1);
    int rc = submitTransfer(engine, batch, &r, 1);
    int status = rc != 0 ? rc : await_task(engine, batch, 0, ms);
    int freed = freeBatchID(engine, batch);
    return status != STATUS_WAITING && freed != 0 ? freed : status;
}

static inline size_t thread_count(void) {
    size_t threads = 0;
    char line[256];
    FILE *f = fopen("/proc/self/status", "r");
    while (f != NULL && fgets(line, sizeof line, f) != NULL)
        if (sscanf(line, "Threads: %zu", &threads) == 1) break;
    if (f != NULL) fclose(f);
    return threads;
}

/* Without the threads for calls that block: they come when needed and go after ten idle seconds. */
static inline size_t lasting_thread_count(void) {
    size_t lasting = 0;
    DIR *tasks = opendir("/proc/self/task");
    for (struct dirent *task; tasks != NULL && (task = readdir(tasks)) != NULL;) {
        char path[64], name[32] = "";
        snprintf(path, sizeof path, "/proc/self/task/%.20s/comm", task->d_name);
        FILE *f = fopen(path, "r");
        if (f == NULL) continue;
        if (fgets(name, sizeof name, f) != NULL) lasting += strcmp(name, "mte-dns\n") != 0;
        fclose(f);
    }
    if (tasks != NULL) closedir(tasks);
    return lasting;
}

#endif

/* Engines over simulated NICs (tests/simverbs), and what makes those NICs fail. Instead of peer.h. */
#ifndef TESTS_C_RDMA_H
#define TESTS_C_RDMA_H

#include <netinet/in.h>

#include "harness.h"

#define MOST_NICS 4
#define WAIT_MS 30000

/* Installs RDMA over `nics` ("sim0,sim1"): all of them are preferred for cpu:0. The transport, or NULL. */
static inline transport_t rdma_install(transfer_engine_t engine, const char *nics) {
    char list[256] = "", matrix[320];
    char copy[128];
    snprintf(copy, sizeof copy, "%s", nics);
    for (char *rest = copy, *nic; (nic = strsep(&rest, ",")) != NULL;) {
        size_t used = strlen(list);
        snprintf(list + used, sizeof list - used, "%s\"%s\"", used ? "," : "", nic);
    }
    snprintf(matrix, sizeof matrix, "{\"cpu:0\":[[%s],[]]}", list);
    void *args[] = {matrix, NULL};
    return installTransport(engine, "rdma", args);
}

/* An engine without a transport. */
static inline transfer_engine_t bare_engine(void) {
    transfer_engine_t engine = createTransferEngine("P2PHANDSHAKE", "127.0.0.1", "", 0, 0);
    if (engine == NULL) harness_give_up("createTransferEngine");
    return engine;
}

static inline transfer_engine_t rdma_engine(const char *nics) {
    transfer_engine_t engine = bare_engine();
    if (rdma_install(engine, nics) == NULL) harness_give_up("installTransport rdma");
    return engine;
}

/* In the peer: the NICs of PEER_NICS, and TCP too if PEER_TCP is set. */
static inline transfer_engine_t rdma_peer_engine(void) {
    const char *nics = getenv("PEER_NICS");
    transfer_engine_t engine = bare_engine();
    if (nics[0] != '\0' && rdma_install(engine, nics) == NULL) harness_give_up("installTransport rdma");
    if (getenv("PEER_TCP") != NULL && installTransport(engine, "tcp", NULL) == NULL)
        harness_give_up("installTransport tcp");
    return engine;
}

#define PEER_ENGINE rdma_peer_engine
#include "peer.h"

/* A peer with NICs of its own, which no fault of this process concerns. `setting` is NULL or NAME=VALUE. */
static inline peer_t rdma_peer(size_t len, const char *nics, const char *setting) {
    char list[128];
    snprintf(list, sizeof list, "PEER_NICS=%s", nics);
    return peer_start_with(len, (const char *const[]){"SIMVERBS_CTL=", list, setting, NULL});
}

/* Replaces a control file. What it says takes effect soon, not at once. */
static inline void control_write(const char *path, const char *lines) {
    char fresh[4200];
    snprintf(fresh, sizeof fresh, "%s.new", path);
    FILE *f = fopen(fresh, "w");
    if (f == NULL || fputs(lines, f) < 0 || fclose(f) != 0 || rename(fresh, path) != 0)
        harness_give_up("writing the control file of the NICs");
}

/* What the NICs of this process do from now on. */
static inline void nics_do(const char *lines) {
    const char *path = getenv("SIMVERBS_CTL");
    if (path == NULL) harness_give_up("SIMVERBS_CTL is not set: run this by tests/rdma_sim.rs");
    control_write(path, lines);
}

/* The number behind `"member":` in the objects of showLinks that begin or go on with `"device":"nic"`, summed up. */
static inline uint64_t links_sum(transfer_engine_t engine, const char *nic, const char *member) {
    static _Thread_local char text[1 << 18];
    char device[64], key[64];
    uint64_t sum = 0;
    snprintf(device, sizeof device, "\"device\":\"%s\"", nic);
    snprintf(key, sizeof key, "\"%s\":", member);
    if (showLinks(engine, text, sizeof text, 1) != 0) harness_give_up("showLinks");
    for (char *at = text, *end; (at = strchr(at, '{')) != NULL; at++) {
        if ((end = strpbrk(at + 1, "{}")) == NULL || *end == '{') continue;
        *end = '\0';
        const char *found = strstr(at, key);
        if (found != NULL && strstr(at, device) != NULL) sum += strtoull(found + strlen(key), NULL, 10);
        *end = '}';
    }
    return sum;
}

static inline uint64_t slices_done(transfer_engine_t engine, const char *nic) {
    return links_sum(engine, nic, "completed");
}

static inline uint64_t attempts_failed(transfer_engine_t engine, const char *nic) {
    return links_sum(engine, nic, "failures");
}

/* `text` is somewhere in showLinks. */
static inline bool links_show(transfer_engine_t engine, const char *text) {
    static _Thread_local char shown[1 << 18];
    if (showLinks(engine, shown, sizeof shown, 1) != 0) harness_give_up("showLinks");
    return strstr(shown, text) != NULL;
}

/* How the tasks of a batch ended; `why` is that of the last failed one. */
struct outcome {
    int completed, failed, endless, without_reason;
    mte_task_error_info_t why;
};

/* Waits for all tasks at most `ms`, and frees the batch if all of them ended. */
static inline struct outcome batch_outcome(transfer_engine_t engine, batch_id_t batch, size_t tasks, int64_t ms) {
    struct outcome outcome = {0};
    int64_t end = now_ms() + ms;
    for (size_t i = 0; i < tasks; i++) {
        int64_t left = end - now_ms();
        int status = await_task(engine, batch, i, left > 0 ? left : 0);
        if (status == STATUS_COMPLETED) outcome.completed++;
        else if (status != STATUS_FAILED) outcome.endless++;
        else {
            mte_task_error_info_t why = {0};
            outcome.failed++;
            if (mte_task_error(engine, batch, i, &why) != 0 || why.code >= 0 || why.error_class == 0 || why.text[0] == '\0')
                outcome.without_reason++;
            outcome.why = why;
        }
    }
    if (outcome.endless == 0 && freeBatchID(engine, batch) != 0) harness_give_up("freeBatchID");
    return outcome;
}

static inline void outcome_show(const char *what, const struct outcome *outcome) {
    printf("#     %s: %d completed, %d failed, %d endless", what, outcome->completed, outcome->failed, outcome->endless);
    if (outcome->failed > 0)
        printf("; code %d class %d: %s", outcome->why.code, outcome->why.error_class, outcome->why.text);
    printf("\n");
}

/* `count` requests of `len` bytes, side by side at both ends. */
static inline batch_id_t submit_row(transfer_engine_t engine, segment_id_t target, int opcode, unsigned char *local,
                                    uint64_t remote, size_t len, size_t count) {
    transfer_request_t *r = calloc(count, sizeof *r);
    batch_id_t batch = batch_open(engine, count);
    for (size_t i = 0; i < count; i++) r[i] = request(opcode, local + i * len, target, remote + i * len, len);
    int rc = submitTransfer(engine, batch, r, count);
    free(r);
    if (rc != 0) harness_give_up("submitTransfer");
    return batch;
}

static inline struct outcome move_row(transfer_engine_t engine, segment_id_t target, int opcode, unsigned char *local,
                                      uint64_t remote, size_t len, size_t count) {
    return batch_outcome(engine, submit_row(engine, target, opcode, local, remote, len, count), count, WAIT_MS);
}

/* One request: its outcome. */
static inline struct outcome move_one(transfer_engine_t engine, segment_id_t target, int opcode, void *local,
                                      uint64_t remote, size_t len) {
    return move_row(engine, target, opcode, local, remote, len, 1);
}

static inline size_t fd_count(void) {
    size_t count = 0;
    for (int fd = 0; fd < 4096; fd++) count += fcntl(fd, F_GETFD) != -1;
    return count;
}

#endif

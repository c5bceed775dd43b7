/* A program of named cases: `PROGRAM --list` prints the names, `PROGRAM [--flag=value]... CASE` runs one.
 * A case gets a stage: an engine with two registered buffers, and a passive peer that offers one. */
#ifndef TESTS_RXE_CASES_H
#define TESTS_RXE_CASES_H

#include "rig.h"

struct stage {
    const char *protocol, *devices, *peer_devices;
    transfer_engine_t engine;
    unsigned char *out, *back; /* local buffers of `len` bytes */
    size_t len;
    struct passive peer;
    segment_id_t target;
    uint64_t remote; /* address of the peer's buffer 0, which has `len` bytes */
};

struct test_case {
    const char *name;
    void (*run)(struct stage *);
};

static inline bool is_rdma(const struct stage *s) { return strcmp(s->protocol, "rdma") == 0; }

static inline void stage_open(struct stage *s) {
    s->len = s->peer.len != 0 ? s->peer.len : DEFAULT_BYTES;
    passive_start(&s->peer, s->protocol, s->peer_devices);
    s->engine = rig_engine(s->protocol, s->devices);
    s->out = registered_bytes(s->engine, s->len);
    s->back = registered_bytes(s->engine, s->len);
    s->target = segment_open(s->engine, s->peer.segment);
    mte_buffer_t buffer;
    first_buffer(s->engine, s->target, &buffer);
    s->remote = buffer.addr;
    if (!CHECK_EQ("the peer offers its buffer", buffer.length, s->len)) exit(1);
}

/* A case that has destroyed the engine itself sets it to NULL. */
static inline void stage_close(struct stage *s) {
    if (s->engine != NULL) {
        int64_t start = now_ms();
        destroyTransferEngine(s->engine);
        CHECK("destroying the engine takes less than 10 s", now_ms() - start < 10000);
    }
    CHECK_EQ("the peer ends by itself", passive_stop(&s->peer), 0);
}

/* Final status of one task; prints why it failed. */
static inline int task_end(transfer_engine_t engine, batch_id_t batch, size_t task) {
    int status = await_task(engine, batch, task, PATIENCE_MS);
    mte_task_error_info_t why;
    if (status == STATUS_FAILED && mte_task_error(engine, batch, task, &why) == 0)
        printf("      task %zu FAILED: code %d, class %d, peer %s: %s\n", task, why.code, why.error_class, why.peer, why.text);
    return status;
}

/* How many of the requests, submitted as one batch, are COMPLETED in the end; -1 when the submit is refused. */
static inline long run_batch(transfer_engine_t engine, transfer_request_t *requests, size_t count) {
    batch_id_t batch = batch_open(engine, count);
    long completed = 0;
    if (submitTransfer(engine, batch, requests, count) != 0) completed = -1;
    for (size_t i = 0; completed >= 0 && i < count; i++) {
        if (task_end(engine, batch, i) != STATUS_COMPLETED) break;
        completed++;
    }
    CHECK_EQ("the batch can be freed", freeBatchID(engine, batch), 0);
    return completed;
}

static inline int run_one(struct stage *s, int opcode, void *local, uint64_t remote, size_t len) {
    transfer_request_t r = request(opcode, local, s->target, remote, len);
    batch_id_t batch = batch_open(s->engine, 1);
    int end = submitTransfer(s->engine, batch, &r, 1);
    if (end == 0) end = task_end(s->engine, batch, 0);
    freeBatchID(s->engine, batch);
    return end;
}

static inline int run_cases(int argc, char **argv, const struct test_case *cases, size_t count) {
    struct stage stage = {.protocol = "rdma", .devices = "rxe0", .peer_devices = "rxe1"};
    const char *wanted = NULL, *value;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--list") == 0) {
            for (size_t c = 0; c < count; c++) puts(cases[c].name);
            return 0;
        }
        if ((value = flag(argv[i], "protocol")) != NULL) stage.protocol = value;
        else if ((value = flag(argv[i], "device_name")) != NULL) stage.devices = value;
        else if ((value = flag(argv[i], "peer_device_name")) != NULL) stage.peer_devices = value;
        else if (argv[i][0] != '-') wanted = argv[i];
        else usage_error(argv[0], argv[i]);
    }
    for (size_t c = 0; wanted != NULL && c < count; c++) {
        if (strcmp(cases[c].name, wanted) != 0) continue;
        harness_begin();
        stage_open(&stage);
        cases[c].run(&stage);
        stage_close(&stage);
        return harness_finish();
    }
    usage_error(argv[0], wanted != NULL ? wanted : "(no case)");
    return 2;
}

#endif

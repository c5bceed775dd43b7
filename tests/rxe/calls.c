/* What every transport promises about calls: ways to wait, notifications, refusals, and ends of regions, batches and engines.
 *
 *     calls [--protocol=rdma] [--device_name=rxe0] [--peer_device_name=rxe1] CASE
 */
#include <pthread.h>

#include "cases.h"

/* ---- waiting ---- */

static batch_id_t submit_writes(struct stage *s, size_t count, size_t len) {
    transfer_request_t requests[64];
    batch_id_t batch = batch_open(s->engine, count);
    for (size_t i = 0; i < count; i++) requests[i] = request(OPCODE_WRITE, s->out + i * len, s->target, s->remote + i * len, len);
    if (submitTransfer(s->engine, batch, requests, count) != 0) harness_give_up("submitTransfer");
    return batch;
}

static void check_all_completed(struct stage *s, batch_id_t batch, size_t count, size_t len) {
    for (size_t i = 0; i < count; i++) {
        transfer_status_t status = {0};
        CHECK_EQ("the status is known", getTransferStatus(s->engine, batch, i, &status), 0);
        CHECK_EQ("it is COMPLETED", status.status, STATUS_COMPLETED);
        CHECK_EQ("all bytes are counted", status.transferred_bytes, len);
    }
    CHECK_EQ("the batch is free", freeBatchID(s->engine, batch), 0);
}

static void waiting_by_status(struct stage *s) {
    batch_id_t batch = submit_writes(s, 16, 100000);
    for (size_t i = 0; i < 16; i++) CHECK_EQ("a polled task ends", task_end(s->engine, batch, i), STATUS_COMPLETED);
    check_all_completed(s, batch, 16, 100000);
}

static void waiting_by_wait_batch(struct stage *s) {
    batch_id_t batch = submit_writes(s, 16, 100000);
    CHECK_EQ("mte_wait_batch returns", mte_wait_batch(s->engine, batch, PATIENCE_MS), 0);
    check_all_completed(s, batch, 16, 100000);
}

static void waiting_by_descriptor(struct stage *s) {
    struct pollfd waiter = {.events = POLLIN};
    batch_id_t batch = submit_writes(s, 16, 100000);
    REQUIRE("there is a descriptor", mte_batch_fd(s->engine, batch, &waiter.fd) == 0);
    CHECK_EQ("poll(2) wakes without anybody polling the engine", poll(&waiter, 1, PATIENCE_MS), 1);
    check_all_completed(s, batch, 16, 100000);
}

/* Nobody asks until all must be over: progress is the library's own business. */
static void nobody_polls(struct stage *s) {
    size_t len = 100000;
    batch_id_t batch = submit_writes(s, 16, len);
    bool arrived;
    memset(s->out + 16 * len, 0x5a, len);
    batch_id_t marker = batch_open(s->engine, 1);
    transfer_request_t r = request(OPCODE_WRITE, s->out + 16 * len, s->target, s->remote + 16 * len, len);
    REQUIRE("a last WRITE is accepted", submitTransfer(s->engine, marker, &r, 1) == 0);
    WAIT_UNTIL(arrived, PASSIVE_IS(&s->peer, "yes", "is 0 %zu %zu 90", 16 * len, len), PATIENCE_MS);
    CHECK("its bytes arrive though nobody polls", arrived);
    CHECK_EQ("it is COMPLETED", task_end(s->engine, marker, 0), STATUS_COMPLETED);
    CHECK_EQ("its batch is free", freeBatchID(s->engine, marker), 0);
    CHECK_EQ("so is the other", mte_wait_batch(s->engine, batch, PATIENCE_MS), 0);
    check_all_completed(s, batch, 16, len);
}

/* ---- notifications ---- */

static void notifications(struct stage *s) {
    char name[] = "done", text[] = "all-of-it";
    notify_msg_t note = {.name = name, .msg = text};
    transfer_request_t r = request(OPCODE_WRITE, s->out, s->target, s->remote, MIB);
    batch_id_t batch = batch_open(s->engine, 1);
    pattern_fill(s->out, MIB, 5);
    REQUIRE("a WRITE with a notification is accepted", submitTransferWithNotify(s->engine, batch, &r, 1, note) == 0);
    CHECK_EQ("it is COMPLETED", task_end(s->engine, batch, 0), STATUS_COMPLETED);
    bool heard;
    WAIT_UNTIL(heard, PASSIVE_IS(&s->peer, "notes done=all-of-it", "notes"), PATIENCE_MS);
    CHECK("the peer has the notification", heard);
    CHECK("and the bytes", PASSIVE_IS(&s->peer, "yes", "check 0 0 %zu 5", MIB));
    CHECK_EQ("the batch is free", freeBatchID(s->engine, batch), 0);
    CHECK_EQ("one without a transfer is sent", genNotifyInEngine(s->engine, (uint64_t)s->target, note), 0);
    CHECK_STR("and arrives", passive_ask(&s->peer, "notes"), "notes done=all-of-it");
}

/* ---- refusals ---- */

static void check_refused(struct stage *s, const char *name, transfer_request_t bad, int code) {
    transfer_request_t pair[2] = {request(OPCODE_WRITE, s->out, s->target, s->remote, 4096), bad};
    transfer_status_t status;
    batch_id_t batch = batch_open(s->engine, 2);
    CHECK_ERROR(name, submitTransfer(s->engine, batch, pair, 2), code);
    CHECK_EQ("the call added nothing", getTransferStatus(s->engine, batch, 0, &status), ERR_INVALID_ARGUMENT);
    CHECK_EQ("the batch still takes requests", submitTransfer(s->engine, batch, pair, 1), 0);
    CHECK_EQ("which are COMPLETED", task_end(s->engine, batch, 0), STATUS_COMPLETED);
    CHECK_EQ("the batch is free", freeBatchID(s->engine, batch), 0);
}

static void refusals(struct stage *s) {
    unsigned char *stranger = map_bytes(4096);
    uint64_t end = s->remote + s->len;
    check_refused(s, "a target range that ends outside", request(OPCODE_WRITE, s->out, s->target, end - 4095, 4096), ERR_ADDRESS_NOT_REGISTERED);
    check_refused(s, "a target range that starts outside", request(OPCODE_READ, s->out, s->target, s->remote - 1, 4096), ERR_ADDRESS_NOT_REGISTERED);
    check_refused(s, "a target range that wraps", request(OPCODE_READ, s->out, s->target, UINT64_MAX - 100, 4096), ERR_ADDRESS_NOT_REGISTERED);
    check_refused(s, "a source that is not registered", request(OPCODE_WRITE, stranger, s->target, s->remote, 4096), ERR_ADDRESS_NOT_REGISTERED);
    check_refused(s, "a source that ends outside", request(OPCODE_WRITE, s->out + s->len - 10, s->target, s->remote, 4096), ERR_ADDRESS_NOT_REGISTERED);
    check_refused(s, "an unknown target", request(OPCODE_WRITE, s->out, 4711, s->remote, 4096), ERR_INVALID_ARGUMENT);
    check_refused(s, "an unknown opcode", request(7, s->out, s->target, s->remote, 4096), ERR_INVALID_ARGUMENT);
    munmap(stranger, 4096);
}

/* Registered for local use: never published, never reached. */
static void local_only_memory(struct stage *s) {
    unsigned long long at = 0;
    REQUIRE("the peer adds a buffer for itself", sscanf(passive_ask(&s->peer, "add 1048576 0"), "ok 1 %llu", &at) == 1);
    CHECK_EQ("a WRITE to it is refused", run_one(s, OPCODE_WRITE, s->out, at, 4096), ERR_ADDRESS_NOT_REGISTERED);
    CHECK_EQ("a READ of it is refused", run_one(s, OPCODE_READ, s->out, at, 4096), ERR_ADDRESS_NOT_REGISTERED);
    CHECK("it is untouched", PASSIVE_IS(&s->peer, "yes", "is 1 0 4096 0"));
    unsigned char *mine = map_bytes(MIB);
    REQUIRE("I register memory for local use", registerLocalMemory(s->engine, mine, MIB, "cpu:0", 0) == 0);
    memset(mine, 0x33, MIB);
    CHECK_EQ("it can be written from", run_one(s, OPCODE_WRITE, mine, s->remote, MIB), STATUS_COMPLETED);
    CHECK("what arrives is right", PASSIVE_IS(&s->peer, "yes", "is 0 0 %zu 51", MIB));
    passive_ask(&s->peer, "set 0 0 %zu 68", MIB);
    CHECK_EQ("and be read into", run_one(s, OPCODE_READ, mine, s->remote, MIB), STATUS_COMPLETED);
    CHECK("what arrives is right", all_bytes(mine, MIB, 68));
}

/* The peer takes back what this engine still believes in: nothing reads COMPLETED, and one failure is not for ever. */
static void remote_region_gone(struct stage *s) {
    mte_task_error_info_t why = {0};
    CHECK_EQ("a first WRITE connects", run_one(s, OPCODE_WRITE, s->out, s->remote, MIB), STATUS_COMPLETED);
    CHECK("the peer unregisters its buffer", PASSIVE_IS(&s->peer, "ok", "remove 0"));
    for (int opcode = OPCODE_READ; opcode <= OPCODE_WRITE; opcode++) {
        transfer_request_t r = request(opcode, s->out, s->target, s->remote, MIB);
        batch_id_t batch = batch_open(s->engine, 1);
        int refused = submitTransfer(s->engine, batch, &r, 1);
        if (refused != 0) CHECK_EQ("the submit is refused", refused, ERR_ADDRESS_NOT_REGISTERED);
        else {
            CHECK_EQ("the task is FAILED", await_task(s->engine, batch, 0, PATIENCE_MS), STATUS_FAILED);
            CHECK_EQ("it can be asked why", mte_task_error(s->engine, batch, 0, &why), 0);
            CHECK_EQ("because the address is not registered", why.code, ERR_ADDRESS_NOT_REGISTERED);
            CHECK("the peer is named", strncmp(why.peer, s->peer.segment, strlen(s->peer.segment)) == 0);
            CHECK("there is a text", why.text[0] != '\0');
        }
        CHECK_EQ("the batch is free", freeBatchID(s->engine, batch), 0);
    }
    CHECK("the peer registers it again", PASSIVE_IS(&s->peer, "ok", "restore 0"));
    int end = STATUS_FAILED;
    bool moved;
    WAIT_UNTIL(moved, (end = run_one(s, OPCODE_WRITE, s->out, s->remote, MIB)) == STATUS_COMPLETED, 10000);
    CHECK("the next WRITEs are COMPLETED again", moved);
}

/* ---- ends ---- */

static void unregister_while_running(struct stage *s) {
    size_t len = 8 * MIB, count = 8;
    unsigned char *victim = registered_bytes(s->engine, len);
    batch_id_t batch = batch_open(s->engine, count);
    transfer_request_t requests[8];
    for (size_t i = 0; i < count; i++) requests[i] = request(i % 2 == 0 ? OPCODE_READ : OPCODE_WRITE, victim, s->target, s->remote, len);
    REQUIRE("64 MiB are under way", submitTransfer(s->engine, batch, requests, count) == 0);
    int64_t start = now_ms();
    CHECK_EQ("their region is unregistered meanwhile", unregisterLocalMemory(s->engine, victim), 0);
    CHECK("within 10 s", now_ms() - start < 10000);
    /* A late access by the NIC would now hit a page that is gone, or what is mapped there next. */
    munmap(victim, len);
    for (size_t i = 0; i < count; i++) {
        int status = await_task(s->engine, batch, i, PATIENCE_MS);
        CHECK("each task is terminal", status == STATUS_COMPLETED || status == STATUS_FAILED);
    }
    CHECK_EQ("the batch is free", freeBatchID(s->engine, batch), 0);
    CHECK_EQ("the region is unknown now", run_one(s, OPCODE_WRITE, victim, s->remote, 4096), ERR_ADDRESS_NOT_REGISTERED);
    CHECK_EQ("another one still works", run_one(s, OPCODE_WRITE, s->out, s->remote, MIB), STATUS_COMPLETED);
}

static void free_while_running(struct stage *s) {
    transfer_request_t requests[8];
    batch_id_t batch = batch_open(s->engine, 8);
    for (size_t i = 0; i < 8; i++) requests[i] = request(OPCODE_WRITE, s->out, s->target, s->remote, s->len);
    REQUIRE("128 MiB are under way", submitTransfer(s->engine, batch, requests, 8) == 0);
    CHECK_EQ("the batch cannot be freed meanwhile", freeBatchID(s->engine, batch), ERR_BATCH_BUSY);
    for (size_t i = 0; i < 8; i++) CHECK_EQ("its tasks are COMPLETED", task_end(s->engine, batch, i), STATUS_COMPLETED);
    CHECK_EQ("then it can", freeBatchID(s->engine, batch), 0);
    CHECK_EQ("once", freeBatchID(s->engine, batch), ERR_INVALID_ARGUMENT);
}

static void destroy_while_running(struct stage *s) {
    transfer_request_t requests[8];
    batch_id_t batch = batch_open(s->engine, 8);
    for (size_t i = 0; i < 8; i++) requests[i] = request(i % 2 == 0 ? OPCODE_READ : OPCODE_WRITE, s->out, s->target, s->remote, s->len);
    REQUIRE("128 MiB are under way", submitTransfer(s->engine, batch, requests, 8) == 0);
    int64_t start = now_ms();
    destroyTransferEngine(s->engine);
    CHECK("the engine is destroyed within 10 s", now_ms() - start < 10000);
    munmap(s->out, s->len);
    CHECK_EQ("its handle is dead", freeBatchID(s->engine, batch), ERR_INVALID_ARGUMENT);
    s->engine = rig_engine(s->protocol, s->devices);
    s->back = registered_bytes(s->engine, MIB);
    s->target = segment_open(s->engine, s->peer.segment);
    CHECK_EQ("a new engine reaches the peer", run_one(s, OPCODE_READ, s->back, s->remote, MIB), STATUS_COMPLETED);
}

static void *wait_for_all(void *argument) {
    struct stage *s = ((void **)argument)[0];
    batch_id_t batch = *(batch_id_t *)((void **)argument)[1];
    return (void *)(intptr_t)mte_wait_batch(s->engine, batch, PATIENCE_MS);
}

static void destroy_while_somebody_waits(struct stage *s) {
    transfer_request_t requests[8];
    batch_id_t batch = batch_open(s->engine, 8);
    void *argument[2] = {s, &batch}, *result;
    pthread_t waiter;
    for (size_t i = 0; i < 8; i++) requests[i] = request(OPCODE_WRITE, s->out, s->target, s->remote, s->len);
    REQUIRE("128 MiB are under way", submitTransfer(s->engine, batch, requests, 8) == 0);
    if (pthread_create(&waiter, NULL, wait_for_all, argument) != 0) harness_give_up("pthread_create");
    destroyTransferEngine(s->engine);
    int64_t start = now_ms();
    pthread_join(waiter, &result);
    CHECK("the waiting call ends with the engine", now_ms() - start < 10000);
    s->engine = NULL;
}

static const struct test_case cases[] = {
    {"waiting_by_status", waiting_by_status},
    {"waiting_by_wait_batch", waiting_by_wait_batch},
    {"waiting_by_descriptor", waiting_by_descriptor},
    {"nobody_polls", nobody_polls},
    {"notifications", notifications},
    {"refusals", refusals},
    {"local_only_memory", local_only_memory},
    {"remote_region_gone", remote_region_gone},
    {"unregister_while_running", unregister_while_running},
    {"free_while_running", free_while_running},
    {"destroy_while_running", destroy_while_running},
    {"destroy_while_somebody_waits", destroy_while_somebody_waits},
};

int main(int argc, char **argv) { return run_cases(argc, argv, cases, COUNT(cases)); }

/* P8: NULL, invented, freed and foreign handles, ids and pointers give an error code, never a fault. */
#include "harness.h"

#define BYTES (64 * KIB)
#define RANDOM_IDS 100000
#define RANDOM_ENGINES 2000

static notify_msg_t note(const char *name, const char *msg) {
    notify_msg_t n = {(char *)(uintptr_t)name, (char *)(uintptr_t)msg};
    return n;
}

/* How many calls on an engine handle that is not alive give something else than documented. */
static int surprises_with_engine(transfer_engine_t bad, bool print) {
    static unsigned char bytes[4096];
    char text[64];
    buffer_entry_t entry = {bytes, sizeof bytes};
    void *address = bytes;
    transfer_request_t r = request(OPCODE_WRITE, bytes, 0, (uintptr_t)bytes, 8);
    transfer_status_t status = {.status = 77};
    nic_load_stat_t stat;
    size_t count = 1;
    int size = 5, fd = 99;
    mte_task_error_info_t why;
    mte_batch_status_t all;
    mte_task_report_t full;
    mte_buffer_t buffer;
    const uint64_t word = 8;
    const int64_t page[5] = {0};
    const struct {
        const char *call;
        bool ok;
    } rows[] = {
        {"discoverTopology", discoverTopology(bad) == -1},
        {"getLocalIpAndPort", getLocalIpAndPort(bad, text, sizeof text) == -1},
        {"installTransport", installTransport(bad, "tcp", NULL) == NULL},
        {"uninstallTransport", uninstallTransport(bad, "tcp") == -1},
        {"openSegment", openSegment(bad, "127.0.0.1:1") == -1},
        {"openSegmentNoCache", openSegmentNoCache(bad, "127.0.0.1:1") == -1},
        {"closeSegment", closeSegment(bad, 1) == -1},
        {"warmupEfaSegment", warmupEfaSegment(bad, "x") <= 0},
        {"removeLocalSegment", removeLocalSegment(bad, "x") == -1},
        {"registerLocalMemory", registerLocalMemory(bad, bytes, sizeof bytes, "cpu:0", 1) == -1},
        {"unregisterLocalMemory", unregisterLocalMemory(bad, bytes) == -1},
        {"registerLocalMemoryBatch", registerLocalMemoryBatch(bad, &entry, 1, "cpu:0") == -1},
        {"unregisterLocalMemoryBatch", unregisterLocalMemoryBatch(bad, &address, 1) == -1},
        {"allocateBatchID", allocateBatchID(bad, 1) == INVALID_BATCH},
        {"submitTransfer", submitTransfer(bad, 1, &r, 1) == -1},
        {"submitTransferWithNotify", submitTransferWithNotify(bad, 1, &r, 1, note("a", "b")) == -1},
        {"getNotifsFromEngine", getNotifsFromEngine(bad, &size) == NULL},
        {"genNotifyInEngine", genNotifyInEngine(bad, 0, note("a", "b")) == -1},
        {"getTransferStatus", getTransferStatus(bad, 1, 0, &status) == -1 && status.status == 77},
        {"freeBatchID", freeBatchID(bad, 1) == -1},
        {"syncSegmentCache", syncSegmentCache(bad) == -1},
        {"getNicLoadStats", getNicLoadStats(bad, &stat, &count) == -1},
        {"showLinks", showLinks(bad, text, sizeof text, 0) == -1},
        {"mte_task_error", mte_task_error(bad, 1, 0, &why) == -1},
        {"mte_wait_batch", mte_wait_batch(bad, 1, 0) == -1},
        {"mte_batch_fd", mte_batch_fd(bad, 1, &fd) == -1},
        {"mte_batch_notification", mte_batch_notification(bad, 1, &fd, &why) == -1},
        {"mte_batch_status", mte_batch_status(bad, 1, &all, &status, 1) == -1},
        {"mte_task_report", mte_task_report(bad, 1, 0, &full) == -1},
        {"mte_cancel_batch", mte_cancel_batch(bad, 1) == -1},
        {"mte_task_drained", mte_task_drained(bad, 1, 0, &fd) == -1},
        {"mte_segment_buffers", mte_segment_buffers(bad, 0, &buffer, &count) == -1},
        {"mte_transport", mte_transport(bad, "tcp") == NULL},
        {"mte_local_topology", mte_local_topology(bad, text, &count) == -1},
        {"mte_segment_descriptor", mte_segment_descriptor(bad, 0, text, &count) == -1},
        {"mte_probe_peer", mte_probe_peer(bad, "127.0.0.1:1") == -1},
        {"mte_overlaps", mte_overlaps(bad, bytes, 1) == -1},
        {"mte_submit_arrays", mte_submit_arrays(bad, 1, 0, OPCODE_READ, &word, &word, &word, 1, NULL, NULL) == -1},
        {"mte_submit_pages", mte_submit_pages(bad, 1, 0, OPCODE_READ, page, page, 1, page, 1, NULL) == -1},
        {"mte_transfer_arrays", mte_transfer_arrays(bad, 0, OPCODE_READ, &word, &word, &word, 1, NULL, 0, &why) == -1},
        {"mte_transfer_pages", mte_transfer_pages(bad, 0, OPCODE_READ, page, page, 1, page, 1, 0, NULL, 0, &why) == -1},
        {"getRpcPort", getRpcPort(bad) == -1},
        {"mte_only_transport", mte_only_transport(bad, "tcp") == -1},
        {"getBatchTransferStatus", getBatchTransferStatus(bad, 1, &status) == -1 && status.status == 77},
        {"checkSegmentStatus", checkSegmentStatus(bad, 0) == -1},
        {"probePeerAliveByID", probePeerAliveByID(bad, 0) == -1},
    };
    int surprises = 0;
    for (size_t i = 0; i < COUNT(rows); i++) {
        if (print) CHECK(rows[i].call, rows[i].ok);
        surprises += !rows[i].ok;
    }
    enableGracefulShutdown(bad);
    destroyTransferEngine(bad);
    return surprises;
}

/* How many calls on a batch id that is not alive give something else than -1. */
static int surprises_with_batch(transfer_engine_t engine, batch_id_t bad, void *bytes) {
    transfer_request_t r = request(OPCODE_WRITE, bytes, 0, (uintptr_t)bytes, 8);
    transfer_status_t status = {.status = 77};
    mte_task_error_info_t why;
    mte_batch_status_t all;
    mte_task_report_t full;
    const uint64_t word = 8;
    int fd;
    int surprises = 0;
    surprises += getTransferStatus(engine, bad, 0, &status) != -1 || status.status != 77;
    surprises += submitTransfer(engine, bad, &r, 1) != -1;
    surprises += submitTransferWithNotify(engine, bad, &r, 1, note("a", "b")) != -1;
    surprises += freeBatchID(engine, bad) != -1;
    surprises += mte_task_error(engine, bad, 0, &why) != -1;
    surprises += mte_wait_batch(engine, bad, 0) != -1;
    surprises += mte_batch_fd(engine, bad, &fd) != -1;
    surprises += mte_batch_notification(engine, bad, &fd, &why) != -1;
    surprises += mte_batch_status(engine, bad, &all, NULL, 0) != -1;
    surprises += mte_task_report(engine, bad, 0, &full) != -1;
    surprises += mte_cancel_batch(engine, bad) != -1;
    surprises += getBatchTransferStatus(engine, bad, &status) != -1 || status.status != 77;
    surprises += mte_submit_arrays(engine, bad, 0, OPCODE_WRITE, &word, &word, &word, 1, NULL, NULL) != -1;
    surprises += mte_task_drained(engine, bad, 0, &fd) != -1;
    return surprises;
}

static void creation(void) {
    CHECK_NULL("createTransferEngine without a store", createTransferEngine(NULL, "127.0.0.1", "", 0, 0), -1);
    CHECK_NULL("createTransferEngine without a name", createTransferEngine("P2PHANDSHAKE", NULL, "", 0, 0), -1);
    transfer_engine_t engine = createTransferEngine("P2PHANDSHAKE", "127.0.0.1", NULL, 0, 0);
    CHECK("createTransferEngine without the ignored host", engine != NULL);
    destroyTransferEngine(engine);
}

static void pointers(transfer_engine_t e, unsigned char *bytes) {
    mte_batch_status_t all;
    int fd;
    char text[64];
    batch_id_t batch = batch_open(e, 4);
    transfer_request_t r = request(OPCODE_WRITE, bytes, 0, (uintptr_t)bytes + 4096, 8);
    buffer_entry_t entry = {bytes + BYTES, 8};
    buffer_entry_t empty = {NULL, 8};
    nic_load_stat_t stat;
    size_t count = 0, one = 1;
    CHECK_ERROR("getLocalIpAndPort into NULL", getLocalIpAndPort(e, NULL, 64), -1);
    CHECK_ERROR("getLocalIpAndPort into no bytes", getLocalIpAndPort(e, text, 0), -1);
    CHECK_NULL("installTransport without a name", installTransport(e, NULL, NULL), -1);
    CHECK_ERROR("uninstallTransport without a name", uninstallTransport(e, NULL), -1);
    CHECK_ERROR("openSegment without a name", openSegment(e, NULL), -1);
    CHECK_ERROR("openSegmentNoCache without a name", openSegmentNoCache(e, NULL), -1);
    CHECK("warmupEfaSegment without a name", warmupEfaSegment(e, NULL) <= 0);
    CHECK_ERROR("removeLocalSegment without a name", removeLocalSegment(e, NULL), -1);
    CHECK_ERROR("registerLocalMemory of NULL", registerLocalMemory(e, NULL, 8, "cpu:0", 1), -1);
    CHECK_ERROR("registerLocalMemory without a location", registerLocalMemory(e, bytes + BYTES, 8, NULL, 1), -1);
    CHECK_ERROR("unregisterLocalMemory of NULL", unregisterLocalMemory(e, NULL), -3);
    CHECK_ERROR("registerLocalMemoryBatch of NULL", registerLocalMemoryBatch(e, NULL, 1, "cpu:0"), -1);
    CHECK_ERROR("registerLocalMemoryBatch of a NULL entry", registerLocalMemoryBatch(e, &empty, 1, "cpu:0"), -1);
    CHECK_ERROR("registerLocalMemoryBatch without a location", registerLocalMemoryBatch(e, &entry, 1, NULL), -1);
    CHECK_EQ("registerLocalMemoryBatch of nothing", registerLocalMemoryBatch(e, NULL, 0, "cpu:0"), 0);
    CHECK_ERROR("unregisterLocalMemoryBatch of NULL", unregisterLocalMemoryBatch(e, NULL, 1), -1);
    CHECK_EQ("unregisterLocalMemoryBatch of nothing", unregisterLocalMemoryBatch(e, NULL, 0), 0);
    CHECK_ERROR("submitTransfer of NULL", submitTransfer(e, batch, NULL, 1), -1);
    CHECK_EQ("submitTransfer of nothing", submitTransfer(e, batch, NULL, 0), 0);
    CHECK_ERROR("submitTransferWithNotify of NULL", submitTransferWithNotify(e, batch, NULL, 1, note("a", "b")), -1);
    CHECK_ERROR("submitTransferWithNotify of nothing", submitTransferWithNotify(e, batch, &r, 0, note("a", "b")), -1);
    CHECK_ERROR("submitTransferWithNotify without a name", submitTransferWithNotify(e, batch, &r, 1, note(NULL, "b")), -1);
    CHECK_ERROR("submitTransferWithNotify without a message", submitTransferWithNotify(e, batch, &r, 1, note("a", NULL)), -1);
    CHECK("getNotifsFromEngine without a size", getNotifsFromEngine(e, NULL) == NULL);
    CHECK_EQ("freeNotifsMsgBuf of nothing", freeNotifsMsgBuf(NULL, 0), 0);
    freeNotifsMsgBuf(NULL, 3);
    CHECK_ERROR("genNotifyInEngine without a name", genNotifyInEngine(e, 0, note(NULL, "b")), -1);
    CHECK_ERROR("genNotifyInEngine without a message", genNotifyInEngine(e, 0, note("a", NULL)), -1);
    CHECK_EQ("one task", submitTransfer(e, batch, &r, 1), 0);
    CHECK_EQ("completes", await_task(e, batch, 0, 10000), STATUS_COMPLETED);
    CHECK_ERROR("getTransferStatus into NULL", getTransferStatus(e, batch, 0, NULL), -1);
    CHECK_ERROR("getNicLoadStats without room", getNicLoadStats(e, NULL, &count), -1);
    CHECK_ERROR("getNicLoadStats without a count", getNicLoadStats(e, &stat, NULL), -1);
    CHECK_ERROR("showLinks into NULL", showLinks(e, NULL, 64, 0), -1);
    CHECK_ERROR("showLinks into no bytes", showLinks(e, text, 0, 1), -1);
    CHECK_ERROR("mte_task_error into NULL", mte_task_error(e, batch, 0, NULL), -1);
    CHECK_ERROR("mte_batch_fd into NULL", mte_batch_fd(e, batch, NULL), -1);
    CHECK_ERROR("mte_batch_status into NULL", mte_batch_status(e, batch, NULL, NULL, 0), -1);
    CHECK_ERROR("mte_batch_status into a NULL array", mte_batch_status(e, batch, &all, NULL, 1), -1);
    CHECK_ERROR("mte_task_report into NULL", mte_task_report(e, batch, 0, NULL), -1);
    CHECK_ERROR("mte_task_drained into NULL", mte_task_drained(e, batch, 0, NULL), -1);
    CHECK_ERROR("mte_task_drained of no task", mte_task_drained(e, batch, 99, &fd), -1);
    CHECK_ERROR("mte_batch_notification into NULL", mte_batch_notification(e, batch, NULL, NULL), -1);
    CHECK_ERROR("mte_segment_buffers without a count", mte_segment_buffers(e, 0, NULL, NULL), -1);
    CHECK_EQ("mte_segment_buffers only counts", mte_segment_buffers(e, 0, NULL, &count), 0);
    CHECK_EQ("the one region", count, 1);
    CHECK_ERROR("mte_segment_buffers into NULL", mte_segment_buffers(e, 0, NULL, &one), -1);
    CHECK("mte_last_error into NULL gives the code", mte_last_error(NULL, 0) == -1 && mte_last_error(NULL, 9) == -1);
    memset(text, 'x', sizeof text);
    mte_last_error(text, 4);
    CHECK("mte_last_error truncates with a NUL", text[3] == '\0' && text[4] == 'x' && strlen(text) == 3);
    CHECK("mte_strerror knows a phrase for any number", mte_strerror(-5) != NULL && mte_strerror(12345) != NULL);
    CHECK("mte_version is not empty", mte_version() != NULL && mte_version()[0] != '\0');
    CHECK_EQ("the batch is freed", freeBatchID(e, batch), 0);
    CHECK_EQ("a freed id is dead in every call", surprises_with_batch(e, batch, bytes), 0);
}

static void batch_ids(transfer_engine_t engine, transfer_engine_t other, void *bytes) {
    uint64_t seed = 1;
    int surprises = 0;
    batch_id_t live = batch_open(other, 1);
    for (int i = 0; i < RANDOM_IDS; i++)
        surprises += surprises_with_batch(engine, next_random(&seed), bytes);
    CHECK_EQ("100000 random batch ids", surprises, 0);
    for (int bit = 0, n = surprises = 0; bit < 64; bit++, n++)
        surprises += surprises_with_batch(engine, live ^ (UINT64_C(1) << bit), bytes);
    CHECK_EQ("a live id with one bit turned", surprises, 0);
    surprises = surprises_with_batch(engine, 0, bytes) + surprises_with_batch(engine, INVALID_BATCH, bytes);
    CHECK_EQ("0 and INVALID_BATCH", surprises, 0);
    CHECK_EQ("another engine's id", surprises_with_batch(engine, live, bytes), 0);
    CHECK_EQ("is still alive there", freeBatchID(other, live), 0);
}

int main(void) {
    harness_begin();
    uint64_t seed = 2;
    int surprises = 0;
    creation();
    transfer_engine_t engine = engine_open(), other = engine_open(), gone = engine_open();
    unsigned char *bytes = map_bytes(2 * BYTES);
    REQUIRE("a region", registerLocalMemory(engine, bytes, BYTES, "cpu:0", 1) == 0);
    pointers(engine, bytes);
    batch_ids(engine, other, bytes);
    batch_id_t stale = batch_open(gone, 1);
    destroyTransferEngine(gone);
    printf("# NULL engine\n");
    surprises_with_engine(NULL, true);
    printf("# destroyed engine\n");
    surprises_with_engine(gone, true);
    CHECK_EQ("a destroyed engine's batch id", surprises_with_batch(engine, stale, bytes), 0);
    for (int i = 0; i < RANDOM_ENGINES; i++)
        surprises += surprises_with_engine((transfer_engine_t)(uintptr_t)next_random(&seed), false);
    CHECK_EQ("2000 random engine handles", surprises, 0);
    surprises = surprises_with_engine((transfer_engine_t)bytes, false);
    CHECK_EQ("an address as engine handle", surprises, 0);
    transfer_request_t r = request(OPCODE_WRITE, bytes, 0, (uintptr_t)bytes + 4096, 8);
    CHECK_EQ("the living engine still transfers", transfer_once(engine, r, 10000), STATUS_COMPLETED);
    destroyTransferEngine(engine);
    destroyTransferEngine(engine);
    destroyTransferEngine(other);
    CHECK_EQ("nothing works after destroy", surprises_with_engine(engine, false), 0);
    return harness_finish();
}

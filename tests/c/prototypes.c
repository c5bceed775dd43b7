/* A program compiled against upstream's declarations, without any header of ours: a transfer to itself. The
 * Makefile also compiles it with OUR_TYPES, where our header comes first and every prototype must agree. */
#ifdef OUR_TYPES
#include "transfer_engine_c.h"
#endif
#include "upstream_prototypes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define BYTES 65536
#define WAIT_SECONDS 20

_Static_assert(LOCAL_SEGMENT == 0 && INVALID_BATCH == UINT64_MAX && OPCODE_READ == 0 && OPCODE_WRITE == 1, "constants");
_Static_assert(STATUS_WAITING == 0 && STATUS_PENDING == 1 && STATUS_INVALID == 2 && STATUS_CANCELED == 3 &&
                   STATUS_COMPLETED == 4 && STATUS_TIMEOUT == 5 && STATUS_FAILED == 6, "states");
_Static_assert(sizeof(transfer_request_t) == 40 && offsetof(transfer_request_t, source) == 8 &&
                   offsetof(transfer_request_t, target_id) == 16 && offsetof(transfer_request_t, target_offset) == 24 &&
                   offsetof(transfer_request_t, length) == 32, "transfer_request_t");
_Static_assert(sizeof(transfer_status_t) == 16 && offsetof(transfer_status_t, transferred_bytes) == 8, "transfer_status_t");
_Static_assert(sizeof(notify_msg_t) == 16 && offsetof(notify_msg_t, msg) == 8, "notify_msg_t");
_Static_assert(sizeof(buffer_entry_t) == 16 && offsetof(buffer_entry_t, length) == 8, "buffer_entry_t");
_Static_assert(sizeof(nic_load_stat_t) == 80 && offsetof(nic_load_stat_t, inflight_bytes) == 64 &&
                   offsetof(nic_load_stat_t, ewma_bandwidth_bps) == 72, "nic_load_stat_t");
_Static_assert(sizeof(segment_desc_t) == 48 && offsetof(segment_desc_t, desc_) == 8, "segment_desc_t");
_Static_assert(_Generic((segment_id_t)0, int32_t: 1, default: 0) && _Generic((segment_handle_t)0, int32_t: 1, default: 0) &&
                   _Generic((batch_id_t)0, uint64_t: 1, default: 0), "ids");

static int checks, failures;

static void check(const char *name, int ok) {
    checks++;
    failures += !ok;
    printf("%s  %s\n", ok ? "ok  " : "FAIL", name);
}

/* Every function by address: a symbol that is missing does not link. */
static void symbols(void) {
    void (*const all[])(void) = {
#define SYMBOL(name) (void (*)(void))name
        SYMBOL(createTransferEngine), SYMBOL(destroyTransferEngine), SYMBOL(discoverTopology),
        SYMBOL(getLocalIpAndPort), SYMBOL(installTransport), SYMBOL(uninstallTransport),
        SYMBOL(enableGracefulShutdown), SYMBOL(openSegment), SYMBOL(openSegmentNoCache), SYMBOL(closeSegment),
        SYMBOL(removeLocalSegment), SYMBOL(syncSegmentCache), SYMBOL(warmupEfaSegment), SYMBOL(registerLocalMemory),
        SYMBOL(unregisterLocalMemory), SYMBOL(registerLocalMemoryBatch), SYMBOL(unregisterLocalMemoryBatch),
        SYMBOL(allocateBatchID), SYMBOL(submitTransfer), SYMBOL(submitTransferWithNotify),
        SYMBOL(getTransferStatus), SYMBOL(freeBatchID), SYMBOL(getNotifsFromEngine), SYMBOL(freeNotifsMsgBuf),
        SYMBOL(genNotifyInEngine), SYMBOL(getNicLoadStats), SYMBOL(showLinks),
    };
    check("27 functions are linked", sizeof all / sizeof all[0] == 27);
}

static int await(transfer_engine_t engine, batch_id_t batch) {
    time_t end = time(NULL) + WAIT_SECONDS;
    transfer_status_t status = {STATUS_WAITING, 0};
    while (getTransferStatus(engine, batch, 0, &status) == 0 && status.status == STATUS_WAITING && time(NULL) < end) continue;
    return status.transferred_bytes == BYTES / 2 ? status.status : -1;
}

int main(void) {
    char name[128] = "", note_name[] = "name", note_text[] = "text";
    notify_msg_t note = {note_name, note_text};
    int size = -1;
    alarm(60);
    setvbuf(stdout, NULL, _IOLBF, 0);
    setenv("MC_LOG_LEVEL", "ERROR", 0);
    symbols();
    transfer_engine_t engine = createTransferEngine("P2PHANDSHAKE", "127.0.0.1", "", 0, 0);
    check("an engine", engine != NULL);
    check("with tcp", installTransport(engine, "tcp", NULL) != NULL);
    check("its name", getLocalIpAndPort(engine, name, sizeof name) == 0 && strncmp(name, "127.0.0.1:", 10) == 0);
    check("its name is its own segment", openSegment(engine, name) == LOCAL_SEGMENT);
    unsigned char *bytes = calloc(1, BYTES);
    for (size_t i = 0; i < BYTES / 2; i++) bytes[i] = (unsigned char)(i * 31 + i / 256 + 1);
    check("memory", registerLocalMemory(engine, bytes, BYTES, "cpu:0", 1) == 0);
    batch_id_t batch = allocateBatchID(engine, 1);
    check("a batch", batch != INVALID_BATCH);
    transfer_request_t r = {OPCODE_WRITE, bytes, LOCAL_SEGMENT, (uint64_t)(uintptr_t)(bytes + BYTES / 2), BYTES / 2};
    check("a write with a notification", submitTransferWithNotify(engine, batch, &r, 1, note) == 0);
    check("it completes", await(engine, batch) == STATUS_COMPLETED);
    check("its bytes are there", memcmp(bytes, bytes + BYTES / 2, BYTES / 2) == 0);
    notify_msg_t *got = getNotifsFromEngine(engine, &size);
    check("so is its notification, passed by value",
          got != NULL && size == 1 && strcmp(got[0].name, "name") == 0 && strcmp(got[0].msg, "text") == 0);
    check("which is freed", freeNotifsMsgBuf(got, size) == 0);
    check("the batch is freed", freeBatchID(engine, batch) == 0);
    check("memory is withdrawn", unregisterLocalMemory(engine, bytes) == 0);
    destroyTransferEngine(engine);
    free(bytes);
    printf("%d checks, %d failed\n", checks, failures);
    return failures != 0;
}

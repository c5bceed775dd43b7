/* The library as plugins load it: dlopen(RTLD_NOW | RTLD_LOCAL) of argv[1], every function by dlsym, one
 * transfer, dlclose. Built without linking the library. */
#include <dlfcn.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "error.h"
#include "transfer_engine_c.h"
#include "transfer_engine_ext.h"

#define BYTES (1 << 20)
#define FUNCTIONS(X)                                                                              \
    X(createTransferEngine) X(discoverTopology) X(getLocalIpAndPort) X(installTransport)          \
    X(uninstallTransport) X(openSegment) X(openSegmentNoCache) X(closeSegment)                    \
    X(warmupEfaSegment) X(removeLocalSegment) X(destroyTransferEngine) X(registerLocalMemory)     \
    X(unregisterLocalMemory) X(registerLocalMemoryBatch) X(unregisterLocalMemoryBatch)            \
    X(allocateBatchID) X(submitTransfer) X(submitTransferWithNotify) X(getNotifsFromEngine)       \
    X(freeNotifsMsgBuf) X(genNotifyInEngine) X(getTransferStatus) X(freeBatchID)                  \
    X(syncSegmentCache) X(getNicLoadStats) X(enableGracefulShutdown) X(showLinks)                 \
    X(mte_last_error) X(mte_last_error_info) X(mte_strerror) X(mte_version) X(mte_task_error) X(mte_wait_batch)          \
    X(mte_batch_fd) X(mte_batch_notification) X(mte_batch_status) X(mte_cancel_batch) X(mte_task_drained) X(mte_task_report) X(mte_segment_buffers) \
    X(mte_create_engine) X(mte_transport) X(mte_local_topology) X(mte_discover_topology) X(mte_probe_peer) X(mte_overlaps)     \
    X(mte_segment_descriptor) X(mte_submit_arrays) X(mte_submit_pages) X(mte_transfer_arrays) X(mte_transfer_pages)          \
    X(getRpcPort) X(getBatchTransferStatus) X(checkSegmentStatus) X(probePeerAliveByID) X(mte_only_transport)

#define POINTER(name) __typeof__(&name) name;
static struct { FUNCTIONS(POINTER) } te;

static int failures;

static void check(const char *name, bool ok) {
    printf("%s  %s\n", ok ? "ok  " : "FAIL", name);
    failures += !ok;
}

static int load(void *library) {
    int missing = 0;
#define LOAD(name)                                        \
    {                                                     \
        void *address = dlsym(library, #name);            \
        if (address == NULL) {                            \
            printf("#     %s is missing\n", #name);       \
            missing++;                                    \
        }                                                 \
        memcpy(&te.name, &address, sizeof address);       \
    }
    FUNCTIONS(LOAD)
    return missing;
}

static void self_transfer(void) {
    char name[64] = "";
    transfer_status_t status = {0};
    unsigned char *bytes = mmap(NULL, 2 * BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    transfer_engine_t engine = te.createTransferEngine("P2PHANDSHAKE", "127.0.0.1", "", 0, 0);
    check("an engine", engine != NULL && bytes != MAP_FAILED);
    if (engine == NULL || bytes == MAP_FAILED) return;
    for (int i = 0; i < BYTES; i++) bytes[i] = (unsigned char)(i * 31 + (i >> 8));
    check("tcp", te.installTransport(engine, "tcp", NULL) != NULL);
    check("a region", te.registerLocalMemory(engine, bytes, 2 * BYTES, "*", 1) == 0);
    check("a name", te.getLocalIpAndPort(engine, name, sizeof name) == 0 && name[0] != '\0');
    check("which is the own segment", te.openSegment(engine, name) == LOCAL_SEGMENT);
    batch_id_t batch = te.allocateBatchID(engine, 1);
    transfer_request_t r = {.opcode = OPCODE_WRITE, .source = bytes, .target_id = LOCAL_SEGMENT,
                            .target_offset = (uint64_t)(uintptr_t)(bytes + BYTES), .length = BYTES};
    check("a submit", te.submitTransfer(engine, batch, &r, 1) == 0);
    check("a wait", te.mte_wait_batch(engine, batch, 20000) == 0);
    check("COMPLETED", te.getTransferStatus(engine, batch, 0, &status) == 0 && status.status == STATUS_COMPLETED);
    check("the right bytes", memcmp(bytes, bytes + BYTES, BYTES) == 0);
    check("a free", te.freeBatchID(engine, batch) == 0);
    check("an error code", te.freeBatchID(engine, batch) == ERR_INVALID_ARGUMENT && te.mte_last_error(NULL, 0) == -1);
    te.destroyTransferEngine(engine);
    munmap(bytes, 2 * BYTES);
}

int main(int argc, char **argv) {
    alarm(120);
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc != 2) {
        fprintf(stderr, "usage: %s <path of libtransfer_engine.so>\n", argv[0]);
        return 2;
    }
    for (int round = 0; round < 2; round++) {
        void *library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
        if (library == NULL) printf("#     %s\n", dlerror());
        check("dlopen", library != NULL);
        if (library == NULL) return 1;
        int missing = load(library);
        check("all 27 functions and the extensions are there", missing == 0);
        if (missing != 0) return 1;
        self_transfer();
        check("dlclose", dlclose(library) == 0);
    }
    poll(NULL, 0, 50);
    check("the process lives on after dlclose", true);
    return failures != 0;
}

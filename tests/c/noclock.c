/* -301: without clock_gettime an engine cannot be created. Starts itself again with argv[1], the clock shim,
 * preloaded. */
#include "harness.h"

int main(int argc, char **argv) {
    if (argc == 2) {
        setenv("LD_PRELOAD", argv[1], 1);
        execl("/proc/self/exe", argv[0], (char *)NULL);
        perror("exec");
        return 2;
    }
    struct timespec now;
    harness_begin();
    REQUIRE("the shim is in force", clock_gettime(CLOCK_MONOTONIC, &now) != 0);
    CHECK_NULL("-301: createTransferEngine", createTransferEngine("P2PHANDSHAKE", "127.0.0.1", "", 0, 0), -301);
    CHECK_NULL("-301: with discovery", createTransferEngine("P2PHANDSHAKE", "127.0.0.1", "", 0, 1), -301);
    CHECK_EQ("freeNotifsMsgBuf still works", freeNotifsMsgBuf(NULL, 0), 0);
    CHECK_ERROR("a NULL engine is still -1", syncSegmentCache(NULL), -1);
    return harness_finish();
}

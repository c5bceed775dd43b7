/* A panic inside the library ends at its border also where the library is linked statically: the call gives -1, and the
 * program goes on. The panic is Rust's own, when the clock fails that worked a moment ago. */
#include <errno.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "moves.h"

static _Thread_local int broken;

/* In the place of libc's. */
int clock_gettime(clockid_t clock, struct timespec *now) {
    if (!broken) return (int)syscall(SYS_clock_gettime, clock, now);
    errno = EINVAL;
    return -1;
}

int main(void) {
    transfer_engine_t engine = createTransferEngine("P2PHANDSHAKE", "127.0.0.1", "", 0, 0);
    transfer_engine_t peer = createTransferEngine("P2PHANDSHAKE", "127.0.0.1", "", 0, 0);
    char name[64] = "";
    STEP(engine != NULL && peer != NULL && installTransport(engine, "tcp", NULL) != NULL)
    STEP(installTransport(peer, "tcp", NULL) != NULL)
    STEP(getLocalIpAndPort(peer, name, sizeof name) == 0)
    broken = 1;
    int segment = openSegment(engine, name);
    broken = 0;
    char words[512] = "";
    STEP(segment == -1 && mte_last_error(words, sizeof words) == -1)
    STEP(strstr(words, "a bug in the library") != NULL)
    destroyTransferEngine(engine);
    destroyTransferEngine(peer);
    return moves_bytes();
}

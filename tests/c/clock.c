/* A shim for LD_PRELOAD: a system whose clock_gettime always fails. */
#include <errno.h>
#include <time.h>

int clock_gettime(clockid_t clock, struct timespec *now) {
    (void)clock;
    (void)now;
    errno = ENOSYS;
    return -1;
}

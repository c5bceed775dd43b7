/* What glibc 2.28 did not have as functions in libc.so.6, for programs that are linked to run on it (scripts/glibc.sh).
 * Hidden: the libraries that this is linked into do not export it. */
#include <stddef.h>

#define HIDDEN __attribute__((visibility("hidden")))

/* Up to glibc 2.32, stat and its kin were inline functions that call these with the version of their structure. */
#ifdef __x86_64__
#define STAT_VERSION 1
#else
#define STAT_VERSION 0
#endif

/* The functions with a name that ends in BITS. */
#define STAT_FUNCTIONS(BITS)                                                                               \
    struct stat##BITS;                                                                                     \
    int __xstat##BITS(int version, const char *path, struct stat##BITS *out);                              \
    int __lxstat##BITS(int version, const char *path, struct stat##BITS *out);                             \
    int __fxstat##BITS(int version, int fd, struct stat##BITS *out);                                       \
    int __fxstatat##BITS(int version, int folder, const char *path, struct stat##BITS *out, int flags);    \
    HIDDEN int stat##BITS(const char *path, struct stat##BITS *out) {                                      \
        return __xstat##BITS(STAT_VERSION, path, out);                                                     \
    }                                                                                                      \
    HIDDEN int lstat##BITS(const char *path, struct stat##BITS *out) {                                     \
        return __lxstat##BITS(STAT_VERSION, path, out);                                                    \
    }                                                                                                      \
    HIDDEN int fstat##BITS(int fd, struct stat##BITS *out) { return __fxstat##BITS(STAT_VERSION, fd, out); } \
    HIDDEN int fstatat##BITS(int folder, const char *path, struct stat##BITS *out, int flags) {            \
        return __fxstatat##BITS(STAT_VERSION, folder, path, out, flags);                                   \
    }
STAT_FUNCTIONS()
STAT_FUNCTIONS(64)

/* Up to glibc 2.33, the program ran its own initialisers: its start-up object gave libc a function for it. That of a newer
 * glibc gives NULL, with which an older libc would run none. A newer libc runs this function instead of its own loop. */
typedef int main_function(int, char **, char **);
typedef void initialiser(int, char **, char **);
extern initialiser *const __init_array_start[] HIDDEN, *const __init_array_end[] HIDDEN;
extern void _init(void);

__asm__(".symver start_of_libc, __libc_start_main@" START_VERSION);
int start_of_libc(main_function *, int, char **, initialiser *, void (*)(void), void (*)(void), void *);

static void initialise(int count, char **arguments, char **environment) {
    _init();
    for (initialiser *const *at = __init_array_start; at < __init_array_end; at++) (*at)(count, arguments, environment);
}

HIDDEN int __libc_start_main(main_function *main, int count, char **arguments, initialiser *init, void (*fini)(void),
                             void (*loader_fini)(void), void *stack_end) {
    return start_of_libc(main, count, arguments, init != NULL ? init : initialise, fini, loader_fini, stack_end);
}

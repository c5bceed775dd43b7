/* Preloaded: large allocations of the library fail, one or all from one on. A program that knows of this calls
 * nomemory_fail; for any other the environment says NOMEMORY_AT (which one, from 1), NOMEMORY_LASTING (all from it on),
 * NOMEMORY_LEAST (bytes) and NOMEMORY_TRACE (print where), and the end of standard error is how many failed. The variables
 * are taken out of the environment, so that children have memory.
 *
 * Only those of a certain size fail. Rust's collections abort when a small one fails, and a host that has not even a few
 * KiB left is lost anyway; those whose size a caller chooses grow beyond any such limit. */
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <link.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *old, size_t size);
void *__libc_memalign(size_t alignment, size_t size);
void nomemory_fail(long at, bool lasting, size_t least);
long nomemory_failed(void);

static atomic_size_t least_bytes = SIZE_MAX;
static atomic_long until, failed;
static atomic_bool lasts, traced, reports;
static atomic_uintptr_t library_start, library_end;
/* backtrace allocates. */
static _Thread_local bool inside;

/* From now on the allocation number `at` of `least` or more bytes fails; 0: none does. */
void nomemory_fail(long at, bool lasting, size_t least) {
    atomic_store(&least_bytes, SIZE_MAX);
    atomic_store(&until, at);
    atomic_store(&lasts, lasting);
    atomic_store(&failed, 0);
    atomic_store(&least_bytes, at > 0 ? least : SIZE_MAX);
}

/* How many have failed since then. */
long nomemory_failed(void) { return atomic_load(&failed); }

static int find_library(struct dl_phdr_info *info, size_t size, void *unused) {
    (void)size, (void)unused;
    if (strstr(info->dlpi_name, "libtransfer_engine") == NULL) return 0;
    uintptr_t end = 0;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        uintptr_t last = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr + info->dlpi_phdr[i].p_memsz;
        if (info->dlpi_phdr[i].p_type == PT_LOAD && last > end) end = last;
    }
    atomic_store(&library_start, info->dlpi_addr);
    atomic_store(&library_end, end);
    return 1;
}

static bool fails(size_t size, void *caller) {
    if (size < atomic_load(&least_bytes) || inside) return false;
    if (atomic_load(&library_end) == 0) dl_iterate_phdr(find_library, NULL);
    uintptr_t from = (uintptr_t)caller;
    if (from < atomic_load(&library_start) || from >= atomic_load(&library_end)) return false;
    long left = atomic_fetch_sub(&until, 1);
    if (left > 1 || (left < 1 && !atomic_load(&lasts))) return false;
    atomic_fetch_add(&failed, 1);
    if (atomic_load(&traced)) {
        void *frames[64];
        inside = true;
        dprintf(2, "nomemory: %zu bytes\n", size);
        backtrace_symbols_fd(frames, backtrace(frames, 64), 2);
        inside = false;
    }
    errno = ENOMEM;
    return true;
}

void *malloc(size_t size) { return fails(size, __builtin_return_address(0)) ? NULL : __libc_malloc(size); }

void *calloc(size_t count, size_t size) {
    size_t bytes = 0;
    bool huge = __builtin_mul_overflow(count, size, &bytes);
    return !huge && fails(bytes, __builtin_return_address(0)) ? NULL : __libc_calloc(count, size);
}

void *realloc(void *old, size_t size) {
    return fails(size, __builtin_return_address(0)) ? NULL : __libc_realloc(old, size);
}

int posix_memalign(void **out, size_t alignment, size_t size) {
    void *made = fails(size, __builtin_return_address(0)) ? NULL : __libc_memalign(alignment, size);
    if (made == NULL) return ENOMEM;
    *out = made;
    return 0;
}

void *aligned_alloc(size_t alignment, size_t size) {
    return fails(size, __builtin_return_address(0)) ? NULL : __libc_memalign(alignment, size);
}

static long number(const char *name, long otherwise) {
    const char *text = getenv(name);
    long value = text == NULL ? otherwise : strtol(text, NULL, 10);
    unsetenv(name);
    return value;
}

__attribute__((constructor)) static void begin(void) {
    bool lasting = number("NOMEMORY_LASTING", 0) != 0;
    atomic_store(&traced, number("NOMEMORY_TRACE", 0) != 0);
    size_t least = (size_t)number("NOMEMORY_LEAST", 65536);
    long at = number("NOMEMORY_AT", 0);
    atomic_store(&reports, at > 0);
    nomemory_fail(at, lasting, least);
}

__attribute__((destructor)) static void end(void) {
    if (atomic_load(&reports)) dprintf(2, "nomemory: %ld failed\n", nomemory_failed());
}

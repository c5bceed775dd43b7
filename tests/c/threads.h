/* Takes the possibility to make threads away from the program and the library, and gives it back: what RLIMIT_NPROC does
 * to users other than root. To be included once per program, which its `pthread_create` then comes from. */
#ifndef TESTS_C_THREADS_H
#define TESTS_C_THREADS_H

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

static atomic_bool threads_refused;
static atomic_int threads_left;
static atomic_int threads_denied;

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*body)(void *), void *argument) {
    int (*libcs)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    if (atomic_load(&threads_refused) && atomic_fetch_sub(&threads_left, 1) <= 0) {
        atomic_fetch_add(&threads_denied, 1);
        return EAGAIN;
    }
    *(void **)&libcs = dlsym(RTLD_NEXT, "pthread_create");
    return libcs(thread, attributes, body, argument);
}

/* From now on `count` threads can be made, and no more. */
static inline void threads_refuse_after(int count) {
    atomic_store(&threads_denied, 0);
    atomic_store(&threads_left, count);
    atomic_store(&threads_refused, true);
}

/* From now on no thread can be made. */
static inline void threads_refuse(void) { threads_refuse_after(0); }

/* From now on they can be made again. How many were asked for meanwhile. */
static inline int threads_allow(void) {
    atomic_store(&threads_refused, false);
    return atomic_load(&threads_denied);
}

#endif

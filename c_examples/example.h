/* Shared by target.c and initiator.c: the bytes they exchange, their checksum, and how they give up. */
#ifndef C_EXAMPLES_EXAMPLE_H
#define C_EXAMPLES_EXAMPLE_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "transfer_engine_c.h"
#include "transfer_engine_ext.h"

#define PATTERN_OF_INITIATOR 1
#define PATTERN_OF_TARGET 2

static inline void fill(unsigned char *bytes, size_t len, unsigned pattern) {
    for (size_t i = 0; i < len; i++) bytes[i] = (unsigned char)(i * 131 + (i >> 9) + pattern * 77);
}

/* FNV-1a, 64 bits. */
static inline uint64_t checksum(const unsigned char *bytes, size_t len) {
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < len; i++) hash = (hash ^ bytes[i]) * UINT64_C(0x100000001b3);
    return hash;
}

static inline double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Prints what failed and what the library says about it, and ends the program. */
static inline void give_up(const char *what) {
    char why[512] = "";
    int code = mte_last_error(why, sizeof why);
    fflush(stdout);
    fprintf(stderr, "Could not %s: error %d, %s.\n", what, code, why[0] != '\0' ? why : mte_strerror(code));
    exit(1);
}

static inline unsigned char *allocate(size_t len) {
    void *bytes = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (bytes == MAP_FAILED) {
        perror("Could not allocate the buffer");
        exit(1);
    }
    return bytes;
}

/* The NIC priority matrix in which memory anywhere prefers the NICs of a comma-separated list. */
static inline void matrix_of(const char *devices, char *text, size_t room) {
    char names[1024] = "";
    for (const char *at = devices; *at != '\0';) {
        size_t len = strcspn(at, ","), used = strlen(names);
        if (len > 0) snprintf(names + used, sizeof names - used, "%s\"%.*s\"", used > 0 ? "," : "", (int)len, at);
        at += len + (at[len] == ',');
    }
    snprintf(text, room, "{\"cpu:0\":[[%s],[]],\"cpu:1\":[[%s],[]]}", names, names);
}

/* An engine that needs no metadata server, reachable at `host`, with one transport: "tcp" or "rdma". Without
 * `devices` (NULL) RDMA uses every NIC it finds. */
static inline transfer_engine_t start_engine(const char *host, const char *protocol, const char *devices) {
    char matrix[4096];
    void *args[2] = {NULL, NULL};
    if (devices != NULL) {
        matrix_of(devices, matrix, sizeof matrix);
        args[0] = matrix;
    }
    transfer_engine_t engine = createTransferEngine("P2PHANDSHAKE", host, host, 0, 0);
    if (engine == NULL) give_up("create an engine");
    if (installTransport(engine, protocol, args) == NULL) give_up("install the transport");
    return engine;
}

static inline unsigned char *register_buffer(transfer_engine_t engine, size_t len) {
    unsigned char *bytes = allocate(len);
    if (registerLocalMemory(engine, bytes, len, "cpu:0", 1) != 0) give_up("register the buffer");
    return bytes;
}

/* The value of `--name value` or `--name=value`; NULL when the argument at *i is something else. */
static inline const char *option(int argc, char **argv, int *i, const char *name) {
    size_t len = strlen(name);
    if (strncmp(argv[*i], name, len) != 0) return NULL;
    if (argv[*i][len] == '=') return argv[*i] + len + 1;
    return argv[*i][len] == '\0' && *i + 1 < argc ? argv[++*i] : NULL;
}

static inline size_t bytes_from(const char *text) {
    char *end;
    unsigned long long n = strtoull(text, &end, 10);
    if (n == 0 || *end != '\0' || text[0] == '-') {
        fprintf(stderr, "--bytes takes a positive number, not \"%s\".\n", text);
        exit(2);
    }
    return (size_t)n;
}

#endif

/* What this machine can do without any library, on the same memory and in the same pattern as c_examples/bench:
 *
 *     limits memcpy | vmread | tcp | pingpong  BLOCK BATCH SECONDS
 *
 * memcpy copies within the process, vmread reads another process (process_vm_readv), tcp sends over a stream between two
 * processes of this host, pingpong sends a block and waits for a byte. Prints GB/s, CPU seconds per GB of all processes, and
 * p50, p99 and p99.9 of one block in us. */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MOST_SAMPLES (1u << 20)

static size_t block, batch;
static double seconds;
static unsigned char *memory;
static uint32_t samples[MOST_SAMPLES];

static void give_up(const char *what) {
    perror(what);
    exit(1);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double cpu_of(int whose) {
    struct rusage use;
    getrusage(whose, &use);
    return (double)(use.ru_utime.tv_sec + use.ru_stime.tv_sec) + (double)(use.ru_utime.tv_usec + use.ru_stime.tv_usec) / 1e6;
}

static unsigned char *filled(size_t bytes, int flags) {
    unsigned char *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) give_up("mmap");
    memset(at, 0xcc, bytes);
    return at;
}

static int by_size(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* Runs `move` of block after block, round and round, for the time given. */
static void run(void (*move)(size_t offset, void *arg), void *arg, pid_t other) {
    double start = now(), before = start, spent = cpu_of(RUSAGE_SELF);
    uint64_t moved = 0;
    for (size_t at = 0; before - start < seconds; at = (at + 1) % batch, moved++) {
        move(at * block, arg);
        double after = now();
        samples[moved % MOST_SAMPLES] = (uint32_t)((after - before) * 1e9);
        before = after;
    }
    spent = cpu_of(RUSAGE_SELF) - spent;
    if (other > 0) {
        kill(other, SIGTERM);
        waitpid(other, NULL, 0);
        spent += cpu_of(RUSAGE_CHILDREN);
    }
    size_t count = moved < MOST_SAMPLES ? moved : MOST_SAMPLES;
    qsort(samples, count, sizeof *samples, by_size);
    double gb = (double)moved * (double)block / 1e9;
    printf("%.4f %.4f %.2f %.2f %.2f\n", gb / (before - start), spent / gb, samples[count / 2] / 1e3,
           samples[count * 99 / 100] / 1e3, samples[(size_t)((double)count * 0.999)] / 1e3);
}

static void copy(size_t offset, void *from) { memcpy(memory + offset, (unsigned char *)from + offset, block); }

static void read_other(size_t offset, void *arg) {
    pid_t pid = *(pid_t *)arg;
    struct iovec here = {memory + offset, block}, there = {memory + offset, block};
    if (process_vm_readv(pid, &here, 1, &there, 1, 0) != (ssize_t)block) give_up("process_vm_readv");
}

static void send_all(int socket, const unsigned char *at, size_t left) {
    while (left > 0) {
        ssize_t sent = send(socket, at, left, MSG_NOSIGNAL);
        if (sent <= 0) give_up("send");
        at += sent;
        left -= (size_t)sent;
    }
}

static int receive_all(int socket, unsigned char *at, size_t left) {
    while (left > 0) {
        ssize_t got = recv(socket, at, left, 0);
        if (got <= 0) return 0;
        at += got;
        left -= (size_t)got;
    }
    return 1;
}

static void send_block(size_t offset, void *socket) { send_all(*(int *)socket, memory + offset, block); }

static void ask(size_t offset, void *socket) {
    unsigned char answer;
    send_block(offset, socket);
    if (!receive_all(*(int *)socket, &answer, 1)) give_up("recv");
}

/* The other end of a stream, in a process of its own. */
static pid_t serve(int *mine, int answers) {
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof here;
    int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    if (bind(listener, (struct sockaddr *)&here, len) != 0 || listen(listener, 1) != 0) give_up("listen");
    getsockname(listener, (struct sockaddr *)&here, &len);
    pid_t child = fork();
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        unsigned char *into = filled(block * batch, MAP_PRIVATE);
        int theirs = accept(listener, NULL, NULL);
        setsockopt(theirs, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        setsockopt(theirs, IPPROTO_TCP, TCP_CONGESTION, "reno", 4);
        for (size_t at = 0; receive_all(theirs, into + at * block, block); at = (at + 1) % batch)
            if (answers) send_all(theirs, into, 1);
        for (;;) pause();
    }
    *mine = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(*mine, (struct sockaddr *)&here, len) != 0) give_up("connect");
    setsockopt(*mine, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    /* As the library does it within the host: where BBR is the system's, it holds the loopback down. */
    setsockopt(*mine, IPPROTO_TCP, TCP_CONGESTION, "reno", 4);
    return child;
}

int main(int argc, char **argv) {
    if (argc != 5) return 2;
    block = strtoull(argv[2], NULL, 10);
    batch = strtoull(argv[3], NULL, 10);
    seconds = strtod(argv[4], NULL);
    memory = filled(block * batch, MAP_PRIVATE);
    if (strcmp(argv[1], "memcpy") == 0) {
        run(copy, filled(block * batch, MAP_PRIVATE), 0);
    } else if (strcmp(argv[1], "vmread") == 0) {
        pid_t other = fork();
        if (other == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            memset(memory, 0xdd, block * batch); /* pages of its own */
            for (;;) pause();
        }
        memset(memory, 0xcc, block * batch);
        run(read_other, &other, other);
    } else {
        int socket, answers = strcmp(argv[1], "pingpong") == 0;
        pid_t other = serve(&socket, answers);
        run(answers ? ask : send_block, &socket, other);
    }
    return 0;
}

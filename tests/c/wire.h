/* Raw sockets and handshake frames, for tests that speak to an engine without one. */
#ifndef TESTS_C_WIRE_H
#define TESTS_C_WIRE_H

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "harness.h"

static inline struct sockaddr_in loopback(uint16_t port) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return a;
}

static inline int wire_listen(uint16_t *port) {
    struct sockaddr_in a = loopback(0);
    socklen_t len = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&a, len) != 0 || listen(fd, 128) != 0 ||
        getsockname(fd, (struct sockaddr *)&a, &len) != 0)
        harness_give_up("listening socket of a fake peer");
    *port = ntohs(a.sin_port);
    return fd;
}

static inline void wire_limit(int fd, int seconds) {
    struct timeval t = {.tv_sec = seconds};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof t);
}

/* A connected socket with 5 s limits, or -1 with errno. */
static inline int wire_connect(uint16_t port) {
    struct sockaddr_in a = loopback(port);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    wire_limit(fd, 5);
    if (connect(fd, (struct sockaddr *)&a, sizeof a) == 0) return fd;
    int saved = errno;
    close(fd);
    errno = saved;
    return -1;
}

static inline bool wire_send(int fd, const void *data, size_t len) {
    const char *at = data;
    while (len > 0) {
        ssize_t n = send(fd, at, len, MSG_NOSIGNAL);
        if (n <= 0) return false;
        at += n;
        len -= (size_t)n;
    }
    return true;
}

static inline bool wire_recv(int fd, void *data, size_t len) {
    char *at = data;
    while (len > 0) {
        ssize_t n = recv(fd, at, len, 0);
        if (n <= 0) return false;
        at += n;
        len -= (size_t)n;
    }
    return true;
}

static inline bool frame_send(int fd, int type, const char *json) {
    unsigned char head[9];
    uint64_t len = strlen(json) + 1;
    memcpy(head, &len, 8);
    head[8] = (unsigned char)type;
    return wire_send(fd, head, 9) && wire_send(fd, json, len - 1);
}

/* The type byte with the text in `json`, or -1. */
static inline int frame_recv(int fd, char *json, size_t size) {
    unsigned char head[9];
    uint64_t len;
    if (!wire_recv(fd, head, 9)) return -1;
    memcpy(&len, head, 8);
    if (len == 0 || len > size || !wire_recv(fd, json, len - 1)) return -1;
    json[len - 1] = '\0';
    return head[8];
}

static inline int frame_exchange(uint16_t port, int type, const char *ask, char *reply, size_t size) {
    int fd = wire_connect(port);
    if (fd < 0) return -1;
    int got = frame_send(fd, type, ask) ? frame_recv(fd, reply, size) : -1;
    close(fd);
    return got;
}

static inline uint16_t name_port(const char *name) {
    const char *colon = strrchr(name, ':');
    return colon == NULL ? 0 : (uint16_t)atoi(colon + 1);
}

/* The data port that the engine called `name` publishes, by a metadata exchange; 0 on failure. */
static inline uint16_t data_port(const char *name) {
    static char json[1 << 16];
    const char *at;
    if (frame_exchange(name_port(name), 1, "{}\n", json, sizeof json) != 1) return 0;
    at = strstr(json, "\"tcp_data_port\":");
    return at == NULL ? 0 : (uint16_t)atoi(at + strlen("\"tcp_data_port\":"));
}

/* The port that the socket with this inode listens on, as the kernel's table has it; 0: it does not listen. */
static inline uint16_t listening_port(const char *table, unsigned long inode) {
    char line[512];
    uint16_t port = 0;
    FILE *file = fopen(table, "r");
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        unsigned local, state;
        unsigned long found;
        if (sscanf(line, " %*d: %*[0-9A-F]:%x %*[0-9A-F]:%*x %x %*s %*s %*s %*d %*d %lu", &local, &state, &found) == 3 && state == 10 &&
            found == inode)
            port = (uint16_t)local;
    }
    if (file != NULL) fclose(file);
    return port;
}

/* A port other than `known` that the process listens on, for who is told nothing by it; 0: there is none. */
static inline uint16_t other_port(pid_t pid, uint16_t known) {
    char folder[64], link[512], target[128];
    uint16_t port = 0;
    snprintf(folder, sizeof folder, "/proc/%d/fd", (int)pid);
    DIR *entries = opendir(folder);
    for (struct dirent *entry; port == 0 && entries != NULL && (entry = readdir(entries)) != NULL;) {
        unsigned long inode;
        snprintf(link, sizeof link, "%s/%s", folder, entry->d_name);
        ssize_t len = readlink(link, target, sizeof target - 1);
        target[len < 0 ? 0 : len] = '\0';
        if (sscanf(target, "socket:[%lu]", &inode) != 1) continue;
        uint16_t v4 = listening_port("/proc/net/tcp", inode), found = v4 != 0 ? v4 : listening_port("/proc/net/tcp6", inode);
        if (found != known) port = found;
    }
    if (entries != NULL) closedir(entries);
    return port;
}

/* The 24-byte request header of the TCP data plane. */
static inline void data_header(unsigned char out[24], uint64_t size, uint64_t addr, int opcode) {
    memset(out, 0, 24);
    memcpy(out, &size, 8);
    memcpy(out + 8, &addr, 8);
    out[16] = (unsigned char)opcode;
}

#endif

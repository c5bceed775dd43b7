/* A peer made of raw sockets: it answers handshake frames with set texts and treats the data port as told. */
#ifndef TESTS_C_FAKE_H
#define TESTS_C_FAKE_H

#include <pthread.h>

#include "wire.h"

#define FAKE_BASE UINT64_C(0x7f0000000000)
#define FAKE_LENGTH ((uint64_t)64 << 20)
#define FAKE_HELD 64

enum fake_mode {
    FAKE_SILENT, /* accepts, reads and never answers */
    FAKE_REJECT, /* answers the first header with a rejected frame and closes */
    FAKE_HANGUP  /* closes after the first bytes */
};

typedef struct fake {
    int handshake, data;
    uint16_t port, data_port;
    char name[64];
    pthread_t thread;
    pthread_mutex_t lock; /* metadata, notify, held */
    char metadata[2048], notify[256];
    int held[FAKE_HELD];
    int held_count;
    atomic_int mode, requests, stopping;
} fake_t;

static inline void fake_answer_handshake(fake_t *fake) {
    static char ask[1 << 20];
    char text[2048];
    int fd = accept4(fake->handshake, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0) return;
    wire_limit(fd, 2);
    int type = frame_recv(fd, ask, sizeof ask);
    pthread_mutex_lock(&fake->lock);
    snprintf(text, sizeof text, "%s", type == 1 ? fake->metadata : fake->notify);
    pthread_mutex_unlock(&fake->lock);
    if (type == 1 || type == 2) frame_send(fd, type, text);
    shutdown(fd, SHUT_WR);
    char end;
    while (recv(fd, &end, 1, 0) > 0) continue;
    close(fd);
}

static inline bool fake_serve_data(fake_t *fake, int fd) {
    static const unsigned char rejected[8] = {1, 0, 0, 0, 'V', 'T', 'C', 'M'};
    static unsigned char sink[1 << 16];
    ssize_t n = recv(fd, sink, sizeof sink, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return true;
    if (n <= 0) return false;
    atomic_fetch_add(&fake->requests, 1);
    if (atomic_load(&fake->mode) == FAKE_SILENT) return true;
    if (atomic_load(&fake->mode) == FAKE_REJECT) wire_send(fd, rejected, sizeof rejected);
    return false;
}

static inline void *fake_run(void *arg) {
    fake_t *fake = arg;
    while (!atomic_load(&fake->stopping)) {
        struct pollfd fds[2 + FAKE_HELD] = {{fake->handshake, POLLIN, 0}, {fake->data, POLLIN, 0}};
        int held = fake->held_count;
        for (int i = 0; i < held; i++) fds[2 + i] = (struct pollfd){fake->held[i], POLLIN, 0};
        if (poll(fds, (nfds_t)held + 2, 20) <= 0) continue;
        if (fds[0].revents) fake_answer_handshake(fake);
        pthread_mutex_lock(&fake->lock);
        for (int i = held - 1; i >= 0; i--) {
            if (fds[2 + i].revents == 0 || fake_serve_data(fake, fake->held[i])) continue;
            close(fake->held[i]);
            fake->held[i] = fake->held[--fake->held_count];
        }
        if (fds[1].revents && fake->held_count < FAKE_HELD) {
            int fd = accept4(fake->data, NULL, NULL, SOCK_CLOEXEC);
            if (fd >= 0) fake->held[fake->held_count++] = fd;
        }
        pthread_mutex_unlock(&fake->lock);
    }
    return NULL;
}

static inline void fake_set_metadata(fake_t *fake, const char *json) {
    pthread_mutex_lock(&fake->lock);
    snprintf(fake->metadata, sizeof fake->metadata, "%s", json);
    pthread_mutex_unlock(&fake->lock);
}

static inline void fake_set_notify(fake_t *fake, const char *json) {
    pthread_mutex_lock(&fake->lock);
    snprintf(fake->notify, sizeof fake->notify, "%s", json);
    pthread_mutex_unlock(&fake->lock);
}

/* Publishes FAKE_LENGTH bytes at FAKE_BASE over TCP with status frames. */
static inline void fake_publish_tcp(fake_t *fake) {
    char json[1024];
    snprintf(json, sizeof json,
             "{\"buffers\":[{\"addr\":%llu,\"length\":%llu,\"name\":\"%s\"}],\"name\":\"%s\",\"protocol\":\"tcp\","
             "\"tcp_data_port\":%u,\"tcp_proto_version\":2,\"timestamp\":\"2026-01-31 10:20:30.123456\"}\n",
             (unsigned long long)FAKE_BASE, (unsigned long long)FAKE_LENGTH, fake->name, fake->name,
             (unsigned)fake->data_port);
    fake_set_metadata(fake, json);
}

static inline fake_t *fake_start(enum fake_mode mode) {
    fake_t *fake = calloc(1, sizeof *fake);
    if (fake == NULL) harness_give_up("memory of a fake peer");
    fake->handshake = wire_listen(&fake->port);
    fake->data = wire_listen(&fake->data_port);
    snprintf(fake->name, sizeof fake->name, "127.0.0.1:%u", (unsigned)fake->port);
    pthread_mutex_init(&fake->lock, NULL);
    atomic_store(&fake->mode, (int)mode);
    fake_set_notify(fake, "{\"name\":\"\",\"notify_msg\":\"success\"}\n");
    fake_publish_tcp(fake);
    if (pthread_create(&fake->thread, NULL, fake_run, fake) != 0) harness_give_up("thread of a fake peer");
    return fake;
}

/* Sends the same bytes on every data connection that is still open. */
static inline void fake_send_late(fake_t *fake, const void *data, size_t len) {
    pthread_mutex_lock(&fake->lock);
    for (int i = 0; i < fake->held_count; i++) {
        wire_limit(fake->held[i], 1);
        wire_send(fake->held[i], data, len);
    }
    pthread_mutex_unlock(&fake->lock);
}

static inline void fake_stop(fake_t *fake) {
    atomic_store(&fake->stopping, 1);
    pthread_join(fake->thread, NULL);
    for (int i = 0; i < fake->held_count; i++) close(fake->held[i]);
    close(fake->handshake);
    close(fake->data);
    free(fake);
}

#endif

/* A second engine in a process of its own. The test program starts itself again with `--peer`; its arena
 * is a memfd that both processes map, so the parent looks at the destination bytes directly. */
#ifndef TESTS_C_PEER_H
#define TESTS_C_PEER_H

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "harness.h"

/* How the peer makes its engine. */
#ifndef PEER_ENGINE
#define PEER_ENGINE engine_open
#endif

#define PEER_SOCKET 3
#define PEER_ARENA 4

enum peer_op { PEER_REGISTER, PEER_UNREGISTER, PEER_NOTIFICATIONS };

/* Sent whole, so without padding. */
struct peer_request {
    int64_t op;
    uint64_t offset;
    uint64_t length;
    int64_t remote_accessible;
};

struct peer_reply {
    int result;
    int count;
    uint64_t digest; /* FNV-1a over name, NUL, message, NUL of each notification */
    uint64_t base;
    char text[512]; /* the segment name, or notifications as name=message; */
};

typedef struct peer {
    pid_t pid;
    int socket;
    char name[128];
    uint64_t base;
    size_t len;
    unsigned char *view;
} peer_t;

static inline void peer_take_notifications(transfer_engine_t engine, struct peer_reply *reply) {
    notify_msg_t *notes = getNotifsFromEngine(engine, &reply->count);
    reply->digest = FNV_START;
    for (int i = 0; i < reply->count; i++) {
        size_t used = strlen(reply->text);
        snprintf(reply->text + used, sizeof reply->text - used, "%s=%s;", notes[i].name, notes[i].msg);
        reply->digest = fnv1a(reply->digest, notes[i].name, strlen(notes[i].name) + 1);
        reply->digest = fnv1a(reply->digest, notes[i].msg, strlen(notes[i].msg) + 1);
    }
    reply->result = freeNotifsMsgBuf(notes, reply->count);
}

static inline int peer_serve(size_t len) {
    alarm(WATCHDOG_SECONDS);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    unsigned char *arena = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, PEER_ARENA, 0);
    if (arena == MAP_FAILED) return 1;
    transfer_engine_t engine = PEER_ENGINE();
    struct peer_reply hello = {.base = (uint64_t)(uintptr_t)arena};
    hello.result = registerLocalMemory(engine, arena, len, "cpu:0", 1);
    engine_name(engine, hello.text, sizeof hello.text);
    if (send(PEER_SOCKET, &hello, sizeof hello, MSG_NOSIGNAL) < 0) return 1;
    struct peer_request ask;
    while (recv(PEER_SOCKET, &ask, sizeof ask, 0) == (ssize_t)sizeof ask) {
        struct peer_reply reply = {.base = hello.base};
        unsigned char *at = arena + ask.offset;
        if (ask.op == PEER_REGISTER)
            reply.result = registerLocalMemory(engine, at, ask.length, "cpu:0", (int)ask.remote_accessible);
        else if (ask.op == PEER_UNREGISTER)
            reply.result = unregisterLocalMemory(engine, at);
        else
            peer_take_notifications(engine, &reply);
        if (send(PEER_SOCKET, &reply, sizeof reply, MSG_NOSIGNAL) < 0) break;
    }
    destroyTransferEngine(engine);
    return 0;
}

/* First thing in main: in the child it serves the parent and never returns. */
static inline void peer_dispatch(int argc, char **argv) {
    if (argc == 3 && strcmp(argv[1], "--peer") == 0) exit(peer_serve(strtoull(argv[2], NULL, 10)));
}

/* `settings` are NAME=VALUE for the child's environment, up to a NULL. */
static inline peer_t peer_start_with(size_t len, const char *const *settings) {
    peer_t peer = {.len = len};
    int ends[2], arena = memfd_create("arena", MFD_CLOEXEC);
    char size[32];
    struct peer_reply hello;
    /* Read here: under valgrind the link itself leads to valgrind. */
    char self[4096] = "";
    if (readlink("/proc/self/exe", self, sizeof self - 1) < 0) harness_give_up("the name of this program");
    snprintf(size, sizeof size, "%zu", len);
    if (arena < 0 || ftruncate(arena, (off_t)len) != 0 ||
        socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
        harness_give_up("memory and socket of a peer");
    peer.view = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, arena, 0);
    int high_socket = fcntl(ends[1], F_DUPFD_CLOEXEC, 64), high_arena = fcntl(arena, F_DUPFD_CLOEXEC, 64);
    fflush(NULL);
    peer.pid = fork();
    if (peer.pid == 0) {
        dup2(high_socket, PEER_SOCKET);
        dup2(high_arena, PEER_ARENA);
        for (; *settings != NULL; settings++) putenv(strdup(*settings));
        execl(self, "test-peer", "--peer", size, (char *)NULL);
        _exit(127);
    }
    close(ends[1]);
    close(arena);
    close(high_socket);
    close(high_arena);
    peer.socket = ends[0];
    if (peer.pid < 0 || peer.view == MAP_FAILED ||
        recv(peer.socket, &hello, sizeof hello, 0) != (ssize_t)sizeof hello || hello.result != 0)
        harness_give_up("start of a peer process");
    snprintf(peer.name, sizeof peer.name, "%.127s", hello.text);
    peer.base = hello.base;
    return peer;
}

/* `setting` is NULL or one NAME=VALUE for the child's environment. */
static inline peer_t peer_start(size_t len, const char *setting) {
    return peer_start_with(len, (const char *const[]){setting, NULL});
}

/* -1000 when the peer process does not answer any more. */
static inline struct peer_reply peer_ask(peer_t *peer, struct peer_request ask) {
    struct peer_reply reply = {.result = -1000};
    if (send(peer->socket, &ask, sizeof ask, MSG_NOSIGNAL) == (ssize_t)sizeof ask) {
        struct peer_reply got;
        if (recv(peer->socket, &got, sizeof got, 0) == (ssize_t)sizeof got) reply = got;
    }
    return reply;
}

static inline int peer_register(peer_t *peer, uint64_t offset, uint64_t length, int remote_accessible) {
    struct peer_request ask = {PEER_REGISTER, offset, length, remote_accessible};
    return peer_ask(peer, ask).result;
}

static inline int peer_unregister(peer_t *peer, uint64_t offset) {
    struct peer_request ask = {PEER_UNREGISTER, offset, 0, 0};
    return peer_ask(peer, ask).result;
}

static inline struct peer_reply peer_notifications(peer_t *peer) {
    struct peer_request ask = {PEER_NOTIFICATIONS, 0, 0, 0};
    return peer_ask(peer, ask);
}

/* SIGSTOP; returns when every thread of the peer stands still. */
static inline void peer_pause(const peer_t *peer) {
    int status = 0;
    kill(peer->pid, SIGSTOP);
    if (waitpid(peer->pid, &status, WUNTRACED) != peer->pid || !WIFSTOPPED(status)) harness_give_up("stopping a peer");
}

static inline void peer_resume(const peer_t *peer) { kill(peer->pid, SIGCONT); }

/* Waits for a child at most `ms`, then kills it: its wait status, or -1 when it had to be killed. */
static inline int child_reap(pid_t pid, int64_t ms) {
    int status = 0;
    pid_t got = 0;
    bool ended;
    WAIT_UNTIL(ended, (got = waitpid(pid, &status, WNOHANG)) == pid, ms);
    if (ended) return status;
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
    return -1;
}

/* Ends the peer in an orderly way (it destroys its engine): its wait status. The view stays mapped. */
static inline int peer_stop(peer_t *peer) {
    close(peer->socket);
    return child_reap(peer->pid, 10000);
}

static inline void peer_kill(peer_t *peer) {
    kill(peer->pid, SIGKILL);
    waitpid(peer->pid, NULL, 0);
    close(peer->socket);
}

#endif

/* What the programs of tests/rxe share: flags, engines over any transport, and a passive peer in a process of its own
 * that obeys one-line commands (passive.c). */
#ifndef TESTS_RXE_RIG_H
#define TESTS_RXE_RIG_H

#include <libgen.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "../c/harness.h"

#define PATIENCE_MS 60000 /* the guest is emulated: long enough for everything that is not stuck */
#define DEFAULT_BYTES (16 * MIB)

/* ---- flags ---- */

/* The text after "--name=", or NULL. */
static inline const char *flag(const char *argument, const char *name) {
    size_t len = strlen(name);
    if (strncmp(argument, "--", 2) != 0 || strncmp(argument + 2, name, len) != 0 || argument[len + 2] != '=') return NULL;
    return argument + len + 3;
}

static inline void usage_error(const char *program, const char *argument) {
    fprintf(stderr, "%s: bad argument %s\n", program, argument);
    exit(2);
}

/* ---- engines ---- */

/* Every location prefers all of the comma-separated NICs. */
static inline void matrix_of(const char *devices, char *out, size_t len) {
    char names[512] = "", list[256], *rest = NULL;
    snprintf(list, sizeof list, "%s", devices);
    for (char *name = strtok_r(list, ",", &rest); name != NULL; name = strtok_r(NULL, ",", &rest)) {
        size_t used = strlen(names);
        snprintf(names + used, sizeof names - used, "%s\"%s\"", used == 0 ? "" : ",", name);
    }
    snprintf(out, len, "{\"cpu:0\":[[%s],[]]}", names);
}

/* An engine reached at 127.0.0.1, so that faults of the NICs leave handshakes alone. */
static inline transfer_engine_t rig_engine(const char *protocol, const char *devices) {
    char matrix[768];
    void *arguments[2] = {matrix, NULL};
    bool rdma = strcmp(protocol, "rdma") == 0;
    transfer_engine_t engine = createTransferEngine("P2PHANDSHAKE", "127.0.0.1", "", 0, 0);
    if (engine == NULL) harness_give_up("createTransferEngine");
    matrix_of(devices, matrix, sizeof matrix);
    if (installTransport(engine, protocol, rdma ? arguments : NULL) == NULL) harness_give_up("installTransport");
    return engine;
}

static inline segment_id_t segment_open(transfer_engine_t engine, const char *name) {
    segment_id_t segment = openSegment(engine, name);
    if (segment < 0) harness_give_up("openSegment");
    return segment;
}

/* The first buffer of an open segment. Upstream announces itself before its buffer is registered: looks again for a while. */
static inline void first_buffer(transfer_engine_t engine, segment_id_t segment, mte_buffer_t *buffer) {
    int64_t end = now_ms() + PATIENCE_MS;
    for (size_t count = 1;; count = 1, nap()) {
        if (mte_segment_buffers(engine, segment, buffer, &count) != 0) harness_give_up("mte_segment_buffers");
        if (count > 0) return;
        if (now_ms() > end) harness_give_up("find a buffer of the peer");
        syncSegmentCache(engine);
    }
}

/* ---- the passive peer ---- */

struct passive {
    pid_t pid;
    FILE *commands, *replies;
    unsigned port; /* of its name; 0: any */
    size_t len;    /* of its buffer; 0: DEFAULT_BYTES */
    char segment[128];
    char reply[1024];
};

static inline bool passive_hear(struct passive *p) {
    if (fgets(p->reply, sizeof p->reply, p->replies) == NULL) return false;
    p->reply[strcspn(p->reply, "\n")] = '\0';
    return true;
}

/* Starts the program `passive` that lies beside this one. It dies with this process. */
static inline void passive_start(struct passive *p, const char *protocol, const char *devices) {
    char path[PATH_MAX] = "", protocol_flag[64], devices_flag[320], port_flag[32], bytes_flag[32];
    int in[2], out[2];
    if (readlink("/proc/self/exe", path, sizeof path - 1) < 0 || pipe(in) != 0 || pipe(out) != 0) harness_give_up("pipe");
    strcpy(strrchr(path, '/'), "/passive");
    snprintf(protocol_flag, sizeof protocol_flag, "--protocol=%s", protocol);
    snprintf(devices_flag, sizeof devices_flag, "--device_name=%s", devices);
    snprintf(port_flag, sizeof port_flag, "--port=%u", p->port);
    snprintf(bytes_flag, sizeof bytes_flag, "--bytes=%zu", p->len != 0 ? p->len : DEFAULT_BYTES);
    p->pid = fork();
    if (p->pid < 0) harness_give_up("fork");
    if (p->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(in[0], 0), dup2(out[1], 1);
        close(in[0]), close(in[1]), close(out[0]), close(out[1]);
        execl(path, path, protocol_flag, devices_flag, port_flag, bytes_flag, (char *)NULL);
        _exit(127);
    }
    close(in[0]), close(out[1]);
    p->commands = fdopen(in[1], "w"), p->replies = fdopen(out[0], "r");
    if (!passive_hear(p) || sscanf(p->reply, "LISTENING %127s", p->segment) != 1) harness_give_up("start of the passive peer");
}

/* The reply to one command, valid until the next; "" when the peer is dead. */
__attribute__((format(printf, 2, 3))) static inline const char *passive_ask(struct passive *p, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vfprintf(p->commands, format, arguments);
    va_end(arguments);
    fputc('\n', p->commands);
    if (fflush(p->commands) != 0 || !passive_hear(p)) p->reply[0] = '\0';
    return p->reply;
}

#define PASSIVE_IS(p, want, ...) (strcmp(passive_ask((p), __VA_ARGS__), (want)) == 0)

/* Exit status of the peer after "quit", -1 when it had to be killed. */
static inline int passive_stop(struct passive *p) {
    int status = 0;
    bool said = PASSIVE_IS(p, "bye", "quit");
    if (!said) kill(p->pid, SIGKILL);
    waitpid(p->pid, &status, 0);
    fclose(p->commands), fclose(p->replies);
    return said && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

#endif

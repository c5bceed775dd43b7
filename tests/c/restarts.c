/* P7: an engine that is started anew under its name, with memory at the same addresses. What is sent after the segment was
 * opened again reaches the new one at the first try; what is sent without that never does. restarts [URL], where URL is a
 * store; without one the engines ask each other. */
#include <netinet/in.h>
#include <sys/syscall.h>

#include "peer.h"

#define BYTES (64 * KIB)
#define END_MS 20000
#define SOON_MS 5000

static const char *store;
static int port;
static unsigned char *mine, *theirs;

/* Stands before the C library's for the library too: a port of an engine that was destroyed may be in TIME_WAIT, and its
 * successor is to have the same one at once. */
__attribute__((used)) int bind_again(int fd, const void *address, socklen_t len) __asm__("bind");
int bind_again(int fd, const void *address, socklen_t len) {
    int on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    return (int)syscall(SYS_bind, fd, address, len);
}

static void ports(int low, int high) {
    char text[16];
    snprintf(text, sizeof text, "%d", low);
    setenv("MC_MIN_RPC_PORT", text, 1);
    snprintf(text, sizeof text, "%d", high);
    setenv("MC_MAX_RPC_PORT", text, 1);
}

/* An engine for both sides' memory: the initiator if it has no name. */
static transfer_engine_t started(const char *name, unsigned char *memory) {
    transfer_engine_t e = createTransferEngine(store == NULL ? "P2PHANDSHAKE" : store, name, "", 0, 0);
    if (e == NULL || installTransport(e, "tcp", NULL) == NULL) harness_give_up("an engine with tcp");
    if (registerLocalMemory(e, memory, BYTES, "cpu:0", 1) != 0) harness_give_up("its memory");
    return e;
}

/* Every incarnation has the same name and the same memory. Without a store the name is the handshake port, which is one of
 * two; the data port is the other. */
static transfer_engine_t owner_start(char *name, size_t len) {
    if (store != NULL) {
        snprintf(name, len, "owner");
        return started(name, theirs);
    }
    ports(port, port + 1);
    char wanted[64];
    snprintf(wanted, sizeof wanted, "127.0.0.1:%d", port);
    for (;;) {
        transfer_engine_t e = started("127.0.0.1", theirs);
        engine_name(e, name, len);
        if (strcmp(name, wanted) == 0) {
            ports(15000, 17000);
            return e;
        }
        destroyTransferEngine(e);
    }
}

static size_t fd_count(void) {
    size_t count = 0;
    for (int fd = 0; fd < 4096; fd++) count += fcntl(fd, F_GETFD) != -1;
    return count;
}

static int write_once(transfer_engine_t initiator, segment_id_t target, uint64_t seed) {
    pattern_fill(mine, BYTES, seed);
    return transfer_once(initiator, request(OPCODE_WRITE, mine, target, (uintptr_t)theirs, BYTES), END_MS);
}

static bool tells_of_changes(void) {
    return store != NULL && strncmp(store, "etcd:", 5) == 0;
}

static void restarted(bool connected, bool opened) {
    char name[128];
    printf("#     %s, %s again\n", connected ? "connected before" : "never connected", opened ? "opened" : "not opened");
    /* Without a connection nothing but its age says that a descriptor may be old. */
    if (!connected) setenv("MC_OPEN_AGE_MS", "0", 1);
    transfer_engine_t initiator = started("127.0.0.1", mine);
    unsetenv("MC_OPEN_AGE_MS");
    size_t fds = fd_count();
    transfer_engine_t owner = owner_start(name, sizeof name);
    segment_id_t target = openSegment(initiator, name);
    REQUIRE("a segment opens", target > 0);
    if (connected) CHECK_EQ("a transfer to the first incarnation", write_once(initiator, target, 1), STATUS_COMPLETED);
    destroyTransferEngine(owner);
    bool noticed;
    WAIT_UNTIL(noticed, fd_count() <= fds, END_MS);
    CHECK("when the first one is gone, its connections end here too", noticed);
    int64_t start = now_ms();
    CHECK_EQ("while nobody is there, the segment opens as before", openSegment(initiator, name), target);
    CHECK("  soon", now_ms() - start < SOON_MS);
    owner = owner_start(name, sizeof name);
    memset(theirs, 0, BYTES);
    if (opened) {
        CHECK_EQ("p07: opened again, it has the same id", openSegment(initiator, name), target);
        if (connected || !tells_of_changes()) {
            CHECK_EQ("  and a transfer to the new incarnation succeeds at the first try", write_once(initiator, target, 2), STATUS_COMPLETED);
        } else {
            /* Nobody asks a store that tells of changes, and what it tells is a moment on its way. */
            bool moved;
            WAIT_UNTIL(moved, write_once(initiator, target, 2) == STATUS_COMPLETED, END_MS);
            CHECK("  and a transfer to the new incarnation succeeds", moved);
        }
    } else {
        transfer_request_t r = request(OPCODE_WRITE, mine, target, (uintptr_t)theirs, BYTES);
        mte_task_error_info_t why = {0};
        batch_id_t batch = batch_open(initiator, 1);
        int rc = submitTransfer(initiator, batch, &r, 1);
        CHECK_EQ("p07: a transfer that was meant for the first incarnation fails", rc != 0 ? rc : await_task(initiator, batch, 0, END_MS), STATUS_FAILED);
        CHECK("  it never reaches the second", all_bytes(theirs, BYTES, 0));
        CHECK("  its error names the peer, and that it may be sent again", mte_task_error(initiator, batch, 0, &why) == 0 && why.retryable == 1 && strcmp(why.peer, name) == 0);
        printf("#     %s\n", why.text);
        freeBatchID(initiator, batch);
        CHECK_EQ("  then it succeeds", write_once(initiator, target, 2), STATUS_COMPLETED);
    }
    CHECK("  with the right bytes", pattern_matches(theirs, BYTES, 2));
    destroyTransferEngine(owner);
    destroyTransferEngine(initiator);
}

/* Two ports in a row that nobody has. */
static int free_ports(void) {
    for (int first = 20000 + getpid() % 9000; first < 32000; first += 2) {
        int found = 0;
        for (int i = 0; i < 2; i++) {
            struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)(first + i))};
            int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
            found += syscall(SYS_bind, fd, &a, sizeof a) == 0;
            close(fd);
        }
        if (found == 2) return first;
    }
    harness_give_up("two free ports");
    return 0;
}

int main(int argc, char **argv) {
    harness_begin();
    setenv("MC_TCP_BIND_ADDRESS", "127.0.0.1", 1);
    store = argc == 2 ? argv[1] : NULL;
    port = free_ports();
    mine = map_bytes(BYTES);
    theirs = map_bytes(BYTES);
    restarted(true, true);
    restarted(false, true);
    if (store == NULL) restarted(true, false);
    return harness_finish();
}

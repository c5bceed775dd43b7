/* Engines with TCP and MC_SAME_HOST=1: who is proven to be on this host is reached through its memory, and nobody else; strangers
 * on the socket, and peers that lie, harm nothing. */
#include <errno.h>
#include <stddef.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/un.h>

static void peer_prepare(void);
#define PEER_ENGINE prepared_engine

#include "harness.h"

#define SHARED (8 * MIB)

static transfer_engine_t prepared_engine(void) {
    peer_prepare();
    transfer_engine_t made = engine_open();
    void *shared;
    if (getenv("PEER_SHARES") != NULL &&
        (mte_allocate_shared(made, SHARED, 0, -1, &shared) != 0 || registerLocalMemory(made, shared, SHARED, "cpu:0", 1) != 0))
        harness_give_up("shared memory of the peer");
    return made;
}

#include "peer.h"

#define BYTES (4 * MIB)
#define END_MS 20000
#define NOBODY 65534

static transfer_engine_t engine;
static unsigned char *bytes;

/* What the peer is before it makes its engine. */
static void peer_prepare(void) {
    if (getenv("PEER_NOBODY") != NULL && setresuid(NOBODY, NOBODY, NOBODY) != 0) harness_give_up("setresuid");
    if (getenv("PEER_UNREADABLE") != NULL) prctl(PR_SET_DUMPABLE, 0);
}

/* What showLinks says, in JSON. */
static const char *links(void) {
    static char text[65536];
    if (showLinks(engine, text, sizeof text, 1) != 0) harness_give_up("showLinks");
    return text;
}

/* WRITEs and READs back, until `word` is shown: the first requests of a link go another way. `false`: it never is. */
static bool moves_until(const peer_t *peer, segment_id_t target, const char *word) {
    int64_t end = now_ms() + END_MS;
    for (uint64_t seed = 1; now_ms() < end; seed++) {
        pattern_fill(bytes, BYTES / 2, seed);
        int wrote = transfer_once(engine, request(OPCODE_WRITE, bytes, target, peer->base, BYTES / 2), END_MS);
        int read = transfer_once(engine, request(OPCODE_READ, bytes + BYTES / 2, target, peer->base, BYTES / 2), END_MS);
        if (wrote != STATUS_COMPLETED || read != STATUS_COMPLETED || !pattern_matches(peer->view, BYTES / 2, seed) ||
            memcmp(bytes, bytes + BYTES / 2, BYTES / 2) != 0) {
            CHECK("what is moved meanwhile arrives", false);
            return false;
        }
        if (strstr(links(), word) != NULL) return true;
    }
    printf("note  %s\n", links());
    return false;
}

/* The peer's socket, as everybody on the host can find it. */
static int socket_of(const peer_t *peer) {
    char path[64], line[512], wanted[64];
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    snprintf(path, sizeof path, "/proc/%d/fd", peer->pid);
    FILE *sockets = fopen("/proc/net/unix", "r");
    bool found = false;
    while (!found && sockets != NULL && fgets(line, sizeof line, sockets) != NULL) {
        char *at = strstr(line, "@mte-shm-");
        unsigned long inode = 0;
        if (at == NULL || sscanf(line, "%*s %*s %*s %*s %*s %*s %lu", &inode) != 1) continue;
        at[strcspn(at, "\n")] = '\0';
        DIR *fds = opendir(path);
        for (struct dirent *entry; fds != NULL && (entry = readdir(fds)) != NULL;) {
            char to[64] = "", link[330];
            snprintf(link, sizeof link, "%s/%s", path, entry->d_name);
            snprintf(wanted, sizeof wanted, "socket:[%lu]", inode);
            if (readlink(link, to, sizeof to - 1) > 0 && strcmp(to, wanted) == 0) found = true;
        }
        if (fds != NULL) closedir(fds);
        if (found) memcpy(name.sun_path + 1, at + 1, strlen(at + 1));
    }
    if (sockets != NULL) fclose(sockets);
    socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name.sun_path + 1));
    if (!found || fd < 0 || connect(fd, (struct sockaddr *)&name, len) != 0) harness_give_up("the peer's socket");
    return fd;
}

/* The peer hangs up. */
static bool ends(int fd) {
    char reply[8192];
    struct pollfd poll_ = {.fd = fd, .events = POLLIN};
    for (int64_t end = now_ms() + END_MS; now_ms() < end;) {
        ssize_t n = poll(&poll_, 1, 1000) > 0 ? recv(fd, reply, sizeof reply, MSG_DONTWAIT) : -1;
        if (n == 0 || (n < 0 && errno == ECONNRESET)) return true;
    }
    return false;
}

/* Wire numbers of the transport (src/transport/shm/wire.rs). */
#define MAGIC 0x6d74655f73686d01u
enum { HELLO = 1, WELCOME, WRITES, WITHDRAW, ASK, ENDED, GRANT, SHARE };

/* Greets the peer as one that is what it says: `cell` holds an incarnation, and `word`, which follows it once more, a number. */
static int greeted(const peer_t *peer, uint64_t *cell, uint64_t *word, const char *incarnation) {
    uint64_t hello[9] = {HELLO, MAGIC, cell[0], cell[1], 0, 0, (uintptr_t)cell, (uintptr_t)cell, *word};
    unsigned char *expected = (unsigned char *)&hello[4];
    for (int i = 0; i < 16; i++) sscanf(incarnation + 2 * i, "%2hhx", &expected[i]);
    int fd = socket_of(peer);
    uint64_t welcome[6] = {0};
    if (send(fd, hello, sizeof hello, MSG_NOSIGNAL) != sizeof hello || recv(fd, welcome, sizeof welcome, 0) != sizeof welcome ||
        welcome[0] != WELCOME || welcome[5] != 1)
        harness_give_up("a greeting");
    return fd;
}

static void strangers(const peer_t *peer) {
    uint64_t seed = 1, junk[640];
    int survived = 0;
    for (int round = 0; round < 200; round++) {
        int fd = socket_of(peer);
        for (size_t i = 0; i < COUNT(junk); i++) junk[i] = next_random(&seed);
        if (round % 4 != 0) junk[0] = (uint64_t)(round % 9);
        if (round % 8 == 1) junk[1] = MAGIC;
        size_t len = round % 3 == 0 ? next_random(&seed) % sizeof junk : 8 * (1 + next_random(&seed) % 200);
        send(fd, junk, len + 1, MSG_NOSIGNAL);
        survived += ends(fd);
        close(fd);
    }
    CHECK_EQ("200 strangers that talk nonsense are hung up on", survived, 200);
}

/* Sends a message with a descriptor beside it. */
static bool send_beside(int fd, const void *message, size_t len, int passed) {
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof passed)];
    } beside = {0};
    struct iovec piece = {(void *)(uintptr_t)message, len};
    struct msghdr all = {.msg_iov = &piece, .msg_iovlen = 1, .msg_control = beside.room, .msg_controllen = sizeof beside.room};
    struct cmsghdr *header = CMSG_FIRSTHDR(&all);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof passed);
    memcpy(CMSG_DATA(header), &passed, sizeof passed);
    return sendmsg(fd, &all, MSG_NOSIGNAL) == (ssize_t)len;
}

/* How many mappings of memory files of that name a process has. */
static int mappings_of(pid_t pid, const char *name) {
    char line[512], path[64], wanted[64];
    int count = 0;
    snprintf(path, sizeof path, "/proc/%d/maps", pid);
    snprintf(wanted, sizeof wanted, "memfd:%s", name);
    FILE *maps = fopen(path, "r");
    while (maps != NULL && fgets(line, sizeof line, maps) != NULL) count += strstr(line, wanted) != NULL;
    if (maps != NULL) fclose(maps);
    return count;
}

/* A file that could end its reader: it may shrink, is short, is none, may be emptied, or has no pages (or not all, or 64 TiB). */
static int unsound(int kind, int socket) {
    if (kind == 2) return dup(socket);
    int file = memfd_create("unsound", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    off_t len = kind == 1 ? 4096 : kind == 6 ? (off_t)1 << 46 : (off_t)BYTES;
    bool done = ftruncate(file, len) == 0;
    if (kind == 3) done = done && fallocate(file, 0, 0, len) == 0;
    if (kind == 5) done = done && fallocate(file, 0, 0, len - 4096) == 0;
    int seals = F_SEAL_SHRINK | F_SEAL_GROW | (kind == 3 ? 0 : F_SEAL_WRITE);
    if (kind != 0) done = done && fcntl(file, F_ADD_SEALS, seals) == 0;
    if (!done) harness_give_up("a file");
    return file;
}

/* Shared memory that is taken away while the peer copies from it must not end the peer. */
static void shrinks(const peer_t *peer, uint64_t *cell, uint64_t *word, const char *incarnation, unsigned char *mine) {
    uint64_t answer[641];
    int before = mappings_of(peer->pid, "unsound");
    for (int kind = 0; kind < 7; kind++) {
        *word += 1;
        int fd = greeted(peer, cell, word, incarnation);
        int file = unsound(kind, fd);
        uint64_t share[] = {SHARE, 1, (uintptr_t)mine, kind == 6 ? (uint64_t)1 << 46 : BYTES};
        uint64_t write_[] = {WRITES, 8, (uintptr_t)mine + BYTES - 4096, peer->base, 4096, 1};
        CHECK("a file that could end its reader", send_beside(fd, share, sizeof share, file));
        if (kind == 0 && ftruncate(file, 0) != 0) harness_give_up("ftruncate");
        CHECK("a request from it", send(fd, write_, sizeof write_, MSG_NOSIGNAL) == sizeof write_);
        CHECK("is pulled by the kernel instead", recv(fd, answer, sizeof answer, 0) == 24 && answer[1] == 8 && answer[2] == 0);
        CHECK_EQ("and not mapped", mappings_of(peer->pid, "unsound"), before);
        close(file);
        close(fd);
    }
}

/* Somebody who never stops sending must not keep the peer from others. */
static void floods(const peer_t *peer, segment_id_t target, int fd) {
    fflush(NULL);
    pid_t children[2];
    for (size_t i = 0; i < COUNT(children); i++) {
        children[i] = fork();
        if (children[i] != 0) continue;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        uint64_t nothing[] = {WITHDRAW, 1};
        while (send(fd, nothing, sizeof nothing, MSG_NOSIGNAL) > 0) {}
        _exit(0);
    }
    int done = 0;
    for (int i = 0; i < 20; i++)
        done += transfer_once(engine, request(OPCODE_WRITE, bytes, target, peer->base, 4096), END_MS) == STATUS_COMPLETED;
    CHECK_EQ("WRITEs beside a flood", done, 20);
    for (size_t i = 0; i < COUNT(children); i++) {
        kill(children[i], SIGKILL);
        waitpid(children[i], NULL, 0);
    }
}

static void liars(const peer_t *peer, segment_id_t target, const char *incarnation) {
    uint64_t cell[3] = {11, 12, 13}, *word = &cell[2], answer[641];
    unsigned char *mine = map_bytes(BYTES);
    memset(mine, 0x77, BYTES);
    int fd = greeted(peer, cell, word, incarnation);
    uint64_t asks[] = {WRITES, 1, (uintptr_t)mine, peer->base + BYTES - 1, 2, 0, 2, 8, peer->base, 4096, 0, 3, (uintptr_t)mine, 8, 4096, 0,
                       4, (uintptr_t)mine, peer->base, 4096, 99};
    CHECK("requests good and bad", send(fd, asks, sizeof asks, MSG_NOSIGNAL) == sizeof asks);
    uint64_t ends_[5] = {9, 9, 9, 9, 9};
    for (size_t count = 0; count < 4;) {
        ssize_t n = recv(fd, answer, sizeof answer, 0);
        if (n <= 8 || answer[0] != ENDED) harness_give_up("an answer");
        for (size_t i = 1; i < (size_t)n / 8; i += 2, count++)
            if (answer[i] < 5) ends_[answer[i]] = answer[i + 1];
    }
    CHECK("each has its answer", ends_[1] == 1 && ends_[2] == 2 && ends_[3] == 1 && ends_[4] == 0);
    CHECK("and the good one its bytes", all_bytes(peer->view, 4096, 0x77));
    uint64_t ask[] = {ASK, 7, peer->base, 4096};
    CHECK("a question", send(fd, ask, sizeof ask, MSG_NOSIGNAL) == sizeof ask && recv(fd, answer, sizeof answer, 0) == 56);
    CHECK("is answered", answer[0] == GRANT && answer[1] == 7 && answer[2] == peer->base && answer[5] != 0);
    ask[2] = 8;
    CHECK("one about memory of others", send(fd, ask, sizeof ask, MSG_NOSIGNAL) == sizeof ask && recv(fd, answer, sizeof answer, 0) == 56);
    CHECK("is refused", answer[1] == 7 && answer[5] == 0);
    /* The word is what says that the connection is still wanted. */
    *word = 0;
    memset(mine, 0x33, BYTES);
    uint64_t late[] = {WRITES, 5, (uintptr_t)mine, peer->base, 4096, 0};
    CHECK("a request of a connection that was given up", send(fd, late, sizeof late, MSG_NOSIGNAL) == sizeof late);
    CHECK("is answered", recv(fd, answer, sizeof answer, 0) == 24 && answer[0] == ENDED && answer[1] == 5);
    CHECK("and not pulled", answer[2] == 4 && all_bytes(peer->view, 4096, 0x77));
    close(fd);
    *word = 14;
    fd = greeted(peer, cell, word, incarnation);
    uint64_t long_[] = {WRITES, 6, (uintptr_t)mine, peer->base, UINT64_MAX, 0};
    CHECK("a request without end", send(fd, long_, sizeof long_, MSG_NOSIGNAL) == sizeof long_);
    CHECK("ends the connection", ends(fd));
    close(fd);
    *word = 15;
    fd = greeted(peer, cell, word, incarnation);
    uint64_t share[] = {SHARE, 1, (uintptr_t)mine, BYTES};
    CHECK("shared memory without a descriptor", send(fd, share, sizeof share, MSG_NOSIGNAL) == sizeof share);
    CHECK("ends the connection", ends(fd));
    close(fd);
    shrinks(peer, cell, word, incarnation, mine);
    *word += 1;
    fd = greeted(peer, cell, word, incarnation);
    floods(peer, target, fd);
    close(fd);
    /* Answers that nobody reads must not pile up. */
    fd = greeted(peer, cell, word, incarnation);
    uint64_t many[1 + 5 * 128] = {WRITES};
    for (size_t i = 0; i < 128; i++) memcpy(many + 1 + 5 * i, (uint64_t[]){i, (uintptr_t)mine, peer->base, 64, 0}, 40);
    size_t taken = 0;
    int64_t end = now_ms() + 500;
    while (now_ms() < end) taken += send(fd, many, sizeof many, MSG_NOSIGNAL | MSG_DONTWAIT) > 0;
    int64_t kib = 0;
    char path[64], line[256];
    snprintf(path, sizeof path, "/proc/%d/status", peer->pid);
    FILE *status = fopen(path, "r");
    while (status != NULL && fgets(line, sizeof line, status) != NULL)
        if (strncmp(line, "RssAnon:", 8) == 0) kib = strtoll(line + 8, NULL, 10);
    if (status != NULL) fclose(status);
    printf("note  %zu messages were taken without an answer read; the peer has %lld KiB\n", taken, (long long)kib);
    CHECK("nobody reads the answers, and the peer's memory does not grow with that", kib > 0 && kib < 64 * 1024);
    close(fd);
    munmap(mine, BYTES);
}

/* The peer's incarnation, from its handshake port: the name in its socket's name is the same. */
static void incarnation_of(const peer_t *peer, char out[33]) {
    int fd = socket_of(peer);
    struct sockaddr_un name = {0};
    socklen_t len = sizeof name;
    if (getpeername(fd, (struct sockaddr *)&name, &len) != 0) harness_give_up("the peer's name");
    snprintf(out, 33, "%.32s", name.sun_path + 1 + strlen("mte-shm-"));
    close(fd);
}

static void proven(void) {
    peer_t peer = peer_start(BYTES, NULL);
    segment_id_t target = openSegment(engine, peer.name);
    REQUIRE("the peer opens", target > 0);
    CHECK("a peer on this host is reached through its memory", moves_until(&peer, target, "\"device\":\"shm\""));
    CHECK("which is shown", moves_until(&peer, target, "\"state\":\"up\""));
    CHECK("and is no fall-back", strstr(links(), "fallback") == NULL);
    char incarnation[33];
    incarnation_of(&peer, incarnation);
    strangers(&peer);
    liars(&peer, target, incarnation);
    CHECK("meanwhile others are served", moves_until(&peer, target, "\"state\":\"up\""));
    peer_pause(&peer);
    transfer_request_t r = request(OPCODE_READ, bytes, target, peer.base, 4096);
    CHECK_EQ("a READ from a peer that stands still", transfer_once(engine, r, END_MS), STATUS_COMPLETED);
    peer_resume(&peer);
    peer_kill(&peer);
    CHECK("a READ from a peer that was killed", transfer_once(engine, r, END_MS) != STATUS_COMPLETED);
}

static int shared_mappings(void) {
    return mappings_of(getpid(), "mte-shared");
}

/* Memory that is freed does not stay where it was mapped. */
static void freed(const peer_t *peer, segment_id_t target, uint64_t theirs) {
    void *more = NULL;
    bool seen;
    CHECK_EQ("more shared memory", mte_allocate_shared(engine, SHARED, 0, -1, &more), 0);
    CHECK_EQ("registered", registerLocalMemory(engine, more, SHARED, "cpu:0", 1), 0);
    CHECK_EQ("a WRITE from it", transfer_once(engine, request(OPCODE_WRITE, more, target, theirs, SHARED), END_MS), STATUS_COMPLETED);
    WAIT_UNTIL(seen, mappings_of(peer->pid, "mte-shared") == 3, END_MS);
    CHECK("the peer has mapped it, beside its own and what was there before", seen);
    CHECK_EQ("unregistered", unregisterLocalMemory(engine, more), 0);
    CHECK_EQ("freed", mte_free_shared(engine, more), 0);
    WAIT_UNTIL(seen, mappings_of(peer->pid, "mte-shared") == 2, END_MS);
    CHECK("the peer lets it go", seen);
}

/* Between memory that both sides have mapped; read back into memory that is not shared, so by another way. */
static void shared_memory(void) {
    peer_t peer = peer_start(BYTES, "PEER_SHARES=1");
    segment_id_t target = openSegment(engine, peer.name);
    mte_buffer_t buffers[4];
    size_t count = COUNT(buffers);
    REQUIRE("the peer shows its memory", mte_segment_buffers(engine, target, buffers, &count) == 0 && count == 2);
    uint64_t theirs = buffers[buffers[0].addr == peer.base].addr;
    void *mine = NULL, *odd = NULL;
    CHECK_ERROR("no bytes", mte_allocate_shared(engine, 0, 0, -1, &mine), -1);
    CHECK_ERROR("flags that are none", mte_allocate_shared(engine, 1, 2, -1, &mine), -1);
    CHECK_ERROR("a node that is none", mte_allocate_shared(engine, 1, 0, 9999, &mine), ERR_NUMA);
    CHECK_EQ("huge pages, if there are any", mte_allocate_shared(engine, 1, MTE_SHARED_HUGE, -1, &odd), 0);
    CHECK_EQ("freed", mte_free_shared(engine, odd), 0);
    CHECK_EQ("shared memory", mte_allocate_shared(engine, SHARED, 0, -1, &mine), 0);
    CHECK("of zeros", all_bytes(mine, SHARED, 0));
    CHECK_EQ("registered", registerLocalMemory(engine, mine, SHARED, "cpu:0", 1), 0);
    CHECK_ERROR("it is not freed while it is registered", mte_free_shared(engine, mine), -1);
    CHECK("the peer is proven", moves_until(&peer, target, "\"state\":\"up\""));
    uint64_t seed = 5;
    int wrong = 0;
    for (uint64_t round = 0; round < 60; round++) {
        size_t len = 1 + next_random(&seed) % (round % 3 == 0 ? BYTES : 20000), from = next_random(&seed) % (SHARED - len);
        size_t to = next_random(&seed) % (SHARED - len);
        unsigned char *here = mine;
        pattern_fill(here + from, len, round);
        wrong += transfer_once(engine, request(OPCODE_WRITE, here + from, target, theirs + to, len), END_MS) != STATUS_COMPLETED;
        memset(bytes, 0, len);
        wrong += transfer_once(engine, request(OPCODE_READ, bytes, target, theirs + to, len), END_MS) != STATUS_COMPLETED;
        wrong += !pattern_matches(bytes, len, round);
        pattern_fill(bytes, len, round + 1000);
        wrong += transfer_once(engine, request(OPCODE_WRITE, bytes, target, theirs + to, len), END_MS) != STATUS_COMPLETED;
        memset(here + from, 0, len);
        wrong += transfer_once(engine, request(OPCODE_READ, here + from, target, theirs + to, len), END_MS) != STATUS_COMPLETED;
        wrong += !pattern_matches(here + from, len, round + 1000);
    }
    CHECK_EQ("bytes arrive between shared memory, and between shared and other memory", wrong, 0);
    CHECK_EQ("ours and the peer's are mapped", shared_mappings(), 2);
    freed(&peer, target, theirs);
    peer_kill(&peer);
    CHECK("a READ from a peer that was killed", transfer_once(engine, request(OPCODE_READ, mine, target, theirs, 64), END_MS) != STATUS_COMPLETED);
    bool gone;
    WAIT_UNTIL(gone, shared_mappings() == 1, END_MS);
    CHECK("after which the peer's memory is let go", gone);
    CHECK_EQ("unregistered", unregisterLocalMemory(engine, mine), 0);
    CHECK_EQ("freed", mte_free_shared(engine, mine), 0);
    CHECK_ERROR("once", mte_free_shared(engine, mine), ERR_ADDRESS_NOT_REGISTERED);
    CHECK_EQ("nothing of it is left", shared_mappings(), 0);
}

/* A child that lives on has no copy of a connection, which would hide from its other end that the engine is gone. */
static void forks(void) {
    setenv("TEST_TRANSPORT", "shm", 1);
    transfer_engine_t here = engine_open(), there = engine_open();
    unsigned char *near = registered_bytes(here, 4096), *far = registered_bytes(there, 4096);
    char name[128];
    engine_name(there, name, sizeof name);
    segment_id_t target = openSegment(here, name);
    transfer_request_t r = request(OPCODE_WRITE, near, target, (uintptr_t)far, 4096);
    pattern_fill(near, 4096, 9);
    CHECK_EQ("a WRITE between engines of one process", transfer_once(here, r, END_MS), STATUS_COMPLETED);
    CHECK("has its bytes", pattern_matches(far, 4096, 9));
    void *shared = NULL;
    bool gone;
    CHECK_EQ("shared memory there", mte_allocate_shared(there, 4096, 0, -1, &shared), 0);
    CHECK_EQ("registered", registerLocalMemory(there, shared, 4096, "cpu:0", 1), 0);
    transfer_request_t from = request(OPCODE_READ, near, target, (uintptr_t)shared, 4096);
    CHECK_EQ("a READ from it", transfer_once(here, from, END_MS), STATUS_COMPLETED);
    CHECK_EQ("maps it", shared_mappings(), 2);
    CHECK_EQ("freed by an engine that has not registered it", mte_free_shared(here, shared), 0);
    CHECK_EQ("it stays for the one that has", transfer_once(here, from, END_MS), STATUS_COMPLETED);
    CHECK_EQ("which unregisters it", unregisterLocalMemory(there, shared), 0);
    WAIT_UNTIL(gone, shared_mappings() == 0, END_MS);
    CHECK("it is let go", gone);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        pause();
        _exit(0);
    }
    destroyTransferEngine(there);
    batch_id_t batch = batch_open(here, 1);
    mte_task_error_info_t why = {0};
    if (submitTransfer(here, batch, &r, 1) == 0) {
        CHECK_EQ("a WRITE to an engine that is gone", await_task(here, batch, 0, END_MS), STATUS_FAILED);
        CHECK_EQ("why", mte_task_error(here, batch, 0, &why), 0);
        CHECK("its end was seen", why.error_class == MTE_CLASS_NETWORK || why.error_class == MTE_CLASS_METADATA);
    }
    freeBatchID(here, batch);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    destroyTransferEngine(here);
    setenv("TEST_TRANSPORT", "tcp", 1);
}

static void not_proven(const char *what, const char *setting) {
    peer_t peer = peer_start(BYTES, setting);
    segment_id_t target = openSegment(engine, peer.name);
    REQUIRE("the peer opens", target > 0);
    CHECK(what, moves_until(&peer, target, "fallback_same_host"));
    CHECK("and not through its memory", strstr(links(), "\"state\":\"up\"") == NULL);
    CHECK_EQ("it ends", peer_stop(&peer), 0);
}

/* The last descriptors are the host program's. */
static void scarce(void) {
    peer_t peer = peer_start(BYTES, NULL);
    struct rlimit before, few = {256, 256};
    REQUIRE("the limit of descriptors", getrlimit(RLIMIT_NOFILE, &before) == 0 && before.rlim_max >= 256);
    few.rlim_max = before.rlim_max;
    REQUIRE("is lowered", setrlimit(RLIMIT_NOFILE, &few) == 0);
    int last = -1, first = fcntl(0, F_DUPFD_CLOEXEC, 0);
    while (last < 224 && (last = fcntl(0, F_DUPFD_CLOEXEC, 0)) >= 0) {}
    REQUIRE("descriptors are scarce", last >= 224);
    segment_id_t target = openSegment(engine, peer.name);
    REQUIRE("the peer opens", target > 0);
    CHECK("where descriptors are scarce a peer is reached over TCP", moves_until(&peer, target, "fallback_same_host"));
    CHECK("and not through its memory", strstr(links(), "\"state\":\"up\"") == NULL);
    CHECK("which says why", strstr(links(), "ulimit") != NULL);
    for (int fd = first; fd <= last; fd++) {
        struct stat one, other;
        if (fstat(fd, &one) == 0 && fstat(0, &other) == 0 && one.st_dev == other.st_dev && one.st_ino == other.st_ino) close(fd);
    }
    setrlimit(RLIMIT_NOFILE, &before);
    CHECK_EQ("it ends", peer_stop(&peer), 0);
}

/* As a user for whom the kernel's rules count: root may read everybody's memory. */
static void refused(void) {
    engine = engine_open();
    bytes = registered_bytes(engine, BYTES);
    not_proven("a peer whose memory must not be read is reached over TCP", "PEER_UNREADABLE=1");
    destroyTransferEngine(engine);
}

int main(int argc, char **argv) {
    peer_dispatch(argc, argv);
    harness_begin();
    setenv("MC_SAME_HOST", "1", 1);
    setenv("MC_STRICT", "1", 1);
    setenv("TEST_TRANSPORT", "tcp", 1);
    if (argc == 2 && strcmp(argv[1], "--refused") == 0) {
        refused();
        return harness_finish();
    }
    engine = engine_open();
    bytes = registered_bytes(engine, BYTES);
    proven();
    shared_memory();
    forks();
    destroyTransferEngine(engine);
    engine = engine_open();
    REQUIRE("registered again", registerLocalMemory(engine, bytes, BYTES, "cpu:0", 1) == 0);
    scarce();
    destroyTransferEngine(engine);
    if (getuid() != 0) {
        refused();
        SKIP("a peer of another user", "this is not root");
        return harness_finish();
    }
    engine = engine_open();
    registerLocalMemory(engine, bytes, BYTES, "cpu:0", 1);
    not_proven("a peer of another user is reached over TCP", "PEER_NOBODY=1");
    destroyTransferEngine(engine);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        if (setresgid(NOBODY, NOBODY, NOBODY) != 0 || setresuid(NOBODY, NOBODY, NOBODY) != 0) _exit(3);
        execl("/proc/self/exe", argv[0], "--refused", (char *)NULL);
        _exit(4);
    }
    CHECK_EQ("the same as another user", child_reap(child, 60000), 0);
    return harness_finish();
}

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

#include "shm_liars.h"
#include "shm_rings.h"

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
    rings(&peer, target, incarnation);
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

/* Without an engine, so after the last one as well. */
static void freed_without_an_engine(void) {
    transfer_engine_t other = engine_open();
    int before = shared_mappings();
    void *kept = NULL, *left = NULL;
    CHECK_EQ("shared memory", mte_allocate_shared(other, 4096, 0, -1, &kept), 0);
    CHECK_EQ("more of it", mte_allocate_shared(other, 4096, 0, -1, &left), 0);
    CHECK_EQ("registered", registerLocalMemory(other, kept, 4096, "cpu:0", 1), 0);
    CHECK_EQ("freed while it is registered", mte_free_shared(NULL, kept), 0);
    CHECK_ERROR("once", mte_free_shared(NULL, kept), ERR_ADDRESS_NOT_REGISTERED);
    CHECK_EQ("it stays for whoever has registered it", shared_mappings(), before + 2);
    destroyTransferEngine(other);
    CHECK_EQ("and goes with that engine", shared_mappings(), before + 1);
    CHECK_ERROR("an engine that is gone frees nothing", mte_free_shared(other, left), -1);
    CHECK_EQ("no engine does", mte_free_shared(NULL, left), 0);
    CHECK_EQ("nothing of it is left", shared_mappings(), before);
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
    freed_without_an_engine();
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

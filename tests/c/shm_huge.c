/* MTE_SHARED_HUGE: memory of the system's pool of huge pages between two processes, and where the pool has none. HUGE_PAGES=1: the
 * pool has some, which tests/shm.rs sees to. */
static void *prepared_engine(void);
#define PEER_ENGINE prepared_engine

#include "harness.h"

/* Three huge pages. */
#define BYTES (4 * MIB + 1)
#define WHOLE (6 * MIB)
#define HUGE_KB 2048
#define END_MS 20000
/* Most of them that are taken to use a pool up. */
#define MOST 64

static void *shared_of(transfer_engine_t made) {
    void *memory = NULL;
    if (mte_allocate_shared(made, BYTES, MTE_SHARED_HUGE, -1, &memory) != 0) harness_give_up("shared memory");
    if (registerLocalMemory(made, memory, WHOLE, "cpu:0", 1) != 0) harness_give_up("registering it");
    return memory;
}

/* The peer's has what this process has. */
static void *prepared_engine(void) {
    transfer_engine_t made = engine_open();
    shared_of(made);
    return made;
}

#include "peer.h"

/* A number of a file of lines "name: number"; -1: it is not there. */
static long number(const char *path, const char *name) {
    char line[512];
    long found = -1;
    FILE *file = fopen(path, "r");
    while (file != NULL && found < 0 && fgets(line, sizeof line, file) != NULL)
        if (strncmp(line, name, strlen(name)) == 0) found = strtol(line + strlen(name), NULL, 10);
    if (file != NULL) fclose(file);
    return found;
}

/* How many mappings of shared memory a process has, with pages of that size, or of any (0). */
static int mappings_of(pid_t pid, long kilobytes) {
    char path[64], line[512];
    bool inside = false;
    int count = 0;
    snprintf(path, sizeof path, "/proc/%d/smaps", (int)pid);
    FILE *file = fopen(path, "r");
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        if (strchr(line, '-') != NULL && strchr(line, '/') != NULL) inside = strstr(line, "memfd:mte-shared") != NULL;
        if (!inside || strncmp(line, "KernelPageSize:", 15) != 0) continue;
        count += kilobytes == 0 || strtol(line + 15, NULL, 10) == kilobytes;
        inside = false;
    }
    if (file != NULL) fclose(file);
    return count;
}

static long free_pages(void) { return number("/proc/meminfo", "HugePages_Free:"); }

/* Bytes go both ways between memory of two processes, of pages of that size. */
static void moves(transfer_engine_t engine, long kilobytes) {
    bool seen;
    int before = mappings_of(getpid(), 0);
    peer_t peer = peer_start(4096, NULL);
    unsigned char *mine = shared_of(engine);
    CHECK("of zeros", all_bytes(mine, WHOLE, 0));
    CHECK_EQ("with pages of the right size", mappings_of(getpid(), kilobytes), before + 1);
    segment_id_t target = openSegment(engine, peer.name);
    mte_buffer_t buffers[4];
    size_t count = COUNT(buffers);
    REQUIRE("the peer shows its memory", mte_segment_buffers(engine, target, buffers, &count) == 0 && count == 2);
    uint64_t theirs = buffers[buffers[0].addr == peer.base].addr;
    pattern_fill(mine, WHOLE, 7);
    CHECK_EQ("a WRITE", transfer_once(engine, request(OPCODE_WRITE, mine, target, theirs, WHOLE), END_MS), STATUS_COMPLETED);
    memset(mine, 0, WHOLE);
    CHECK_EQ("a READ", transfer_once(engine, request(OPCODE_READ, mine, target, theirs, WHOLE), END_MS), STATUS_COMPLETED);
    CHECK("has its bytes", pattern_matches(mine, WHOLE, 7));
    CHECK_EQ("the peer's is mapped here", mappings_of(getpid(), kilobytes), before + 2);
    CHECK_EQ("ours is mapped there", mappings_of(peer.pid, kilobytes), 2);
    CHECK_EQ("unregistered", unregisterLocalMemory(engine, mine), 0);
    CHECK_EQ("freed", mte_free_shared(engine, mine), 0);
    WAIT_UNTIL(seen, mappings_of(peer.pid, 0) == 1, END_MS);
    CHECK("the peer lets it go", seen);
    CHECK_EQ("it ends", peer_stop(&peer), 0);
    closeSegment(engine, target);
    WAIT_UNTIL(seen, mappings_of(getpid(), 0) == before, END_MS);
    CHECK("nothing of it is left", seen);
}

int main(int argc, char **argv) {
    setenv("TEST_TRANSPORT", "shm", 1);
    peer_dispatch(argc, argv);
    harness_begin();
    transfer_engine_t engine = engine_open();
    long before = free_pages();
    bool seen;
    if (getenv("HUGE_PAGES") != NULL) {
        moves(engine, HUGE_KB);
        WAIT_UNTIL(seen, free_pages() >= before, END_MS);
        CHECK("its pages are in the pool again", seen);
    } else {
        SKIP("memory of huge pages", "tests/shm.rs has to make room for some");
    }
    if (before > MOST) {
        SKIP("a pool that is used up", "it has too many pages");
    } else {
        void *rest = NULL, *none = NULL;
        size_t more = 2 * MIB * (size_t)(before < 0 ? 1 : before + 1);
        CHECK_EQ("more than the pool has", mte_allocate_shared(engine, more, MTE_SHARED_HUGE, -1, &rest), 0);
        CHECK("is memory all the same", all_bytes(rest, more, 0));
        CHECK_EQ("of other pages", mappings_of(getpid(), HUGE_KB), 0);
        WAIT_UNTIL(seen, free_pages() >= before, END_MS);
        CHECK("none of the pool's is kept", seen);
        CHECK_ERROR("more than there is memory", mte_allocate_shared(engine, (size_t)1 << 62, MTE_SHARED_HUGE, -1, &none), ERR_MEMORY);
        CHECK_ERROR("on a node that is none", mte_allocate_shared(engine, 1, MTE_SHARED_HUGE, 9999, &none), ERR_NUMA);
        CHECK_EQ("freed", mte_free_shared(engine, rest), 0);
        if (before <= 0) moves(engine, 4);
    }
    CHECK_EQ("nothing is left", mappings_of(getpid(), 0), 0);
    destroyTransferEngine(engine);
    return harness_finish();
}

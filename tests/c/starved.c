/* P13: a host without memory gets errors, and is never aborted. Each scene is played again and again, with one more of the
 * library's large allocations succeeding each time, until none fails any more; then once more with all from the first on
 * failing. Every call ends with success or -302, every task COMPLETED with the right bytes or FAILED with -302, and with
 * memory everything works again. Run with nomemory.so preloaded. */
#include <dlfcn.h>

#include "peer.h"

/* Of nomemory.c. */
static void (*nomemory_fail)(long at, bool lasting, size_t least);
static long (*nomemory_failed)(void);

#define LEAST (64 * KIB)
#define REQUESTS 4096
#define BLOCK 64
#define BYTES (REQUESTS * BLOCK)
#define REGIONS 16384
#define END_MS 30000
#define MOST_RUNS 400

static transfer_engine_t engine, other;
static unsigned char *mine, *theirs, *many;
static segment_id_t target;
static transfer_request_t requests[REQUESTS];
static buffer_entry_t regions[REGIONS];
static void *addresses[REGIONS];
static char large_text[200000];

/* What went wrong in the run. */
static int wrong;

/* Allocations that failed in the run. */
static long failures;

static void starve(long at, bool lasting) {
    failures = 0;
    nomemory_fail(at, lasting, LEAST);
}

/* There is memory from now on. */
static void feed(void) {
    failures += nomemory_failed();
    nomemory_fail(0, false, LEAST);
}

static bool failed_with(int code, bool is_right) {
    char text[512] = "";
    if (code == 0) return false;
    if (mte_last_error(text, sizeof text) != code || !is_right) {
        printf("#     %d: %s\n", code, text);
        wrong++;
    }
    return true;
}

static bool starved(int code) { return failed_with(code, code == ERR_MEMORY); }

/* Or the other engine did, which is in this process too: it refuses, or hangs up on a request that it cannot read. */
static bool peer_starved(int code) {
    return failed_with(code, code == ERR_MEMORY || code == ERR_METADATA || code == ERR_SOCKET);
}

static void submit_to(segment_id_t segment, unsigned char *there, int opcode) {
    unsigned char *from = opcode == OPCODE_WRITE ? mine : there, *to = opcode == OPCODE_WRITE ? there : mine;
    pattern_fill(from, BYTES, 5);
    memset(to, 0, BYTES);
    for (size_t i = 0; i < REQUESTS; i++)
        requests[i] = request(opcode, mine + i * BLOCK, segment, (uintptr_t)there + i * BLOCK, BLOCK);
    batch_id_t batch = allocateBatchID(engine, REQUESTS);
    if (batch == INVALID_BATCH) {
        starved(mte_last_error(NULL, 0));
        return;
    }
    if (!starved(submitTransfer(engine, batch, requests, REQUESTS))) {
        for (size_t i = 0; i < REQUESTS; i++) {
            int status = await_task(engine, batch, i, END_MS);
            mte_task_error_info_t why = {0};
            if (status == STATUS_COMPLETED) {
                if (memcmp(from + i * BLOCK, to + i * BLOCK, BLOCK) == 0) continue;
                printf("#     task %zu has wrong bytes\n", i);
            } else if (status == STATUS_FAILED && mte_task_error(engine, batch, i, &why) == 0 && why.code == ERR_MEMORY) {
                continue;
            } else {
                printf("#     task %zu: %d, %d: %s\n", i, status, why.code, why.text);
            }
            wrong++;
            break;
        }
    }
    wrong += freeBatchID(engine, batch) != 0;
}

static void writes(void) { submit_to(target, theirs, OPCODE_WRITE); }

static void reads(void) { submit_to(target, theirs, OPCODE_READ); }

static void copies(void) { submit_to(0, many, OPCODE_WRITE); }

static void registers(void) {
    if (!starved(registerLocalMemoryBatch(other, regions, REGIONS, "cpu:0")))
        starved(unregisterLocalMemoryBatch(other, addresses, REGIONS));
    /* What was not registered can be registered, and what was unregistered too. */
    feed();
    int rc = registerLocalMemoryBatch(other, regions, REGIONS, "cpu:0");
    if (rc == 0) rc = unregisterLocalMemoryBatch(other, addresses, REGIONS);
    if (rc != 0) harness_give_up("registering after a shortage");
}

static void opens(void) {
    static mte_buffer_t buffers[REGIONS + 8];
    char name[128];
    size_t count = COUNT(buffers);
    engine_name(other, name, sizeof name);
    removeLocalSegment(engine, name);
    int id = openSegment(engine, name);
    if (id < 0) {
        peer_starved(id);
        return;
    }
    if (!starved(mte_segment_buffers(engine, id, buffers, &count))) wrong += count != REGIONS + 1;
    peer_starved(openSegmentNoCache(engine, name) < 0 ? mte_last_error(NULL, 0) : 0);
}

/* Of the own segment. */
static void lists(void) {
    static mte_buffer_t buffers[REGIONS + 8];
    size_t count = COUNT(buffers);
    if (!starved(mte_segment_buffers(other, 0, buffers, &count))) wrong += count != REGIONS + 1;
}

static void notifies(void) {
    notify_msg_t message = {"large", large_text};
    int count = 0;
    bool lost = peer_starved(genNotifyInEngine(engine, (uint64_t)target, message));
    notify_msg_t *got = getNotifsFromEngine(other, &count);
    if (got == NULL && mte_last_error(NULL, 0) == ERR_MEMORY) {
        feed();
        got = getNotifsFromEngine(other, &count);
    }
    if (count != !lost) {
        printf("#     %d notifications, sending failed: %d\n", count, lost);
        wrong++;
    }
    for (int i = 0; i < count; i++) wrong += strcmp(got[i].msg, large_text) != 0;
    freeNotifsMsgBuf(got, count);
}

static void play(const char *name, void (*scene)(void)) {
    long runs = 0;
    wrong = 0;
    for (bool hit = true; hit && runs < MOST_RUNS && wrong == 0; runs++) {
        starve(runs + 1, false);
        scene();
        feed();
        hit = failures > 0;
    }
    printf("#     %s: %ld allocations\n", name, runs - 1);
    CHECK("p13: the scene met a shortage", runs > 1 || wrong > 0);
    CHECK("  it came to the end of them", runs < MOST_RUNS);
    starve(1, true);
    scene();
    feed();
    CHECK_EQ("  each call said so or succeeded", wrong, 0);
}

static bool wanted(int argc, char **argv, const char *name) { return argc < 2 || strcmp(argv[1], name) == 0; }

int main(int argc, char **argv) {
    static const struct {
        const char *name;
        void (*scene)(void);
    } scenes[] = {{"writes", writes}, {"reads", reads},       {"copies", copies},
                  {"registers", registers}, {"opens", opens}, {"lists", lists}, {"notifies", notifies}};
    harness_begin();
    *(void **)&nomemory_fail = dlsym(RTLD_DEFAULT, "nomemory_fail");
    *(void **)&nomemory_failed = dlsym(RTLD_DEFAULT, "nomemory_failed");
    REQUIRE("nomemory.so is preloaded", nomemory_fail != NULL && nomemory_failed != NULL);
    char name[128];
    engine = engine_open();
    other = engine_open();
    mine = registered_bytes(engine, BYTES);
    theirs = registered_bytes(other, BYTES);
    many = registered_bytes(engine, BYTES);
    unsigned char *area = map_bytes(REGIONS * 4 * KIB);
    for (size_t i = 0; i < REGIONS; i++) {
        addresses[i] = area + i * 4 * KIB;
        regions[i] = (buffer_entry_t){addresses[i], 2 * KIB};
    }
    memset(large_text, 'x', sizeof large_text - 1);
    for (size_t i = 0; i < COUNT(scenes); i++) {
        if (!wanted(argc, argv, scenes[i].name)) continue;
        bool many_regions = scenes[i].scene == opens || scenes[i].scene == lists;
        if (many_regions && registerLocalMemoryBatch(other, regions, REGIONS, "cpu:0") != 0) harness_give_up("many regions");
        engine_name(other, name, sizeof name);
        if ((target = openSegment(engine, name)) <= 0) harness_give_up("the other engine opens");
        play(scenes[i].name, scenes[i].scene);
        if (many_regions && unregisterLocalMemoryBatch(other, addresses, REGIONS) != 0) harness_give_up("many regions again");
    }
    if (wanted(argc, argv, "notifies")) CHECK("with memory, everything works", openSegment(engine, name) > 0);
    destroyTransferEngine(engine);
    destroyTransferEngine(other);
    return harness_finish();
}

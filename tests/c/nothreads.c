/* A host in trouble: no thread can be made. Every call that needs one says so, nothing is lost by that, and all works
 * again as soon as threads can be made. With an argument: the metadata store with that URL. */
#include "harness.h"
#include "threads.h"

#define BYTES 65536
#define LOOK_UPS 12
#define SOON_MS 3000

static int name_of(transfer_engine_t engine, char *out, size_t len) {
    char own[128];
    engine_name(engine, own, sizeof own);
    const char *port = strrchr(own, ':');
    return snprintf(out, len, "localhost%s", port == NULL ? "" : port);
}

static void engines(void) {
    transfer_engine_t bare = createTransferEngine("P2PHANDSHAKE", "127.0.0.1", "", 0, 0);
    REQUIRE("an engine without a transport", bare != NULL);
    threads_refuse();
    CHECK_NULL("without threads, no engine is made", createTransferEngine("P2PHANDSHAKE", "127.0.0.1", "", 0, 0), ERR_MEMORY);
    CHECK_NULL("  and no transport", installTransport(bare, "tcp", NULL), ERR_MEMORY);
    CHECK("  threads were asked for", threads_allow() >= 2);
    CHECK("with threads, the transport is installed", installTransport(bare, "tcp", NULL) != NULL);
    destroyTransferEngine(bare);
}

static void transfers(transfer_engine_t engine, transfer_engine_t other) {
    char name[128];
    unsigned char *mine = registered_bytes(engine, BYTES), *theirs = registered_bytes(other, BYTES);
    engine_name(other, name, sizeof name);
    threads_refuse();
    segment_id_t target = openSegment(engine, name);
    CHECK("without threads, a segment is opened by its address", target > 0);
    pattern_fill(mine, BYTES, 1);
    CHECK_EQ("  and written to", transfer_once(engine, request(OPCODE_WRITE, mine, target, (uintptr_t)theirs, BYTES), 20000), STATUS_COMPLETED);
    CHECK("  with the right bytes", pattern_matches(theirs, BYTES, 1));
    threads_allow();
}

static void look_ups(transfer_engine_t engine, transfer_engine_t other) {
    char name[128], text[512] = "";
    int wrong = 0;
    name_of(other, name, sizeof name);
    threads_refuse();
    int64_t start = now_ms();
    for (int i = 0; i < LOOK_UPS; i++) {
        int id = openSegment(engine, name);
        wrong += id >= 0 || mte_last_error(text, sizeof text) != ERR_MEMORY;
    }
    printf("#     %s\n", text);
    CHECK_EQ("without threads, twelve look-ups of a name fail for lack of memory or threads", wrong, 0);
    CHECK("  at once", now_ms() - start < SOON_MS);
    CHECK("  and the text says what to do", strstr(text, "ulimit -u") != NULL);
    CHECK_EQ("  each has asked for a thread", threads_allow(), LOOK_UPS);
    start = now_ms();
    CHECK("with threads, the name is looked up", openSegment(engine, name) > 0);
    CHECK("  at once", now_ms() - start < SOON_MS);
}

/* The crates of these stores look names up on threads of tokio's. */
static int store(const char *url) {
    harness_begin();
    char text[512] = "";
    setenv("MC_METADATA_TIMEOUT_MS", "500", 1);
    threads_refuse_after(1);
    CHECK_NULL("with the control thread only, no engine is made", createTransferEngine(url, "nothreads", "127.0.0.1", 0, 0), ERR_MEMORY);
    mte_last_error(text, sizeof text);
    printf("#     %s\n", text);
    CHECK("  because another thread was asked for", threads_allow() > 0);
    /* From now on the store has to answer in time, on a machine that has much to do. */
    setenv("MC_METADATA_TIMEOUT_MS", "3000", 1);
    for (int round = 0; round < 2; round++) {
        transfer_engine_t engine = createTransferEngine(url, "nothreads", "127.0.0.1", 0, 0);
        REQUIRE("with threads, an engine is made", engine != NULL);
        threads_refuse();
        CHECK("without threads, what the store does not have cannot be opened", openSegment(engine, "nobody") < 0);
        int code = mte_last_error(text, sizeof text);
        printf("#     %d: %s\n", code, text);
        CHECK_EQ("  because the store does not have it", code, ERR_METADATA);
        threads_allow();
        destroyTransferEngine(engine);
    }
    return harness_finish();
}

int main(int argc, char **argv) {
    if (argc == 2) return store(argv[1]);
    harness_begin();
    engines();
    transfer_engine_t engine = engine_open(), other = engine_open();
    transfers(engine, other);
    look_ups(engine, other);
    destroyTransferEngine(engine);
    destroyTransferEngine(other);
    return harness_finish();
}

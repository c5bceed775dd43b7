/* The codes of a metadata store: stores URL PID, where PID is the server, killed on the way. Whoever starts this has put
 * "malformed" and "ghost" into the store; see tests/c_abi.rs. */
#include <signal.h>

#include "peer.h"

#define BYTES (64 * KIB)

static transfer_engine_t engine_at(const char *url, const char *name) {
    return createTransferEngine(url, name, NULL, 0, 0);
}

static int transfer(transfer_engine_t engine, void *local, segment_id_t target, void *remote) {
    transfer_request_t r = request(OPCODE_WRITE, local, target, (uintptr_t)remote, 4096);
    return transfer_once(engine, r, 20000);
}

static int submit(transfer_engine_t engine, void *local, segment_id_t target, void *remote) {
    transfer_request_t r = request(OPCODE_WRITE, local, target, (uintptr_t)remote, 4096);
    batch_id_t batch = batch_open(engine, 1);
    int rc = submitTransfer(engine, batch, &r, 1);
    freeBatchID(engine, batch);
    return rc;
}

int main(int argc, char **argv) {
    notify_msg_t message = {"name", "text"};
    char text[512] = "";
    harness_begin();
    REQUIRE("a store and its process are given", argc == 3);
    const char *url = argv[1];
    pid_t server = (pid_t)strtol(argv[2], NULL, 10);
    setenv("MC_TCP_BIND_ADDRESS", "127.0.0.1", 1);
    setenv("MC_METADATA_TIMEOUT_MS", "3000", 1);

    CHECK_NULL("-1: a store of no known kind", engine_at("zookeeper://127.0.0.1:1", "a"), -1);
    CHECK_NULL("-1: no store at all", engine_at("", "a"), -1);
    transfer_engine_t a = engine_at(url, "a"), b = engine_at(url, "b");
    REQUIRE("two engines", a != NULL && b != NULL);
    REQUIRE("tcp", installTransport(a, "tcp", NULL) != NULL && installTransport(b, "tcp", NULL) != NULL);
    CHECK_NULL("-200: a name that is in use", engine_at(url, "a"), -200);
    unsigned char *mine = map_bytes(2 * BYTES), *theirs = map_bytes(2 * BYTES);
    CHECK_EQ("memory of one", registerLocalMemory(a, mine, BYTES, "cpu:0", 1), 0);
    CHECK_EQ("memory of the other", registerLocalMemory(b, theirs, BYTES, "cpu:0", 1), 0);

    segment_id_t peer = openSegment(a, "b");
    CHECK_EQ("a segment opens", peer, 1);
    CHECK_EQ("again, with the same id", openSegment(a, "/b"), 1);
    CHECK_EQ("without the cache, too", openSegmentNoCache(a, "b"), 1);
    CHECK_EQ("the own name is 0", openSegment(a, "a"), 0);
    pattern_fill(mine, BYTES, 7);
    CHECK_EQ("bytes move", transfer(a, mine, peer, theirs), STATUS_COMPLETED);
    CHECK("and arrive", pattern_matches(theirs, 4096, 7));
    CHECK_EQ("a notification arrives", genNotifyInEngine(a, 1, message), 0);
    CHECK_EQ("caches are refreshed", syncSegmentCache(a), 0);

    CHECK_ERROR("-200: a segment that nobody published", openSegment(a, "nobody"), -200);
    CHECK_ERROR("-103: a malformed descriptor", openSegment(a, "malformed"), -103);
    CHECK_ERROR("-103: again, it is not cached", openSegment(a, "malformed"), -103);
    segment_id_t ghost = openSegment(a, "ghost");
    CHECK("a descriptor without a host opens", ghost > 0);
    CHECK_ERROR("-101: its handshake host has no address", genNotifyInEngine(a, (uint64_t)ghost, message), -101);
    CHECK_EQ("a segment is forgotten", removeLocalSegment(a, "ghost"), 0);
    CHECK_ERROR("-1: the own one is not", removeLocalSegment(a, "a"), -1);

    CHECK_EQ("the store dies", kill(server, SIGKILL), 0);
    CHECK_ERROR("-200: register", registerLocalMemory(a, mine + BYTES, BYTES, "cpu:0", 1), -200);
    CHECK("  the text says what to look at", mte_last_error(text, sizeof text) == -200 && strstr(text, "127.0.0.1"));
    buffer_entry_t entry = {theirs + BYTES, BYTES};
    CHECK_ERROR("-200: register a batch", registerLocalMemoryBatch(b, &entry, 1, "cpu:0"), -200);
    CHECK_ERROR("-3: what was not uploaded is no source", submit(a, mine + BYTES, peer, theirs), -3);
    CHECK_ERROR("-3: nor a target", submit(a, mine, peer, theirs + BYTES), -3);
    CHECK_ERROR("-3: nor registered", unregisterLocalMemory(a, mine + BYTES), -3);
    CHECK_ERROR("-200: open", openSegment(a, "another"), -200);
    CHECK_ERROR("-200: open without the cache", openSegmentNoCache(a, "b"), -200);
    CHECK_EQ("known peers are still reached", transfer(a, mine, peer, theirs), STATUS_COMPLETED);
    CHECK_EQ("the cache stays", syncSegmentCache(a), 0);
    CHECK_ERROR("-200: unregister", unregisterLocalMemory(b, theirs), -200);
    CHECK_ERROR("-3: it is unregistered all the same", unregisterLocalMemory(b, theirs), -3);
    CHECK_NULL("-200: create", engine_at(url, "c"), -200);
    int64_t begun = now_ms();
    destroyTransferEngine(a);
    destroyTransferEngine(b);
    CHECK("destroying does not wait for the store", now_ms() - begun < 4000);
    return harness_finish();
}

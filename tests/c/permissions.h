/* P37: regions that peers may only read, or only write, between two engines of one process. */
#ifndef TESTS_C_PERMISSIONS_H
#define TESTS_C_PERMISSIONS_H

#include "harness.h"

#define BYTES (64 * KIB)
#define END_MS 30000

/* One request from `from` to `theirs` ends as it should, and touches what it should. */
static inline void attempt(transfer_engine_t from, segment_id_t target, int opcode, unsigned char *mine, unsigned char *theirs, bool allowed) {
    static uint64_t seed = 1;
    char name[128];
    pattern_fill(mine, BYTES, seed);
    pattern_fill(theirs, BYTES, seed + 1);
    int status = transfer_once(from, request(opcode, mine, target, (uintptr_t)theirs, BYTES), END_MS);
    snprintf(name, sizeof name, "  a %s %s", opcode == OPCODE_READ ? "READ" : "WRITE", allowed ? "completes" : "fails");
    CHECK_EQ(name, status, allowed ? STATUS_COMPLETED : STATUS_FAILED);
    uint64_t in_mine = allowed && opcode == OPCODE_READ ? seed + 1 : seed, in_theirs = allowed && opcode == OPCODE_WRITE ? seed : seed + 1;
    CHECK("    and nothing of the owner's is touched that should not be", pattern_matches(theirs, BYTES, in_theirs));
    /* Over memory of one host a reader looks by itself, and finds out afterwards that the region is not the one it knew. */
    const char *transport = getenv("TEST_TRANSPORT");
    bool looks_first = transport != NULL && strcmp(transport, "shm") == 0 && opcode == OPCODE_READ && !allowed;
    CHECK("    nor here", looks_first || pattern_matches(mine, BYTES, in_mine));
    seed += 2;
}

static inline int permissions(transfer_engine_t from, transfer_engine_t owner) {
    static const struct {
        const char *name;
        int peers;
    } rows[] = {{"both", MTE_PEERS_READ | MTE_PEERS_WRITE}, {"reading", MTE_PEERS_READ}, {"writing", MTE_PEERS_WRITE}, {"both again", 3}};
    unsigned char *mine = registered_bytes(from, BYTES), *theirs = map_bytes(BYTES);
    char name[128], text[256];
    engine_name(owner, name, sizeof name);
    for (size_t i = 0; i < COUNT(rows); i++) {
        snprintf(text, sizeof text, "a region is open for %s", rows[i].name);
        CHECK_EQ(text, mte_register_memory(owner, theirs, BYTES, "cpu:0", rows[i].peers), 0);
        segment_id_t target = openSegmentNoCache(from, name);
        /* What is refused first, and then that all works which is allowed. */
        attempt(from, target, OPCODE_WRITE, mine, theirs, (rows[i].peers & MTE_PEERS_WRITE) != 0);
        attempt(from, target, OPCODE_READ, mine, theirs, (rows[i].peers & MTE_PEERS_READ) != 0);
        attempt(from, target, OPCODE_WRITE, mine, theirs, (rows[i].peers & MTE_PEERS_WRITE) != 0);
        CHECK_EQ("  it is unregistered", unregisterLocalMemory(owner, theirs), 0);
    }
    CHECK_EQ("a region that is open for nothing", mte_register_memory(owner, theirs, BYTES, "cpu:0", 0), 0);
    transfer_request_t r = request(OPCODE_READ, mine, openSegmentNoCache(from, name), (uintptr_t)theirs, BYTES);
    CHECK("  is not in the descriptor", transfer_once(from, r, END_MS) == ERR_ADDRESS_NOT_REGISTERED);
    CHECK_EQ("  it is unregistered", unregisterLocalMemory(owner, theirs), 0);
    static const int wrong[] = {-1, 4, 5, 255, 256, 0x7fffffff};
    for (size_t i = 0; i < COUNT(wrong); i++)
        CHECK_ERROR("-1: bits without a meaning", mte_register_memory(owner, theirs, BYTES, "cpu:0", wrong[i]), -1);
    CHECK_ERROR("-1: no location", mte_register_memory(owner, theirs, BYTES, NULL, 1), -1);
    CHECK_ERROR("-1: no engine", mte_register_memory(NULL, theirs, BYTES, "cpu:0", 1), -1);
    CHECK_ERROR("-1: no bytes", mte_register_memory(owner, theirs, 0, "cpu:0", 1), -1);
    destroyTransferEngine(from);
    destroyTransferEngine(owner);
    return harness_finish();
}

#endif

/* Reads and writes of every size and batch shape, verified at both ends, and the waiting functions. */
#include <fcntl.h>

#include "peer.h"

#define BYTES (65 * MIB)
#define MANY 100000
#define WAIT_MS 60000

static transfer_engine_t engine;
static unsigned char *source, *sink;

static uint64_t at(segment_id_t target, const peer_t *peer) {
    return target == LOCAL_SEGMENT ? (uintptr_t)sink : peer->base;
}

static const unsigned char *seen(segment_id_t target, const peer_t *peer) {
    return target == LOCAL_SEGMENT ? sink : peer->view;
}

static void sizes(const peer_t *peer, segment_id_t target, const char *where) {
    static const size_t rows[] = {1, 7, 4096, 65536, MIB + 3, 64 * MIB};
    char name[96];
    unsigned char *back = registered_bytes(engine, BYTES);
    for (size_t i = 0; i < COUNT(rows); i++) {
        pattern_fill(source, rows[i], i);
        snprintf(name, sizeof name, "write %zu bytes to %s", rows[i], where);
        CHECK_EQ(name, transfer_once(engine, request(OPCODE_WRITE, source, target, at(target, peer), rows[i]), WAIT_MS), STATUS_COMPLETED);
        CHECK("  they are there", pattern_matches(seen(target, peer), rows[i], i));
        CHECK_EQ("  read back", transfer_once(engine, request(OPCODE_READ, back, target, at(target, peer), rows[i]), WAIT_MS), STATUS_COMPLETED);
        CHECK("  they are equal", memcmp(back, source, rows[i]) == 0);
    }
    CHECK_EQ("  unregister the read buffer", unregisterLocalMemory(engine, back), 0);
    munmap(back, BYTES);
}

static void unaligned(const peer_t *peer, segment_id_t target) {
    uint64_t seed = 3;
    int wrong = 0;
    for (int i = 0; i < 300; i++) {
        size_t len = 1 + next_random(&seed) % 20000, from = next_random(&seed) % 5000, to = 1 + next_random(&seed) % 5000;
        memset(peer->view, 0x5a, 30000);
        pattern_fill(source + from, len, (uint64_t)i);
        wrong += transfer_once(engine, request(OPCODE_WRITE, source + from, target, peer->base + to, len), WAIT_MS) != STATUS_COMPLETED;
        wrong += !pattern_matches(peer->view + to, len, (uint64_t)i);
        wrong += !all_bytes(peer->view, to, 0x5a) || !all_bytes(peer->view + to + len, 30000 - to - len, 0x5a);
    }
    CHECK_EQ("300 writes of odd sizes and places touch their range only", wrong, 0);
}

static void batch_of(const peer_t *peer, segment_id_t target, size_t count, bool read) {
    const size_t block = 4096;
    char name[96];
    transfer_request_t *r = calloc(count, sizeof *r);
    size_t wrong = 0;
    batch_id_t batch = batch_open(engine, count);
    pattern_fill(read ? peer->view : source, count * block, count);
    for (size_t i = 0; i < count; i++)
        r[i] = request(read ? OPCODE_READ : OPCODE_WRITE, (read ? sink : source) + i * block, target, peer->base + i * block, block);
    snprintf(name, sizeof name, "a batch of %zu %s", count, read ? "reads" : "writes");
    CHECK_EQ(name, submitTransfer(engine, batch, r, count), 0);
    CHECK_EQ("  is waited for", mte_wait_batch(engine, batch, WAIT_MS), 0);
    for (size_t i = 0; i < count; i++) {
        transfer_status_t status = {0};
        wrong += getTransferStatus(engine, batch, i, &status) != 0 || status.status != STATUS_COMPLETED || status.transferred_bytes != block;
    }
    CHECK_EQ("  every task completed in full", wrong, 0);
    CHECK("  with the right bytes", pattern_matches(read ? sink : peer->view, count * block, count));
    CHECK_EQ("  and is freed", freeBatchID(engine, batch), 0);
    free(r);
}

static void several_submits(const peer_t *peer, segment_id_t target) {
    batch_id_t batch = batch_open(engine, 64);
    int wrong = 0;
    pattern_fill(source, 64 * 4096, 11);
    for (size_t i = 0; i < 64; i += 16) {
        transfer_request_t r[16];
        for (size_t j = 0; j < 16; j++)
            r[j] = request(OPCODE_WRITE, source + (i + j) * 4096, target, peer->base + (i + j) * 4096, 4096);
        wrong += submitTransfer(engine, batch, r, 16) != 0;
    }
    for (size_t i = 0; i < 64; i++) wrong += await_task(engine, batch, i, WAIT_MS) != STATUS_COMPLETED;
    CHECK_EQ("four submits into one batch", wrong, 0);
    CHECK("  with the right bytes", pattern_matches(peer->view, 64 * 4096, 11));
    CHECK_EQ("  and is freed", freeBatchID(engine, batch), 0);
}

static void zero_length(const peer_t *peer, segment_id_t target) {
    transfer_status_t status = {.status = -1, .transferred_bytes = 1};
    batch_id_t batch = batch_open(engine, 1);
    transfer_request_t r = request(OPCODE_READ, source, target, peer->base, 0);
    CHECK_EQ("a request of no bytes", submitTransfer(engine, batch, &r, 1), 0);
    CHECK_EQ("  completes", await_task(engine, batch, 0, WAIT_MS), STATUS_COMPLETED);
    CHECK("  with 0 bytes", getTransferStatus(engine, batch, 0, &status) == 0 && status.transferred_bytes == 0);
    CHECK_EQ("  and is freed", freeBatchID(engine, batch), 0);
}

static void adjacent_sources(const peer_t *peer, segment_id_t target) {
    unsigned char *area = map_bytes(4 * 65536);
    buffer_entry_t parts[3] = {{area, 65536}, {area + 65536, 65536}, {area + 3 * 65536, 65536}};
    void *all[3] = {parts[0].addr, parts[1].addr, parts[2].addr};
    CHECK_EQ("two adjacent regions and one apart", registerLocalMemoryBatch(engine, parts, 3, "cpu:0"), 0);
    pattern_fill(area, 2 * 65536, 12);
    CHECK_EQ("a source over both", transfer_once(engine, request(OPCODE_WRITE, area, target, peer->base, 2 * 65536), WAIT_MS), STATUS_COMPLETED);
    CHECK("  has the right bytes", pattern_matches(peer->view, 2 * 65536, 12));
    CHECK_EQ("a source over a gap", transfer_once(engine, request(OPCODE_WRITE, area, target, peer->base, 4 * 65536), WAIT_MS), -3);
    CHECK_EQ("all three go", unregisterLocalMemoryBatch(engine, all, 3), 0);
    munmap(area, 4 * 65536);
}

static void private_region(peer_t *peer, segment_id_t target) {
    CHECK_EQ("the peer splits its region", peer_unregister(peer, 0), 0);
    CHECK_EQ("  one half for all", peer_register(peer, 0, MIB, 1), 0);
    CHECK_EQ("  one half for itself", peer_register(peer, MIB, MIB, 0), 0);
    CHECK_EQ("sync", syncSegmentCache(engine), 0);
    CHECK_EQ("a write into the open half", transfer_once(engine, request(OPCODE_WRITE, source, target, peer->base, 8), WAIT_MS), STATUS_COMPLETED);
    CHECK_EQ("a write into the private half", transfer_once(engine, request(OPCODE_WRITE, source, target, peer->base + MIB, 8), WAIT_MS), -3);
    mte_buffer_t shown[4];
    size_t count = COUNT(shown);
    CHECK_EQ("its buffers can be listed", mte_segment_buffers(engine, target, shown, &count), 0);
    CHECK("  and only the open one is", count == 1 && shown[0].addr == peer->base && shown[0].length == MIB);
    CHECK_EQ("the open half goes", peer_unregister(peer, 0), 0);
    CHECK_EQ("the private half goes", peer_unregister(peer, MIB), 0);
    CHECK_EQ("the whole comes back", peer_register(peer, 0, BYTES, 1), 0);
    CHECK_EQ("sync again", syncSegmentCache(engine), 0);
}

static void many(const peer_t *peer, segment_id_t target) {
    transfer_request_t *r = calloc(MANY, sizeof *r);
    batch_id_t batch = batch_open(engine, MANY);
    size_t wrong = 0;
    pattern_fill(source, (size_t)MANY * 64, 13);
    for (size_t i = 0; i < MANY; i++) r[i] = request(OPCODE_WRITE, source + i * 64, target, peer->base + i * 64, 64);
    CHECK_EQ("p13: 100000 requests in one batch", submitTransfer(engine, batch, r, MANY), 0);
    free(r);
    CHECK_EQ("  are waited for", mte_wait_batch(engine, batch, WAIT_MS), 0);
    for (size_t i = 0; i < MANY; i++) {
        transfer_status_t status = {0};
        wrong += getTransferStatus(engine, batch, i, &status) != 0 || status.status != STATUS_COMPLETED;
    }
    CHECK_EQ("  every task completed", wrong, 0);
    CHECK("  with the right bytes", pattern_matches(peer->view, (size_t)MANY * 64, 13));
    CHECK_EQ("  and is freed", freeBatchID(engine, batch), 0);
}

static int readable(int fd, int ms) {
    struct pollfd p = {fd, POLLIN, 0};
    return poll(&p, 1, ms);
}

static void batch_fd(const peer_t *peer, segment_id_t target) {
    int fd = -1;
    batch_id_t batch = batch_open(engine, 3);
    transfer_request_t r = request(OPCODE_WRITE, source, target, peer->base, 4096);
    CHECK_EQ("a batch has a descriptor", mte_batch_fd(engine, batch, &fd), 0);
    CHECK_EQ("submit", submitTransfer(engine, batch, &r, 1), 0);
    CHECK_EQ("it becomes readable when the task is done", readable(fd, WAIT_MS), 1);
    CHECK_EQ("and stays so", readable(fd, 0), 1);
    CHECK_EQ("the task is COMPLETED by then", await_task(engine, batch, 0, 0), STATUS_COMPLETED);
    peer_pause(peer);
    CHECK_EQ("submit to a stopped peer", submitTransfer(engine, batch, &r, 1), 0);
    CHECK_EQ("a new submit clears it", readable(fd, 0), 0);
    CHECK_EQ("p01: nothing completes while the receiver is stopped", readable(fd, 300), 0);
    CHECK_ERROR("a wait times out with -4", mte_wait_batch(engine, batch, 50), -4);
    peer_resume(peer);
    CHECK_EQ("readable again after the receiver goes on", readable(fd, WAIT_MS), 1);
    CHECK_EQ("a wait without limit returns", mte_wait_batch(engine, batch, -1), 0);
    int again = -1;
    CHECK("asking again gives the same descriptor", mte_batch_fd(engine, batch, &again) == 0 && again == fd);
    CHECK("it is closed on exec", (fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
    CHECK_EQ("the batch is freed", freeBatchID(engine, batch), 0);
}

int main(int argc, char **argv) {
    static const size_t batches[] = {1, 2, 3, 16, 128, 1000, 1024};
    peer_dispatch(argc, argv);
    harness_begin();
    char own[128];
    peer_t peer = peer_start(BYTES, NULL);
    engine = engine_open();
    source = registered_bytes(engine, BYTES);
    sink = registered_bytes(engine, BYTES);
    segment_id_t target = openSegment(engine, peer.name);
    REQUIRE("the peer opens", target > 0);
    engine_name(engine, own, sizeof own);
    REQUIRE("the own name is LOCAL_SEGMENT", openSegment(engine, own) == LOCAL_SEGMENT);
    sizes(&peer, target, "a peer");
    sizes(&peer, LOCAL_SEGMENT, "the own segment");
    unaligned(&peer, target);
    for (size_t i = 0; i < COUNT(batches); i++) {
        batch_of(&peer, target, batches[i], false);
        batch_of(&peer, target, batches[i], true);
    }
    several_submits(&peer, target);
    zero_length(&peer, target);
    adjacent_sources(&peer, target);
    private_region(&peer, target);
    many(&peer, target);
    batch_fd(&peer, target);
    CHECK_EQ("the peer ends in order", peer_stop(&peer), 0);
    destroyTransferEngine(engine);
    return harness_finish();
}

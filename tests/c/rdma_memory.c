/* P11: registration on every NIC or on none, memory in several pieces, and what peers see of it. */
#include "rdma.h"
#include "wire.h"

#define PIECE MIB
#define BYTES (8 * MIB + 3)
#define ARENA (10 * MIB)
#define REGIONS 300

static transfer_engine_t engine;
static char own[128];

/* How many `buffers` entries of our descriptor lie in `[from, from + len)`, and the bytes they have. */
static size_t published(const void *from, size_t len, uint64_t *bytes) {
    static char json[1 << 20];
    size_t count = 0;
    *bytes = 0;
    if (frame_exchange(name_port(own), 1, "{}\n", json, sizeof json) != 1) harness_give_up("a metadata exchange");
    for (char *at = json; (at = strstr(at, "{\"addr\":")) != NULL; at++) {
        uint64_t addr = strtoull(at + strlen("{\"addr\":"), NULL, 10);
        const char *length = strstr(at, "\"length\":");
        if (length == NULL || addr < (uintptr_t)from || addr >= (uintptr_t)from + len) continue;
        *bytes += strtoull(length + strlen("\"length\":"), NULL, 10);
        count++;
    }
    return count;
}

/* Moves around each border of pieces, on either side or both. */
static void over_borders(const peer_t *peer, segment_id_t target, unsigned char *mine, unsigned char *sink, const char *what) {
    uint64_t seed = 1;
    char name[128];
    int wrong = 0;
    for (int i = 0; i < 120; i++) {
        size_t len = 1 + next_random(&seed) % (2 * PIECE), border = (1 + next_random(&seed) % 6) * PIECE;
        size_t back = next_random(&seed) % (len < border ? len + 1 : border);
        size_t from = i % 3 == 0 ? 0 : border - back, to = i % 3 == 1 ? 0 : border - back;
        pattern_fill(mine + from, len, (uint64_t)i);
        memset(peer->view, 0x5a, ARENA);
        memset(sink, 0, len);
        wrong += move_one(engine, target, OPCODE_WRITE, mine + from, peer->base + to, len).completed != 1;
        wrong += !pattern_matches(peer->view + to, len, (uint64_t)i);
        wrong += !all_bytes(peer->view, to, 0x5a) || !all_bytes(peer->view + to + len, ARENA - to - len, 0x5a);
        wrong += move_one(engine, target, OPCODE_READ, sink, peer->base + to, len).completed != 1;
        wrong += !pattern_matches(sink, len, (uint64_t)i);
    }
    snprintf(name, sizeof name, "120 transfers over borders of pieces, %s", what);
    CHECK_EQ(name, wrong, 0);
}

static void pieces(void) {
    uint64_t bytes;
    setenv("MC_MAX_MR_SIZE", "1048576", 1);
    transfer_engine_t whole = engine;
    engine = rdma_engine("sim0,sim1");
    peer_t cut = rdma_peer(ARENA, "sim2,sim3", "MC_MAX_MR_SIZE=1048576"), one = rdma_peer(ARENA, "sim2", "MC_MAX_MR_SIZE=1099511627776");
    unsetenv("MC_MAX_MR_SIZE");
    engine_name(engine, own, sizeof own);
    unsigned char *mine = map_bytes(BYTES), *sink = registered_bytes(engine, ARENA);
    CHECK_EQ("MC_MAX_MR_SIZE=1 MiB: 8 MiB and 3 bytes are registered", registerLocalMemory(engine, mine, BYTES, "cpu:0", 1), 0);
    CHECK_EQ("  published as nine buffers", published(mine, BYTES, &bytes), 9);
    CHECK_EQ("  of all bytes", bytes, BYTES);
    CHECK_EQ("  a read of the whole from ourselves", move_one(engine, LOCAL_SEGMENT, OPCODE_READ, sink, (uintptr_t)mine, BYTES).completed, 1);
    segment_id_t to_cut = openSegment(engine, cut.name), to_one = openSegment(engine, one.name);
    mte_buffer_t shown[16];
    size_t count = COUNT(shown);
    CHECK_EQ("the peer's pieces are listed", mte_segment_buffers(engine, to_cut, shown, &count) == 0 ? (int)count : -1, 10);
    over_borders(&cut, to_cut, mine, sink, "pieces at both ends");
    over_borders(&one, to_one, mine, sink, "pieces here");
    pattern_fill(mine, BYTES, 8);
    CHECK_EQ("all pieces in one request", move_one(engine, to_cut, OPCODE_WRITE, mine, cut.base, BYTES).completed, 1);
    CHECK("  with the right bytes", pattern_matches(cut.view, BYTES, 8));
    transfer_engine_t uncut = rdma_engine("sim0");
    unsigned char *plain = registered_bytes(uncut, ARENA);
    pattern_fill(plain, ARENA, 9);
    CHECK_EQ("from an engine without pieces", move_one(uncut, openSegment(uncut, cut.name), OPCODE_WRITE, plain, cut.base, ARENA).completed, 1);
    CHECK("  with the right bytes", pattern_matches(cut.view, ARENA, 9));
    destroyTransferEngine(uncut);
    CHECK_EQ("unregister", unregisterLocalMemory(engine, mine), 0);
    CHECK_EQ("  takes all pieces back", published(mine, BYTES, &bytes), 0);
    batch_id_t batch = batch_open(engine, 1);
    transfer_request_t r = request(OPCODE_WRITE, mine + 5 * PIECE, to_cut, cut.base, 8);
    CHECK_ERROR("  and none can be used", submitTransfer(engine, batch, &r, 1), -3);
    freeBatchID(engine, batch);
    CHECK_EQ("the peers end in order", peer_stop(&cut) | peer_stop(&one), 0);
    destroyTransferEngine(engine);
    munmap(mine, BYTES);
    munmap(sink, ARENA);
    munmap(plain, ARENA);
    munmap(cut.view, ARENA);
    munmap(one.view, ARENA);
    engine = whole;
    engine_name(engine, own, sizeof own);
}

/* Evaluates `call` with the next registrations at a NIC failing, until it does fail: the control file takes effect soon. */
static int refused(void *memory, const char *fault) {
    nics_do(fault);
    int rc = 0;
    for (int64_t end = now_ms() + 5000; rc == 0 && now_ms() < end;) {
        rc = registerLocalMemory(engine, memory, 2 * PIECE, "cpu:0", 1);
        if (rc == 0) unregisterLocalMemory(engine, memory);
    }
    return rc;
}

static void rolled_back(void) {
    uint64_t bytes;
    peer_t peer = rdma_peer(ARENA, "sim2,sim3", NULL);
    segment_id_t target = openSegment(engine, peer.name);
    unsigned char *mine = map_bytes(2 * PIECE);
    CHECK_ERROR("p11: one NIC refuses to register", refused(mine, "fail reg_mr 1 ENOMEM\n"), -202);
    char text[512] = "";
    mte_last_error(text, sizeof text);
    printf("#     %s\n", text);
    CHECK("  p32: the text names NIC, range, errno and limit", strstr(text, "sim") && strstr(text, "Cannot allocate memory") && strstr(text, "ulimit -l"));
    CHECK_EQ("  nothing is published", published(mine, 2 * PIECE, &bytes), 0);
    batch_id_t batch = batch_open(engine, 1);
    transfer_request_t r = request(OPCODE_WRITE, mine, target, peer.base, 8);
    CHECK_ERROR("  nothing can be used", submitTransfer(engine, batch, &r, 1), -3);
    freeBatchID(engine, batch);
    CHECK_ERROR("  nothing can be unregistered", unregisterLocalMemory(engine, mine), -3);
    nics_do("fail reg_mr 0\n");
    int again = -1;
    WAIT_UNTIL(again, registerLocalMemory(engine, mine, 2 * PIECE, "cpu:0", 1) == 0, 5000);
    CHECK_EQ("p04: it can be registered afterwards", again, 1);
    pattern_fill(mine, 2 * PIECE, 2);
    CHECK_EQ("  and used", move_row(engine, target, OPCODE_WRITE, mine, peer.base, 65536, 32).completed, 32);
    CHECK("  with the right bytes", pattern_matches(peer.view, 2 * PIECE, 2));
    CHECK_EQ("  unregister", unregisterLocalMemory(engine, mine), 0);

    buffer_entry_t parts[3] = {{mine, 4096}, {map_bytes(4096), 4096}, {mine + 8192, 4096}};
    /* Not unmapped: another thread could get the address. */
    mprotect(parts[1].addr, 4096, PROT_NONE);
    CHECK_ERROR("p11: a batch with an entry that cannot be accessed", registerLocalMemoryBatch(engine, parts, 3, "cpu:0"), -202);
    mte_last_error(text, sizeof text);
    printf("#     %s\n", text);
    CHECK_EQ("  registers nothing", published(mine, 2 * PIECE, &bytes), 0);
    CHECK_EQ("  the whole can be registered", registerLocalMemory(engine, mine, 2 * PIECE, "cpu:0", 1), 0);
    CHECK_EQ("  and unregistered", unregisterLocalMemory(engine, mine), 0);
    CHECK_ERROR("such an address alone", registerLocalMemory(engine, parts[1].addr, 4096, "cpu:0", 1), -202);
    mte_last_error(text, sizeof text);
    CHECK("  has a text with the cause", strstr(text, "Bad address") != NULL);
    CHECK_EQ("the peer ends in order", peer_stop(&peer), 0);
    munmap(mine, 2 * PIECE);
    munmap(peer.view, ARENA);
}

/* Many regions, registered in both ways, all of them used in one batch. */
static void many_regions(void) {
    peer_t peer = rdma_peer(ARENA, "sim2,sim3", NULL);
    segment_id_t target = openSegment(engine, peer.name);
    unsigned char *area = map_bytes(REGIONS * 8192);
    buffer_entry_t parts[REGIONS / 2];
    void *starts[REGIONS / 2];
    transfer_request_t r[REGIONS];
    int wrong = 0;
    for (size_t i = 0; i < REGIONS / 2; i++) {
        parts[i] = (buffer_entry_t){area + 16384 * i, 4096};
        starts[i] = parts[i].addr;
        wrong += registerLocalMemory(engine, area + 16384 * i + 8192, 4096, "*", 1) != 0;
    }
    CHECK_EQ("150 regions one by one", wrong, 0);
    CHECK_EQ("150 regions at once", registerLocalMemoryBatch(engine, parts, REGIONS / 2, "cpu:0"), 0);
    uint64_t bytes;
    CHECK_EQ("all are published", published(area, REGIONS * 8192, &bytes), REGIONS);
    pattern_fill(area, REGIONS * 8192, 4);
    for (size_t i = 0; i < REGIONS; i++)
        r[i] = request(OPCODE_WRITE, area + i * 8192, target, peer.base + i * 8192, 4096);
    batch_id_t batch = batch_open(engine, REGIONS);
    CHECK_EQ("one batch over all", submitTransfer(engine, batch, r, REGIONS), 0);
    CHECK_EQ("  completes", batch_outcome(engine, batch, REGIONS, WAIT_MS).completed, REGIONS);
    for (size_t i = 0; i < REGIONS; i++) wrong += memcmp(peer.view + i * 8192, area + i * 8192, 4096) != 0;
    CHECK_EQ("  with the right bytes", wrong, 0);
    for (size_t i = 0; i < REGIONS / 2; i++) wrong += unregisterLocalMemory(engine, area + 16384 * i + 8192) != 0;
    CHECK_EQ("150 go one by one", wrong, 0);
    CHECK_EQ("150 go at once", unregisterLocalMemoryBatch(engine, starts, REGIONS / 2), 0);
    CHECK_EQ("none is published", published(area, REGIONS * 8192, &bytes), 0);
    CHECK_EQ("the peer ends in order", peer_stop(&peer), 0);
    munmap(area, REGIONS * 8192);
    munmap(peer.view, ARENA);
}

/* Registered before the transport is there. */
static void installed_late(void) {
    peer_t peer = rdma_peer(ARENA, "sim2", NULL);
    transfer_engine_t late = bare_engine();
    unsigned char *mine = map_bytes(MIB);
    CHECK_EQ("memory is registered first", registerLocalMemory(late, mine, MIB, "cpu:0", 1), 0);
    CHECK("then RDMA is installed", rdma_install(late, "sim0") != NULL);
    segment_id_t target = openSegment(late, peer.name);
    pattern_fill(mine, MIB, 3);
    CHECK_EQ("  and the memory can be used", move_one(late, target, OPCODE_WRITE, mine, peer.base, MIB).completed, 1);
    CHECK("  with the right bytes", pattern_matches(peer.view, MIB, 3));
    destroyTransferEngine(late);
    CHECK_EQ("the peer ends in order", peer_stop(&peer), 0);
    munmap(mine, MIB);
    munmap(peer.view, ARENA);
}

int main(int argc, char **argv) {
    peer_dispatch(argc, argv);
    harness_begin();
    /* Both NICs at once, so that either may be the one that refuses. */
    setenv("MC_ENABLE_PARALLEL_REG_MR", "1", 1);
    engine = rdma_engine("sim0,sim1");
    unsetenv("MC_ENABLE_PARALLEL_REG_MR");
    engine_name(engine, own, sizeof own);
    pieces();
    rolled_back();
    many_regions();
    installed_late();
    destroyTransferEngine(engine);
    return harness_finish();
}

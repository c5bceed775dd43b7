/* Transfers in one call, requests as arrays and as grids, engines with their transports, questions about peers, and
 * TokenSpeed's ABI. */
#include <errno.h>

#include "peer.h"
#include "transfer_engine_tokenspeed.h"

#define BYTES (4 * MIB)
#define MANY 10000

static transfer_engine_t engine;
static unsigned char *bytes;

static void creation(void) {
    transfer_engine_t e = mte_create_engine("P2PHANDSHAKE", "127.0.0.1", NULL, NULL);
    CHECK("an engine without transports", e != NULL);
    CHECK_NULL("has none", mte_transport(e, "tcp"), -1);
    CHECK_EQ("so TCP is not the only one", mte_only_transport(e, "tcp"), 0);
    transport_t tcp = installTransport(e, "tcp", NULL);
    CHECK("until it is installed", tcp != NULL && mte_transport(e, "tcp") == tcp && mte_only_transport(e, "tcp") == 1);
    CHECK_NULL("an unknown transport", mte_transport(e, "warp"), -1);
    destroyTransferEngine(e);
    e = mte_create_engine("P2PHANDSHAKE", "127.0.0.1", "tcp", "");
    CHECK("an engine with TCP", e != NULL && mte_transport(e, "tcp") != NULL);
    char name[64];
    CHECK_EQ("its name", getLocalIpAndPort(e, name, sizeof name), 0);
    CHECK_EQ("its port", getRpcPort(e), atoi(strrchr(name, ':') + 1));
    destroyTransferEngine(e);
    e = mte_create_engine("P2PHANDSHAKE", "127.0.0.1", "auto", "no_such_nic");
    CHECK("a NIC that is not there leaves TCP", e != NULL && mte_only_transport(e, "tcp") == 1);
    destroyTransferEngine(e);
    CHECK_NULL("a transport that does not exist", mte_create_engine("P2PHANDSHAKE", "127.0.0.1", "warp", ""), -1);
    CHECK_NULL("one that this project lacks", mte_create_engine("P2PHANDSHAKE", "127.0.0.1", "tcp,efa", ""), -303);
    CHECK_NULL("no name", mte_create_engine("P2PHANDSHAKE", NULL, "tcp", ""), -1);
    CHECK_EQ("an unknown engine", getRpcPort(NULL), -1);
}

/* A text of any length: first how long it is, then all of it, then as much as fits. */
static void texts(segment_id_t target) {
    char small[8] = "", large[4096];
    size_t need = 0;
    CHECK_EQ("how long the descriptor is", mte_segment_descriptor(engine, target, NULL, &need), 0);
    CHECK("it has some bytes", need > 64 && need < sizeof large);
    size_t len = sizeof large;
    CHECK_EQ("the descriptor", mte_segment_descriptor(engine, target, large, &len), 0);
    CHECK("as long as was said", len == need && strlen(large) == need - 1);
    CHECK("its content", strstr(large, "\"protocol\":\"tcp\"") != NULL && strstr(large, "\"buffers\":[{") != NULL);
    len = sizeof small;
    CHECK_EQ("as much as fits", mte_segment_descriptor(engine, target, small, &len), 0);
    CHECK("is the beginning", len == need && strlen(small) == sizeof small - 1 && strncmp(large, small, 7) == 0);
    len = sizeof large;
    CHECK_EQ("the own descriptor", mte_segment_descriptor(engine, 0, large, &len), 0);
    CHECK("names the engine", strstr(large, "\"name\":\"127.0.0.1:") != NULL);
    CHECK_ERROR("of an unknown segment", mte_segment_descriptor(engine, 4711, large, &len), -1);
    CHECK_ERROR("without a length", mte_segment_descriptor(engine, target, large, NULL), -1);
    len = 8;
    CHECK_ERROR("without a buffer", mte_segment_descriptor(engine, target, NULL, &len), -1);
    len = sizeof large;
    CHECK_EQ("the topology", mte_local_topology(engine, large, &len), 0);
    CHECK_STR("of an engine without RDMA", large, "{}");
    len = sizeof large;
    int found = mte_discover_topology("no_such_nic", large, &len);
    CHECK("discovery without an engine", found == -300 || (found == 0 && large[0] == '{'));
    CHECK("does not find what is not there", strstr(large, "no_such_nic") == NULL);
}

static void questions(const peer_t *peer, segment_id_t target) {
    char own[64];
    engine_name(engine, own, sizeof own);
    CHECK_EQ("the peer lives", mte_probe_peer(engine, peer->name), 0);
    CHECK_EQ("so does its segment", probePeerAliveByID(engine, target), 0);
    CHECK_EQ("and this engine", mte_probe_peer(engine, own), 0);
    CHECK_EQ("whose id is 0", probePeerAliveByID(engine, 0), 0);
    CHECK_ERROR("nobody is there", mte_probe_peer(engine, "127.0.0.1:1"), -102);
    CHECK_ERROR("an unknown id", probePeerAliveByID(engine, 4711), -1);
    CHECK_ERROR("no name", mte_probe_peer(engine, NULL), -1);
    CHECK_EQ("the id is known", checkSegmentStatus(engine, target), 0);
    CHECK_EQ("so is the own one", checkSegmentStatus(engine, 0), 0);
    CHECK_ERROR("others are not", checkSegmentStatus(engine, 4711), -1);
    CHECK_ERROR("nor are negative ones", checkSegmentStatus(engine, -1), -1);
    CHECK_EQ("registered memory", mte_overlaps(engine, bytes + BYTES - 1, 1), 1);
    CHECK_EQ("memory that begins before it", mte_overlaps(engine, bytes - 1, 2), 1);
    CHECK_EQ("memory behind it", mte_overlaps(engine, bytes + BYTES, 64), 0);
    CHECK_EQ("memory before it", mte_overlaps(engine, bytes - 1, 1), 0);
    CHECK_EQ("no memory", mte_overlaps(engine, bytes, 0), 0);
    CHECK_EQ("all memory", mte_overlaps(engine, NULL, SIZE_MAX), 1);
}

static uint64_t sources[MANY], offsets[MANY], lengths[MANY];

/* MANY pieces of odd sizes, in reverse at the peer. */
static size_t pieces(const peer_t *peer) {
    size_t at = 0;
    for (size_t i = 0; i < MANY; i++) {
        lengths[i] = i % 397;
        sources[i] = (uintptr_t)bytes + at;
        offsets[i] = peer->base + BYTES - at - lengths[i];
        at += lengths[i];
    }
    return at;
}

static bool reversed(const peer_t *peer, size_t from, size_t to) {
    for (size_t i = from; i < to; i++)
        if (memcmp((void *)(uintptr_t)sources[i], peer->view + (offsets[i] - peer->base), lengths[i]) != 0) return false;
    return true;
}

static void arrays(peer_t *peer, segment_id_t target) {
    mte_task_error_info_t why = {.code = 77};
    size_t total = pieces(peer);
    REQUIRE("the pieces fit", total <= BYTES);
    pattern_fill(bytes, BYTES, 1);
    CHECK_EQ("a write in one call", mte_transfer_arrays(engine, target, OPCODE_WRITE, sources, offsets, lengths, MANY, NULL, -1, &why), 0);
    CHECK("all of it is there", reversed(peer, 0, MANY) && why.code == 0 && why.text[0] == '\0');
    memset(bytes, 0, BYTES);
    CHECK_EQ("and back", mte_transfer_arrays(engine, target, OPCODE_READ, sources, offsets, lengths, MANY, "", 60000, NULL), 0);
    CHECK("as it was", pattern_matches(bytes, total, 1));
    CHECK_EQ("nothing", mte_transfer_arrays(engine, target, OPCODE_READ, NULL, NULL, NULL, 0, NULL, -1, NULL), 0);
    CHECK_ERROR("no sources", mte_transfer_arrays(engine, target, OPCODE_READ, NULL, offsets, lengths, 1, NULL, -1, NULL), -1);
    CHECK_ERROR("no targets", mte_transfer_arrays(engine, target, OPCODE_READ, sources, NULL, lengths, 1, NULL, -1, NULL), -1);
    CHECK_ERROR("no lengths", mte_transfer_arrays(engine, target, OPCODE_READ, sources, offsets, NULL, 1, NULL, -1, &why), -1);
    CHECK("the reason is told", why.code == -1 && strstr(why.text, "lengths") != NULL);
    CHECK_ERROR("an unknown opcode", mte_transfer_arrays(engine, target, 2, sources, offsets, lengths, 1, NULL, -1, NULL), -1);
    CHECK_ERROR("an unknown target", mte_transfer_arrays(engine, 4711, OPCODE_READ, sources, offsets, lengths, 1, NULL, -1, NULL), -1);
    mte_task_error_info_t last;
    CHECK_EQ("the last error in full", mte_last_error_info(&last), -1);
    CHECK("is the same", last.code == -1 && last.error_class == MTE_CLASS_ARGUMENT && last.retryable == 0 && strstr(last.text, "4711") != NULL);
    CHECK_EQ("its code alone", mte_last_error_info(NULL), -1);
    why.code = 77;
    CHECK_EQ("an unknown engine", mte_transfer_arrays(NULL, target, OPCODE_READ, sources, offsets, lengths, 1, NULL, -1, &why), -1);
    CHECK("is told as well", why.code == -1 && strstr(why.text, "NULL") != NULL);
    uint64_t wrong = 4096;
    CHECK_ERROR("a source that is not registered", mte_transfer_arrays(engine, target, OPCODE_READ, &wrong, offsets + 1, lengths + 1, 1, NULL, -1, &why), -3);
    CHECK("the reason is told", why.code == -3 && strstr(why.text, "0x1000") != NULL);

    batch_id_t batch = batch_open(engine, MANY);
    notify_msg_t note = {"half", "done"};
    pattern_fill(bytes, BYTES, 2);
    CHECK_EQ("a submit of arrays", mte_submit_arrays(engine, batch, target, OPCODE_WRITE, sources, offsets, lengths, MANY / 2, NULL, NULL), 0);
    CHECK_EQ("a second one", mte_submit_arrays(engine, batch, target, OPCODE_WRITE, sources + MANY / 2, offsets + MANY / 2, lengths + MANY / 2, MANY / 2, "any", &note), 0);
    CHECK_ERROR("more than the batch takes", mte_submit_arrays(engine, batch, target, OPCODE_WRITE, sources, offsets, lengths, 1, NULL, NULL), -2);
    CHECK_ERROR("a notification without requests", mte_submit_arrays(engine, batch, target, OPCODE_WRITE, NULL, NULL, NULL, 0, NULL, &note), -1);
    notify_msg_t broken = {note.name, NULL};
    CHECK_ERROR("one without a text", mte_submit_arrays(engine, batch, target, OPCODE_WRITE, sources, offsets, lengths, 1, NULL, &broken), -1);
    transfer_status_t all = {.status = 77};
    bool ended;
    WAIT_UNTIL(ended, getBatchTransferStatus(engine, batch, &all) == 0 && all.status != STATUS_WAITING, 20000);
    CHECK("the batch as a whole", ended && all.status == STATUS_COMPLETED && all.transferred_bytes == total);
    CHECK("all of it is there", reversed(peer, 0, MANY));
    CHECK_EQ("its notification", await_delivery(engine, batch, NULL, 20000), MTE_NOTIFICATION_DELIVERED);
    CHECK_STR("has arrived", peer_notifications(peer).text, "half=done;");
    CHECK_EQ("freed", freeBatchID(engine, batch), 0);
    CHECK_ERROR("then it is unknown", getBatchTransferStatus(engine, batch, &all), -1);
    batch = batch_open(engine, 1);
    CHECK_ERROR("into NULL", getBatchTransferStatus(engine, batch, NULL), -1);
    CHECK_EQ("an empty batch", getBatchTransferStatus(engine, batch, &all), 0);
    CHECK("is complete", all.status == STATUS_COMPLETED && all.transferred_bytes == 0);
    freeBatchID(engine, batch);
}

/* Two fields of 16 pages, each page of the first 1 KiB, of the second 2 KiB, in another order at the peer. */
static void grids(peer_t *peer, segment_id_t target) {
    enum { PAGES = 16 };
    int64_t src[PAGES], dst[PAGES];
    for (int i = 0; i < PAGES; i++) {
        src[i] = i;
        dst[i] = PAGES - 1 - i;
    }
    const int64_t here = (int64_t)(uintptr_t)bytes, there = (int64_t)peer->base;
    const int64_t fields[2][5] = {{here, 1024, there, 1024, 1024},
                                  {here + 1024 * PAGES, 2048, there + 1024 * PAGES, 4096, 2048}};
    pattern_fill(bytes, BYTES, 3);
    for (size_t at_once = 0; at_once < 40; at_once += 13) {
        memset(peer->view, 0, BYTES);
        CHECK_EQ("a grid", mte_transfer_pages(engine, target, OPCODE_WRITE, src, dst, PAGES, fields[0], 2, at_once, NULL, -1, NULL), 0);
        bool same = true;
        for (int i = 0; i < PAGES; i++) {
            same &= memcmp(bytes + 1024 * i, peer->view + 1024 * dst[i], 1024) == 0;
            same &= memcmp(bytes + 1024 * PAGES + 2048 * i, peer->view + 1024 * PAGES + 4096 * dst[i], 2048) == 0;
        }
        CHECK("every page is at its place", same);
    }
    memset(bytes, 0, BYTES);
    batch_id_t batch = batch_open(engine, 2 * PAGES);
    CHECK_EQ("read back by a submit", mte_submit_pages(engine, batch, target, OPCODE_READ, src, dst, PAGES, fields[0], 2, NULL), 0);
    CHECK_EQ("which ends", mte_wait_batch(engine, batch, 20000), 0);
    mte_batch_status_t status;
    CHECK_EQ("how it stands", mte_batch_status(engine, batch, &status, NULL, 0), 0);
    CHECK("a task per page and field", status.tasks == 2 * PAGES && status.completed == 2 * PAGES);
    CHECK("as it was", pattern_matches(bytes, 3072 * PAGES, 3));
    freeBatchID(engine, batch);
    CHECK_EQ("no pages", mte_transfer_pages(engine, target, OPCODE_WRITE, NULL, NULL, 0, fields[0], 2, 0, NULL, -1, NULL), 0);
    CHECK_EQ("no fields", mte_transfer_pages(engine, target, OPCODE_WRITE, src, dst, PAGES, NULL, 0, 0, NULL, -1, NULL), 0);
    CHECK_ERROR("pages are NULL", mte_transfer_pages(engine, target, OPCODE_WRITE, NULL, dst, PAGES, fields[0], 2, 0, NULL, -1, NULL), -1);
    CHECK_ERROR("more pages than memory", mte_transfer_pages(engine, target, OPCODE_WRITE, src, dst, SIZE_MAX / 16, fields[0], 2, 0, NULL, -1, NULL), -302);
    CHECK_ERROR("or than a host has", mte_transfer_pages(engine, target, OPCODE_WRITE, src, dst, (size_t)1 << 44, fields[0], 2, 0, NULL, -1, NULL), -302);
    CHECK_ERROR("more fields than memory", mte_transfer_pages(engine, target, OPCODE_WRITE, src, dst, PAGES, fields[0], SIZE_MAX / 80, 0, NULL, -1, NULL), -302);
    CHECK_ERROR("fields are NULL", mte_transfer_pages(engine, target, OPCODE_WRITE, src, dst, PAGES, NULL, 2, 0, NULL, -1, NULL), -1);
    CHECK_ERROR("more fields than memory", mte_transfer_pages(engine, target, OPCODE_WRITE, src, dst, PAGES, fields[0], SIZE_MAX, 0, NULL, -1, NULL), -1);
    int64_t below[5] = {here, -here, there, 0, 1};
    mte_task_error_info_t why;
    CHECK_ERROR("an address below 0", mte_transfer_pages(engine, target, OPCODE_WRITE, src, dst, PAGES, below, 1, 0, NULL, -1, &why), -1);
    CHECK("the reason is told", strstr(why.text, "field 0") != NULL);
}

/* A peer that stands still: the call ends when its time is over, and the memory may go. */
static void late(peer_t *peer, segment_id_t target) {
    uint64_t source = (uintptr_t)bytes, offset = peer->base, length = BYTES;
    mte_task_error_info_t why;
    peer_pause(peer);
    CHECK_ERROR("to a peer that stands still", mte_transfer_arrays(engine, target, OPCODE_READ, &source, &offset, &length, 1, NULL, 300, &why), -102);
    CHECK_EQ("it ran out of time", why.error_class, MTE_CLASS_TIMEOUT);
    CHECK("and may be tried again", why.retryable == 1 && strstr(why.text, "time-out") != NULL);
    peer_resume(peer);
    CHECK_EQ("goes on", mte_transfer_arrays(engine, target, OPCODE_READ, &source, &offset, &length, 1, NULL, -1, &why), 0);
}

static void tokenspeed(peer_t *peer) {
    CHECK_EQ("the version", ts_mooncake_abi_version(), TS_MOONCAKE_ABI_VERSION);
    ts_mooncake_engine_t *ts = ts_mooncake_create("127.0.0.1", "P2PHANDSHAKE", "tcp", "");
    REQUIRE("TokenSpeed's engine", ts != NULL);
    unsigned char *memory = map_bytes(MIB);
    CHECK("its port", ts_mooncake_rpc_port(ts) > 0);
    CHECK_EQ("registers", ts_mooncake_register(ts, memory, MIB), 0);
    CHECK_ERROR("once", ts_mooncake_register(ts, memory, MIB), -7);
    pattern_fill(memory, MIB, 9);
    uint64_t from[2] = {(uintptr_t)memory, (uintptr_t)memory + 4096}, to[2] = {peer->base + 8192, peer->base}, len[2] = {4096, 8192};
    CHECK_EQ("writes", ts_mooncake_write(ts, peer->name, from, to, len, 2), 0);
    CHECK("what it says", memcmp(memory, peer->view + 8192, 4096) == 0 && memcmp(memory + 4096, peer->view, 8192) == 0);
    int64_t pages[3] = {2, 0, 1}, places[3] = {0, 1, 2};
    int64_t field[5] = {(int64_t)(uintptr_t)memory, 512, (int64_t)peer->base, 512, 512};
    CHECK_EQ("writes pages", ts_mooncake_write_pages(ts, peer->name, pages, places, 3, field, 1, 2), 0);
    CHECK("in their places", memcmp(memory + 1024, peer->view, 512) == 0 && memcmp(memory, peer->view + 512, 1024) == 0);
    CHECK_ERROR("to nobody", ts_mooncake_write(ts, "127.0.0.1:1", from, to, len, 2), -102);
    CHECK_ERROR("to NULL", ts_mooncake_write(ts, NULL, from, to, len, 2), -1);
    CHECK_ERROR("of NULL", ts_mooncake_write(ts, peer->name, NULL, to, len, 2), -1);
    CHECK_ERROR("pages of NULL", ts_mooncake_write_pages(ts, peer->name, NULL, places, 3, field, 1, 0), -1);
    CHECK_EQ("unregisters", ts_mooncake_unregister(ts, memory), 0);
    CHECK_ERROR("once", ts_mooncake_unregister(ts, memory), -3);
    ts_mooncake_destroy(ts);
    CHECK_EQ("then it is unknown", ts_mooncake_rpc_port(ts), -1);
    CHECK_EQ("so is NULL", ts_mooncake_register(NULL, memory, MIB), -1);
    ts_mooncake_destroy(NULL);
    CHECK_NULL("no name", ts_mooncake_create(NULL, "P2PHANDSHAKE", "tcp", ""), -1);
    CHECK_NULL("no store", ts_mooncake_create("127.0.0.1", NULL, "tcp", ""), -1);
    CHECK_NULL("no protocol", ts_mooncake_create("127.0.0.1", "P2PHANDSHAKE", NULL, ""), -1);
    munmap(memory, MIB);
}

int main(int argc, char **argv) {
    peer_dispatch(argc, argv);
    harness_begin();
    creation();
    engine = engine_open();
    bytes = registered_bytes(engine, BYTES);
    peer_t peer = peer_start(BYTES, NULL);
    segment_id_t target = openSegment(engine, peer.name);
    REQUIRE("the peer is opened", target > 0);
    texts(target);
    questions(&peer, target);
    arrays(&peer, target);
    grids(&peer, target);
    tokenspeed(&peer);
    late(&peer, target);
    peer_stop(&peer);
    CHECK_ERROR("a dead peer", mte_probe_peer(engine, peer.name), -102);
    mte_task_error_info_t why;
    CHECK_EQ("what is known of it", mte_last_error_info(&why), -102);
    CHECK("is its name, and that it may come back", strcmp(why.peer, peer.name) == 0 && why.retryable == 1 && why.os_errno == ECONNREFUSED);
    CHECK_EQ("whose id is still known", checkSegmentStatus(engine, target), 0);
    destroyTransferEngine(engine);
    return harness_finish();
}

/* The result of each call in ordinary and in odd cases, as this library documents it. */
#include "peer.h"
#include "wire.h"

#define BYTES MIB

static transfer_engine_t engine;
static unsigned char *area;

static int submit_refused(transfer_request_t r) {
    batch_id_t batch = batch_open(engine, 1);
    int rc = submitTransfer(engine, batch, &r, 1);
    if (rc == 0) await_task(engine, batch, 0, 20000);
    if (freeBatchID(engine, batch) != 0) CHECK("the refused batch is freed", false);
    return rc;
}

static void completes(const char *name, transfer_request_t r) {
    transfer_status_t status = {0};
    batch_id_t batch = batch_open(engine, 1);
    CHECK_EQ(name, submitTransfer(engine, batch, &r, 1), 0);
    CHECK_EQ("  status", await_task(engine, batch, 0, 20000), STATUS_COMPLETED);
    CHECK_EQ("  readable", getTransferStatus(engine, batch, 0, &status), 0);
    CHECK_EQ("  bytes", status.transferred_bytes, r.length);
    CHECK_EQ("  free", freeBatchID(engine, batch), 0);
}

static void memory(void) {
    buffer_entry_t overlap[2] = {{area + 2 * BYTES, 4096}, {area + 2 * BYTES + 4095, 4096}};
    buffer_entry_t zero[2] = {{area + 2 * BYTES, 4096}, {area + 2 * BYTES + 8192, 0}};
    void *unknown[2] = {area + 2 * BYTES, area + 2 * BYTES + 8192};
    CHECK_EQ("register", registerLocalMemory(engine, area, BYTES, "cpu:0", 1), 0);
    CHECK_EQ("register the same again", registerLocalMemory(engine, area, BYTES, "cpu:0", 1), -7);
    CHECK_EQ("register over the last byte", registerLocalMemory(engine, area + BYTES - 1, 10, "cpu:0", 1), -7);
    CHECK_EQ("register adjacent", registerLocalMemory(engine, area + BYTES, 10, "cpu:0", 1), 0);
    CHECK_EQ("unregister it", unregisterLocalMemory(engine, area + BYTES), 0);
    CHECK_EQ("unregister it again", unregisterLocalMemory(engine, area + BYTES), -3);
    CHECK_EQ("unregister inside a region", unregisterLocalMemory(engine, area + 8), -3);
    CHECK_EQ("register length 0", registerLocalMemory(engine, area + BYTES, 0, "cpu:0", 1), -1);
    CHECK_EQ("a list that overlaps itself", registerLocalMemoryBatch(engine, overlap, 2, "cpu:0"), -7);
    CHECK_EQ("a list with a zero length", registerLocalMemoryBatch(engine, zero, 2, "cpu:0"), -1);
    CHECK_EQ("an empty list", registerLocalMemoryBatch(engine, NULL, 0, "cpu:0"), 0);
    CHECK_EQ("unregister two unknown", unregisterLocalMemoryBatch(engine, unknown, 2), -3);
}

static void segments(const peer_t *peer) {
    char own[128], slashes[160], closed[64];
    uint16_t port;
    engine_name(engine, own, sizeof own);
    snprintf(slashes, sizeof slashes, "//%s", peer->name);
    close(wire_listen(&port));
    snprintf(closed, sizeof closed, "127.0.0.1:%u", (unsigned)port);
    CHECK_EQ("open a live peer", openSegment(engine, peer->name), 1);
    CHECK_EQ("open it again", openSegment(engine, peer->name), 1);
    CHECK_EQ("open it with slashes", openSegment(engine, slashes), 1);
    CHECK_EQ("open the own name", openSegment(engine, own), 0);
    CHECK_EQ("open an empty name", openSegment(engine, ""), -1);
    CHECK_EQ("open a slash", openSegment(engine, "/"), -1);
    CHECK_EQ("open a host that does not resolve", openSegment(engine, "no-such-host.invalid:15001"), -101);
    CHECK_EQ("open a closed port", openSegment(engine, closed), -102);
    CHECK_EQ("close a valid id", closeSegment(engine, 1), 0);
    CHECK_EQ("close 99", closeSegment(engine, 99), 0);
    CHECK_EQ("close -5", closeSegment(engine, -5), 0);
    CHECK_EQ("remove an unknown name", removeLocalSegment(engine, "nope"), 0);
    CHECK_EQ("remove an empty name", removeLocalSegment(engine, ""), -1);
}

static void transfers(const peer_t *peer) {
    uint64_t base = peer->base;
    completes("write 1000", request(OPCODE_WRITE, area, 1, base, 1000));
    completes("read 300000", request(OPCODE_READ, area, 1, base, 300000));
    completes("write nothing", request(OPCODE_WRITE, area, 1, base, 0));
    CHECK_EQ("write to an unregistered remote address", submit_refused(request(OPCODE_WRITE, area, 1, 4096, 8)), -3);
    CHECK_EQ("read over the remote end",
             submit_refused(request(OPCODE_READ, area, 1, base + peer->len - 100, 200)), -3);
    CHECK_EQ("write to id 77", submit_refused(request(OPCODE_WRITE, area, 77, base, 8)), -1);
    CHECK_EQ("write to id -1", submit_refused(request(OPCODE_WRITE, area, -1, base, 8)), -1);
    CHECK_EQ("write from unregistered memory",
             submit_refused(request(OPCODE_WRITE, area + 2 * BYTES, 1, base, 8)), -3);
    CHECK_EQ("opcode 2", submit_refused(request(2, area, 1, base, 8)), -1);
    completes("write to the own segment", request(OPCODE_WRITE, area, LOCAL_SEGMENT, (uintptr_t)area + 4096, 64));
}

static void batches(const peer_t *peer) {
    transfer_request_t two[2] = {request(OPCODE_WRITE, area, 1, peer->base, 8),
                                 request(OPCODE_WRITE, area, 1, peer->base + 64, 8)};
    transfer_request_t large = request(OPCODE_READ, area, 1, peer->base, BYTES);
    transfer_status_t status;
    batch_id_t batch = batch_open(engine, 1);
    CHECK_EQ("submit 2 into a batch of 1", submitTransfer(engine, batch, two, 2), -2);
    CHECK_EQ("then 1", submitTransfer(engine, batch, two, 1), 0);
    CHECK_EQ("then 1 more", submitTransfer(engine, batch, two, 1), -2);
    CHECK_EQ("submit nothing", submitTransfer(engine, batch, two, 0), 0);
    CHECK_EQ("status of task 1 of 1", getTransferStatus(engine, batch, 1, &status), -1);
    int freed;
    WAIT_UNTIL(freed, freeBatchID(engine, batch) == 0, 20000);
    CHECK("free finished but never polled", freed);
    batch = batch_open(engine, 0);
    CHECK_EQ("submit into a batch of 0", submitTransfer(engine, batch, two, 1), -2);
    CHECK_EQ("free the batch of 0", freeBatchID(engine, batch), 0);
    peer_pause(peer);
    batch = batch_open(engine, 1);
    CHECK_EQ("submit a read of 1 MiB", submitTransfer(engine, batch, &large, 1), 0);
    CHECK_EQ("free it right away", freeBatchID(engine, batch), -4);
    peer_resume(peer);
    CHECK_EQ("it completes", await_task(engine, batch, 0, 20000), STATUS_COMPLETED);
    CHECK_EQ("and is freed", freeBatchID(engine, batch), 0);
}

static void notifications(peer_t *peer) {
    notify_msg_t note = {(char *)(uintptr_t)"a", (char *)(uintptr_t)"b"};
    notify_msg_t self = {(char *)(uintptr_t)"self", (char *)(uintptr_t)""};
    transfer_request_t two[2] = {request(OPCODE_WRITE, area, 1, peer->base, 8),
                                 request(OPCODE_WRITE, area, 1, peer->base + 64, 0)};
    batch_id_t batch = batch_open(engine, 2);
    CHECK_EQ("submit nothing with a notification", submitTransferWithNotify(engine, batch, two, 0, note), -1);
    CHECK_EQ("submit 2 with a notification", submitTransferWithNotify(engine, batch, two, 2, note), 0);
    CHECK_EQ("nothing arrives before a poll", peer_notifications(peer).count, 0);
    bool sent = false;
    struct peer_reply got = {0};
    WAIT_UNTIL(sent, await_task(engine, batch, 0, 20000) == STATUS_COMPLETED &&
                         (got = peer_notifications(peer)).count > 0, 20000);
    CHECK("it arrives after polling task 0 only", sent);
    CHECK_STR("as it was sent", got.text, "a=b;");
    CHECK_EQ("the batch is freed", freeBatchID(engine, batch), 0);
    CHECK_EQ("notify the peer", genNotifyInEngine(engine, 1, note), 0);
    CHECK_STR("it arrives", peer_notifications(peer).text, "a=b;");
    CHECK_EQ("notify oneself", genNotifyInEngine(engine, 0, self), 0);
    int size = -1;
    notify_msg_t *own = getNotifsFromEngine(engine, &size);
    REQUIRE("it is in the own queue", size == 1 && own != NULL);
    CHECK_STR("with its name", own[0].name, "self");
    CHECK_STR("and an empty message", own[0].msg, "");
    CHECK_EQ("free it", freeNotifsMsgBuf(own, size), 0);
    size = -1;
    CHECK("an empty queue gives NULL", getNotifsFromEngine(engine, &size) == NULL);
    CHECK_EQ("and size 0", size, 0);
    CHECK_EQ("notify an unknown id", genNotifyInEngine(engine, 4711, note), -200);
}

static bool same_json(const char *text, const char *compact) {
    for (; *text != '\0'; text++) {
        if (strchr(" \t\r\n", *text) != NULL) continue;
        if (*text != *compact++) return false;
    }
    return *compact == '\0';
}

static void diagnostics(transport_t tcp) {
    nic_load_stat_t stats[7];
    size_t count = 7;
    char text[4096];
    CHECK("installing tcp again gives the same handle", installTransport(engine, "tcp", NULL) == tcp);
    CHECK("installing bogus gives NULL", installTransport(engine, "bogus", NULL) == NULL);
    CHECK_EQ("uninstall is 0", uninstallTransport(engine, "zzz"), 0);
    CHECK_EQ("load statistics", getNicLoadStats(engine, stats, &count), 0);
    if (access("/sys/class/infiniband", F_OK) == 0) {
        SKIP("links of a host without NIC", "this host has RDMA devices");
    } else {
        CHECK_EQ("are empty", count, 0);
        CHECK_EQ("links as text", showLinks(engine, text, sizeof text, 0), 0);
        CHECK_STR("without a NIC", text, "=== Local NICs ===\n  (no RDMA devices found)\n");
        CHECK_EQ("links as JSON", showLinks(engine, text, sizeof text, 1), 0);
        CHECK("parsed, without a NIC", same_json(text, "{\"local_nics\":[],\"topology\":null}"));
    }
    count = 7;
    CHECK_EQ("load statistics of NULL", getNicLoadStats(NULL, stats, &count), -1);
    CHECK_EQ("links into no bytes", showLinks(engine, text, 0, 0), -1);
    CHECK_EQ("links of NULL", showLinks(NULL, text, sizeof text, 0), -1);
    CHECK_EQ("discover", discoverTopology(engine), 0);
    CHECK_EQ("sync", syncSegmentCache(engine), 0);
    CHECK_EQ("warm up", warmupEfaSegment(engine, "x"), 0);
}

static void peer_gone(peer_t *peer) {
    notify_msg_t note = {(char *)(uintptr_t)"a", (char *)(uintptr_t)"b"};
    transfer_request_t r = request(OPCODE_WRITE, area, 1, peer->base, 8);
    peer_kill(peer);
    CHECK_EQ("peer gone: sync", syncSegmentCache(engine), 0);
    CHECK_EQ("peer gone: open without cache", openSegmentNoCache(engine, peer->name), -102);
    CHECK_EQ("peer gone: open", openSegment(engine, peer->name), 1);
    CHECK_EQ("peer gone: notify", genNotifyInEngine(engine, 1, note), -102);
    transfer_status_t status = {.transferred_bytes = 1};
    batch_id_t batch = batch_open(engine, 1);
    CHECK_EQ("peer gone: submit a write", submitTransfer(engine, batch, &r, 1), 0);
    CHECK_EQ("peer gone: it fails", await_task(engine, batch, 0, 60000), STATUS_FAILED);
    CHECK_EQ("peer gone: status", getTransferStatus(engine, batch, 0, &status), 0);
    CHECK_EQ("peer gone: no bytes", status.transferred_bytes, 0);
    CHECK_EQ("peer gone: free", freeBatchID(engine, batch), 0);
}

static void no_transport(const char *peer_name) {
    transfer_engine_t bare = createTransferEngine("P2PHANDSHAKE", "127.0.0.1", "", 0, 0);
    REQUIRE("an engine without transport", bare != NULL);
    CHECK("no transport: open", openSegment(bare, peer_name) < 0);
    CHECK_EQ("no transport: register", registerLocalMemory(bare, area, BYTES, "cpu:0", 1), 0);
    CHECK_EQ("no transport: unregister unknown", unregisterLocalMemory(bare, area + BYTES), -3);
    destroyTransferEngine(bare);
}

int main(int argc, char **argv) {
    peer_dispatch(argc, argv);
    harness_begin();
    peer_t peer = peer_start(BYTES, NULL), other = peer_start(4096, NULL);
    engine = createTransferEngine("P2PHANDSHAKE", "127.0.0.1", "", 0, 0);
    REQUIRE("an engine", engine != NULL);
    transport_t tcp = installTransport(engine, "tcp", NULL);
    REQUIRE("with tcp", tcp != NULL);
    area = map_bytes(3 * BYTES);
    memory();
    segments(&peer);
    transfers(&peer);
    batches(&peer);
    notifications(&peer);
    diagnostics(tcp);
    peer_gone(&peer);
    no_transport(other.name);
    CHECK("a store that is down", createTransferEngine("http://127.0.0.1:1/metadata", "n", "", 0, 0) == NULL);
    CHECK_EQ("register NULL", registerLocalMemory(engine, NULL, 4096, "cpu:0", 1), -1);
    destroyTransferEngine(engine);
    CHECK_EQ("the other peer ends in order", peer_stop(&other), 0);
    return harness_finish();
}

/* What single calls mean beyond their result: removed segments, batch notifications, automatic refresh, memory
 * that peers may not reach, writes that were given up, engines of a forked child. */
#include "peer.h"

#define BYTES MIB
#define HALF (BYTES / 2)
#define LARGE (64 * MIB)
#define OLD 0x11
#define POISON 0xa5
#define END_MS 20000

static transfer_engine_t engine;
static unsigned char *bytes;

static notify_msg_t note(const char *name, const char *msg) {
    notify_msg_t n = {(char *)(uintptr_t)name, (char *)(uintptr_t)msg};
    return n;
}

static int submit_alone(transfer_request_t r) {
    batch_id_t batch = batch_open(engine, 1);
    int rc = submitTransfer(engine, batch, &r, 1);
    if (rc == 0) await_task(engine, batch, 0, END_MS);
    if (freeBatchID(engine, batch) != 0) CHECK("the batch is freed", false);
    return rc;
}

static bool arrives(const peer_t *peer, segment_id_t target, uint64_t offset, uint64_t seed) {
    pattern_fill(bytes, 4096, seed);
    return transfer_once(engine, request(OPCODE_WRITE, bytes, target, peer->base + offset, 4096), END_MS) == STATUS_COMPLETED &&
           pattern_matches(peer->view + offset, 4096, seed);
}

static segment_id_t removed(const peer_t *peer) {
    char own[128];
    segment_id_t old = openSegment(engine, peer->name);
    REQUIRE("the peer opens", old > 0);
    CHECK("a transfer to it", arrives(peer, old, 0, 1));
    CHECK_EQ("remove an open segment", removeLocalSegment(engine, peer->name), 0);
    CHECK_ERROR("its id is dead", submit_alone(request(OPCODE_WRITE, bytes, old, peer->base, 8)), -1);
    segment_id_t again = openSegment(engine, peer->name);
    CHECK("opening it again gives a new id", again > 0 && again != old);
    CHECK("which works", arrives(peer, again, 0, 2));
    CHECK_ERROR("the old id stays dead", submit_alone(request(OPCODE_WRITE, bytes, old, peer->base, 8)), -1);
    engine_name(engine, own, sizeof own);
    CHECK_ERROR("remove the own name", removeLocalSegment(engine, own), -1);
    CHECK_EQ("it still opens", openSegment(engine, own), LOCAL_SEGMENT);
    return again;
}

static void notified_by_wait(peer_t *peer, segment_id_t target) {
    transfer_request_t r = request(OPCODE_WRITE, bytes, target, peer->base, 4096);
    transfer_status_t status = {0};
    batch_id_t batch = batch_open(engine, 1);
    CHECK_EQ("a write with a notification", submitTransferWithNotify(engine, batch, &r, 1, note("wait", "1")), 0);
    CHECK_EQ("no poll, no notification", peer_notifications(peer).count, 0);
    CHECK_EQ("it is held", await_delivery(engine, batch, NULL, 0), MTE_NOTIFICATION_HELD);
    CHECK_EQ("mte_wait_batch", mte_wait_batch(engine, batch, END_MS), 0);
    CHECK_EQ("its notification is taken", await_delivery(engine, batch, NULL, END_MS), MTE_NOTIFICATION_DELIVERED);
    CHECK_STR("sends it", peer_notifications(peer).text, "wait=1;");
    CHECK_EQ("mte_wait_batch again", mte_wait_batch(engine, batch, END_MS), 0);
    CHECK_EQ("a poll", getTransferStatus(engine, batch, 0, &status), 0);
    CHECK_EQ("freed", freeBatchID(engine, batch), 0);
    CHECK_EQ("it is sent once", peer_notifications(peer).count, 0);
}

static void replaced(peer_t *peer, segment_id_t target) {
    transfer_request_t r = request(OPCODE_WRITE, bytes, target, peer->base, 4096);
    batch_id_t batch = batch_open(engine, 2);
    CHECK_EQ("a first notification for a batch", submitTransferWithNotify(engine, batch, &r, 1, note("n", "first")), 0);
    CHECK_EQ("a second one", submitTransferWithNotify(engine, batch, &r, 1, note("n", "second")), 0);
    CHECK_EQ("the batch ends", mte_wait_batch(engine, batch, END_MS), 0);
    CHECK_EQ("a notification is taken", await_delivery(engine, batch, NULL, END_MS), MTE_NOTIFICATION_DELIVERED);
    CHECK_STR("the second replaced the first", peer_notifications(peer).text, "n=second;");
    CHECK_EQ("freed", freeBatchID(engine, batch), 0);
    CHECK_EQ("and the first never comes", peer_notifications(peer).count, 0);
}

/* The peer withdraws its region behind the engine's back. Leaves the first half registered. */
static void dropped(peer_t *peer, segment_id_t target) {
    transfer_request_t r = request(OPCODE_WRITE, bytes, target, peer->base, 4096);
    mte_task_error_info_t why = {0};
    batch_id_t batch = batch_open(engine, 1);
    CHECK_EQ("the peer withdraws its region", peer_unregister(peer, 0), 0);
    CHECK_EQ("a write there is accepted", submitTransferWithNotify(engine, batch, &r, 1, note("never", "sent")), 0);
    CHECK_EQ("and fails", await_task(engine, batch, 0, END_MS), STATUS_FAILED);
    CHECK_EQ("its error", mte_task_error(engine, batch, 0, &why), 0);
    CHECK_EQ("is -3", why.code, -3);
    CHECK_EQ("its notification is held for good", await_delivery(engine, batch, &why, END_MS), MTE_NOTIFICATION_HELD);
    CHECK_EQ("without an error of its own", why.code, 0);
    CHECK_EQ("freed", freeBatchID(engine, batch), 0);
    CHECK_EQ("no notification comes", peer_notifications(peer).count, 0);
    CHECK_EQ("the peer registers the first half", peer_register(peer, 0, HALF, 1), 0);
    CHECK_EQ("the cache is read again", syncSegmentCache(engine), 0);
    batch_id_t next = batch_open(engine, 1);
    CHECK_EQ("a write without notification", submitTransfer(engine, next, &r, 1), 0);
    CHECK_EQ("completes", mte_wait_batch(engine, next, END_MS), 0);
    CHECK_EQ("freed", freeBatchID(engine, next), 0);
    CHECK_EQ("and sends none that was left over", peer_notifications(peer).count, 0);
}

static size_t listed(segment_id_t target, uint64_t addr) {
    mte_buffer_t buffers[16];
    size_t count = COUNT(buffers), found = 0;
    if (mte_segment_buffers(engine, target, buffers, &count) != 0) return SIZE_MAX;
    for (size_t i = 0; i < count && i < COUNT(buffers); i++) found += buffers[i].addr == addr;
    return found;
}

static void refreshed(peer_t *peer, segment_id_t target) {
    CHECK_EQ("the second half is unknown", listed(target, peer->base + HALF), 0);
    CHECK_EQ("the peer registers it for itself only", peer_register(peer, HALF, HALF, 0), 0);
    CHECK_ERROR("a write there is refused", submit_alone(request(OPCODE_WRITE, bytes, target, peer->base + HALF, 8)), -3);
    CHECK_ERROR("a read, too", submit_alone(request(OPCODE_READ, bytes, target, peer->base + HALF, 8)), -3);
    CHECK_EQ("the cache is read again", syncSegmentCache(engine), 0);
    CHECK_EQ("it is not listed", listed(target, peer->base + HALF), 0);
    CHECK_EQ("the first half is", listed(target, peer->base), 1);
    CHECK_EQ("the peer withdraws it", peer_unregister(peer, HALF), 0);
    CHECK_EQ("and registers it for all", peer_register(peer, HALF, HALF, 1), 0);
    bool reached;
    /* One refresh per peer and 100 ms: the refusals above used theirs up. */
    WAIT_UNTIL(reached, arrives(peer, target, HALF, 3), END_MS);
    CHECK("a region registered after the open is reached without a sync", reached);
    CHECK_EQ("and listed", listed(target, peer->base + HALF), 1);
}

static void refreshed_at_once(void) {
    peer_t peer = peer_start(BYTES, NULL);
    CHECK_EQ("a peer with its first half only", peer_unregister(&peer, 0) + peer_register(&peer, 0, HALF, 1), 0);
    segment_id_t target = openSegment(engine, peer.name);
    REQUIRE("it opens", target > 0);
    CHECK_EQ("it registers the second half", peer_register(&peer, HALF, HALF, 1), 0);
    CHECK("the first submit there is accepted and completes", arrives(&peer, target, HALF, 4));
    CHECK_EQ("this peer ends in order", peer_stop(&peer), 0);
}

static void registered_before_install(void) {
    char name[128];
    unsigned char *early = map_bytes(4096);
    transfer_engine_t late = createTransferEngine("P2PHANDSHAKE", "127.0.0.1", "", 0, 0);
    REQUIRE("an engine without transport", late != NULL);
    CHECK_EQ("registers memory", registerLocalMemory(late, early, 4096, "cpu:0", 1), 0);
    CHECK("and installs tcp", installTransport(late, "tcp", NULL) != NULL);
    engine_name(late, name, sizeof name);
    segment_id_t target = openSegment(engine, name);
    CHECK("it opens", target > 0);
    CHECK_EQ("its memory is listed", listed(target, (uintptr_t)early), 1);
    pattern_fill(bytes, 4096, 5);
    CHECK_EQ("a write to it", transfer_once(engine, request(OPCODE_WRITE, bytes, target, (uintptr_t)early, 4096), END_MS),
             STATUS_COMPLETED);
    CHECK("arrives", pattern_matches(early, 4096, 5));
    destroyTransferEngine(late);
    munmap(early, 4096);
}

static bool has_byte(const unsigned char *in, size_t len, unsigned char value) {
    return memchr(in, value, len) != NULL;
}

static void given_up(void) {
    setenv("MC_TCP_STATUS_TIMEOUT_SEC", "1", 1);
    setenv("MC_TCP_MIN_RATE", "1099511627776", 1);
    transfer_engine_t e = engine_open();
    unsetenv("MC_TCP_STATUS_TIMEOUT_SEC");
    unsetenv("MC_TCP_MIN_RATE");
    peer_t peer = peer_start(LARGE, NULL);
    unsigned char *source = registered_bytes(e, LARGE), *fresh = registered_bytes(e, 4096);
    segment_id_t target = openSegment(e, peer.name);
    REQUIRE("a peer with 64 MiB opens", target > 0);
    memset(source, OLD, LARGE);
    memset(fresh, OLD + 1, 4096);
    CHECK_EQ("a small write", transfer_once(e, request(OPCODE_WRITE, fresh, target, peer.base, 4096), END_MS), STATUS_COMPLETED);
    peer_pause(&peer);
    mte_task_error_info_t why = {0};
    transfer_request_t r = request(OPCODE_WRITE, source, target, peer.base, LARGE);
    batch_id_t batch = batch_open(e, 1);
    CHECK_EQ("a write of 64 MiB to the stopped peer", submitTransfer(e, batch, &r, 1), 0);
    CHECK_EQ("fails", await_task(e, batch, 0, END_MS), STATUS_FAILED);
    CHECK_EQ("its error", mte_task_error(e, batch, 0, &why), 0);
    CHECK_EQ("is of class TIMEOUT", why.error_class, MTE_CLASS_TIMEOUT);
    memset(source, POISON, LARGE);
    CHECK_EQ("freed", freeBatchID(e, batch), 0);
    peer_resume(&peer);
    bool again;
    WAIT_UNTIL(again, transfer_once(e, request(OPCODE_WRITE, fresh, target, peer.base, 4096), 5000) == STATUS_COMPLETED, END_MS);
    CHECK("a new transfer completes", again);
    CHECK("nothing written to the source after FAILED reaches the peer", !has_byte(peer.view, LARGE, POISON));
    CHECK_EQ("this peer ends in order", peer_stop(&peer), 0);
    CHECK("not until the end", !has_byte(peer.view, LARGE, POISON));
    destroyTransferEngine(e);
    munmap(source, LARGE);
    munmap(fresh, 4096);
    munmap(peer.view, LARGE);
}

static void stores(void) {
    static const struct {
        const char *text;
        int code;
    } rows[] = {
        {"etcd://127.0.0.1:1", -200}, {"redis://127.0.0.1:1", -200}, {"http://127.0.0.1:1/metadata", -200},
        {"https://127.0.0.1:1/metadata", -200}, {"127.0.0.1:1", -200}, {"", -1}, {"gopher://x", -1},
    };
    setenv("MC_TCP_BIND_ADDRESS", "127.0.0.1", 1);
    setenv("MC_METADATA_TIMEOUT_MS", "300", 1);
    for (size_t i = 0; i < COUNT(rows); i++) {
        char name[96];
        snprintf(name, sizeof name, "a store called \"%s\" gives %d", rows[i].text, rows[i].code);
        CHECK_NULL(name, createTransferEngine(rows[i].text, "127.0.0.1", "", 0, 0), rows[i].code);
    }
    unsetenv("MC_METADATA_TIMEOUT_MS");
    unsetenv("MC_TCP_BIND_ADDRESS");
}

static void endless_count(segment_id_t target, const peer_t *peer) {
    transfer_request_t r = request(OPCODE_WRITE, bytes, target, peer->base, 8);
    batch_id_t batch = batch_open(engine, 4);
    CHECK_ERROR("submit SIZE_MAX requests", submitTransfer(engine, batch, &r, SIZE_MAX), -2);
    CHECK_EQ("the batch works on", submitTransfer(engine, batch, &r, 1), 0);
    CHECK_ERROR("submit SIZE_MAX more", submitTransfer(engine, batch, &r, SIZE_MAX), -2);
    CHECK_EQ("it ends", mte_wait_batch(engine, batch, END_MS), 0);
    CHECK_EQ("freed", freeBatchID(engine, batch), 0);
}

static int child_transfers(const peer_t *peer) {
    alarm(30);
    transfer_engine_t own = engine_open();
    unsigned char *area = registered_bytes(own, 8192);
    segment_id_t target = openSegment(own, peer->name);
    if (target <= 0) return 2;
    pattern_fill(area, 4096, 6);
    if (transfer_once(own, request(OPCODE_WRITE, area, target, peer->base, 4096), END_MS) != STATUS_COMPLETED) return 3;
    if (transfer_once(own, request(OPCODE_READ, area + 4096, target, peer->base, 4096), END_MS) != STATUS_COMPLETED) return 4;
    destroyTransferEngine(own);
    return pattern_matches(area + 4096, 4096, 6) ? 0 : 5;
}

static void child_engine(segment_id_t target, const peer_t *peer) {
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) _exit(child_transfers(peer));
    CHECK_EQ("a forked child makes an engine of its own and transfers", child_reap(pid, 30000), 0);
    CHECK("its bytes are at the peer", pattern_matches(peer->view, 4096, 6));
    CHECK("the parent transfers on", arrives(peer, target, 0, 7));
}

int main(int argc, char **argv) {
    peer_dispatch(argc, argv);
    harness_begin();
    peer_t peer = peer_start(BYTES, NULL);
    engine = engine_open();
    bytes = registered_bytes(engine, BYTES);
    segment_id_t target = removed(&peer);
    notified_by_wait(&peer, target);
    replaced(&peer, target);
    dropped(&peer, target);
    refreshed(&peer, target);
    refreshed_at_once();
    registered_before_install();
    endless_count(target, &peer);
    child_engine(target, &peer);
    stores();
    CHECK_EQ("the peer ends in order", peer_stop(&peer), 0);
    destroyTransferEngine(engine);
    given_up();
    return harness_finish();
}

/* What becomes of a batch's notification: whoever polls the batch waits for no peer, and a loss is told. */
#include <poll.h>

#include "peer.h"

#define BYTES MIB
#define END_MS 60000

static transfer_engine_t engine;
static unsigned char *bytes;

/* A batch whose one task has ended, seen by poll(2) only, so that its notification is still held. */
static batch_id_t ended(const peer_t *peer, segment_id_t target, const char *name) {
    notify_msg_t note = {(char *)(uintptr_t)name, (char *)(uintptr_t)"m"};
    transfer_request_t r = request(OPCODE_WRITE, bytes, target, peer->base, 4096);
    struct pollfd wait = {.fd = -1, .events = POLLIN};
    batch_id_t batch = batch_open(engine, 1);
    CHECK_EQ("a write with a notification", submitTransferWithNotify(engine, batch, &r, 1, note), 0);
    CHECK_EQ("its descriptor", mte_batch_fd(engine, batch, &wait.fd), 0);
    CHECK_EQ("says that it has ended", poll(&wait, 1, END_MS), 1);
    CHECK_EQ("the notification is held", await_delivery(engine, batch, NULL, 0), MTE_NOTIFICATION_HELD);
    return batch;
}

/* If a call waited for the receipt it would wait for the peer to go on, which it does only after these calls. */
static void stopped(peer_t *peer, segment_id_t target) {
    transfer_status_t status = {0};
    batch_id_t batch = ended(peer, target, "first"), second = ended(peer, target, "second");
    peer_pause(peer);
    CHECK_EQ("with the peer stopped, a poll returns", getTransferStatus(engine, batch, 0, &status), 0);
    CHECK_EQ("and has seen the end", status.status, STATUS_COMPLETED);
    CHECK_EQ("so does a wait", mte_wait_batch(engine, second, END_MS), 0);
    CHECK_EQ("the notification is on its way", await_delivery(engine, batch, NULL, 0), MTE_NOTIFICATION_SENDING);
    CHECK_EQ("and the second", await_delivery(engine, second, NULL, 0), MTE_NOTIFICATION_SENDING);
    peer_resume(peer);
    CHECK_EQ("the peer goes on and takes it", await_delivery(engine, batch, NULL, END_MS), MTE_NOTIFICATION_DELIVERED);
    CHECK_EQ("and the second", await_delivery(engine, second, NULL, END_MS), MTE_NOTIFICATION_DELIVERED);
    CHECK_STR("in their order", peer_notifications(peer).text, "first=m;second=m;");
    CHECK_EQ("freed", freeBatchID(engine, batch), 0);
    CHECK_EQ("freed", freeBatchID(engine, second), 0);
}

static void lost(peer_t *peer, segment_id_t target) {
    mte_task_error_info_t why = {0};
    batch_id_t batch = ended(peer, target, "late");
    peer_kill(peer);
    CHECK_EQ("with the peer gone, a wait returns", mte_wait_batch(engine, batch, END_MS), 0);
    CHECK_EQ("the notification is lost", await_delivery(engine, batch, &why, END_MS), MTE_NOTIFICATION_LOST);
    CHECK_EQ("because nobody answers", why.code, ERR_SOCKET);
    CHECK_EQ("which may pass", why.retryable, 1);
    CHECK("the peer is named", why.peer[0] != '\0' && strstr(peer->name, why.peer) != NULL);
    CHECK_EQ("freed", freeBatchID(engine, batch), 0);
}

static void without(const peer_t *peer, segment_id_t target) {
    transfer_request_t r = request(OPCODE_WRITE, bytes, target, peer->base, 8);
    mte_task_error_info_t why = {.code = 7};
    int state = 7;
    batch_id_t batch = batch_open(engine, 1);
    CHECK_EQ("an empty batch", mte_batch_notification(engine, batch, &state, &why), 0);
    CHECK("has none", state == MTE_NOTIFICATION_NONE && why.code == 0 && why.text[0] == '\0');
    CHECK_EQ("a write without one", submitTransfer(engine, batch, &r, 1), 0);
    CHECK_EQ("completes", await_task(engine, batch, 0, END_MS), STATUS_COMPLETED);
    CHECK_EQ("and has none", await_delivery(engine, batch, NULL, 0), MTE_NOTIFICATION_NONE);
    CHECK_EQ("freed", freeBatchID(engine, batch), 0);
    CHECK_ERROR("a freed batch", mte_batch_notification(engine, batch, &state, NULL), -1);
}

int main(int argc, char **argv) {
    peer_dispatch(argc, argv);
    harness_begin();
    engine = engine_open();
    bytes = registered_bytes(engine, BYTES);
    peer_t peer = peer_start(BYTES, NULL);
    segment_id_t target = openSegment(engine, peer.name);
    REQUIRE("the peer opens", target > 0);
    without(&peer, target);
    stopped(&peer, target);
    lost(&peer, target);
    destroyTransferEngine(engine);
    return harness_finish();
}

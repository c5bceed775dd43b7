/* Every error code by its real trigger through the C API. -301 has a program of its own (noclock). */
#include "fake.h"
#include "peer.h"

#define PEER_BYTES (256 * KIB)
#define BYTES (64 * KIB)

static transfer_engine_t engine;
static unsigned char *bytes;

static int submit_one(int opcode, void *local, segment_id_t target, uint64_t remote, uint64_t len) {
    transfer_request_t r = request(opcode, local, target, remote, len);
    batch_id_t batch = batch_open(engine, 1);
    int rc = submitTransfer(engine, batch, &r, 1);
    int saved = mte_last_error(NULL, 0);
    if (rc == 0) await_task(engine, batch, 0, 20000);
    if (freeBatchID(engine, batch) != 0) CHECK("a batch whose submit was refused is freed", false);
    if (rc != 0 && mte_last_error(NULL, 0) != saved) CHECK("a success keeps the last error", false);
    return rc;
}

static void invalid_argument(segment_id_t peer, uint64_t remote) {
    unsigned char *top = (unsigned char *)(UINTPTR_MAX - 100);
    transfer_status_t status;
    batch_id_t batch = batch_open(engine, 2);
    transfer_request_t r = request(OPCODE_WRITE, bytes, LOCAL_SEGMENT, (uintptr_t)bytes, 8);
    CHECK_ERROR("-1: register with length 0", registerLocalMemory(engine, bytes, 0, "cpu:0", 1), -1);
    CHECK_ERROR("-1: register NULL", registerLocalMemory(engine, NULL, 4096, "cpu:0", 1), -1);
    CHECK_ERROR("-1: register a range that wraps", registerLocalMemory(engine, top, 4096, "cpu:0", 1), -1);
    CHECK_ERROR("-1: open an empty name", openSegment(engine, ""), -1);
    CHECK_ERROR("-1: open a name of slashes", openSegment(engine, "//"), -1);
    CHECK_ERROR("-1: remove an empty name", removeLocalSegment(engine, ""), -1);
    CHECK_ERROR("-1: target id never opened", submit_one(OPCODE_WRITE, bytes, 9999, remote, 8), -1);
    CHECK_ERROR("-1: negative target id", submit_one(OPCODE_WRITE, bytes, -1, remote, 8), -1);
    CHECK_ERROR("-1: opcode 2", submit_one(2, bytes, peer, remote, 8), -1);
    CHECK_EQ("one task for the status checks", submitTransfer(engine, batch, &r, 1), 0);
    CHECK_ERROR("-1: task id out of range", getTransferStatus(engine, batch, 5, &status), -1);
    await_task(engine, batch, 0, 10000);
    CHECK_EQ("the batch is freed once", freeBatchID(engine, batch), 0);
    CHECK_ERROR("-1: free a batch twice", freeBatchID(engine, batch), -1);
    CHECK_ERROR("-1: free an invented batch", freeBatchID(engine, 12345), -1);
    notify_msg_t bad_name = {"n\xff", "m"}, bad_text = {"n", "m\xc3"};
    CHECK_ERROR("-1: notify with a name that is not UTF-8", genNotifyInEngine(engine, (uint64_t)peer, bad_name), -1);
    CHECK_ERROR("-1: notify with a text that is not UTF-8", genNotifyInEngine(engine, (uint64_t)peer, bad_text), -1);
    batch = batch_open(engine, 1);
    CHECK_ERROR("-1: the same with a transfer", submitTransferWithNotify(engine, batch, &r, 1, bad_text), -1);
    CHECK_EQ("which adds no task", freeBatchID(engine, batch), 0);
    CHECK_NULL("-1: install an unknown transport", installTransport(engine, "bogus", NULL), -1);
    CHECK_ERROR("-1: show links into no bytes", showLinks(engine, (char *)bytes, 0, 0), -1);
    CHECK_ERROR("-1: load statistics without a count", getNicLoadStats(engine, NULL, NULL), -1);
}

static void too_many_requests(void) {
    transfer_request_t two[2] = {request(OPCODE_WRITE, bytes, LOCAL_SEGMENT, (uintptr_t)bytes + 4096, 8),
                                 request(OPCODE_WRITE, bytes, LOCAL_SEGMENT, (uintptr_t)bytes + 8192, 8)};
    batch_id_t batch = batch_open(engine, 1);
    CHECK_ERROR("-2: two requests into a batch of one", submitTransfer(engine, batch, two, 2), -2);
    CHECK_EQ("the batch still takes one", submitTransfer(engine, batch, two, 1), 0);
    CHECK_ERROR("-2: one more into the full batch", submitTransfer(engine, batch, two, 1), -2);
    CHECK_EQ("its task completes", await_task(engine, batch, 0, 10000), STATUS_COMPLETED);
    CHECK_EQ("and it is freed", freeBatchID(engine, batch), 0);
}

static void check_failed_task(const char *name, batch_id_t batch, int code, int class) {
    mte_task_error_info_t why;
    memset(&why, 0, sizeof why);
    CHECK_EQ(name, await_task(engine, batch, 0, 20000), STATUS_FAILED);
    CHECK_EQ("  its error can be read", mte_task_error(engine, batch, 0, &why), 0);
    if (code != 0) CHECK_EQ("  its code", why.code, code);
    if (class != 0) CHECK_EQ("  its class", why.error_class, class);
    CHECK("  it has a negative code, a text and a peer",
          why.code < 0 && why.text[0] != '\0' && why.peer[0] != '\0');
}

static void address_not_registered(peer_t *peer, segment_id_t id) {
    unsigned char *other = map_bytes(BYTES);
    transfer_request_t r = request(OPCODE_WRITE, bytes, id, peer->base + BYTES, 4096);
    CHECK_ERROR("-3: unregister an unknown address", unregisterLocalMemory(engine, other), -3);
    CHECK_ERROR("-3: unregister inside a region", unregisterLocalMemory(engine, bytes + 8), -3);
    CHECK_ERROR("-3: source not registered", submit_one(OPCODE_WRITE, other, id, peer->base, 8), -3);
    CHECK_ERROR("-3: source runs over the end",
                submit_one(OPCODE_READ, bytes + BYTES - 4, id, peer->base, 8), -3);
    CHECK_ERROR("-3: target not registered", submit_one(OPCODE_WRITE, bytes, id, 4096, 8), -3);
    CHECK_ERROR("-3: target runs over the end",
                submit_one(OPCODE_READ, bytes, id, peer->base + PEER_BYTES - 4, 8), -3);
    CHECK_ERROR("-3: target wraps", submit_one(OPCODE_READ, bytes, id, UINT64_MAX - 4, 8), -3);

    CHECK_EQ("a transfer works before the peer unregisters", transfer_once(engine, r, 20000), STATUS_COMPLETED);
    CHECK_EQ("the peer unregisters", peer_unregister(peer, 0), 0);
    batch_id_t batch = batch_open(engine, 1);
    CHECK_EQ("covered by the cached descriptor, so it is accepted", submitTransfer(engine, batch, &r, 1), 0);
    check_failed_task("-3: gone at the peer when the bytes arrive", batch, -3, 0);
    CHECK_EQ("the failed batch is freed", freeBatchID(engine, batch), 0);
    CHECK_EQ("the peer registers again", peer_register(peer, 0, PEER_BYTES, 1), 0);
    int status;
    WAIT_UNTIL(status, transfer_once(engine, r, 20000) == STATUS_COMPLETED, 10000);
    CHECK("and a transfer works again", status);
    munmap(other, BYTES);
}

static void rejected_by_the_data_port(void) {
    fake_t *fake = fake_start(FAKE_REJECT);
    segment_id_t id = openSegment(engine, fake->name);
    batch_id_t batch = batch_open(engine, 1);
    transfer_request_t r = request(OPCODE_WRITE, bytes, id, FAKE_BASE, 4096);
    CHECK("a fake peer opens", id > 0);
    CHECK_EQ("a write to it is accepted", submitTransfer(engine, batch, &r, 1), 0);
    check_failed_task("-3: a rejected frame fails the task", batch, -3, 0);
    CHECK_EQ("the rejected batch is freed", freeBatchID(engine, batch), 0);
    fake_stop(fake);
}

static void batch_busy(void) {
    static const int opcodes[] = {OPCODE_READ, OPCODE_WRITE};
    fake_t *fake = fake_start(FAKE_SILENT);
    segment_id_t id = openSegment(engine, fake->name);
    CHECK("the silent peer opens", id > 0);
    for (size_t i = 0; i < COUNT(opcodes); i++) {
        transfer_request_t r = request(opcodes[i], bytes, id, FAKE_BASE, 4096);
        batch_id_t batch = batch_open(engine, 1);
        transfer_status_t status = {.status = -1};
        CHECK_EQ("a request to the silent peer is accepted", submitTransfer(engine, batch, &r, 1), 0);
        CHECK_ERROR("-4: free a batch with a task under way", freeBatchID(engine, batch), -4);
        CHECK_ERROR("-4: a wait of 0 ms", mte_wait_batch(engine, batch, 0), -4);
        CHECK_EQ("the busy batch can still be polled", getTransferStatus(engine, batch, 0, &status), 0);
        CHECK_EQ("and is waiting", status.status, STATUS_WAITING);
        check_failed_task("no answer within MC_TCP_STATUS_TIMEOUT_SEC fails the task", batch, 0,
                          MTE_CLASS_TIMEOUT);
        CHECK_EQ("after that it is freed", freeBatchID(engine, batch), 0);
    }
    fake_stop(fake);
}

static void device_not_found(void) {
    fake_t *fake = fake_start(FAKE_SILENT);
    char json[1024];
    snprintf(json, sizeof json,
             "{\"name\":\"%s\",\"protocol\":\"rdma\",\"tcp_data_port\":0,\"tcp_proto_version\":1,"
             "\"devices\":[{\"name\":\"mlx5_0\",\"lid\":0,"
             "\"gid\":\"00:00:00:00:00:00:00:00:00:00:ff:ff:0a:00:00:01\"}],"
             "\"buffers\":[{\"name\":\"cpu:0\",\"addr\":%llu,\"length\":65536,\"rkey\":[7],\"lkey\":[7]}],"
             "\"priority_matrix\":{\"cpu:0\":[[\"mlx5_0\"],[]]}}\n",
             fake->name, (unsigned long long)FAKE_BASE);
    fake_set_metadata(fake, json);
    segment_id_t id = openSegment(engine, fake->name);
    CHECK("a peer that publishes rdma opens", id > 0);
    CHECK_ERROR("-6: submit to it without a device", submit_one(OPCODE_WRITE, bytes, id, FAKE_BASE, 8), -6);
    fake_stop(fake);

    char *nobodys[2] = {(char *)(uintptr_t)"{\"cpu:0\":[[\"no-such-nic\"],[]]}", NULL};
    char name[128], before[4096], after[4096];
    engine_name(engine, name, sizeof name);
    CHECK_EQ("links before", showLinks(engine, before, sizeof before, 1), 0);
    CHECK_NULL("-6: install rdma on a NIC that is not there", installTransport(engine, "rdma", (void **)nobodys), -6);
    CHECK_EQ("links after", showLinks(engine, after, sizeof after, 1), 0);
    CHECK_STR("the engine is as it was", after, before);
    CHECK_EQ("and its own name opens", openSegment(engine, name), LOCAL_SEGMENT);
}

static void address_overlapped(void) {
    unsigned char *more = map_bytes(3 * 4096);
    buffer_entry_t twice[2] = {{more, 8192}, {more + 4096, 8192}};
    buffer_entry_t mixed[2] = {{more, 4096}, {bytes + 100, 10}};
    CHECK_ERROR("-7: the same range again", registerLocalMemory(engine, bytes, BYTES, "cpu:0", 1), -7);
    CHECK_ERROR("-7: a range inside", registerLocalMemory(engine, bytes + 1024, 1024, "cpu:0", 1), -7);
    CHECK_ERROR("-7: the last byte", registerLocalMemory(engine, bytes + BYTES - 1, 10, "cpu:0", 1), -7);
    CHECK_ERROR("-7: inside one list", registerLocalMemoryBatch(engine, twice, 2, "cpu:0"), -7);
    CHECK_ERROR("-7: a list against a region", registerLocalMemoryBatch(engine, mixed, 2, "cpu:0"), -7);
    CHECK_EQ("a refused list leaves nothing behind", registerLocalMemory(engine, more, 3 * 4096, "cpu:0", 1), 0);
    CHECK_EQ("and the range is free again", unregisterLocalMemory(engine, more), 0);
    munmap(more, 3 * 4096);
}

static void names_and_sockets(void) {
    char closed[64];
    uint16_t port;
    close(wire_listen(&port));
    snprintf(closed, sizeof closed, "127.0.0.1:%u", (unsigned)port);
    CHECK_ERROR("-101: a host that does not resolve", openSegment(engine, "no-such-host.invalid:15001"), -101);
    CHECK_ERROR("-102: a port nobody listens on", openSegment(engine, closed), -102);
    CHECK_ERROR("-102: the same without the cache", openSegmentNoCache(engine, closed), -102);
}

static void malformed_descriptors(void) {
    static const struct {
        const char *name, *json;
        int code;
    } rows[] = {
        {"-103: not JSON", "hello", -103},
        {"-103: an array", "[]\n", -103},
        {"-103: a string", "\"x\"\n", -103},
        {"-103: no members", "{}\n", -103},
        {"-200: null", "null\n", -200},
        {"-103: name is an object",
         "{\"name\":{},\"protocol\":\"tcp\",\"tcp_data_port\":1,\"buffers\":[]}", -103},
        {"-103: port is a string",
         "{\"name\":\"127.0.0.1:1\",\"protocol\":\"tcp\",\"tcp_data_port\":\"1\",\"buffers\":[]}", -103},
        {"-103: port is negative",
         "{\"name\":\"127.0.0.1:1\",\"protocol\":\"tcp\",\"tcp_data_port\":-1,\"buffers\":[]}", -103},
        {"-103: port is too large",
         "{\"name\":\"127.0.0.1:1\",\"protocol\":\"tcp\",\"tcp_data_port\":70000,\"buffers\":[]}", -103},
        {"-103: buffers is an object",
         "{\"name\":\"127.0.0.1:1\",\"protocol\":\"tcp\",\"tcp_data_port\":1,\"buffers\":{}}", -103},
        {"-103: a buffer is a number",
         "{\"name\":\"127.0.0.1:1\",\"protocol\":\"tcp\",\"tcp_data_port\":1,\"buffers\":[1]}", -103},
        {"-103: addr is negative",
         "{\"name\":\"127.0.0.1:1\",\"protocol\":\"tcp\",\"tcp_data_port\":1,"
         "\"buffers\":[{\"name\":\"a\",\"addr\":-4096,\"length\":1}]}", -103},
        {"-103: addr is a string",
         "{\"name\":\"127.0.0.1:1\",\"protocol\":\"tcp\",\"tcp_data_port\":1,"
         "\"buffers\":[{\"name\":\"a\",\"addr\":\"4096\",\"length\":1}]}", -103},
        {"-103: addr 0",
         "{\"name\":\"127.0.0.1:1\",\"protocol\":\"tcp\",\"tcp_data_port\":1,"
         "\"buffers\":[{\"name\":\"a\",\"addr\":0,\"length\":1}]}", -103},
        {"-103: length 0",
         "{\"name\":\"127.0.0.1:1\",\"protocol\":\"tcp\",\"tcp_data_port\":1,"
         "\"buffers\":[{\"name\":\"a\",\"addr\":4096,\"length\":0}]}", -103},
        {"-103: a buffer without a name",
         "{\"name\":\"127.0.0.1:1\",\"protocol\":\"tcp\",\"tcp_data_port\":1,"
         "\"buffers\":[{\"name\":\"\",\"addr\":4096,\"length\":1}]}", -103},
        {"-103: addr + length wraps",
         "{\"name\":\"127.0.0.1:1\",\"protocol\":\"tcp\",\"tcp_data_port\":1,"
         "\"buffers\":[{\"name\":\"a\",\"addr\":18446744073709547520,\"length\":8192}]}", -103},
        {"-103: a protocol nobody knows",
         "{\"name\":\"127.0.0.1:1\",\"protocol\":\"pigeon\",\"tcp_data_port\":1,\"buffers\":[]}", -103},
        {"-103: protocol is a list",
         "{\"name\":\"127.0.0.1:1\",\"protocol\":[\"tcp\",\"rdma\"],\"tcp_data_port\":1,\"buffers\":[]}", -103},
    };
    fake_t *fake = fake_start(FAKE_SILENT);
    for (size_t i = 0; i < COUNT(rows); i++) {
        fake_set_metadata(fake, rows[i].json);
        CHECK_ERROR(rows[i].name, openSegment(engine, fake->name), rows[i].code);
    }
    fake_publish_tcp(fake);
    CHECK("after all of them the same peer opens", openSegment(engine, fake->name) > 0);
    fake_stop(fake);
}

static void notifications(void) {
    static const struct {
        const char *name, *reply;
        int code;
    } rows[] = {
        {"-103: a reply that is not JSON", "hello", -103},
        {"-200: an empty reply", "{\"name\":\"\",\"notify_msg\":\"\"}\n", -200},
        {"-200: a null reply", "{\"name\":\"\",\"notify_msg\":null}\n", -200},
        {"-200: a reply without the member", "{}\n", -200},
    };
    notify_msg_t note = {(char *)(uintptr_t)"name", (char *)(uintptr_t)"message"};
    fake_t *fake = fake_start(FAKE_SILENT);
    segment_id_t id = openSegment(engine, fake->name);
    CHECK_ERROR("-200: notify an unknown id", genNotifyInEngine(engine, 4711, note), -200);
    CHECK_EQ("a fake peer takes a notification", genNotifyInEngine(engine, (uint64_t)id, note), 0);
    for (size_t i = 0; i < COUNT(rows); i++) {
        fake_set_notify(fake, rows[i].reply);
        CHECK_ERROR(rows[i].name, genNotifyInEngine(engine, (uint64_t)id, note), rows[i].code);
    }
    fake_stop(fake);
    CHECK_ERROR("-102: the peer is gone", genNotifyInEngine(engine, (uint64_t)id, note), -102);

    peer_t small = peer_start(4096, "MC_NOTIFY_QUEUE_MAX=4");
    id = openSegment(engine, small.name);
    for (int i = 0; i < 4; i++)
        if (genNotifyInEngine(engine, (uint64_t)id, note) != 0) CHECK("a queue of 4 takes 4", false);
    CHECK_ERROR("-200: the fifth into a queue of 4", genNotifyInEngine(engine, (uint64_t)id, note), -200);
    CHECK_EQ("the peer reads four", peer_notifications(&small).count, 4);
    CHECK_EQ("then there is room again", genNotifyInEngine(engine, (uint64_t)id, note), 0);
    CHECK_EQ("that peer ends in order", peer_stop(&small), 0);
}

static void memory_and_builds(void) {
    static const char *const absent[] = {"efa", "nvlink", "nvmeof"};
    char *broken[2] = {(char *)(uintptr_t)"{", NULL};
    CHECK_NULL("-302: a batch of SIZE_MAX",
               allocateBatchID(engine, SIZE_MAX) == INVALID_BATCH ? NULL : engine, -302);
    CHECK_NULL("-302: a batch of 2^60",
               allocateBatchID(engine, (size_t)1 << 60) == INVALID_BATCH ? NULL : engine, -302);
    for (size_t i = 0; i < COUNT(absent); i++)
        CHECK_NULL(absent[i], installTransport(engine, absent[i], NULL), -303);
    CHECK("a malformed matrix gives NULL", installTransport(engine, "rdma", (void **)broken) == NULL);
    CHECK("and a code", mte_last_error(NULL, 0) < 0);
    CHECK("a store that is down gives NULL",
          createTransferEngine("http://127.0.0.1:1/metadata", "n", "", 0, 0) == NULL);
    CHECK("and a code too", mte_last_error(NULL, 0) < 0);
    CHECK("an unknown store gives NULL", createTransferEngine("gopher://x", "n", "", 0, 0) == NULL);
    CHECK("and a code as well", mte_last_error(NULL, 0) < 0);
}

static void phrases(void) {
    static const int codes[] = {0,    -1,   -2,   -3,   -4,   -6,   -7,   -101, -102, -103,
                                -104, -200, -201, -202, -300, -301, -302, -303};
    bool all = true, distinct = true;
    for (size_t i = 0; i < COUNT(codes); i++) {
        const char *phrase = mte_strerror(codes[i]);
        all = all && phrase != NULL && phrase[0] != '\0';
        for (size_t j = 0; all && j < i; j++) distinct = distinct && strcmp(phrase, mte_strerror(codes[j])) != 0;
    }
    CHECK("every code has a phrase", all);
    CHECK("and no two share one", distinct);
    SKIP("-104, -201, -202", "need an RDMA device");
    SKIP("-300", "needs an empty sysfs and a seccomp filter");
}

int main(int argc, char **argv) {
    peer_dispatch(argc, argv);
    harness_begin();
    setenv("MC_TCP_STATUS_TIMEOUT_SEC", "2", 1);
    peer_t peer = peer_start(PEER_BYTES, NULL);
    engine = engine_open();
    bytes = registered_bytes(engine, BYTES);
    segment_id_t id = openSegment(engine, peer.name);
    REQUIRE("the peer opens", id > 0);
    invalid_argument(id, peer.base);
    too_many_requests();
    address_not_registered(&peer, id);
    rejected_by_the_data_port();
    batch_busy();
    device_not_found();
    address_overlapped();
    names_and_sockets();
    malformed_descriptors();
    notifications();
    memory_and_builds();
    phrases();
    CHECK_EQ("the peer ends in order", peer_stop(&peer), 0);
    destroyTransferEngine(engine);
    return harness_finish();
}

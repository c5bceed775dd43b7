/* P3, P9, P14, P17: nothing leaks over many batches and engines; a request ends although others keep
 * coming; a buffer that was freed fails its own request only; a WRITE is not sent twice; closed segments give
 * back what they held, and their ids work on. */
#include <dirent.h>
#include <malloc.h>
#include <pthread.h>

#include "peer.h"

#define BYTES (8 * MIB)
#define BATCHES 20000
#define FD_BATCHES 200
#define ENGINES 20
#define SUBMITS 40
#define SUBMIT_MS 250
#define END_MS 8000
#define RSS_SLACK_KIB 6144
#define DESTROYED 100
#define NAMES 200
#define BUFFERS 2000
#define HELD_SLACK_KIB 2048

static transfer_engine_t engine;
static unsigned char *bytes;
static segment_id_t target;

static size_t fd_count(void) {
    size_t count = 0;
    DIR *dir = opendir("/proc/self/fd");
    while (dir != NULL && readdir(dir) != NULL) count++;
    if (dir != NULL) closedir(dir);
    return count;
}

static size_t rss_kib(void) {
    size_t kib = 0;
    char line[256];
    FILE *f = fopen("/proc/self/status", "r");
    while (f != NULL && fgets(line, sizeof line, f) != NULL)
        if (sscanf(line, "VmRSS: %zu", &kib) == 1) break;
    if (f != NULL) fclose(f);
    return kib;
}

static size_t allocated_kib(void) {
    struct mallinfo2 info = mallinfo2();
    return (info.uordblks + info.hblkhd) / KIB;
}

static int one_batch(const peer_t *peer, bool with_fd) {
    transfer_request_t r[64];
    batch_id_t batch = batch_open(engine, COUNT(r));
    int fd, failed = 0;
    for (size_t i = 0; i < COUNT(r); i++) r[i] = request(OPCODE_WRITE, bytes + 64 * i, target, peer->base + 64 * i, 64);
    failed += submitTransfer(engine, batch, r, COUNT(r)) != 0;
    if (with_fd) failed += mte_batch_fd(engine, batch, &fd) != 0;
    failed += mte_wait_batch(engine, batch, 20000) != 0;
    return failed + (freeBatchID(engine, batch) != 0);
}

static void batches(const peer_t *peer) {
    int failed = 0;
    for (int i = 0; i < 1000; i++) failed += one_batch(peer, false);
    size_t rss = rss_kib(), fds = fd_count();
    for (int i = 0; i < BATCHES; i++) failed += one_batch(peer, false);
    CHECK_EQ("20000 batches", failed, 0);
    printf("#     %zu KiB before, %zu KiB after\n", rss, rss_kib());
    CHECK("p14: freed batches release their memory", rss_kib() < rss + RSS_SLACK_KIB);
    for (int i = 0; i < FD_BATCHES; i++) failed += one_batch(peer, true);
    CHECK_EQ("200 batches with a descriptor", failed, 0);
    CHECK_EQ("p09: freed batches close their descriptor", fd_count(), fds);
}

static void engines(const peer_t *peer) {
    size_t fds = fd_count(), threads = thread_count();
    int failed = 0;
    for (int i = 0; i < ENGINES; i++) {
        transfer_engine_t e = engine_open();
        unsigned char *own = registered_bytes(e, 4096);
        segment_id_t id = openSegment(e, peer->name);
        failed += transfer_once(e, request(OPCODE_READ, own, id, peer->base, 4096), 20000) != STATUS_COMPLETED;
        batch_id_t kept = batch_open(e, 1);
        transfer_request_t r = request(OPCODE_READ, own, id, peer->base, 4096);
        failed += submitTransfer(e, kept, &r, 1) != 0;
        destroyTransferEngine(e);
        munmap(own, 4096);
    }
    CHECK_EQ("20 engines", failed, 0);
    CHECK_EQ("p09: destroyed engines close their descriptors, batches never freed or not", fd_count(), fds);
    CHECK_EQ("p09: and end their threads", thread_count(), threads);
}

struct user {
    pthread_t thread;
    transfer_engine_t engine;
    transfer_request_t request;
    atomic_int batches;
};

/* Until the engine is gone. Every other batch is never freed. */
static void *use_engine(void *arg) {
    struct user *user = arg;
    for (;;) {
        batch_id_t batch = allocateBatchID(user->engine, 4);
        if (batch == INVALID_BATCH) return NULL;
        for (int i = 0; i < 4; i++)
            if (submitTransfer(user->engine, batch, &user->request, 1) != 0) return NULL;
        if (atomic_fetch_add(&user->batches, 1) % 2 == 0) continue;
        mte_wait_batch(user->engine, batch, 1000);
        freeBatchID(user->engine, batch);
    }
}

static void destroyed_in_use(const peer_t *peer) {
    size_t fds = fd_count(), threads = thread_count(), before = 0;
    int batches = 0;
    for (int i = 0; i < DESTROYED; i++) {
        struct user users[4];
        transfer_engine_t e = engine_open();
        unsigned char *own = registered_bytes(e, 8192);
        segment_id_t id = openSegment(e, peer->name);
        for (size_t k = 0; k < COUNT(users); k++) {
            users[k].engine = e;
            users[k].request = k == 0 ? request(OPCODE_WRITE, own, 0, (uintptr_t)own + 4096, 4096) : request(OPCODE_READ, own, id, peer->base, 4096);
            atomic_init(&users[k].batches, 0);
            if (pthread_create(&users[k].thread, NULL, use_engine, &users[k]) != 0) harness_give_up("a thread");
        }
        bool busy;
        WAIT_UNTIL(busy, atomic_load(&users[i % COUNT(users)].batches) > i % 7, 20000);
        destroyTransferEngine(e);
        for (size_t k = 0; k < COUNT(users); k++) {
            pthread_join(users[k].thread, NULL);
            batches += atomic_load(&users[k].batches);
        }
        if (!busy) harness_give_up("batches under way");
        munmap(own, 8192);
        if (i == DESTROYED / 2) before = allocated_kib();
    }
    printf("#     %d batches; %zu KiB after %d engines, %zu KiB after %d\n", batches, before, DESTROYED / 2, allocated_kib(), DESTROYED);
    CHECK("p14: 100 engines destroyed under the hands of four threads hold nothing", allocated_kib() < before + HELD_SLACK_KIB);
    CHECK_EQ("p09: their descriptors are closed", fd_count(), fds);
    CHECK_EQ("p09: their threads have ended", thread_count(), threads);
}

static void unmapped_buffer(const peer_t *peer) {
    static const int opcodes[] = {OPCODE_WRITE, OPCODE_READ};
    for (size_t o = 0; o < COUNT(opcodes); o++) {
        unsigned char *gone = registered_bytes(engine, 4096);
        transfer_request_t r[16];
        batch_id_t batch = batch_open(engine, COUNT(r));
        int completed = 0;
        munmap(gone, 4096);
        for (size_t i = 0; i < COUNT(r); i++)
            r[i] = request(opcodes[o], i == 7 ? gone : bytes + 4096 * i, target, peer->base + 4096 * i, 4096);
        CHECK_EQ("a batch with a buffer that was freed is accepted", submitTransfer(engine, batch, r, COUNT(r)), 0);
        for (size_t i = 0; i < COUNT(r); i++) {
            int status = await_task(engine, batch, i, 20000);
            if (i == 7) CHECK_EQ("p17: its own task fails", status, STATUS_FAILED);
            else completed += status == STATUS_COMPLETED;
        }
        /* WRITEs on the wire when the connection is given up may be executed, so they fail, too. */
        CHECK("the others do not pay for it", opcodes[o] == OPCODE_WRITE || completed == 15);
        CHECK_EQ("and is freed", freeBatchID(engine, batch), 0);
        CHECK_EQ("unregistered", unregisterLocalMemory(engine, gone), 0);
    }
}

/* One peer under many names stands for many peers: each address of this host is a name. */
static void closed_segments(void) {
    static segment_id_t ids[NAMES];
    peer_t peer = peer_start(BUFFERS * 4 * KIB, NULL);
    transfer_engine_t e = engine_open();
    unsigned char *own = registered_bytes(e, 4096);
    int wrong = peer_unregister(&peer, 0) != 0;
    for (uint64_t i = 0; i < BUFFERS; i++) wrong += peer_register(&peer, i * 4 * KIB, 2 * KIB, 1) != 0;
    CHECK_EQ("a peer with 2000 buffers", wrong, 0);
    size_t before = 0;
    for (int i = 0; i < NAMES; i++) {
        char name[64];
        snprintf(name, sizeof name, "127.0.0.%d%s", i + 2, strchr(peer.name, ':'));
        ids[i] = openSegment(e, name);
        wrong += ids[i] <= 0 || transfer_once(e, request(OPCODE_READ, own, ids[i], peer.base + 4 * KIB, 2 * KIB), 20000) != STATUS_COMPLETED;
        wrong += closeSegment(e, ids[i]) != 0;
        if (i == NAMES / 4) before = allocated_kib();
    }
    printf("#     %zu KiB after %d peers, %zu KiB after %d\n", before, NAMES / 4, allocated_kib(), NAMES);
    CHECK_EQ("200 peers are opened, used and closed", wrong, 0);
    CHECK("p14: those that were closed hold nothing", allocated_kib() < before + HELD_SLACK_KIB);
    for (int round = 0; round < 2; round++) {
        pattern_fill(own, 2 * KIB, 31);
        int status = transfer_once(e, request(OPCODE_WRITE, own, ids[0], peer.base + 8 * KIB, 2 * KIB), 20000);
        CHECK_EQ("the id of a closed segment works on", status, STATUS_COMPLETED);
        CHECK("  with the right bytes", pattern_matches(peer.view + 8 * KIB, 2 * KIB, 31));
        memset(peer.view, 0, peer.len);
        CHECK_EQ("  and is closed once more", closeSegment(e, ids[0]), 0);
    }
    char name[64];
    snprintf(name, sizeof name, "127.0.0.3%s", strchr(peer.name, ':'));
    CHECK_EQ("opened again, a segment has the same id", openSegment(e, name), ids[1]);
    CHECK_EQ("the peer ends in order", peer_stop(&peer), 0);
    CHECK("the id of a closed segment whose peer is gone is refused", transfer_once(e, request(OPCODE_READ, own, ids[5], peer.base, KIB), 20000) < 0);
    destroyTransferEngine(e);
    munmap(own, 4096);
    munmap(peer.view, peer.len);
}

static void endless_submits(void) {
    batch_id_t batch[SUBMITS];
    int64_t submitted[SUBMITS], slowest = 0;
    int waiting = 0;
    setenv("MC_HANDSHAKE_CONNECT_TIMEOUT", "1", 1);
    setenv("MC_TCP_STATUS_TIMEOUT_SEC", "1", 1);
    peer_t peer = peer_start(MIB, NULL);
    transfer_engine_t e = engine_open();
    unsigned char *own = registered_bytes(e, MIB);
    segment_id_t id = openSegment(e, peer.name);
    transfer_request_t r = request(OPCODE_WRITE, own, id, peer.base, MIB / 2);
    bool ended[SUBMITS] = {false};
    peer_pause(&peer);
    for (int i = 0; i < SUBMITS; i++) {
        batch[i] = batch_open(e, 1);
        submitted[i] = now_ms();
        if (submitTransfer(e, batch[i], &r, 1) != 0) harness_give_up("a submit");
        for (int64_t end = now_ms() + SUBMIT_MS; now_ms() < end; nap())
            for (int k = 0; k <= i; k++) {
                transfer_status_t status = {0};
                if (ended[k] || getTransferStatus(e, batch[k], 0, &status) != 0 || status.status == STATUS_WAITING) continue;
                ended[k] = true;
                if (now_ms() - submitted[k] > slowest) slowest = now_ms() - submitted[k];
            }
    }
    for (int i = 0; i < SUBMITS; i++) waiting += !ended[i] && now_ms() - submitted[i] > END_MS;
    printf("#     slowest end after %lld ms\n", (long long)slowest);
    CHECK("p03: tasks of a stopped peer end", ended[0]);
    CHECK_EQ("p03: although new ones keep coming", waiting, 0);
    destroyTransferEngine(e);
    peer_kill(&peer);
}

int main(int argc, char **argv) {
    peer_dispatch(argc, argv);
    harness_begin();
    peer_t peer = peer_start(BYTES, NULL);
    engine = engine_open();
    bytes = registered_bytes(engine, BYTES);
    target = openSegment(engine, peer.name);
    REQUIRE("the peer opens", target > 0);
    batches(&peer);
    engines(&peer);
    destroyed_in_use(&peer);
    unmapped_buffer(&peer);
    CHECK_EQ("the peer ends in order", peer_stop(&peer), 0);
    destroyTransferEngine(engine);
    closed_segments();
    endless_submits();
    return harness_finish();
}

/* P1, P2, P3, P4, P7, P15, P16, P17: peers that are killed, stopped, restarted or take memory back under traffic, and
 * memory that is taken back here. */
#include <pthread.h>
#include <sys/syscall.h>

#include "rdma.h"

#define BYTES (32 * MIB)
#define BLOCK (256 * KIB)
#define TASKS 64
#define KILLED_MS 12000
#define UNREGISTER_MS 3000

static transfer_engine_t engine;
static unsigned char *memory;

/* Stands before the C library's for the library too: a killed peer's port is in TIME_WAIT, and its successor is to have
 * the same one at once. */
__attribute__((used)) int bind_again(int fd, const void *address, socklen_t len) __asm__("bind");
int bind_again(int fd, const void *address, socklen_t len) {
    int on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    return (int)syscall(SYS_bind, fd, address, len);
}

static segment_id_t open_peer(const peer_t *peer) {
    segment_id_t target = openSegment(engine, peer->name);
    if (target <= 0) harness_give_up("the peer opens");
    return target;
}

static bool any_done(transfer_engine_t e, batch_id_t batch) {
    transfer_status_t status = {0};
    return getTransferStatus(e, batch, 0, &status) == 0 && status.status == STATUS_COMPLETED;
}

/* Requests of one batch that takes long, under way: the links are slow. */
static batch_id_t long_batch(segment_id_t target, const peer_t *peer, int opcode) {
    batch_id_t batch = submit_row(engine, target, opcode, memory, peer->base, BLOCK, TASKS);
    bool started;
    WAIT_UNTIL(started, any_done(engine, batch), WAIT_MS);
    if (!started) harness_give_up("a batch is under way");
    return batch;
}

/* While one peer dies, another one's traffic goes on. */
struct bystander {
    pthread_t thread;
    peer_t peer;
    segment_id_t target;
    unsigned char *memory;
    atomic_bool stop;
    int rounds, failed;
    int64_t slowest_ms;
};

static void *stand_by(void *arg) {
    struct bystander *b = arg;
    while (!atomic_load(&b->stop)) {
        int64_t start = now_ms();
        b->failed += 16 - move_row(engine, b->target, OPCODE_WRITE, b->memory, b->peer.base, 4096, 16).completed;
        b->rounds++;
        b->slowest_ms = now_ms() - start > b->slowest_ms ? now_ms() - start : b->slowest_ms;
    }
    return NULL;
}

static struct bystander *bystander_start(void) {
    struct bystander *b = calloc(1, sizeof *b);
    b->peer = rdma_peer(MIB, "sim1", NULL);
    b->target = open_peer(&b->peer);
    b->memory = registered_bytes(engine, MIB);
    if (pthread_create(&b->thread, NULL, stand_by, b) != 0) harness_give_up("a thread");
    return b;
}

static void bystander_check(struct bystander *b) {
    atomic_store(&b->stop, true);
    pthread_join(b->thread, NULL);
    printf("#     another peer: %d batches, slowest %lld ms\n", b->rounds, (long long)b->slowest_ms);
    CHECK_EQ("p03: another peer's tasks do not fail", b->failed, 0);
    CHECK("  and are not held up", b->rounds > 1 && b->slowest_ms < 1500);
    CHECK_EQ("  it ends in order", peer_stop(&b->peer), 0);
    unregisterLocalMemory(engine, b->memory);
    munmap(b->memory, MIB);
    free(b);
}

static void killed(int opcode) {
    peer_t peer = rdma_peer(BYTES, "sim2,sim3", NULL);
    segment_id_t target = open_peer(&peer);
    struct bystander *bystander = bystander_start();
    pattern_fill(memory, TASKS * BLOCK, 3);
    batch_id_t batch = long_batch(target, &peer, opcode);
    peer_kill(&peer);
    int64_t start = now_ms();
    struct outcome first = batch_outcome(engine, batch, TASKS, WAIT_MS);
    int64_t took = now_ms() - start;
    outcome_show(opcode == OPCODE_WRITE ? "writes to a killed peer" : "reads from a killed peer", &first);
    printf("#     terminal after %lld ms\n", (long long)took);
    CHECK_EQ("p03: every task under way ends", first.endless, 0);
    CHECK("  soon", took < KILLED_MS);
    CHECK("  some failed", first.failed > 0);
    CHECK_EQ("  p16: each with a reason", first.without_reason, 0);
    CHECK("  p16: that names the peer", strstr(first.why.peer, peer.name) != NULL || strstr(first.why.text, peer.name) != NULL);
    start = now_ms();
    struct outcome second = move_row(engine, target, opcode, memory, peer.base, BLOCK, 4);
    outcome_show("then submitted", &second);
    CHECK_EQ("p17: what is submitted after the kill fails", second.failed, 4);
    CHECK("  soon", now_ms() - start < KILLED_MS);
    bystander_check(bystander);
    munmap(peer.view, peer.len);
}

/* A port outside the ephemeral range that nobody listens on. */
static int free_port(void) {
    for (int port = 20000 + getpid() % 9000; port < 32000; port++) {
        struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        bool free = bind(fd, (struct sockaddr *)&a, sizeof a) == 0;
        close(fd);
        if (free) return port;
    }
    harness_give_up("a free port");
    return 0;
}

static peer_t peer_at(int port, const char *nics) {
    char list[64], low[64], high[64];
    snprintf(list, sizeof list, "PEER_NICS=%s", nics);
    snprintf(low, sizeof low, "MC_MIN_RPC_PORT=%d", port);
    snprintf(high, sizeof high, "MC_MAX_RPC_PORT=%d", port);
    return peer_start_with(BYTES, (const char *const[]){"SIMVERBS_CTL=", list, low, high, NULL});
}

/* P7: the successor has the name, other keys and other memory. */
static void restarted(bool under_traffic, const char *nics) {
    int port = free_port();
    peer_t old = peer_at(port, nics);
    segment_id_t target = open_peer(&old);
    pattern_fill(memory, TASKS * BLOCK, 4);
    printf("#     restart %s, NICs %s then sim2\n", under_traffic ? "under traffic" : "while idle", nics);
    CHECK_EQ("a transfer to the first incarnation", move_row(engine, target, OPCODE_WRITE, memory, old.base, BLOCK, 8).completed, 8);
    batch_id_t batch = under_traffic ? long_batch(target, &old, OPCODE_WRITE) : 0;
    peer_kill(&old);
    peer_t fresh = peer_at(port, "sim2");
    CHECK_STR("the peer is back under its name", fresh.name, old.name);
    memset(fresh.view, 0x5a, BYTES);
    if (under_traffic) {
        struct outcome caught = batch_outcome(engine, batch, TASKS, WAIT_MS);
        outcome_show("caught by the restart", &caught);
        CHECK_EQ("p07: every task of the old incarnation ends", caught.endless, 0);
        if (fresh.base != old.base) CHECK("  and none wrote into the new one", all_bytes(fresh.view, BYTES, 0x5a));
    }
    struct outcome outcome = {0};
    int tries = 0;
    int64_t start = now_ms();
    while (outcome.completed != 8 && tries < 3) {
        outcome = move_row(engine, target, OPCODE_WRITE, memory, fresh.base, BLOCK, 8);
        if (outcome.failed > 0) outcome_show("after the restart", &outcome);
        tries++;
    }
    printf("#     %d tries, %lld ms\n", tries, (long long)(now_ms() - start));
    CHECK_EQ("p07: the next transfer to the new incarnation succeeds", outcome.completed, 8);
    CHECK_EQ("  at the first try, without opening the segment again", tries, 1);
    CHECK("  with the right bytes", pattern_matches(fresh.view, 8 * BLOCK, 4) && all_bytes(fresh.view + 8 * BLOCK, BYTES - 8 * BLOCK, 0x5a));
    CHECK_EQ("  the peer ends in order", peer_stop(&fresh), 0);
    munmap(old.view, old.len);
    munmap(fresh.view, fresh.len);
}

/* An engine of this process, so that every incarnation has the same memory. */
static transfer_engine_t owner_at(int port, unsigned char *area) {
    char text[16];
    snprintf(text, sizeof text, "%d", port);
    setenv("MC_MIN_RPC_PORT", text, 1);
    setenv("MC_MAX_RPC_PORT", text, 1);
    transfer_engine_t owner = rdma_engine("sim2");
    unsetenv("MC_MIN_RPC_PORT");
    unsetenv("MC_MAX_RPC_PORT");
    if (registerLocalMemory(owner, area, BYTES, "cpu:0", 1) != 0) harness_give_up("the owner's memory");
    return owner;
}

/* P7: the successor has the same addresses too. A NIC does not hear of its peer's end, so the age of the descriptor has it
 * read again. */
static void reopened(void) {
    int port = free_port();
    char name[128];
    unsigned char *area = map_bytes(BYTES);
    setenv("MC_OPEN_AGE_MS", "0", 1);
    transfer_engine_t initiator = rdma_engine("sim0");
    unsetenv("MC_OPEN_AGE_MS");
    unsigned char *source = registered_bytes(initiator, BLOCK);
    transfer_engine_t owner = owner_at(port, area);
    engine_name(owner, name, sizeof name);
    segment_id_t target = openSegment(initiator, name);
    for (uint64_t round = 1; round <= 3; round++) {
        pattern_fill(source, BLOCK, round);
        CHECK_EQ("p07: opened again, a segment has the same id", openSegment(initiator, name), target);
        struct outcome outcome = move_one(initiator, target, OPCODE_WRITE, source, (uintptr_t)area, BLOCK);
        if (outcome.failed > 0) outcome_show("after opening again", &outcome);
        CHECK_EQ("  and a transfer to the same address of the new engine succeeds at the first try", outcome.completed, 1);
        CHECK("  with the right bytes", pattern_matches(area, BLOCK, round));
        destroyTransferEngine(owner);
        owner = owner_at(port, area);
        memset(area, 0, BYTES);
    }
    destroyTransferEngine(owner);
    destroyTransferEngine(initiator);
    munmap(area, BYTES);
    munmap(source, BLOCK);
}

/* A stopped process still has NICs: one-sided transfers go on, and what needs its processor waits. */
static void stopped(void) {
    peer_t peer = rdma_peer(BYTES, "sim2", NULL);
    segment_id_t target = open_peer(&peer);
    CHECK_EQ("connected", move_one(engine, target, OPCODE_WRITE, memory, peer.base, BLOCK).completed, 1);
    peer_pause(&peer);
    pattern_fill(memory, BLOCK, 6);
    CHECK_EQ("a stopped peer's memory can be written", move_one(engine, target, OPCODE_WRITE, memory, peer.base, BLOCK).completed, 1);
    CHECK("  with the right bytes", pattern_matches(peer.view, BLOCK, 6));
    peer_resume(&peer);
    CHECK_EQ("  it ends in order", peer_stop(&peer), 0);
    munmap(peer.view, peer.len);
}

/* Here: the region of half of the tasks is taken back. */
static void own_memory(int opcode) {
    peer_t peer = rdma_peer(2 * BYTES, "sim2,sim3", NULL);
    segment_id_t target = open_peer(&peer);
    unsigned char *taken = registered_bytes(engine, BYTES);
    pattern_fill(memory, TASKS * BLOCK, 7);
    pattern_fill(peer.view, BYTES, 7);
    batch_id_t doomed = submit_row(engine, target, opcode, taken, peer.base + BYTES, BLOCK, TASKS);
    batch_id_t other = submit_row(engine, target, opcode, memory, peer.base, BLOCK, TASKS);
    int64_t start = now_ms();
    CHECK_EQ("unregistering under traffic", unregisterLocalMemory(engine, taken), 0);
    int64_t took = now_ms() - start;
    printf("#     returned after %lld ms\n", (long long)took);
    CHECK("  returns within three seconds", took < UNREGISTER_MS);
    munmap(taken, BYTES);
    struct outcome gone = batch_outcome(engine, doomed, TASKS, WAIT_MS);
    outcome_show("tasks in the region", &gone);
    CHECK_EQ("p02: its tasks are terminal", gone.endless, 0);
    CHECK("  the failed ones with -3", gone.failed == 0 || gone.why.code == -3);
    CHECK_EQ("  each with a reason", gone.without_reason, 0);
    struct outcome rest = batch_outcome(engine, other, TASKS, WAIT_MS);
    outcome_show("tasks in another region", &rest);
    CHECK_EQ("tasks in another region complete", rest.completed, TASKS);
    CHECK("  with the right bytes", memcmp(memory, peer.view, TASKS * BLOCK) == 0 && pattern_matches(memory, TASKS * BLOCK, 7));
    transfer_request_t r = request(opcode, taken, target, peer.base, 8);
    batch_id_t batch = batch_open(engine, 1);
    CHECK_ERROR("the region cannot be used any more", submitTransfer(engine, batch, &r, 1), -3);
    freeBatchID(engine, batch);
    CHECK_EQ("the peer ends in order", peer_stop(&peer), 0);
    munmap(peer.view, peer.len);
}

/* There: we still know the region when the peer takes it back. */
static void peers_memory(void) {
    peer_t peer = rdma_peer(BYTES, "sim2,sim3", NULL);
    segment_id_t target = open_peer(&peer);
    CHECK_EQ("a transfer", move_one(engine, target, OPCODE_WRITE, memory, peer.base, BLOCK).completed, 1);
    CHECK_EQ("the peer takes its region back", peer_unregister(&peer, 0), 0);
    memset(peer.view, 0x5a, BYTES);
    struct outcome outcome = move_row(engine, target, OPCODE_WRITE, memory, peer.base, BLOCK, 8);
    outcome_show("to a region that the peer took back", &outcome);
    CHECK_EQ("  the tasks fail", outcome.failed, 8);
    CHECK_EQ("  with -3", outcome.why.code, -3);
    CHECK_EQ("  of class REJECTED: the request was right when it was submitted", outcome.why.error_class, MTE_CLASS_REJECTED);
    CHECK("p17: and nothing is written", all_bytes(peer.view, BYTES, 0x5a));
    CHECK_EQ("the peer registers the first half", peer_register(&peer, 0, BYTES / 2, 1), 0);
    outcome = move_row(engine, target, OPCODE_WRITE, memory, peer.base, BLOCK, 8);
    outcome_show("to the region registered again", &outcome);
    CHECK_EQ("p04: transfers there succeed without opening anew", outcome.completed, 8);
    /* Again under traffic, with both kinds of addresses in one batch. */
    CHECK_EQ("and the second half", peer_register(&peer, BYTES / 2, BYTES / 2, 1), 0);
    CHECK_EQ("sync", syncSegmentCache(engine), 0);
    transfer_request_t r[TASKS];
    for (size_t i = 0; i < TASKS; i++) {
        uint64_t at = i % 2 ? BYTES / 2 + i / 2 * BLOCK : i / 2 * BLOCK;
        r[i] = request(OPCODE_WRITE, memory + i * BLOCK, target, peer.base + at, BLOCK);
    }
    batch_id_t batch = batch_open(engine, TASKS);
    CHECK_EQ("the peer takes the second half back", peer_unregister(&peer, BYTES / 2), 0);
    CHECK_EQ("a batch into both halves", submitTransfer(engine, batch, r, TASKS), 0);
    int wrong = 0;
    for (size_t i = 0; i < TASKS; i++) {
        int status = await_task(engine, batch, i, WAIT_MS);
        mte_task_error_info_t why = {0};
        mte_task_error(engine, batch, i, &why);
        wrong += status != (i % 2 ? STATUS_FAILED : STATUS_COMPLETED) || why.code != (i % 2 ? -3 : 0);
        if (i % 2 == 0) wrong += memcmp(peer.view + i / 2 * BLOCK, memory + i * BLOCK, BLOCK) != 0;
    }
    CHECK_EQ("  the open half completes, the other fails with -3", wrong, 0);
    CHECK_EQ("  and is freed", freeBatchID(engine, batch), 0);
    CHECK_EQ("the peer ends in order", peer_stop(&peer), 0);
    munmap(peer.view, peer.len);
}

/* Each region is used as soon as it is there. */
static void region_after_region(void) {
    peer_t peer = rdma_peer(BYTES, "sim2", NULL);
    segment_id_t target = open_peer(&peer);
    int wrong = peer_unregister(&peer, 0) != 0;
    for (uint64_t i = 0; i < 20; i++) {
        wrong += peer_register(&peer, i * MIB, BLOCK, 1) != 0;
        wrong += transfer_once(engine, request(OPCODE_WRITE, memory, target, peer.base + i * MIB, BLOCK), WAIT_MS) != STATUS_COMPLETED;
    }
    CHECK_EQ("20 regions that the peer registers one after the other are used at once", wrong, 0);
    CHECK_EQ("the peer ends in order", peer_stop(&peer), 0);
    munmap(peer.view, peer.len);
}

static void destroyed_under_traffic(void) {
    peer_t peer = rdma_peer(BYTES, "sim2", NULL);
    segment_id_t target = open_peer(&peer);
    nics_do("stall * 60000\n");
    /* Until the stall is there. */
    for (;;) {
        batch_id_t batch = submit_row(engine, target, OPCODE_READ, memory, peer.base, BLOCK, TASKS);
        if (mte_wait_batch(engine, batch, 200) != 0) break;
        freeBatchID(engine, batch);
    }
    int64_t start = now_ms();
    destroyTransferEngine(engine);
    printf("#     destroyed after %lld ms\n", (long long)(now_ms() - start));
    CHECK("p15: an engine with work under way is destroyed within two seconds", now_ms() - start < 2000);
    memset(memory, 0xa5, BYTES);
    CHECK_EQ("the peer ends in order", peer_stop(&peer), 0);
    CHECK("p02: its memory is left alone", all_bytes(memory, BYTES, 0xa5));
    munmap(memory, BYTES);
    nics_do("stall * 0\n");
}

int main(int argc, char **argv) {
    peer_dispatch(argc, argv);
    harness_begin();
    /* 64 blocks take 34 ms over two NICs. */
    setenv("SIMVERBS_GBPS", "2", 1);
    /* Bytes move when a work request is posted: most are to wait. */
    setenv("MC_MAX_WR", "4", 1);
    engine = rdma_engine("sim0,sim1");
    memory = registered_bytes(engine, BYTES);
    killed(OPCODE_WRITE);
    killed(OPCODE_READ);
    restarted(false, "sim2");
    restarted(true, "sim2");
    restarted(true, "sim2,sim3");
    reopened();
    stopped();
    own_memory(OPCODE_WRITE);
    own_memory(OPCODE_READ);
    peers_memory();
    region_after_region();
    destroyed_under_traffic();
    return harness_finish();
}

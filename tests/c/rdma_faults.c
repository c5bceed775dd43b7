/* P3, P4, P5, P16, P28: NICs of this process that fail in every way, alone and with another one left. The peer's NICs
 * never fail. */
#include "rdma.h"
#include "wire.h"

#define TASKS 16
#define BLOCK (96 * KIB)
#define BYTES (64 * MIB)
#define BACK_MS 5000
#define STALL_MS "200"

/* With two NICs, and with one. */
static peer_t peer, lone;

/* An engine with an open segment and its own memory. */
struct side {
    transfer_engine_t engine;
    const peer_t *peer;
    segment_id_t target;
    unsigned char *memory;
};

static struct side side_open(const char *nics, const peer_t *to) {
    struct side side = {.engine = rdma_engine(nics), .peer = to};
    side.memory = registered_bytes(side.engine, BYTES);
    side.target = openSegment(side.engine, to->name);
    if (side.target <= 0) harness_give_up("the peer opens");
    return side;
}

static void side_close(struct side *side) {
    nics_do("");
    destroyTransferEngine(side->engine);
    munmap(side->memory, BYTES);
}

/* What a row of batches came to. */
struct load {
    int batches, failed, wrong;
    int64_t slowest_ms;
    mte_task_error_info_t why;
};

/* A batch of writes with new bytes, looked at in the peer. */
static void load_batch(struct load *load, const struct side *side) {
    static uint64_t seed;
    int64_t start = now_ms();
    pattern_fill(side->memory, TASKS * BLOCK, ++seed);
    struct outcome outcome = move_row(side->engine, side->target, OPCODE_WRITE, side->memory, side->peer->base, BLOCK, TASKS);
    load->failed += TASKS - outcome.completed;
    if (outcome.failed > 0) load->why = outcome.why;
    load->wrong += outcome.completed == TASKS && !pattern_matches(side->peer->view, TASKS * BLOCK, seed);
    load->batches++;
    int64_t took = now_ms() - start;
    load->slowest_ms = took > load->slowest_ms ? took : load->slowest_ms;
}

/* Batches until `condition` holds, at most `ms`; `ok` says whether it did. */
#define LOAD_UNTIL(load, side, ok, condition, ms) \
    for (int64_t load_end_ = now_ms() + (ms); load_batch(load, side), !((ok) = (condition)) && now_ms() < load_end_;) continue

static void load_check(const char *what, const struct load *load) {
    char name[160];
    printf("#     %s: %d batches, slowest %lld ms\n", what, load->batches, (long long)load->slowest_ms);
    if (load->failed > 0) printf("#     code %d class %d: %s\n", load->why.code, load->why.error_class, load->why.text);
    snprintf(name, sizeof name, "%s: no task fails", what);
    CHECK_EQ(name, load->failed, 0);
    CHECK_EQ("  COMPLETED bytes are there", load->wrong, 0);
}

/* Fault lines for sim0, load until its attempts fail, cleared, load until it carries data again. */
static void fault_and_back(const struct side *side, const char *what, const char *fault, const char *cleared) {
    struct load load = {0};
    bool felt, back;
    uint64_t failures = attempts_failed(side->engine, "sim0");
    nics_do(fault);
    LOAD_UNTIL(&load, side, felt, attempts_failed(side->engine, "sim0") > failures, BACK_MS);
    CHECK(what, felt);
    for (int i = 0; i < 5; i++) load_batch(&load, side);
    nics_do(cleared);
    int64_t start = now_ms();
    uint64_t done = slices_done(side->engine, "sim0");
    LOAD_UNTIL(&load, side, back, slices_done(side->engine, "sim0") > done + TASKS, BACK_MS);
    printf("#     back after %lld ms\n", (long long)(now_ms() - start));
    CHECK("  the NIC carries data again within 5 s", back);
    load_check(what, &load);
}

static const char *const statuses[] = {"LOC_LEN_ERR",     "LOC_QP_OP_ERR",  "LOC_PROT_ERR",      "LOC_ACCESS_ERR",
                                       "MW_BIND_ERR",     "BAD_RESP_ERR",   "REM_INV_REQ_ERR",   "REM_ACCESS_ERR",
                                       "REM_OP_ERR",      "RETRY_EXC_ERR",  "RNR_RETRY_EXC_ERR", "REM_ABORT_ERR",
                                       "FATAL_ERR",       "RESP_TIMEOUT_ERR", "GENERAL_ERR"};

static void statuses_with_another_nic(void) {
    struct side side = side_open("sim0,sim1", &peer);
    for (size_t i = 0; i < COUNT(statuses); i++) {
        char fault[64], what[96];
        snprintf(fault, sizeof fault, "error sim0 1000000 %s\n", statuses[i]);
        snprintf(what, sizeof what, "p05: every work request of one of two NICs ends with %s", statuses[i]);
        fault_and_back(&side, what, fault, "error sim0 0\n");
    }
    side_close(&side);
}

/* One failure and no other NIC: the task is posted again on the same one. */
static void statuses_alone(void) {
    struct side side = side_open("sim0", &lone);
    for (size_t i = 0; i < COUNT(statuses); i++) {
        char fault[64], what[96];
        struct load load = {0};
        bool felt;
        uint64_t failures = attempts_failed(side.engine, "sim0");
        snprintf(fault, sizeof fault, "error sim0 1 %s\n", statuses[i]);
        snprintf(what, sizeof what, "one %s of the only NIC", statuses[i]);
        nics_do(fault);
        LOAD_UNTIL(&load, &side, felt, attempts_failed(side.engine, "sim0") > failures, BACK_MS);
        CHECK(what, felt);
        load_check(what, &load);
    }
    side_close(&side);
}

/* For good: the task fails with the status in its text, and the next one succeeds once the NIC works again. */
static void only_nic_for_good(const char *fault, const char *cleared, int code, int class_, const char *word) {
    char name[128];
    setenv("MC_RETRY_CNT", "3", 1);
    struct side side = side_open("sim0", &lone);
    unsetenv("MC_RETRY_CNT");
    struct outcome outcome = {0};
    nics_do(fault);
    snprintf(name, sizeof name, "the only NIC fails for good (%.*s)", (int)strcspn(fault, "\n"), fault);
    for (int64_t end = now_ms() + BACK_MS; outcome.failed == 0 && now_ms() < end;)
        outcome = move_one(side.engine, side.target, OPCODE_WRITE, side.memory, side.peer->base, BLOCK);
    outcome_show(name, &outcome);
    CHECK_EQ(name, outcome.failed, 1);
    CHECK_EQ("  p16: the code", outcome.why.code, code);
    CHECK_EQ("  p16: the class", outcome.why.error_class, class_);
    CHECK("  p16: the text names the cause", strstr(outcome.why.text, word) != NULL);
    CHECK("  p16: and the NIC", strstr(outcome.why.text, "sim0") != NULL);
    nics_do(cleared);
    outcome.completed = 0;
    for (int64_t end = now_ms() + BACK_MS; outcome.completed == 0 && now_ms() < end;)
        outcome = move_one(side.engine, side.target, OPCODE_WRITE, side.memory, side.peer->base, BLOCK);
    CHECK_EQ("  p04: a later transfer succeeds", outcome.completed, 1);
    side_close(&side);
}

static void stall_with_another_nic(void) {
    setenv("MC_RDMA_STALL_TIMEOUT_MS", STALL_MS, 1);
    struct side side = side_open("sim0,sim1", &peer);
    fault_and_back(&side, "p03: one of two NICs completes nothing any more", "stall sim0 60000\n", "stall sim0 0\n");
    side_close(&side);
    unsetenv("MC_RDMA_STALL_TIMEOUT_MS");
}

/* P2: a task that ran out of time leaves its buffer alone, also when the NIC goes on. */
static void deadline(void) {
    setenv("MC_SLICE_TIMEOUT", "1", 1);
    struct side side = side_open("sim0", &lone);
    unsetenv("MC_SLICE_TIMEOUT");
    struct load load = {0};
    load_batch(&load, &side);
    nics_do("stall * 60000\n");
    /* Until the fault is there. */
    struct outcome outcome = {0};
    int64_t took = 0;
    pattern_fill(side.peer->view, TASKS * BLOCK, 9);
    for (int64_t end = now_ms() + BACK_MS; outcome.failed == 0 && now_ms() < end;) {
        int64_t start = now_ms();
        outcome = move_row(side.engine, side.target, OPCODE_READ, side.memory, side.peer->base, BLOCK, TASKS);
        took = now_ms() - start;
    }
    memset(side.memory, 0xa5, TASKS * BLOCK);
    outcome_show("a NIC that completes nothing", &outcome);
    CHECK_EQ("p02: reads on a NIC without completions all end", outcome.endless, 0);
    /* The fault may have come between two of them. */
    CHECK("  FAILED", outcome.failed > 0 && outcome.completed + outcome.failed == TASKS);
    CHECK_EQ("  with class TIMEOUT", outcome.why.error_class, MTE_CLASS_TIMEOUT);
    CHECK_EQ("  each with a reason", outcome.without_reason, 0);
    printf("#     after %lld ms\n", (long long)took);
    CHECK("  MC_SLICE_TIMEOUT=1: between one and three seconds", took >= 900 && took < 3000);
    nics_do("stall * 0\n");
    outcome.completed = 0;
    for (int64_t end = now_ms() + BACK_MS; outcome.completed == 0 && now_ms() < end;)
        outcome = move_one(side.engine, side.target, OPCODE_READ, side.memory + 32 * MIB, side.peer->base, BLOCK);
    CHECK_EQ("  p04: the next transfer after the stall succeeds", outcome.completed, 1);
    CHECK("p02: the buffers of the failed reads are left alone", all_bytes(side.memory, TASKS * BLOCK, 0xa5));
    side_close(&side);
}

/* P2: a canceled batch ends though no completion comes, and the peer confirms that nothing of it arrives any more. */
static void canceled(void) {
    struct side side = side_open("sim0", &lone);
    struct load load = {0};
    load_batch(&load, &side);
    nics_do("stall * 60000\n");
    batch_id_t batch = INVALID_BATCH;
    transfer_request_t requests[TASKS];
    for (size_t i = 0; i < TASKS; i++)
        requests[i] = request(OPCODE_WRITE, side.memory + i * BLOCK, side.target, side.peer->base + i * BLOCK, BLOCK);
    /* Until the fault is there. */
    for (int64_t end = now_ms() + BACK_MS; now_ms() < end;) {
        batch = batch_open(side.engine, TASKS);
        CHECK_EQ("WRITEs on a NIC without completions", submitTransfer(side.engine, batch, requests, TASKS), 0);
        if (mte_wait_batch(side.engine, batch, 100) != 0) break;
        freeBatchID(side.engine, batch);
    }
    int64_t start = now_ms();
    CHECK_EQ("p02: canceled", mte_cancel_batch(side.engine, batch), 0);
    CHECK_EQ("  they end", mte_wait_batch(side.engine, batch, BACK_MS), 0);
    printf("#     after %lld ms\n", (long long)(now_ms() - start));
    mte_batch_status_t status = {0};
    mte_task_report_t report = {0};
    mte_batch_status(side.engine, batch, &status, NULL, 0);
    CHECK("  some have failed", status.failed > 0 && status.failed + status.completed == TASKS);
    mte_task_report(side.engine, batch, TASKS - 1, &report);
    CHECK_EQ("  because they were canceled", report.error_class, MTE_CLASS_CANCELED);
    CHECK("  after they were posted", report.posted_us >= 0 && report.completed_us >= report.posted_us);
    size_t quiet = 0;
    for (int64_t end = now_ms() + BACK_MS; quiet < TASKS && now_ms() < end; nap()) {
        quiet = 0;
        for (size_t i = 0; i < TASKS; i++) {
            int drained = MTE_DRAINED_NO;
            mte_task_drained(side.engine, batch, i, &drained);
            quiet += drained == MTE_DRAINED_YES;
        }
    }
    CHECK_EQ("  and the peer says that nothing of them arrives any more", quiet, TASKS);
    CHECK_EQ("  freed", freeBatchID(side.engine, batch), 0);
    memset(side.peer->view, 0x5a, TASKS * BLOCK);
    nics_do("stall * 0\n");
    struct outcome outcome = {0};
    for (int64_t end = now_ms() + BACK_MS; outcome.completed == 0 && now_ms() < end;)
        outcome = move_one(side.engine, side.target, OPCODE_WRITE, side.memory, side.peer->base + 32 * MIB, BLOCK);
    CHECK_EQ("  p04: the next transfer after the stall succeeds", outcome.completed, 1);
    CHECK("  the peer's range is left alone", all_bytes(side.peer->view, TASKS * BLOCK, 0x5a));
    side_close(&side);
}

static void port_of_one_nic(void) {
    struct side side = side_open("sim0,sim1", &peer);
    struct load load = {0};
    load_batch(&load, &side);
    for (int round = 0; round < 3; round++) {
        bool down, back;
        nics_do("port sim0 down\n");
        LOAD_UNTIL(&load, &side, down, links_show(side.engine, "\"state\":\"down\""), BACK_MS);
        CHECK("one of two ports goes down", down);
        uint64_t others = slices_done(side.engine, "sim1");
        for (int i = 0; i < 10; i++) load_batch(&load, &side);
        CHECK("  the other NIC carries the data", slices_done(side.engine, "sim1") >= others + 10 * TASKS);
        nics_do("port sim0 up\n");
        int64_t start = now_ms();
        uint64_t done = slices_done(side.engine, "sim0");
        LOAD_UNTIL(&load, &side, back, slices_done(side.engine, "sim0") > done, BACK_MS);
        printf("#     back after %lld ms\n", (long long)(now_ms() - start));
        CHECK("  p05: data on the returned port within 5 s", back);
        CHECK("  which is shown as active", !links_show(side.engine, "\"state\":\"down\""));
    }
    load_check("p05: one of two ports goes down and up", &load);
    side_close(&side);
}

/* A batch whose completions do not come, and then the port is down too: `after` when that is felt. */
static struct outcome caught_by_port(const struct side *side, const char *after) {
    bool down;
    struct load load = {0};
    load_batch(&load, side);
    nics_do("stall sim0 60000\n");
    /* Until the stall is there: the file is looked at in each call. */
    batch_id_t batch;
    for (;;) {
        batch = submit_row(side->engine, side->target, OPCODE_WRITE, side->memory, side->peer->base, BLOCK, TASKS);
        if (mte_wait_batch(side->engine, batch, 100) != 0) break;
        freeBatchID(side->engine, batch);
    }
    /* The stall may have come in the middle of that one. */
    batch_id_t caught = submit_row(side->engine, side->target, OPCODE_WRITE, side->memory, side->peer->base, BLOCK, TASKS);
    nics_do("stall sim0 60000\nport sim0 down\n");
    WAIT_UNTIL(down, links_show(side->engine, "\"state\":\"down\""), BACK_MS);
    CHECK("the only port goes down under a batch", down);
    nics_do(after);
    struct outcome outcome = batch_outcome(side->engine, caught, TASKS, WAIT_MS);
    batch_outcome(side->engine, batch, TASKS, WAIT_MS);
    return outcome;
}

/* No rail is left for a while: tasks wait for the port, but not for ever. */
static void port_of_the_only_nic(void) {
    struct side side = side_open("sim0", &lone);
    pattern_fill(side.memory, TASKS * BLOCK, 1);
    struct outcome outcome = caught_by_port(&side, "stall sim0 700\nport sim0 up\n");
    outcome_show("the port comes back", &outcome);
    CHECK_EQ("  its tasks complete once the port is up again", outcome.completed, TASKS);
    int64_t start = now_ms();
    outcome = caught_by_port(&side, "stall sim0 60000\n");
    outcome_show("the port stays down", &outcome);
    CHECK_EQ("  its tasks fail in the end", outcome.failed, TASKS);
    CHECK_EQ("  with -6", outcome.why.code, -6);
    CHECK_EQ("  of class DEVICE", outcome.why.error_class, MTE_CLASS_DEVICE);
    CHECK("  and a text that names the port's state", strstr(outcome.why.text, "not active") != NULL);
    CHECK("  within five seconds", now_ms() - start < 5000);
    batch_id_t batch = batch_open(side.engine, 1);
    transfer_request_t r = request(OPCODE_WRITE, side.memory, side.target, side.peer->base, BLOCK);
    CHECK_ERROR("  and submit says so at once", submitTransfer(side.engine, batch, &r, 1), -6);
    CHECK_EQ("  and leaves the batch empty", freeBatchID(side.engine, batch), 0);
    bool up;
    nics_do("stall sim0 0\nport sim0 up\n");
    WAIT_UNTIL(up, !links_show(side.engine, "\"state\":\"down\""), BACK_MS);
    CHECK("  p04: a transfer after the port's return succeeds", up && move_one(side.engine, side.target, OPCODE_WRITE, side.memory, side.peer->base, BLOCK).completed == 1);
    side_close(&side);
}

static bool publishes(transfer_engine_t engine, const char *nic) {
    static char json[1 << 16];
    char own[128], device[64];
    engine_name(engine, own, sizeof own);
    snprintf(device, sizeof device, "\"name\":\"%s\"", nic);
    if (frame_exchange(name_port(own), 1, "{}\n", json, sizeof json) != 1) harness_give_up("a metadata exchange");
    return strstr(json, device) != NULL;
}

static void fatal_device(void) {
    struct side side = side_open("sim0,sim1", &peer);
    struct load load = {0};
    bool gone;
    load_batch(&load, &side);
    CHECK("two NICs are published", publishes(side.engine, "sim0") && publishes(side.engine, "sim1"));
    nics_do("event sim0 DEVICE_FATAL\n");
    LOAD_UNTIL(&load, &side, gone, !publishes(side.engine, "sim0"), BACK_MS);
    CHECK("a NIC that fails for good is not published any more", gone && publishes(side.engine, "sim1"));
    for (int i = 0; i < 20; i++) load_batch(&load, &side);
    load_check("one of two devices fails for good", &load);
    unsigned char *more = map_bytes(MIB);
    CHECK_EQ("memory can still be registered", registerLocalMemory(side.engine, more, MIB, "cpu:0", 1), 0);
    struct outcome outcome = move_one(side.engine, side.target, OPCODE_WRITE, more, side.peer->base, MIB);
    CHECK_EQ("  and used", outcome.completed, 1);
    side_close(&side);
    munmap(more, MIB);
}

/* A NIC of the peer goes down. We know nothing of it but that requests fail and handshakes are refused; `cold`: not even
 * that, as nothing was connected before. */
static void port_of_the_peer(bool cold) {
    char path[4096], setting[4200];
    snprintf(path, sizeof path, "%s.peer", getenv("SIMVERBS_CTL"));
    snprintf(setting, sizeof setting, "SIMVERBS_CTL=%s", path);
    control_write(path, "");
    peer_t other = rdma_peer(BYTES, "sim2,sim3", setting);
    struct side side = side_open("sim0,sim1", &other);
    struct load load = {0};
    if (!cold) load_batch(&load, &side);
    control_write(path, "port sim2 down\n");
    /* The peer publishes it, but nobody has told us. */
    static char json[1 << 16];
    bool told;
    WAIT_UNTIL(told, frame_exchange(name_port(other.name), 1, "{}\n", json, sizeof json) == 1 && strstr(json, "\"name\":\"sim2\"") == NULL, BACK_MS);
    CHECK("a port of the peer goes down", told);
    for (int i = 0; i < 20; i++) load_batch(&load, &side);
    control_write(path, "port sim2 up\n");
    bool back;
    uint64_t done = links_sum(side.engine, "sim0", "completed");
    LOAD_UNTIL(&load, &side, back, links_sum(side.engine, "sim0", "completed") > done, BACK_MS);
    CHECK("  and up", back);
    load_check(cold ? "p05: a port of a peer that is not connected yet" : "p05: a port of the peer goes down and up", &load);
    side_close(&side);
    CHECK_EQ("the peer ends in order", peer_stop(&other), 0);
    unlink(path);
    munmap(other.view, BYTES);
}

static void harmless_events(void) {
    static const char *const events[] = {"GID_CHANGE", "LID_CHANGE", "PKEY_CHANGE", "SM_CHANGE", "CLIENT_REREGISTER"};
    struct side side = side_open("sim0,sim1", &peer);
    struct load load = {0};
    for (size_t i = 0; i < COUNT(events); i++) {
        char line[64];
        snprintf(line, sizeof line, "event * %s\n", events[i]);
        nics_do(line);
        for (int j = 0; j < 10; j++) load_batch(&load, &side);
    }
    CHECK("no attempt fails by events that change nothing", attempts_failed(side.engine, "sim0") + attempts_failed(side.engine, "sim1") == 0);
    load_check("events that change nothing", &load);
    side_close(&side);
}

/* Batches that keep both NICs busy for some time, without looking at the bytes. */
static void long_batches(const struct side *side, int count) {
    int failed = 0;
    for (int i = 0; i < count; i++)
        failed += 64 - move_row(side->engine, side->target, OPCODE_WRITE, side->memory, side->peer->base, BYTES / 64, 64).completed;
    CHECK_EQ("long batches complete", failed, 0);
}

static void slow_nic(void) {
    struct side side = side_open("sim0,sim1", &peer);
    long_batches(&side, 2);
    uint64_t before[2] = {slices_done(side.engine, "sim0"), slices_done(side.engine, "sim1")};
    long_batches(&side, 2);
    uint64_t even[2] = {slices_done(side.engine, "sim0") - before[0], slices_done(side.engine, "sim1") - before[1]};
    printf("#     slices of two equal NICs: %llu and %llu\n", (unsigned long long)even[0], (unsigned long long)even[1]);
    CHECK("p22: two equal NICs share the work", even[0] * 4 > even[1] && even[1] * 4 > even[0]);
    nics_do("slow sim0 10\n");
    long_batches(&side, 4);
    before[0] = slices_done(side.engine, "sim0"), before[1] = slices_done(side.engine, "sim1");
    int64_t start = now_ms();
    long_batches(&side, 6);
    uint64_t slow = slices_done(side.engine, "sim0") - before[0], fast = slices_done(side.engine, "sim1") - before[1];
    printf("#     slices of the slow NIC: %llu, of the other: %llu; %lld ms, ideal %d ms\n", (unsigned long long)slow,
           (unsigned long long)fast, (long long)(now_ms() - start), 6 * 67 * 10 / 11);
    CHECK("p28: most of the data goes over the NIC that is not slow", fast > 5 * slow);
    side_close(&side);
}

static void only_nic_without_answers(void) {
    only_nic_for_good("error sim0 1000000 RETRY_EXC_ERR\n", "error sim0 0\n", -201, MTE_CLASS_NETWORK, "RETRY_EXC_ERR");
}

static void only_nic_with_bad_keys(void) {
    only_nic_for_good("error sim0 1000000 LOC_PROT_ERR\n", "error sim0 0\n", -202, MTE_CLASS_ARGUMENT, "LOC_PROT_ERR");
}

static void only_nic_without_queue_pairs(void) {
    only_nic_for_good("fail create_qp 1000000 ENOMEM\n", "fail create_qp 0\n", -201, MTE_CLASS_DEVICE, "queue pair");
}

static void port_of_a_known_peer(void) { port_of_the_peer(false); }

static void port_of_an_unknown_peer(void) { port_of_the_peer(true); }

#define CASE(function) {#function, function}
static const struct {
    const char *name;
    void (*run)(void);
} cases[] = {
    CASE(statuses_with_another_nic), CASE(statuses_alone),
    CASE(only_nic_without_answers),  CASE(only_nic_with_bad_keys),
    CASE(only_nic_without_queue_pairs), CASE(stall_with_another_nic), CASE(canceled),
    CASE(deadline),                  CASE(port_of_one_nic),
    CASE(port_of_the_only_nic),      CASE(port_of_a_known_peer),
    CASE(port_of_an_unknown_peer),   CASE(fatal_device),
    CASE(harmless_events),           CASE(slow_nic),
};

/* Runs the case that is named; `list` prints the names. */
int main(int argc, char **argv) {
    peer_dispatch(argc, argv);
    const char *wanted = argc == 2 ? argv[1] : "";
    bool list = strcmp(wanted, "list") == 0;
    void (*run)(void) = NULL;
    for (size_t i = 0; i < COUNT(cases); i++) {
        if (list) puts(cases[i].name);
        if (strcmp(cases[i].name, wanted) == 0) run = cases[i].run;
    }
    if (list) return 0;
    if (run == NULL) {
        fprintf(stderr, "usage: rdma_faults list | CASE\n");
        return 2;
    }
    harness_begin();
    /* Slower than a processor copies: 1 GB/s. */
    setenv("SIMVERBS_GBPS", "8", 1);
    peer = rdma_peer(BYTES, "sim2,sim3", NULL);
    lone = rdma_peer(BYTES, "sim3", NULL);
    run();
    CHECK_EQ("the peers end in order", peer_stop(&peer) | peer_stop(&lone), 0);
    return harness_finish();
}

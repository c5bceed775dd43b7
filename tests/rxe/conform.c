/* What every transport promises about bytes, over the C API: this process moves them to and from a passive one.
 *
 *     conform [--protocol=rdma] [--device_name=rxe0] [--peer_device_name=rxe1] CASE
 */
#include <inttypes.h>
#include <pthread.h>

#include "cases.h"

#define GUARD 64 /* bytes on either side of a range that must stay as they were */

/* ---- single requests ---- */

static void one_size(struct stage *s, size_t len, size_t local_at, size_t remote_at) {
    char name[96];
    uint64_t seed = len * 31 + local_at;
    snprintf(name, sizeof name, "%zu bytes at +%zu to +%zu", len, local_at, remote_at);
    memset(s->back, 0xee, local_at + len + GUARD);
    pattern_fill(s->out + local_at, len, seed);
    passive_ask(&s->peer, "set 0 0 %zu 221", remote_at + len + GUARD);

    if (!CHECK_EQ(name, run_one(s, OPCODE_WRITE, s->out + local_at, s->remote + remote_at, len), STATUS_COMPLETED)) return;
    CHECK("the written bytes are there", PASSIVE_IS(&s->peer, "yes", "check 0 %zu %zu %" PRIu64, remote_at, len, seed));
    CHECK("those before them are untouched", PASSIVE_IS(&s->peer, "yes", "is 0 0 %zu 221", remote_at));
    CHECK("those behind them are untouched", PASSIVE_IS(&s->peer, "yes", "is 0 %zu %d 221", remote_at + len, GUARD));

    passive_ask(&s->peer, "fill 0 %zu %zu %" PRIu64, remote_at, len, seed + 1);
    if (!CHECK_EQ(name, run_one(s, OPCODE_READ, s->back + local_at, s->remote + remote_at, len), STATUS_COMPLETED)) return;
    CHECK("the read bytes are right", pattern_matches(s->back + local_at, len, seed + 1));
    CHECK("those before them are untouched", all_bytes(s->back, local_at, 0xee));
    CHECK("those behind them are untouched", all_bytes(s->back + local_at + len, GUARD, 0xee));
}

/* Around a page, a slice (64 KiB) and the longest single slice (80 KiB), and several slices. */
static void sizes(struct stage *s) {
    static const size_t lengths[] = {1, 7, 4096, 65536, 81920, 81921, MIB + 3, 8 * MIB};
    for (size_t i = 0; i < COUNT(lengths); i++) {
        one_size(s, lengths[i], 4096, 4096);
        one_size(s, lengths[i], 4097, 4096 + 13);
    }
}

static void zero_length(struct stage *s) {
    transfer_request_t r = request(OPCODE_WRITE, s->out, s->target, s->remote, 0);
    batch_id_t batch = batch_open(s->engine, 1);
    transfer_status_t status;
    REQUIRE("a request of no bytes is accepted", submitTransfer(s->engine, batch, &r, 1) == 0);
    CHECK_EQ("it is COMPLETED", task_end(s->engine, batch, 0), STATUS_COMPLETED);
    CHECK_EQ("its status can be asked for", getTransferStatus(s->engine, batch, 0, &status), 0);
    CHECK_EQ("it moved nothing", status.transferred_bytes, 0);
    CHECK_EQ("the batch is free at once", freeBatchID(s->engine, batch), 0);
}

/* ---- batches ---- */

/* The first half of the peer's buffer is written, the second half read, in `count` pieces of random lengths and order. */
static void mixed_batch(struct stage *s, size_t count) {
    size_t half = s->len / 2, piece = half / ((count + 1) / 2);
    if (piece > 96 * KIB) piece = 96 * KIB;
    transfer_request_t *requests = calloc(count, sizeof *requests);
    unsigned char *expected = calloc(1, half);
    uint64_t random = count;
    pattern_fill(s->out, half, count);
    memset(s->back, 0, half);
    passive_ask(&s->peer, "set 0 0 %zu 0", half);
    passive_ask(&s->peer, "fill 0 %zu %zu %zu", half, half, count + 1);
    size_t bytes_read = 0;
    for (size_t i = 0; i < count; i++) {
        size_t at = i / 2 * piece, len = 1 + next_random(&random) % piece;
        if (i % 2 == 0) memcpy(expected + at, s->out + at, len);
        else bytes_read += len;
        requests[i] = i % 2 == 0 ? request(OPCODE_WRITE, s->out + at, s->target, s->remote + at, len)
                                 : request(OPCODE_READ, s->back + at, s->target, s->remote + half + at, len);
    }
    for (size_t i = count - 1; i > 0; i--) {
        size_t j = next_random(&random) % (i + 1);
        transfer_request_t swap = requests[i];
        requests[i] = requests[j], requests[j] = swap;
    }

    CHECK_EQ("every request is COMPLETED", run_batch(s->engine, requests, count), count);
    char sum[32];
    snprintf(sum, sizeof sum, "%016" PRIx64, fnv1a(FNV_START, expected, half));
    CHECK_STR("the peer has what was written and nothing else", passive_ask(&s->peer, "sum 0 0 %zu", half), sum);
    unsigned char *whole = calloc(1, half);
    pattern_fill(whole, half, count + 1);
    size_t wrong = 0;
    for (size_t i = 0; i < count; i++) {
        if (requests[i].opcode != OPCODE_READ) continue;
        size_t at = (size_t)((unsigned char *)requests[i].source - s->back);
        wrong += memcmp(s->back + at, whole + at, requests[i].length) != 0;
        memset(s->back + at, 0, requests[i].length);
    }
    CHECK_EQ("every read has the right bytes", wrong, 0);
    CHECK("nothing else was touched here", all_bytes(s->back, half, 0));
    free(whole), free(expected), free(requests);
}

static void batches(struct stage *s) {
    static const size_t counts[] = {1, 2, 16, 1000};
    for (size_t i = 0; i < COUNT(counts); i++) mixed_batch(s, counts[i]);
}

/* More work requests than all queues together hold. */
static void back_pressure(struct stage *s) {
    size_t count = 8000, len = 2048;
    transfer_request_t *requests = calloc(count, sizeof *requests);
    for (size_t i = 0; i < count; i++)
        requests[i] = request(i % 2 == 0 ? OPCODE_WRITE : OPCODE_READ, (i % 2 == 0 ? s->out : s->back) + i * len, s->target,
                              s->remote + i * len, len);
    pattern_fill(s->out, s->len, 1);
    CHECK_EQ("8000 requests in one call are COMPLETED", run_batch(s->engine, requests, count), count);
    CHECK_EQ("all is read back", run_one(s, OPCODE_READ, s->back, s->remote, s->len), STATUS_COMPLETED);
    size_t wrong = 0;
    for (size_t i = 0; i < count; i += 2) wrong += memcmp(s->out + i * len, s->back + i * len, len) != 0;
    CHECK_EQ("and is right", wrong, 0);
    free(requests);
}

/* ---- who is reached ---- */

static void several_targets(struct stage *s) {
    struct passive others[2] = {0};
    segment_id_t targets[3] = {s->target};
    uint64_t remotes[3] = {s->remote};
    transfer_request_t requests[48];
    for (size_t i = 0; i < COUNT(others); i++) {
        mte_buffer_t buffer;
        passive_start(&others[i], s->protocol, s->peer_devices);
        targets[i + 1] = segment_open(s->engine, others[i].segment);
        first_buffer(s->engine, targets[i + 1], &buffer);
        remotes[i + 1] = buffer.addr;
    }
    pattern_fill(s->out, COUNT(requests) * 10000, 3);
    for (size_t i = 0; i < COUNT(requests); i++)
        requests[i] = request(OPCODE_WRITE, s->out + i * 10000, targets[i % 3], remotes[i % 3] + i * 10000, 10000);
    CHECK_EQ("one batch to three peers is COMPLETED", run_batch(s->engine, requests, COUNT(requests)), COUNT(requests));
    for (size_t i = 0; i < COUNT(requests); i++) {
        requests[i].opcode = OPCODE_READ;
        requests[i].source = s->back + i * 10000;
    }
    CHECK_EQ("and read back", run_batch(s->engine, requests, COUNT(requests)), COUNT(requests));
    CHECK("each peer got its own", memcmp(s->out, s->back, COUNT(requests) * 10000) == 0);
    for (size_t i = 0; i < COUNT(others); i++) CHECK_EQ("a further peer ends by itself", passive_stop(&others[i]), 0);
}

static void to_myself(struct stage *s, segment_id_t self) {
    transfer_request_t r = request(OPCODE_WRITE, s->out, self, (uint64_t)(uintptr_t)s->back, MIB + 5);
    pattern_fill(s->out, MIB + 5, 9);
    memset(s->back, 0, MIB + 6);
    CHECK_EQ("a WRITE to myself is COMPLETED", run_batch(s->engine, &r, 1), 1);
    CHECK("its bytes are there", pattern_matches(s->back, MIB + 5, 9) && s->back[MIB + 5] == 0);
    pattern_fill(s->back, MIB + 5, 10);
    r.opcode = OPCODE_READ;
    CHECK_EQ("a READ from myself is COMPLETED", run_batch(s->engine, &r, 1), 1);
    CHECK("its bytes are there", pattern_matches(s->out, MIB + 5, 10));
}

static void local_segment(struct stage *s) { to_myself(s, LOCAL_SEGMENT); }

static void own_name(struct stage *s) {
    char name[128];
    engine_name(s->engine, name, sizeof name);
    CHECK_EQ("my own name is segment 0", openSegment(s->engine, name), LOCAL_SEGMENT);
    to_myself(s, LOCAL_SEGMENT);
}

/* A second engine in this process, on the peer's devices. */
static void two_engines_of_one_process(struct stage *s) {
    transfer_engine_t other = rig_engine(s->protocol, s->peer_devices);
    unsigned char *memory = registered_bytes(other, 4 * MIB);
    char name[128];
    engine_name(other, name, sizeof name);
    segment_id_t target = segment_open(s->engine, name);
    transfer_request_t r = request(OPCODE_WRITE, s->out, target, (uint64_t)(uintptr_t)memory, 4 * MIB);
    pattern_fill(s->out, 4 * MIB, 21);
    CHECK_EQ("a WRITE from one to the other is COMPLETED", run_batch(s->engine, &r, 1), 1);
    CHECK("its bytes are there", pattern_matches(memory, 4 * MIB, 21));
    r = request(OPCODE_READ, s->back, target, (uint64_t)(uintptr_t)memory, 4 * MIB);
    CHECK_EQ("and a READ", run_batch(s->engine, &r, 1), 1);
    CHECK("its bytes are there too", pattern_matches(s->back, 4 * MIB, 21));
    destroyTransferEngine(other);
}

/* Buffers that touch each other are one range for a request, as long as each slice fits into one of them. */
static void neighbouring_buffers(struct stage *s) {
    if (!is_rdma(s)) {
        SKIP("neighbouring_buffers", "a TCP request lies in one buffer");
        return;
    }
    unsigned long long at = 0, next = 0;
    REQUIRE("a buffer is added", sscanf(passive_ask(&s->peer, "add 1048576 1"), "ok 1 %llu", &at) == 1);
    REQUIRE("and one behind it", sscanf(passive_ask(&s->peer, "add 1048576 1 1"), "ok 2 %llu", &next) == 1 && next == at + MIB);
    pattern_fill(s->out, MIB, 33);
    CHECK_EQ("a WRITE across both is COMPLETED", run_one(s, OPCODE_WRITE, s->out, at + MIB / 2, MIB), STATUS_COMPLETED);
    CHECK_EQ("and a READ", run_one(s, OPCODE_READ, s->back, at + MIB / 2, MIB), STATUS_COMPLETED);
    CHECK("of the same bytes", memcmp(s->out, s->back, MIB) == 0);
    passive_ask(&s->peer, "fill 1 %zu %zu 33", MIB / 2, MIB / 2);
    CHECK_EQ("the first half is read", run_one(s, OPCODE_READ, s->back, at + MIB / 2, MIB / 2), STATUS_COMPLETED);
    CHECK("and lies in the first buffer", pattern_matches(s->back, MIB / 2, 33));
}

/* ---- threads ---- */

struct mover {
    struct stage *stage;
    pthread_t thread;
    size_t index, wrong, lost;
};

static void *move(void *argument) {
    struct mover *m = argument;
    struct stage *s = m->stage;
    size_t share = s->len / 4, len = 24 * KIB, rounds = 25, wide = 16;
    unsigned char *out = s->out + m->index * share, *back = s->back + m->index * share;
    uint64_t remote = s->remote + m->index * share;
    for (size_t round = 0; round < rounds; round++) {
        transfer_request_t requests[16];
        pattern_fill(out, wide * len, round * 4 + m->index);
        for (size_t i = 0; i < wide; i++) requests[i] = request(OPCODE_WRITE, out + i * len, s->target, remote + i * len, len);
        m->lost += wide - (size_t)run_batch(s->engine, requests, wide);
        for (size_t i = 0; i < wide; i++) requests[i] = request(OPCODE_READ, back + i * len, s->target, remote + i * len, len);
        m->lost += wide - (size_t)run_batch(s->engine, requests, wide);
        m->wrong += memcmp(out, back, wide * len) != 0;
    }
    return NULL;
}

static void threads_share_an_engine(struct stage *s) {
    struct mover movers[4] = {0};
    for (size_t i = 0; i < COUNT(movers); i++) {
        movers[i].stage = s, movers[i].index = i;
        if (pthread_create(&movers[i].thread, NULL, move, &movers[i]) != 0) harness_give_up("pthread_create");
    }
    for (size_t i = 0; i < COUNT(movers); i++) {
        pthread_join(movers[i].thread, NULL);
        CHECK_EQ("a thread's requests are all COMPLETED", movers[i].lost, 0);
        CHECK_EQ("a thread's bytes are right", movers[i].wrong, 0);
    }
}

static const struct test_case cases[] = {
    {"sizes", sizes},
    {"zero_length", zero_length},
    {"batches", batches},
    {"back_pressure", back_pressure},
    {"several_targets", several_targets},
    {"local_segment", local_segment},
    {"own_name", own_name},
    {"two_engines_of_one_process", two_engines_of_one_process},
    {"neighbouring_buffers", neighbouring_buffers},
    {"threads_share_an_engine", threads_share_an_engine},
};

int main(int argc, char **argv) { return run_cases(argc, argv, cases, COUNT(cases)); }

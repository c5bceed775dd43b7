/* Memory that is registered but not mapped any more fails the requests that touch it, and no others. */
#include "harness.h"

#define PAGES 60
#define PAGE 4096
#define LEN 512
#define END_MS 60000

static transfer_engine_t here, there;
static segment_id_t target;

/* One request per page; the one of page `culprit` is at fault, with this code, and not retryable. */
static void all_but_one(const char *what, int opcode, unsigned char *local, unsigned char *remote, size_t culprit,
                        int code, const char *word) {
    transfer_request_t requests[PAGES];
    mte_task_error_info_t why = {0};
    batch_id_t batch = batch_open(here, PAGES);
    size_t innocent = 0;
    for (size_t i = 0; i < PAGES; i++)
        requests[i] = request(opcode, local + i * PAGE, target, (uintptr_t)remote + i * PAGE, LEN);
    CHECK_EQ(what, submitTransfer(here, batch, requests, PAGES), 0);
    CHECK_EQ("every request ends", mte_wait_batch(here, batch, END_MS), 0);
    for (size_t i = 0; i < PAGES; i++) {
        if (i == culprit) continue;
        if (await_task(here, batch, i, 0) == STATUS_COMPLETED &&
            memcmp(local + i * PAGE, remote + i * PAGE, LEN) == 0) {
            innocent++;
        } else if (mte_task_error(here, batch, i, &why) == 0) {
            printf("note  %s, request %zu: %d %s\n", what, i, why.code, why.text);
        }
    }
    CHECK_EQ("the innocent complete", innocent, PAGES - 1);
    CHECK_EQ("the culprit", await_task(here, batch, culprit, 0), STATUS_FAILED);
    CHECK_EQ("says why", mte_task_error(here, batch, culprit, &why), 0);
    CHECK_EQ("with a code", why.code, code);
    CHECK_EQ("which does not pass", why.retryable, 0);
    if (!CHECK("in words", strstr(why.text, word) != NULL)) printf("note  %s\n", why.text);
    CHECK_EQ("freed", freeBatchID(here, batch), 0);
}

static unsigned char *pages(transfer_engine_t engine, uint64_t seed) {
    unsigned char *p = registered_bytes(engine, PAGES * PAGE);
    pattern_fill(p, PAGES * PAGE, seed);
    return p;
}

int main(void) {
    harness_begin();
    here = engine_open();
    there = engine_open();
    char name[128];
    engine_name(there, name, sizeof name);
    unsigned char *near[2] = {pages(here, 1), pages(here, 2)}, *far[4];
    for (size_t i = 0; i < COUNT(far); i++) far[i] = pages(there, 3 + i);
    target = openSegment(here, name);
    REQUIRE("the peer opens", target > 0);
    munmap(near[0] + 30 * PAGE, PAGE);
    all_but_one("WRITEs, one from memory that is gone", OPCODE_WRITE, near[0], far[0], 30, ERR_INVALID_ARGUMENT, "not mapped");
    all_but_one("READs, one into memory that is gone", OPCODE_READ, near[0], far[1], 30, ERR_INVALID_ARGUMENT, "not mapped");
    munmap(far[2] + 7 * PAGE, PAGE);
    munmap(far[3] + 59 * PAGE, PAGE);
    all_but_one("WRITEs, one to memory that is gone", OPCODE_WRITE, near[1], far[2], 7, ERR_ADDRESS_NOT_REGISTERED, "refused");
    all_but_one("READs, one from memory that is gone", OPCODE_READ, near[1], far[3], 59, ERR_ADDRESS_NOT_REGISTERED, "refused");
    destroyTransferEngine(here);
    destroyTransferEngine(there);
    return harness_finish();
}

/* READs over plain verbs, without the library: what an emulated NIC does where its queue pairs fail for want of processor time.
 *
 *     plain_reads [ROUNDS]
 *
 * Each round reads 256 x 64 KiB over eight queue pairs (rxe0 and rxe1 to rxe2 and rxe3) and compares what every READ brought
 * that ended with success. On Linux 6.1, in a guest whose processors are taken by others, queue pairs fail, and the READ at which
 * one does ends with success although nothing of it has come; the next one is flushed. A real NIC reports the error.
 */
#include <infiniband/verbs.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define READS 256
#define SIZE ((size_t)65536)
#define PAIRS 8
#define DEPTH 32
#define RD_ATOMIC 16
#define BEFORE 0xee

struct end {
    struct ibv_context *context;
    struct ibv_pd *pd;
    struct ibv_cq *cq;
    struct ibv_qp *qp;
    struct ibv_mr *mr;
    union ibv_gid gid;
};

static void need(int ok, const char *what) {
    if (ok) return;
    perror(what);
    exit(2);
}

static struct ibv_context *device(const char *name) {
    int count;
    struct ibv_device **list = ibv_get_device_list(&count);
    struct ibv_context *context = NULL;
    for (int i = 0; i < count; i++)
        if (strcmp(ibv_get_device_name(list[i]), name) == 0) context = ibv_open_device(list[i]);
    ibv_free_device_list(list);
    need(context != NULL, name);
    return context;
}

static void make(struct end *end, const char *name, unsigned char *memory, int access) {
    end->context = device(name);
    need((end->pd = ibv_alloc_pd(end->context)) != NULL, "ibv_alloc_pd");
    need((end->cq = ibv_create_cq(end->context, 1024, NULL, NULL, 0)) != NULL, "ibv_create_cq");
    struct ibv_qp_init_attr init = {.send_cq = end->cq, .recv_cq = end->cq, .qp_type = IBV_QPT_RC,
        .cap = {.max_send_wr = DEPTH, .max_recv_wr = 1, .max_send_sge = 1, .max_recv_sge = 1}};
    need((end->qp = ibv_create_qp(end->pd, &init)) != NULL, "ibv_create_qp");
    need((end->mr = ibv_reg_mr(end->pd, memory, READS * SIZE, access)) != NULL, "ibv_reg_mr");
    need(ibv_query_gid(end->context, 1, 1, &end->gid) == 0, "ibv_query_gid");
}

static void connect_to(struct end *end, const struct end *peer) {
    struct ibv_qp_attr init = {.qp_state = IBV_QPS_INIT, .port_num = 1, .qp_access_flags = IBV_ACCESS_REMOTE_READ};
    need(ibv_modify_qp(end->qp, &init, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS) == 0, "INIT");
    struct ibv_qp_attr rtr = {.qp_state = IBV_QPS_RTR, .path_mtu = IBV_MTU_1024, .dest_qp_num = peer->qp->qp_num,
        .max_dest_rd_atomic = RD_ATOMIC, .min_rnr_timer = 12,
        .ah_attr = {.is_global = 1, .port_num = 1, .grh = {.dgid = peer->gid, .sgid_index = 1, .hop_limit = 64}}};
    need(ibv_modify_qp(end->qp, &rtr, IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
        IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER) == 0, "RTR");
    struct ibv_qp_attr rts = {.qp_state = IBV_QPS_RTS, .timeout = 14, .retry_cnt = 7, .rnr_retry = 7, .max_rd_atomic = RD_ATOMIC};
    need(ibv_modify_qp(end->qp, &rts, IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN |
        IBV_QP_MAX_QP_RD_ATOMIC) == 0, "RTS");
}

static void destroy(struct end *end) {
    ibv_destroy_qp(end->qp);
    ibv_destroy_cq(end->cq);
    ibv_dereg_mr(end->mr);
    ibv_dealloc_pd(end->pd);
    ibv_close_device(end->context);
}

static int post(const struct end *here, const struct end *there, size_t at, const unsigned char *from, unsigned char *to) {
    struct ibv_sge place = {(uintptr_t)(to + at * SIZE), SIZE, here->mr->lkey};
    struct ibv_send_wr *refused, read = {.wr_id = at, .sg_list = &place, .num_sge = 1, .opcode = IBV_WR_RDMA_READ,
        .send_flags = IBV_SEND_SIGNALED, .wr.rdma = {(uintptr_t)(from + at * SIZE), there->mr->rkey}};
    return ibv_post_send(here->qp, &read, &refused);
}

/* READs that ended with success and without their bytes. */
static int round_of_reads(int number, const unsigned char *from, unsigned char *to) {
    static const char *const ours[] = {"rxe0", "rxe1"}, *const theirs[] = {"rxe2", "rxe3"};
    struct end here[PAIRS], there[PAIRS];
    size_t posted = 0, ended = 0, lost = 0, flying[PAIRS] = {0}, alive = PAIRS;
    int failed[PAIRS] = {0}, succeeded[READS] = {0};
    for (int pair = 0; pair < PAIRS; pair++) {
        make(&here[pair], ours[pair % 2], to, IBV_ACCESS_LOCAL_WRITE);
        make(&there[pair], theirs[pair / 2 % 2], (unsigned char *)from, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ);
        connect_to(&here[pair], &there[pair]);
        connect_to(&there[pair], &here[pair]);
    }
    while (ended < posted || (posted < READS && alive > 0)) {
        for (int pair = 0; pair < PAIRS && posted < READS; pair++)
            if (!failed[pair] && flying[pair] < DEPTH && post(&here[pair], &there[pair], posted, from, to) == 0) posted++, flying[pair]++;
        for (int pair = 0; pair < PAIRS; pair++) {
            struct ibv_wc done;
            while (ibv_poll_cq(here[pair].cq, 1, &done) == 1) {
                ended++, flying[pair]--;
                if (done.status == IBV_WC_SUCCESS) {
                    succeeded[done.wr_id] = 1;
                } else if (!failed[pair]) {
                    failed[pair] = 1, alive--;
                    printf("round %d: queue pair %d fails at READ %d: %s\n", number, pair, (int)done.wr_id, ibv_wc_status_str(done.status));
                }
            }
        }
    }
    for (size_t at = 0; at < READS; at++) {
        if (!succeeded[at] || memcmp(from + at * SIZE, to + at * SIZE, SIZE) == 0) continue;
        int nothing = 1;
        for (size_t i = 0; i < SIZE; i++) nothing &= to[at * SIZE + i] == BEFORE;
        printf("round %d: READ %zu ended with success, and %s of it has come\n", number, at, nothing ? "nothing" : "not all");
        lost++;
    }
    for (int pair = 0; pair < PAIRS; pair++) destroy(&here[pair]), destroy(&there[pair]);
    return (int)lost;
}

int main(int argc, char **argv) {
    int rounds = argc > 1 ? atoi(argv[1]) : 6, lost = 0;
    unsigned char *from = aligned_alloc(4096, READS * SIZE), *to = aligned_alloc(4096, READS * SIZE);
    need(from != NULL && to != NULL, "memory");
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (int number = 1; number <= rounds; number++) {
        for (size_t i = 0; i < READS * SIZE; i++) from[i] = (unsigned char)((i * 31 >> 3) + (size_t)number) & 0x7f;
        memset(to, BEFORE, READS * SIZE);
        lost += round_of_reads(number, from, to);
    }
    printf("%d rounds of %d READs: %d without their bytes\n", rounds, READS, lost);
    return lost != 0;
}

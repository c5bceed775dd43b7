/* P3: the time in which this process itself is stopped does not count against its peers. */
#include <sys/prctl.h>

#include "peer.h"

#define TASKS 4
/* More than the kernels of both ends keep, so that the body is half sent when everything stops. */
#define TASK_BYTES (32 * MIB)
#define BYTES (TASKS * TASK_BYTES)
#define END_MS 60000
/* Longer than MC_TCP_STATUS_TIMEOUT_SEC and MC_TCP_LIVENESS_SEC here. */
#define STOPPED_SECONDS 6

static char state_of(pid_t pid) {
    char path[64], text[512] = "";
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *file = fopen(path, "r");
    if (file == NULL) return 0;
    size_t n = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[n] = '\0';
    char *end = strrchr(text, ')');
    return end != NULL && end[1] == ' ' ? end[2] : 0;
}

/* A process that continues the peer it is told of while this one stands still, and this one much later. */
static int helper_start(void) {
    int ends[2];
    pid_t parent = getpid(), peer;
    REQUIRE("a pipe", pipe2(ends, O_CLOEXEC) == 0);
    pid_t helper = fork();
    REQUIRE("a helper", helper >= 0);
    if (helper > 0) {
        close(ends[0]);
        return ends[1];
    }
    close(ends[1]);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (read(ends[0], &peer, sizeof peer) != sizeof peer) _exit(1);
    while (state_of(parent) != 'T') nap();
    kill(peer, SIGCONT);
    sleep(STOPPED_SECONDS);
    kill(parent, SIGCONT);
    _exit(0);
}

int main(int argc, char **argv) {
    peer_dispatch(argc, argv);
    setenv("MC_TCP_STATUS_TIMEOUT_SEC", "2", 1);
    setenv("MC_TCP_MIN_RATE", "1099511627776", 1);
    setenv("MC_TCP_STRIPE_SIZE", "33554432", 1);
    harness_begin();
    peer_t peer = peer_start(BYTES, NULL);
    int helper = helper_start();
    transfer_engine_t engine = engine_open();
    unsigned char *bytes = registered_bytes(engine, BYTES);
    segment_id_t target = openSegment(engine, peer.name);
    REQUIRE("the peer opens", target > 0);
    transfer_request_t requests[TASKS];
    for (size_t i = 0; i < TASKS; i++)
        requests[i] = request(OPCODE_WRITE, bytes + i * TASK_BYTES, target, peer.base + i * TASK_BYTES, TASK_BYTES);
    /* Makes a connection for each. */
    batch_id_t batch = batch_open(engine, TASKS);
    submitTransfer(engine, batch, requests, TASKS);
    CHECK_EQ("the same before", mte_wait_batch(engine, batch, END_MS), 0);
    freeBatchID(engine, batch);
    pattern_fill(bytes, BYTES, 7);
    batch = batch_open(engine, TASKS);
    peer_pause(&peer);
    CHECK_EQ("WRITEs to a peer that stands still for a moment", submitTransfer(engine, batch, requests, TASKS), 0);
    /* The peer has been silent for so long that it is being asked whether it lives. */
    usleep(1500000);
    REQUIRE("the helper is told", write(helper, &peer.pid, sizeof peer.pid) == sizeof peer.pid);
    raise(SIGSTOP);
    CHECK_EQ("the end of every task", mte_wait_batch(engine, batch, END_MS), 0);
    mte_batch_status_t status = {0};
    CHECK_EQ("and how they ended", mte_batch_status(engine, batch, &status, NULL, 0), 0);
    CHECK_EQ("all are COMPLETED, since the peer went on", status.completed, TASKS);
    mte_task_error_info_t why = {0};
    for (size_t i = 0; i < TASKS; i++)
        if (mte_task_error(engine, batch, i, &why) == 0 && why.code != 0) printf("note  %s\n", why.text);
    CHECK("with their bytes", pattern_matches(peer.view, BYTES, 7));
    freeBatchID(engine, batch);
    destroyTransferEngine(engine);
    return harness_finish();
}

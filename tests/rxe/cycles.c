/* Connects, fails and connects again, many times over, and compares what exists before and after: queue pairs, completion
 * queues, regions and protection domains of all devices, and descriptors, threads and memory of both processes.
 *
 *     cycles [--protocol=rdma] [--device_name=rxe0] [--peer_device_name=rxe1] [--count=1000] [--restart_every=100] [--port=15900]
 *
 * Most cycles fail by a remote access error: the peer unregisters a buffer that this side still believes in, which kills
 * both queue pairs at once. Each restart_every-th one is a peer that is killed and comes back under its name.
 */
#include <fcntl.h>

#include "cases.h"

#define WARM_UP 20
#define RSS_SLACK_KIB 4096

struct counts {
    char devices[512]; /* `rdma resource show` */
    char peer[64];
    size_t descriptors, threads;
};

static size_t refused; /* cycles that failed at the submit, without touching a queue pair */
static struct stage stage = {.protocol = "rdma", .devices = "rxe0", .peer_devices = "rxe1", .peer = {.port = 15900, .len = MIB}};

static size_t descriptors(void) {
    size_t count = 0;
    for (int fd = 0; fd < 4096; fd++) count += fcntl(fd, F_GETFD) != -1;
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

static void take_counts(struct counts *c) {
    char line[256];
    memset(c, 0, sizeof *c);
    FILE *show = popen("rdma resource show 2>/dev/null", "r");
    while (show != NULL && fgets(line, sizeof line, show) != NULL) {
        size_t used = strlen(c->devices);
        line[strcspn(line, "\n")] = ';';
        snprintf(c->devices + used, sizeof c->devices - used, "%s", line);
    }
    if (show != NULL) pclose(show);
    snprintf(c->peer, sizeof c->peer, "%s", passive_ask(&stage.peer, "counts"));
    c->descriptors = descriptors();
    c->threads = lasting_thread_count();
}

static bool same(const struct counts *a, const struct counts *b) {
    return strcmp(a->devices, b->devices) == 0 && strcmp(a->peer, b->peer) == 0 && a->descriptors == b->descriptors &&
           a->threads == b->threads;
}

static void print_counts(const char *when, const struct counts *c) {
    printf("%s: %s here fds=%zu threads=%zu, peer %s\n", when, c->devices, c->descriptors, c->threads, c->peer);
}

/* Status of one WRITE, or the code of its refusal. Sleeps, so that what connects gets the processor. */
static int write_ends(void) {
    transfer_request_t r = request(OPCODE_WRITE, stage.out, stage.target, stage.remote, 4096);
    transfer_status_t status = {0};
    batch_id_t batch = batch_open(stage.engine, 1);
    int refused = submitTransfer(stage.engine, batch, &r, 1);
    if (refused == 0) refused = mte_wait_batch(stage.engine, batch, PATIENCE_MS);
    if (refused == 0) getTransferStatus(stage.engine, batch, 0, &status);
    freeBatchID(stage.engine, batch);
    return refused != 0 ? refused : status.status;
}

static bool connected(void) {
    bool ok;
    WAIT_UNTIL(ok, write_ends() == STATUS_COMPLETED, 20000);
    return ok;
}

/* Submits are refused once the descriptor was read again; until then tasks fail. Neither may succeed. */
static bool fail_by_access_error(void) {
    if (!PASSIVE_IS(&stage.peer, "ok", "remove 0")) return false;
    int end = write_ends();
    refused += end == ERR_ADDRESS_NOT_REGISTERED;
    bool restored = PASSIVE_IS(&stage.peer, "ok", "restore 0");
    return restored && (end == STATUS_FAILED || end == ERR_ADDRESS_NOT_REGISTERED);
}

static bool fail_by_restart(void) {
    char name[sizeof stage.peer.segment];
    strcpy(name, stage.peer.segment);
    kill(stage.peer.pid, SIGKILL);
    passive_stop(&stage.peer);
    passive_start(&stage.peer, stage.protocol, stage.peer_devices);
    return strcmp(name, stage.peer.segment) == 0;
}

int main(int argc, char **argv) {
    size_t count = 1000, restart_every = 100, failures = 0, unnoticed = 0;
    struct counts before = {0}, after;
    const char *value;
    for (int i = 1; i < argc; i++) {
        if ((value = flag(argv[i], "protocol")) != NULL) stage.protocol = value;
        else if ((value = flag(argv[i], "device_name")) != NULL) stage.devices = value;
        else if ((value = flag(argv[i], "peer_device_name")) != NULL) stage.peer_devices = value;
        else if ((value = flag(argv[i], "count")) != NULL) count = strtoull(value, NULL, 10);
        else if ((value = flag(argv[i], "restart_every")) != NULL) restart_every = strtoull(value, NULL, 10);
        else if ((value = flag(argv[i], "port")) != NULL) stage.peer.port = (unsigned)strtoul(value, NULL, 10);
        else usage_error(argv[0], argv[i]);
    }
    harness_begin();
    alarm(0); /* the suite has a limit for the whole */
    signal(SIGPIPE, SIG_IGN);
    stage_open(&stage);
    size_t rss = 0;
    int64_t failing_ms = 0, recovering_ms = 0;
    for (size_t i = 0; i < WARM_UP + count; i++) {
        bool restart = i % restart_every == restart_every - 1;
        if (i == WARM_UP) {
            take_counts(&before);
            print_counts("before", &before);
            rss = rss_kib();
        }
        int64_t start = now_ms();
        if (!(restart ? fail_by_restart() : fail_by_access_error())) {
            printf("cycle %zu: the failure does not show\n", i);
            unnoticed++;
        }
        int64_t failed = now_ms();
        bool recovered = connected();
        if (!restart) failing_ms += failed - start, recovering_ms += now_ms() - failed;
        if (!recovered) {
            printf("cycle %zu: no transfer succeeds within 20 s after %s\n", i, restart ? "a restart" : "an access error");
            failures++;
            break;
        }
    }
    printf("per cycle: %.1f ms to fail (%zu at the submit), %.1f ms to recover\n", (double)failing_ms / (double)(WARM_UP + count), refused,
           (double)recovering_ms / (double)(WARM_UP + count));
    CHECK_EQ("every cycle fails first", unnoticed, 0);
    CHECK("nearly all of them on the wire", refused <= count / 20);
    CHECK_EQ("and transfers afterwards", failures, 0);
    /* What a failed connection leaves is cleared away shortly after. */
    bool equal;
    WAIT_UNTIL(equal, (take_counts(&after), same(&before, &after)), 15000);
    print_counts("after", &after);
    CHECK("nothing is left behind", equal);
    printf("resident memory: %zu KiB, then %zu KiB\n", rss, rss_kib());
    CHECK("memory does not grow", rss_kib() <= rss + RSS_SLACK_KIB);
    stage_close(&stage);
    return harness_finish();
}

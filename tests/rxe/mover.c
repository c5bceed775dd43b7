/* An initiator that never stops: batches of WRITEs, the same bytes READ back and compared, while somebody breaks things.
 *
 *     mover --segment=NAME [--protocol=rdma] [--device_name=rxe0] [--block=65536] [--batch=16] [--offset=0]
 *
 * Moves from the start on and obeys one-line commands on standard input, one line of reply each:
 *     status   "ok=N failed=N refused=N wrong=N gap_ms=N slowest_ms=N waiting_ms=N first_us=N bytes=N"
 *     reset    sets these counters to 0
 *     why      the last failure since then, as code=N class=N retryable=N errno=N peer=P text=T; "none"
 *     loads    getNicLoadStats: "<device> <bytes in flight> <bytes per second>; ..."
 *     links    showLinks as JSON on one line
 *     stop     ends the transfers and the program, with the last status as the reply
 * ok, failed and refused count requests; gap_ms is the longest time without a COMPLETED request, the present one included;
 * slowest_ms the longest from submit to a terminal state; waiting_ms how long the present batch has been waiting.
 */
#include <inttypes.h>
#include <pthread.h>

#include "rig.h"

static transfer_engine_t engine;
static segment_id_t target;
static uint64_t remote, first_us;
static size_t block = 64 * KIB, batch_size = 16;
static atomic_bool stopping;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards what follows */
static struct counters {
    uint64_t ok, failed, refused, wrong, bytes;
    int64_t last_ok_ms, gap_ms, slowest_ms, submitted_ms; /* submitted_ms: 0 while no batch is under way */
    char why[1024];
} counters;

static void note_failure(const mte_task_error_info_t *why) {
    char text[sizeof why->text];
    snprintf(text, sizeof text, "%s", why->text);
    for (char *c = text; *c != '\0'; c++)
        if (*c == '\n') *c = ' ';
    snprintf(counters.why, sizeof counters.why, "code=%d class=%d retryable=%d errno=%d peer=%s text=%s", why->code,
             why->error_class, why->retryable, why->os_errno, why->peer, text);
}

static void note_end(batch_id_t batch, size_t task) {
    transfer_status_t status = {.status = STATUS_FAILED};
    mte_task_error_info_t why = {0};
    getTransferStatus(engine, batch, task, &status);
    if (status.status == STATUS_COMPLETED) {
        int64_t now = now_ms();
        if (now - counters.last_ok_ms > counters.gap_ms) counters.gap_ms = now - counters.last_ok_ms;
        counters.last_ok_ms = now;
        counters.ok++;
        counters.bytes += status.transferred_bytes;
        return;
    }
    counters.failed++;
    mte_task_error(engine, batch, task, &why);
    note_failure(&why);
}

/* Moves the whole window once; true when every request of it is COMPLETED. */
static bool move(int opcode, unsigned char *local) {
    transfer_request_t requests[256];
    for (size_t i = 0; i < batch_size; i++) requests[i] = request(opcode, local + i * block, target, remote + i * block, block);
    batch_id_t batch = batch_open(engine, batch_size);
    int64_t start = now_ms();
    pthread_mutex_lock(&lock);
    counters.submitted_ms = start;
    pthread_mutex_unlock(&lock);
    int refused = submitTransfer(engine, batch, requests, batch_size);
    mte_task_error_info_t why = {.code = refused};
    if (refused != 0) mte_last_error(why.text, sizeof why.text);
    /* Without a limit of its own: that the tasks end is what is being tested. */
    while (refused == 0 && mte_wait_batch(engine, batch, 1000) == ERR_BATCH_BUSY) continue;

    pthread_mutex_lock(&lock);
    uint64_t before = counters.ok;
    if (refused != 0) {
        counters.refused += batch_size;
        note_failure(&why);
    } else
        for (size_t i = 0; i < batch_size; i++) note_end(batch, i);
    bool all = counters.ok - before == batch_size;
    int64_t took = now_ms() - start;
    if (took > counters.slowest_ms) counters.slowest_ms = took;
    counters.submitted_ms = 0;
    pthread_mutex_unlock(&lock);
    freeBatchID(engine, batch);
    return all;
}

static void *keep_moving(void *unused) {
    size_t window = block * batch_size;
    unsigned char *out = registered_bytes(engine, window), *back = registered_bytes(engine, window);
    for (uint64_t round = 1; !atomic_load(&stopping); round++) {
        pattern_fill(out, window, round);
        if (!move(OPCODE_WRITE, out) || !move(OPCODE_READ, back)) {
            nap(); /* a refusal is immediate: leave the processor to whatever repairs things */
            continue;
        }
        if (memcmp(out, back, window) == 0) continue;
        pthread_mutex_lock(&lock);
        counters.wrong++;
        pthread_mutex_unlock(&lock);
    }
    return unused;
}

static void reset(void) {
    int64_t submitted = counters.submitted_ms;
    memset(&counters, 0, sizeof counters);
    counters.last_ok_ms = now_ms();
    counters.submitted_ms = submitted;
}

static void say_status(void) {
    int64_t now = now_ms(), silent = now - counters.last_ok_ms;
    printf("ok=%" PRIu64 " failed=%" PRIu64 " refused=%" PRIu64 " wrong=%" PRIu64 " gap_ms=%" PRId64 " slowest_ms=%" PRId64
           " waiting_ms=%" PRId64 " first_us=%" PRIu64 " bytes=%" PRIu64 "\n",
           counters.ok, counters.failed, counters.refused, counters.wrong, silent > counters.gap_ms ? silent : counters.gap_ms,
           counters.slowest_ms, counters.submitted_ms == 0 ? 0 : now - counters.submitted_ms, first_us, counters.bytes);
}

static void say_loads(void) {
    nic_load_stat_t loads[16];
    size_t count = COUNT(loads);
    if (getNicLoadStats(engine, loads, &count) != 0) count = 0;
    for (size_t i = 0; i < count && i < COUNT(loads); i++)
        printf("%s %" PRIu64 " %.0f; ", loads[i].device_name, loads[i].inflight_bytes, loads[i].ewma_bandwidth_bps);
    putchar('\n');
}

static void say_links(void) {
    static char text[16384];
    if (showLinks(engine, text, sizeof text, 1) != 0) snprintf(text, sizeof text, "{}");
    for (char *c = text; *c != '\0'; c++)
        if (*c == '\n') *c = ' ';
    puts(text);
}

static void obey(const char *command) {
    pthread_mutex_lock(&lock);
    if (strcmp(command, "status\n") == 0) say_status();
    else if (strcmp(command, "reset\n") == 0) reset(), puts("ok");
    else if (strcmp(command, "why\n") == 0) puts(counters.why[0] != '\0' ? counters.why : "none");
    else if (strcmp(command, "loads\n") == 0) say_loads();
    else if (strcmp(command, "links\n") == 0) say_links();
    else printf("unknown command %s", command);
    pthread_mutex_unlock(&lock);
}

/* From nothing to the first bytes at the peer: how long a cold start takes. */
static void move_first_bytes(const char *protocol, const char *devices, const char *segment, size_t offset) {
    struct timespec start, end;
    mte_buffer_t buffer;
    engine = rig_engine(protocol, devices);
    unsigned char *bytes = registered_bytes(engine, 4096);
    clock_gettime(CLOCK_MONOTONIC, &start);
    target = segment_open(engine, segment);
    first_buffer(engine, target, &buffer);
    remote = buffer.addr + offset;
    if (buffer.length < offset + block * batch_size) harness_give_up("use so small a buffer");
    int status = transfer_once(engine, request(OPCODE_WRITE, bytes, target, remote, 4096), PATIENCE_MS);
    clock_gettime(CLOCK_MONOTONIC, &end);
    if (status == STATUS_COMPLETED)
        first_us = (uint64_t)(end.tv_sec - start.tv_sec) * 1000000 + (uint64_t)((end.tv_nsec - start.tv_nsec) / 1000);
}

int main(int argc, char **argv) {
    const char *protocol = "rdma", *devices = "rxe0", *segment = NULL, *value;
    char line[256];
    size_t offset = 0;
    pthread_t thread;
    for (int i = 1; i < argc; i++) {
        if ((value = flag(argv[i], "protocol")) != NULL) protocol = value;
        else if ((value = flag(argv[i], "device_name")) != NULL) devices = value;
        else if ((value = flag(argv[i], "segment")) != NULL) segment = value;
        else if ((value = flag(argv[i], "block")) != NULL) block = strtoull(value, NULL, 10);
        else if ((value = flag(argv[i], "batch")) != NULL) batch_size = strtoull(value, NULL, 10);
        else if ((value = flag(argv[i], "offset")) != NULL) offset = strtoull(value, NULL, 10);
        else usage_error(argv[0], argv[i]);
    }
    if (segment == NULL || batch_size == 0 || batch_size > 256) usage_error(argv[0], "--segment or --batch");
    setvbuf(stdout, NULL, _IOLBF, 0);
    move_first_bytes(protocol, devices, segment, offset);
    reset();
    if (pthread_create(&thread, NULL, keep_moving, NULL) != 0) harness_give_up("pthread_create");
    printf("MOVING first_us=%" PRIu64 "\n", first_us);
    while (fgets(line, sizeof line, stdin) != NULL && strcmp(line, "stop\n") != 0) obey(line);
    atomic_store(&stopping, true);
    pthread_join(thread, NULL);
    obey("status\n");
    destroyTransferEngine(engine);
    return 0;
}

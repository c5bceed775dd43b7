/* P18: what tasks did is counted and told, to the program and over HTTP, once for all engines of a process; strangers
 * at that port cannot stop it. `metrics serve PORT`: transfers, says READY, serves until its input ends. */
#include <arpa/inet.h>
#include <sys/socket.h>

#include "peer.h"

#define BYTES (4 * MIB)
/* More than have room at once. */
#define SILENT 20
#define TEXT_MOST (256 * KIB)

static char text[TEXT_MOST];

static const char *metrics(int form) {
    size_t len = sizeof text;
    if (mte_metrics(form, text, &len) != 0 || len > sizeof text) harness_give_up("mte_metrics");
    return text;
}

/* The number behind `series` and a space; -1: there is no such line. */
static long long number_in(const char *page, const char *series) {
    size_t len = strlen(series);
    for (const char *line = page; line != NULL; line = strchr(line, '\n')) {
        if (*line == '\n') line++;
        if (strncmp(line, series, len) == 0 && line[len] == ' ') return atoll(line + len + 1);
        if (*line == '\0') break;
    }
    return -1;
}

static long long counted(const char *series) { return number_in(metrics(MTE_METRICS_TEXT), series); }

static int reach(int port) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(fd, (struct sockaddr *)&to, sizeof to) == 0) return fd;
    close(fd);
    return -1;
}

/* What the port answers, all of it; NULL: nobody listens. */
static const char *ask(int port, const char *method, const char *path) {
    static char answer[TEXT_MOST];
    int fd = reach(port), len;
    size_t got = 0;
    if (fd < 0) return NULL;
    char head[256];
    len = snprintf(head, sizeof head, "%s %s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", method, path);
    if (send(fd, head, (size_t)len, MSG_NOSIGNAL) != len) harness_give_up("a request for metrics");
    for (ssize_t n; got + 1 < sizeof answer && (n = recv(fd, answer + got, sizeof answer - 1 - got, 0)) > 0;) got += (size_t)n;
    answer[got] = '\0';
    close(fd);
    return answer;
}

static bool answers(int port, const char *method, const char *path, const char *status) {
    const char *answer = ask(port, method, path);
    return answer != NULL && strncmp(answer, "HTTP/1.1 ", 9) == 0 && strncmp(answer + 9, status, 3) == 0;
}

/* A port that nobody else gets, and that no connection comes from, while the descriptor is open; an engine may listen there. */
static int held_port(int *fd) {
    struct sockaddr_in at = {.sin_family = AF_INET};
    socklen_t len = sizeof at;
    int yes = 1;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    *fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (setsockopt(*fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) != 0 || bind(*fd, (struct sockaddr *)&at, sizeof at) != 0 ||
        getsockname(*fd, (struct sockaddr *)&at, &len) != 0)
        harness_give_up("a free port");
    return ntohs(at.sin_port);
}

static void bad_arguments(void) {
    size_t len = 0;
    char small[8];
    CHECK_ERROR("another form", mte_metrics(3, text, &len), ERR_INVALID_ARGUMENT);
    CHECK_ERROR("a negative form", mte_metrics(-1, text, &len), ERR_INVALID_ARGUMENT);
    CHECK_ERROR("no length", mte_metrics(MTE_METRICS_TEXT, text, NULL), ERR_INVALID_ARGUMENT);
    len = 8;
    CHECK_ERROR("no buffer", mte_metrics(MTE_METRICS_TEXT, NULL, &len), ERR_INVALID_ARGUMENT);
    len = 0;
    CHECK_EQ("a question for the length", mte_metrics(MTE_METRICS_TEXT, NULL, &len), 0);
    CHECK("is answered", len > 1000 && len < sizeof text);
    len = sizeof small;
    CHECK_EQ("a short buffer", mte_metrics(MTE_METRICS_SUMMARY, small, &len), 0);
    CHECK("has the beginning, and its end", strcmp(small, "Read: 0") == 0 && len > sizeof small);
}

static void counts(transfer_engine_t engine, unsigned char *bytes, segment_id_t target, const peer_t *peer) {
    long long writes = counted("mooncake_te_write_requests_total"), reads = counted("mooncake_te_read_requests_total");
    long long written = counted("mooncake_te_write_bytes_total"), read = counted("mooncake_te_read_bytes_total");
    long long failed = counted("mooncake_te_write_failures_total");
    long long rejected = counted("mte_task_failures_total{op=\"write\",class=\"rejected\"}");
    CHECK("p18: series are there before anything is counted", writes >= 0 && failed >= 0 && rejected >= 0);

    batch_id_t batch = batch_open(engine, 3);
    transfer_request_t r[3];
    for (int i = 0; i < 3; i++) r[i] = request(OPCODE_WRITE, bytes + 4096 * i, target, peer->base + 4096 * (uint64_t)i, 4096);
    REQUIRE("three WRITEs", submitTransfer(engine, batch, r, 3) == 0 && mte_wait_batch(engine, batch, 20000) == 0);
    CHECK_EQ("p18: tasks are counted before their batch is freed", counted("mooncake_te_write_requests_total"), writes + 3);
    CHECK_EQ("p18: and their bytes", counted("mooncake_te_write_bytes_total"), written + 3 * 4096);
    CHECK_EQ("the batch is freed", freeBatchID(engine, batch), 0);
    CHECK_EQ("p18: and once only", counted("mooncake_te_write_requests_total"), writes + 3);
    CHECK("p18: by size", counted("mooncake_te_write_size_bytes_bucket{le=\"4096.000000\"}") >= 3);
    CHECK_EQ("a READ", transfer_once(engine, request(OPCODE_READ, bytes, target, peer->base, MIB), 20000), STATUS_COMPLETED);
    CHECK_EQ("p18: READs apart", counted("mooncake_te_read_requests_total"), reads + 1);
    CHECK_EQ("p18: with theirs", counted("mooncake_te_read_bytes_total"), read + (long long)MIB);
    CHECK("p18: and how long they took", counted("mooncake_te_read_latency_us_count") >= reads + 1);

    CHECK_EQ("memory is withdrawn", peer_unregister((peer_t *)peer, 0), 0);
    CHECK_EQ("a WRITE there fails", transfer_once(engine, request(OPCODE_WRITE, bytes, target, peer->base, 4096), 20000) != STATUS_COMPLETED, 1);
    CHECK_EQ("p18: it is counted as failed", counted("mooncake_te_write_failures_total"), failed + 1);
    CHECK_EQ("p18: and by its class", counted("mte_task_failures_total{op=\"write\",class=\"rejected\"}"), rejected + 1);
    CHECK_EQ("memory is back", peer_register((peer_t *)peer, 0, BYTES, 1), 0);
    CHECK("p18: registrations are timed", counted("mte_registration_seconds_count") >= 1);
    CHECK("p18: handshakes are timed", counted("mte_handshake_seconds_count") >= 1);
    CHECK("p18: the summary has the words of upstream's", strstr(metrics(MTE_METRICS_SUMMARY), " reqs, ") != NULL);
    CHECK("p18: JSON has upstream's members", strstr(metrics(MTE_METRICS_JSON), "\"mooncake_te_write_requests_total\":") != NULL);
}

/* A number of this peer; `rest` are the labels behind its own. */
static long long of_peer(transfer_engine_t engine, const char *family, const char *peer, const char *rest) {
    char series[512], own[128];
    engine_name(engine, own, sizeof own);
    snprintf(series, sizeof series, "%s{engine=\"%s\",peer=\"%s\",%s}", family, own, peer, rest);
    return counted(series);
}

static void peers_are_told_apart(void) {
    setenv("MC_TE_METRIC_PEERS", "1", 1);
    transfer_engine_t engine = engine_open();
    setenv("MC_TE_METRIC_PEERS", "0", 1);
    transfer_engine_t without = engine_open();
    unsetenv("MC_TE_METRIC_PEERS");
    unsigned char *bytes = registered_bytes(engine, BYTES);
    peer_t first = peer_start(BYTES, NULL), second = peer_start(BYTES, NULL);
    segment_id_t one = openSegment(engine, first.name), two = openSegment(engine, second.name);
    REQUIRE("both peers open", one > 0 && two > 0);
    batch_id_t batch = batch_open(engine, 3);
    transfer_request_t r[3] = {request(OPCODE_WRITE, bytes, one, first.base, 4096), request(OPCODE_WRITE, bytes, two, second.base, 100),
                               request(OPCODE_READ, bytes + MIB, one, first.base, 64)};
    REQUIRE("one call to both", submitTransfer(engine, batch, r, 3) == 0 && mte_wait_batch(engine, batch, 20000) == 0);
    for (int freed = 0; freed < 2; freed++) {
        CHECK_EQ("p18: what goes to a peer is counted as its own", of_peer(engine, "mte_peer_bytes_total", first.name, "op=\"write\""), 4096);
        CHECK_EQ("p18: READs apart", of_peer(engine, "mte_peer_bytes_total", first.name, "op=\"read\""), 64);
        CHECK_EQ("p18: a peer without a place is one of the others", of_peer(engine, "mte_peer_bytes_total", "other", "op=\"write\""), 100);
        CHECK_EQ("p18: tasks are counted by their end", of_peer(engine, "mte_peer_tasks_total", first.name, "op=\"write\",end=\"completed\""), 1);
        CHECK_EQ("p18: none was sent again", of_peer(engine, "mte_peer_resends_total", first.name, "op=\"write\""), 0);
        if (freed == 0) CHECK_EQ("the batch is freed", freeBatchID(engine, batch), 0);
    }
    CHECK_EQ("memory is withdrawn", peer_unregister(&first, 0), 0);
    CHECK("a WRITE there fails", transfer_once(engine, request(OPCODE_WRITE, bytes, one, first.base, 4096), 20000) != STATUS_COMPLETED);
    CHECK_EQ("p18: which is counted", of_peer(engine, "mte_peer_tasks_total", first.name, "op=\"write\",end=\"failed\""), 1);
    CHECK_EQ("p18: nothing is counted by peer where that is off", of_peer(without, "mte_peer_bytes_total", "other", "op=\"write\""), -1);
    char series[512], own[128];
    engine_name(engine, own, sizeof own);
    snprintf(series, sizeof series, "mte_queue_requests{engine=\"%s\",transport=\"tcp\",peer=\"%s\",queue=\"0\",state=\"under_way\"}", own, first.name);
    CHECK_EQ("p18: a queue with nothing to do says so", counted(series), 0);
    destroyTransferEngine(engine);
    destroyTransferEngine(without);
    CHECK_EQ("the first peer ends in order", peer_stop(&first), 0);
    CHECK_EQ("and the second", peer_stop(&second), 0);
}

static void port_is_shared(int port) {
    transfer_engine_t first = engine_open(), second = engine_open();
    CHECK("p18: the page", answers(port, "GET", "/metrics", "200"));
    const char *page = ask(port, "GET", "/metrics");
    CHECK("p18: says what mte_metrics says", page != NULL && number_in(page, "mooncake_te_write_requests_total") >= 0);
    CHECK("p18: JSON", answers(port, "GET", "/metrics/json", "200"));
    const char *links = ask(port, "GET", "/links");
    CHECK("p18: links", links != NULL && strstr(links, "\"local_nics\":") != NULL && strstr(links, "\"queues\":") != NULL);
    CHECK("p18: the summary", answers(port, "GET", "/metrics/summary", "200"));
    CHECK("p18: health", answers(port, "GET", "/health", "200"));
    CHECK("the status page", answers(port, "GET", "/", "200"));
    CHECK("what it asks for", answers(port, "GET", "/status.json", "200"));
    CHECK("another page is not there", answers(port, "GET", "/other", "404"));
    CHECK("nothing can be changed", answers(port, "POST", "/metrics", "405"));
    int silent[SILENT];
    for (int i = 0; i < SILENT; i++) silent[i] = reach(port);
    CHECK("p18: while others are connected and say nothing", answers(port, "GET", "/metrics", "200"));
    CHECK("garbage is refused", send(silent[0], "\1\2\3\r\n\r\n", 7, MSG_NOSIGNAL) == 7);
    CHECK("p18: and harms nobody", answers(port, "GET", "/health", "200"));
    destroyTransferEngine(first);
    CHECK("p18: one engine is left", answers(port, "GET", "/health", "200"));
    destroyTransferEngine(second);
    for (int i = 0; i < SILENT; i++) close(silent[i]);
    CHECK("p18: nobody listens once none is", reach(port) < 0);
    transfer_engine_t third = engine_open();
    CHECK("p18: until there is one again", answers(port, "GET", "/health", "200"));
    destroyTransferEngine(third);
}

/* A child that runs no other program has no part in the port. */
static void child_keeps_nothing(int port) {
    int lives[2], ends[2];
    char end;
    transfer_engine_t engine = engine_open();
    int idle = reach(port);
    REQUIRE("the port is served", idle >= 0 && answers(port, "GET", "/health", "200") && pipe(lives) == 0 && pipe(ends) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        close(ends[1]);
        close(idle);
        _exit(write(lives[1], "", 1) != 1 || read(ends[0], &end, 1) != 0);
    }
    close(ends[0]);
    REQUIRE("a child is there", read(lives[0], &end, 1) == 1);
    close(lives[0]);
    close(lives[1]);
    destroyTransferEngine(engine);
    CHECK("p18: nobody listens once the engine is gone, though a child of fork lives", reach(port) < 0);
    CHECK("p18: and connections have ended", recv(idle, &end, 1, 0) <= 0);
    close(idle);
    close(ends[1]);
    CHECK_EQ("the child ends", child_reap(pid, 10000), 0);
}

/* A reader that asks and goes away is no reason to end the process: it has the default action for SIGPIPE. */
static void readers_go_away(int port) {
    transfer_engine_t engine = engine_open();
    const char ask_all[] = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";
    for (int i = 0; i < 200; i++) {
        struct linger reset = {1, 0};
        int fd = reach(port);
        if (fd < 0 || send(fd, ask_all, sizeof ask_all - 1, MSG_NOSIGNAL) < 0) harness_give_up("a reader that goes away");
        shutdown(fd, SHUT_WR);
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
        close(fd);
    }
    CHECK("p18: readers that go away before they have the page harm nobody", answers(port, "GET", "/health", "200"));
    destroyTransferEngine(engine);
}

static void port_is_taken(void) {
    char port[8];
    struct sockaddr_in at = {.sin_family = AF_INET};
    socklen_t len = sizeof at;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    REQUIRE("a port is taken", bind(fd, (struct sockaddr *)&at, sizeof at) == 0 && listen(fd, 1) == 0 && getsockname(fd, (struct sockaddr *)&at, &len) == 0);
    snprintf(port, sizeof port, "%d", ntohs(at.sin_port));
    setenv("MC_TE_METRIC_HTTP_PORT", port, 1);
    transfer_engine_t engine = engine_open();
    CHECK("an engine whose port for metrics is taken works", freeBatchID(engine, batch_open(engine, 1)) == 0);
    destroyTransferEngine(engine);
    close(fd);
}

static void child_of_a_fork(void) {
    pid_t pid = fork();
    if (pid == 0) _exit(counted("mooncake_te_write_requests_total") == 0 ? 0 : 1);
    CHECK_EQ("a child of fork has counts of its own", child_reap(pid, 10000), 0);
}

static int serve(const char *port) {
    char end;
    setenv("MC_TE_METRIC", "1", 1);
    setenv("MC_TE_METRIC_HTTP_PORT", port, 1);
    peer_t peer = peer_start(BYTES, "MC_TE_METRIC=0");
    transfer_engine_t engine = engine_open();
    unsigned char *bytes = registered_bytes(engine, BYTES);
    segment_id_t target = openSegment(engine, peer.name);
    REQUIRE("the peer opens", target > 0);
    CHECK_EQ("a WRITE", transfer_once(engine, request(OPCODE_WRITE, bytes, target, peer.base, MIB), 20000), STATUS_COMPLETED);
    printf("READY\n");
    while (read(STDIN_FILENO, &end, 1) > 0) {}
    destroyTransferEngine(engine);
    peer_stop(&peer);
    return harness_finish();
}

int main(int argc, char **argv) {
    peer_dispatch(argc, argv);
    harness_begin();
    if (argc == 3 && strcmp(argv[1], "serve") == 0) return serve(argv[2]);
    bad_arguments();
    peer_t peer = peer_start(BYTES, NULL);
    transfer_engine_t engine = engine_open();
    unsigned char *bytes = registered_bytes(engine, BYTES);
    segment_id_t target = openSegment(engine, peer.name);
    REQUIRE("the peer opens", target > 0);
    counts(engine, bytes, target, &peer);
    peers_are_told_apart();
    child_of_a_fork();
    int held, port = held_port(&held);
    char name[8];
    snprintf(name, sizeof name, "%d", port);
    setenv("MC_TE_METRIC_HTTP_PORT", name, 1);
    transfer_engine_t off = engine_open();
    CHECK("p18: a port alone serves nothing, as upstream", reach(port) < 0);
    destroyTransferEngine(off);
    setenv("MC_TE_METRIC", "1", 1);
    size_t threads = thread_count();
    port_is_shared(port);
    child_keeps_nothing(port);
    readers_go_away(port);
    CHECK_EQ("p09: its thread ends with the last engine", thread_count(), threads);
    port_is_taken();
    close(held);
    destroyTransferEngine(engine);
    CHECK_EQ("the peer ends in order", peer_stop(&peer), 0);
    return harness_finish();
}

/* P38: engines with a cluster key reach each other, and nobody else gets anything from them. */
#include <pthread.h>

#include "peer.h"
#include "wire.h"

#define BYTES (64 * KIB)
#define SEED 38
#define KEY_A "the first key: it is long enough"
#define KEY_B "the second key: it is so as well."
#define ASK_MS 20000

typedef struct node {
    transfer_engine_t engine;
    unsigned char *memory;
    char name[128];
} node_t;

/* An engine with `keys`, or without one (NULL), and registered memory. */
static node_t node_open(const char *keys) {
    node_t node;
    if (keys == NULL)
        unsetenv("MC_CLUSTER_KEY");
    else
        setenv("MC_CLUSTER_KEY", keys, 1);
    node.engine = engine_open();
    unsetenv("MC_CLUSTER_KEY");
    node.memory = registered_bytes(node.engine, BYTES);
    engine_name(node.engine, node.name, sizeof node.name);
    return node;
}

static void node_close(node_t *node) { destroyTransferEngine(node->engine); }

/* Bytes and a notification arrive. */
static bool reaches(node_t *from, node_t *to) {
    notify_msg_t message = {"from", "one of the cluster"};
    segment_id_t target = openSegment(from->engine, to->name);
    if (target < 0) return false;
    pattern_fill(from->memory, BYTES, SEED);
    memset(to->memory, 0, BYTES);
    int status = transfer_once(from->engine, request(OPCODE_WRITE, from->memory, target, (uintptr_t)to->memory, BYTES), ASK_MS);
    return status == STATUS_COMPLETED && pattern_matches(to->memory, BYTES, SEED) &&
           genNotifyInEngine(from->engine, (uint64_t)target, message) == 0;
}

static int refusal(node_t *from, node_t *to, const char *why) {
    char text[512] = "";
    if (openSegment(from->engine, to->name) >= 0) return 0;
    int code = mte_last_error(text, sizeof text);
    if (strstr(text, why) == NULL) printf("#     %s\n", text);
    return strstr(text, why) == NULL ? 1 : code;
}

/* How many peers this process has refused, as metrics tell it; -1: there is no such line. */
static long long refused(const char *port, const char *cause) {
    static char page[256 * KIB];
    char series[96];
    size_t len = sizeof page;
    snprintf(series, sizeof series, "mte_peers_refused_total{port=\"%s\",cause=\"%s\"} ", port, cause);
    if (mte_metrics(MTE_METRICS_TEXT, page, &len) != 0 || len > sizeof page) harness_give_up("mte_metrics");
    const char *line = strstr(page, series);
    return line == NULL ? -1 : atoll(line + strlen(series));
}

static void strangers_are_counted_at_the_data_port(void) {
    node_t alone = node_open(KEY_A);
    uint16_t port = other_port(getpid(), name_port(alone.name));
    unsigned char header[24], answer[8];
    REQUIRE("the data port is found", port != 0);
    data_header(header, 64, (uintptr_t)alone.memory, 0x80);
    int fd = wire_connect(port);
    CHECK("a stranger is refused at the data port", wire_send(fd, header, 24) && wire_recv(fd, answer, 8));
    CHECK_EQ("  which is counted", refused("data", "no_key"), 1);
    CHECK_EQ("  as what it is", refused("data", "other_key"), 0);
    close(fd);
    node_close(&alone);
}

static void rotation(void) {
    node_t old = node_open(KEY_A), both = node_open(KEY_A "," KEY_B), turned = node_open(KEY_B "," KEY_A), renewed = node_open(KEY_B);
    CHECK("a second key does not part a node from those that know the first", reaches(&old, &both) && reaches(&both, &old));
    CHECK("nor does their order", reaches(&both, &turned) && reaches(&turned, &both));
    CHECK("and the first can go when everybody proves the second", reaches(&turned, &renewed) && reaches(&renewed, &turned));
    node_close(&old);
    node_close(&both);
    node_close(&turned);
    node_close(&renewed);
}

/* What a stranger hears who has no library. */
static void raw_strangers(node_t *node, const char *which) {
    static char json[1 << 16];
    char name[160];
    uint16_t handshake = name_port(node->name);
    for (int type = 0; type < 4; type++) {
        snprintf(name, sizeof name, "%s: a frame of type %d gets no answer", which, type);
        CHECK_EQ(name, frame_exchange(handshake, type, "{\"name\":\"x\",\"notify_msg\":\"y\"}\n", json, sizeof json), -1);
    }
}

static void stranger_at_the_data_port(void) {
    peer_t peer = peer_start(BYTES, "MC_CLUSTER_KEY=" KEY_A);
    uint16_t port = other_port(peer.pid, name_port(peer.name));
    unsigned char header[24], answer[BYTES];
    REQUIRE("the data port is found", port != 0);
    memset(peer.view, 7, BYTES);
    for (int opcode = 0; opcode < 2; opcode++) {
        data_header(header, 4096, peer.base, opcode);
        int fd = wire_connect(port);
        memset(answer, 1, sizeof answer);
        CHECK("a request without status frames", wire_send(fd, header, 24) && (opcode == 0 || wire_send(fd, answer, 4096)));
        CHECK("  gets no byte", recv(fd, answer, sizeof answer, 0) <= 0);
        close(fd);
        data_header(header, 4096, peer.base, 0x80 | opcode);
        fd = wire_connect(port);
        CHECK("one with them", wire_send(fd, header, 24) && (opcode == 0 || wire_send(fd, answer, 4096)));
        CHECK("  gets the frame that refuses", wire_recv(fd, answer, 8) && memcmp(answer, "\1\0\0\0VTCM", 8) == 0);
        CHECK("  and no more", recv(fd, answer, sizeof answer, 0) <= 0);
        close(fd);
    }
    CHECK("no byte of the peer's has changed", all_bytes(peer.view, BYTES, 7));
    CHECK_EQ("the peer ends in order", peer_stop(&peer), 0);
}

/* Somebody in the middle, whom `one` takes for its peer: he passes on what proves the key, and then asks for himself. */
static int relay_listener;

static void *relay(void *port_of_the_other) {
    static char passed[96], answer[4096];
    int from = accept(relay_listener, NULL, NULL), to = wire_connect(*(uint16_t *)port_of_the_other);
    wire_limit(from, 5);
    bool proved = wire_recv(from, passed, 64) && wire_send(to, passed, 64) && wire_recv(to, answer, 72) && wire_send(from, answer, 72) &&
                  wire_recv(from, passed, 32) && wire_send(to, passed, 32);
    CHECK("what proves the key can be passed on", proved);
    CHECK("  and a request of one's own be sent", frame_send(to, 1, "{}\n") && wire_send(to, passed, 32));
    CHECK("  which gets no answer", recv(to, answer, sizeof answer, 0) <= 0);
    close(from);
    close(to);
    return NULL;
}

static void in_the_middle(node_t *one, node_t *two) {
    uint16_t port, port_of_two = name_port(two->name);
    pthread_t thread;
    char name[64];
    relay_listener = wire_listen(&port);
    REQUIRE("a thread", pthread_create(&thread, NULL, relay, &port_of_two) == 0);
    snprintf(name, sizeof name, "127.0.0.1:%u", port);
    CHECK("whoever dials the one in the middle gets nothing either", openSegment(one->engine, name) < 0);
    pthread_join(thread, NULL);
    close(relay_listener);
}

static void unusable(void) {
    static const char *const keys[] = {"", ",", "short", KEY_A ",short"};
    for (size_t i = 0; i < COUNT(keys); i++) {
        char text[512] = "";
        setenv("MC_CLUSTER_KEY", keys[i], 1);
        CHECK_NULL("an engine whose key cannot be used is not created", createTransferEngine("P2PHANDSHAKE", "127.0.0.1", "", 0, 0), -1);
        mte_last_error(text, sizeof text);
        CHECK("  the setting is named, and the key is not", strstr(text, "MC_CLUSTER_KEY") != NULL && strstr(text, "short") == NULL);
    }
    unsetenv("MC_CLUSTER_KEY");
    static const char *const hints[][2] = {{"MC_CLUSTER_KEY_FILE", ""}, {"MC_CLUSTER_KEYS", KEY_A}, {"MC_CLUSTER_KEY_REQUIRED", "1"}};
    for (size_t i = 0; i < COUNT(hints); i++) {
        setenv(hints[i][0], hints[i][1], 1);
        CHECK_NULL("nor one that seems to lack its key", createTransferEngine("P2PHANDSHAKE", "127.0.0.1", "", 0, 0), -1);
        unsetenv(hints[i][0]);
    }
    setenv("MC_CLUSTER_KEY", KEY_A, 1);
    setenv("MC_CLUSTER_KEY_FILE", "/nonexistent/key", 1);
    CHECK_NULL("nor one with two sources of keys", createTransferEngine("P2PHANDSHAKE", "127.0.0.1", "", 0, 0), -1);
    unsetenv("MC_CLUSTER_KEY");
    CHECK_NULL("nor one whose file is missing", createTransferEngine("P2PHANDSHAKE", "127.0.0.1", "", 0, 0), -1);
    unsetenv("MC_CLUSTER_KEY_FILE");
}

static void without_need(void) {
    setenv("MC_CLUSTER_KEY_REQUIRED", "0", 1);
    node_t lenient = node_open(KEY_A);
    unsetenv("MC_CLUSTER_KEY_REQUIRED");
    node_t strict = node_open(KEY_A), keyless = node_open(NULL);
    CHECK("where no key is required, peers without one are reached", reaches(&lenient, &keyless));
    CHECK("  and served", reaches(&keyless, &lenient));
    CHECK("  and those with one too", reaches(&lenient, &strict) && reaches(&strict, &lenient));
    node_close(&lenient);
    node_close(&strict);
    node_close(&keyless);
}

int main(int argc, char **argv) {
    peer_dispatch(argc, argv);
    harness_begin();
    unsetenv("MC_CLUSTER_KEY");
    node_t one = node_open(KEY_A), two = node_open(KEY_A), other = node_open(KEY_B), keyless = node_open(NULL);
    CHECK("engines with one key reach each other", reaches(&one, &two) && reaches(&two, &one));
    CHECK_EQ("with another key a segment is not opened", refusal(&other, &one, "another one"), ERR_REJECT_HANDSHAKE);
    CHECK_EQ("  nor the other way round", refusal(&one, &other, "another one"), ERR_REJECT_HANDSHAKE);
    CHECK_EQ("with a key, a peer without one is not believed", refusal(&one, &keyless, "hung up when asked for the cluster key"), ERR_SOCKET);
    CHECK("without a key, a peer with one gives nothing", refusal(&keyless, &one, "closed on the request") < 0);
    raw_strangers(&one, "with a key");
    in_the_middle(&one, &two);
    CHECK("all the while the others work", reaches(&one, &two));
    /* Openings are tried again, so that each of these may count more than once. */
    CHECK("peers with another key are counted", refused("handshake", "other_key") > 0);
    CHECK("  and those without one", refused("handshake", "no_key") > 0);
    CHECK("  and what is not proved", refused("handshake", "unproven") > 0);
    node_close(&one);
    node_close(&two);
    node_close(&other);
    node_close(&keyless);
    strangers_are_counted_at_the_data_port();
    stranger_at_the_data_port();
    rotation();
    without_need();
    unusable();
    return harness_finish();
}

/* P40: engines with certificates of one authority reach each other, and nobody else gets anything from them.
 * TEST_CERTIFICATES is a folder as tests/common/certificates.rs makes it. */
#include "peer.h"
#include "wire.h"

#define BYTES (16 * MIB)
#define SMALL (64 * KIB)
#define SEED 40
#define ASK_MS 60000

static const char *const FILES[] = {"MC_TLS_CA_FILE", "MC_TLS_CERT_FILE", "MC_TLS_KEY_FILE"};

typedef struct node {
    transfer_engine_t engine;
    unsigned char *memory;
    char name[128];
} node_t;

static const char *in_folder(const char *name, const char *kind) {
    static char paths[8][512];
    static size_t next;
    char *path = paths[next++ % COUNT(paths)];
    snprintf(path, sizeof paths[0], "%.400s/%.64s.%.8s", getenv("TEST_CERTIFICATES"), name, kind);
    return path;
}

/* TLS with the certificate of `who`, trusting `authority`; none without a `who`. */
static void identify(const char *who, const char *authority) {
    for (size_t i = 0; i < COUNT(FILES); i++) unsetenv(FILES[i]);
    if (who == NULL) return;
    setenv("MC_TLS_CA_FILE", in_folder(authority, "pem"), 1);
    setenv("MC_TLS_CERT_FILE", in_folder(who, "pem"), 1);
    setenv("MC_TLS_KEY_FILE", in_folder(who, "key"), 1);
}

static node_t node_with(const char *who, const char *authority, size_t bytes) {
    node_t node;
    identify(who, authority);
    node.engine = engine_open();
    identify(NULL, NULL);
    node.memory = registered_bytes(node.engine, bytes);
    engine_name(node.engine, node.name, sizeof node.name);
    return node;
}

static node_t node_open(const char *who) { return node_with(who, "good", SMALL); }

static void node_close(node_t *node) { destroyTransferEngine(node->engine); }

/* Bytes there and back, and a notification, arrive. */
static bool moves(node_t *from, node_t *to, size_t bytes) {
    notify_msg_t message = {"from", "one of the cluster"};
    segment_id_t target = openSegment(from->engine, to->name);
    if (target < 0) return false;
    uintptr_t there = (uintptr_t)to->memory;
    pattern_fill(from->memory, bytes, SEED);
    memset(to->memory, 0, bytes);
    int status = transfer_once(from->engine, request(OPCODE_WRITE, from->memory, target, there, bytes), ASK_MS);
    if (status != STATUS_COMPLETED || !pattern_matches(to->memory, bytes, SEED)) return false;
    pattern_fill(to->memory, bytes, SEED + 1);
    status = transfer_once(from->engine, request(OPCODE_READ, from->memory, target, there, bytes), ASK_MS);
    return status == STATUS_COMPLETED && pattern_matches(from->memory, bytes, SEED + 1) &&
           genNotifyInEngine(from->engine, (uint64_t)target, message) == 0;
}

static bool reaches(node_t *from, node_t *to) { return moves(from, to, SMALL); }

static int refusal(node_t *from, node_t *to, const char *why) {
    char text[512] = "";
    if (openSegment(from->engine, to->name) >= 0) return 0;
    int code = mte_last_error(text, sizeof text);
    if (strstr(text, why) == NULL) printf("#     %s\n", text);
    return strstr(text, why) == NULL ? 1 : code;
}

/* Strangers who have no library, at both ports. */
static void raw_strangers(void) {
    static char json[1 << 16];
    static unsigned char answer[SMALL];
    unsigned char header[24];
    identify("one", "good");
    peer_t peer = peer_start(SMALL, NULL);
    identify(NULL, NULL);
    uint16_t handshake = name_port(peer.name), data = other_port(peer.pid, handshake);
    for (int type = 0; type < 4; type++)
        CHECK_EQ("a frame without TLS gets no answer", frame_exchange(handshake, type, "{\"name\":\"x\",\"notify_msg\":\"y\"}\n", json, sizeof json), -1);
    REQUIRE("the data port is found", data != 0);
    memset(peer.view, 7, SMALL);
    for (int opcode = 0; opcode < 2; opcode++) {
        data_header(header, 4096, peer.base, opcode);
        int fd = wire_connect(data);
        memset(answer, 1, sizeof answer);
        CHECK("a request without TLS", wire_send(fd, header, 24) && (opcode == 0 || wire_send(fd, answer, 4096)));
        CHECK("  gets no byte", recv(fd, answer, sizeof answer, 0) <= 0);
        close(fd);
        data_header(header, 4096, peer.base, 0x80 | opcode);
        fd = wire_connect(data);
        CHECK("one with status frames", wire_send(fd, header, 24) && (opcode == 0 || wire_send(fd, answer, 4096)));
        CHECK("  gets the frame that refuses", wire_recv(fd, answer, 8) && memcmp(answer, "\1\0\0\0VTCM", 8) == 0);
        CHECK("  and no more", recv(fd, answer, sizeof answer, 0) <= 0);
        close(fd);
    }
    /* What looks like TLS and is none. */
    uint16_t ports[] = {handshake, data};
    for (size_t i = 0; i < COUNT(ports); i++) {
        unsigned char hello[512] = {0x16, 3, 1, 1, 0xfb, 1, 0, 1, 0xf7, 3, 3};
        int fd = wire_connect(ports[i]);
        CHECK("nonsense in the form of TLS", wire_send(fd, hello, sizeof hello));
        ssize_t got = recv(fd, answer, sizeof answer, 0);
        CHECK("  gets an alert at the most", got <= 7 && (got <= 0 || answer[0] == 0x15));
        close(fd);
    }
    CHECK("no byte of the peer's has changed", all_bytes(peer.view, SMALL, 7));
    CHECK_EQ("the peer ends in order", peer_stop(&peer), 0);
}

static void without_need(void) {
    setenv("MC_TLS_REQUIRED", "0", 1);
    node_t lenient = node_open("one");
    unsetenv("MC_TLS_REQUIRED");
    node_t strict = node_open("two"), plain = node_open(NULL);
    CHECK("where TLS is not required, peers without it are reached", reaches(&lenient, &plain));
    CHECK("  and served", reaches(&plain, &lenient));
    CHECK("  and those with it too", reaches(&lenient, &strict) && reaches(&strict, &lenient));
    node_close(&lenient);
    node_close(&strict);
    node_close(&plain);
}

static void with_names(void) {
    node_t one = node_open("one"), elsewhere = node_open("elsewhere");
    CHECK("names do not count", reaches(&one, &elsewhere));
    setenv("MC_TLS_NAMES", "1", 1);
    node_t strict = node_open("two");
    unsetenv("MC_TLS_NAMES");
    CHECK("unless a setting says so: whose certificate names its host is reached", reaches(&strict, &one));
    CHECK_EQ("  and nobody else", refusal(&strict, &elsewhere, "MC_TLS_NAMES"), ERR_REJECT_HANDSHAKE);
    node_close(&one);
    node_close(&elsewhere);
    node_close(&strict);
}

static void with_a_key(void) {
    setenv("MC_CLUSTER_KEY", "the key of this cluster; it is long enough", 1);
    node_t one = node_open("one"), two = node_open("two");
    unsetenv("MC_CLUSTER_KEY");
    node_t keyless = node_open("one");
    CHECK("a cluster key can be asked for as well", reaches(&one, &two) && reaches(&two, &one));
    CHECK("  and who lacks it gets nothing", openSegment(keyless.engine, one.name) < 0);
    node_close(&one);
    node_close(&two);
    node_close(&keyless);
}

static void refuses(const char *what, const char *words) {
    char text[512] = "";
    CHECK_NULL(what, createTransferEngine("P2PHANDSHAKE", "127.0.0.1", "", 0, 0), -1);
    mte_last_error(text, sizeof text);
    if (strstr(text, words) == NULL) printf("#     %s\n", text);
    CHECK("  the message says what is wrong", strstr(text, words) != NULL);
}

static void unusable(void) {
    for (size_t i = 0; i < COUNT(FILES); i++) {
        identify("one", "good");
        unsetenv(FILES[i]);
        refuses("an engine that lacks one of the files is not created", FILES[i]);
        setenv(FILES[i], "/nonexistent/file", 1);
        refuses("nor one of which one cannot be read", FILES[i]);
        setenv(FILES[i], "", 1);
        refuses("nor one that is named by nothing", FILES[i]);
        setenv(FILES[i], "/dev/null", 1);
        refuses("nor one that has an empty file", FILES[i]);
    }
    identify("expired", "good");
    refuses("nor one whose certificate has expired", "has expired");
    identify("foreign", "good");
    refuses("nor one whose certificate is of another authority", "MC_TLS_CA_FILE");
    identify("one", "good");
    setenv("MC_TLS_KEY_FILE", in_folder("two", "key"), 1);
    refuses("nor one whose key is another's", "MC_TLS_KEY_FILE");
    identify(NULL, NULL);
    setenv("MC_TLS_REQUIRED", "1", 1);
    refuses("nor one that is to have TLS and has no files", "MC_TLS_REQUIRED");
    unsetenv("MC_TLS_REQUIRED");
    setenv("MC_TLS_CERTIFICATE", "x", 1);
    refuses("nor one whose setting is misspelt", "MC_TLS_CERTIFICATE");
    unsetenv("MC_TLS_CERTIFICATE");
}

int main(int argc, char **argv) {
    peer_dispatch(argc, argv);
    harness_begin();
    identify(NULL, NULL);
    node_t one = node_with("one", "good", BYTES), two = node_with("two", "good", BYTES);
    CHECK("engines of one authority reach each other", moves(&one, &two, BYTES) && moves(&two, &one, BYTES));
    node_t foreign = node_with("foreign", "bad", SMALL), plain = node_open(NULL);
    CHECK_EQ("with a certificate of another authority a segment is not opened", refusal(&foreign, &one, "certificate"), ERR_REJECT_HANDSHAKE);
    CHECK_EQ("  nor the other way round", refusal(&one, &foreign, "certificate"), ERR_REJECT_HANDSHAKE);
    CHECK_EQ("with TLS, a peer without it is not believed", refusal(&one, &plain, "hung up when TLS began"), ERR_SOCKET);
    CHECK("without TLS, a peer with it gives nothing", refusal(&plain, &one, "closed on the request") < 0);
    CHECK("all the while the others work", reaches(&one, &two));
    node_close(&foreign);
    node_close(&plain);
    node_close(&one);
    node_close(&two);
    raw_strangers();
    without_need();
    with_names();
    with_a_key();
    unusable();
    return harness_finish();
}

/* P37, P38, P39: garbage on the handshake port and on the data port. The seed is fixed; a verified transfer runs
 * after every kind, and no byte outside the transfer changes. With MC_CLUSTER_KEY, or MC_TLS_CERT_FILE, the same against
 * engines that have a key, or use TLS. */
#include "peer.h"
#include "wire.h"

#define BYTES (256 * KIB)
#define GUARD_AT (64 * KIB)
#define GUARD_SEED 99
#define ROUNDS 40
#define FLOOD 200
#define FRAME_MAX 4096

static transfer_engine_t engine;
static peer_t peer;
static segment_id_t target;
static unsigned char *source;
static uint16_t handshake_port, tcp_port;
static uint64_t seed = 20260131;

static size_t random_bytes(unsigned char *out) {
    size_t len = 1 + next_random(&seed) % 2000;
    for (size_t i = 0; i < len; i++) out[i] = (unsigned char)next_random(&seed);
    return len;
}

static size_t frame(unsigned char *out, uint64_t claimed, int type, const char *text, size_t len) {
    memcpy(out, &claimed, 8);
    out[8] = (unsigned char)type;
    memcpy(out + 9, text, len);
    return 9 + len;
}

static size_t frame_of_noise(unsigned char *out) {
    size_t len = random_bytes(out + 9);
    uint64_t claimed = len + 1;
    memcpy(out, &claimed, 8);
    out[8] = (unsigned char)(next_random(&seed) % 5);
    return len + 9;
}

static size_t frame_huge(unsigned char *out) {
    static const uint64_t claims[] = {UINT64_MAX, UINT64_MAX - 1, UINT64_C(1) << 63, UINT64_C(1) << 40, (1 << 20) + 1, 0};
    return frame(out, claims[next_random(&seed) % COUNT(claims)], (int)(next_random(&seed) % 256), "{}", 2);
}

static size_t frame_cut(unsigned char *out) {
    frame(out, 100, (int)(next_random(&seed) % 4), "{\"name\":\"x\"", 11);
    return 1 + next_random(&seed) % 19;
}

static size_t frame_wrong_shape(unsigned char *out) {
    static const char *const texts[] = {"[]", "\"x\"", "1", "null", "{\"qp_num\":[-1]}", "{\"payload\":{}}", "{\"name\":{},\"notify_msg\":[]}",
                                        "{\"local_nic_path\":7,\"peer_nic_path\":[],\"ready_ack\":\"x\"}", "{", "{\"a\":", "{\"name\":\"\\ud800\"}",
                                        "{}{}", "'x'", "{\"local_gid\":\"zz\",\"local_lid\":1e400}"};
    const char *text = texts[next_random(&seed) % COUNT(texts)];
    return frame(out, strlen(text) + 1, (int)(next_random(&seed) % 4), text, strlen(text));
}

static size_t frame_nested(unsigned char *out) {
    size_t depth = FRAME_MAX - 100;
    memset(out + 9, '[', depth);
    uint64_t claimed = depth + 1;
    memcpy(out, &claimed, 8);
    out[8] = (unsigned char)(next_random(&seed) % 4);
    return depth + 9;
}

static size_t frame_untyped(unsigned char *out) {
    uint64_t claimed = 4;
    memcpy(out, &claimed, 8);
    memcpy(out + 8, "{ [ ", 4);
    out[8] = (unsigned char)(4 + next_random(&seed) % 252);
    return 12;
}

static size_t data_huge(unsigned char *out) {
    static const uint64_t sizes[] = {UINT64_MAX, UINT64_MAX - 4096, UINT64_C(1) << 63, UINT64_C(1) << 48, BYTES + 1, 0};
    static const int opcodes[] = {0, 1, 0x80, 0x81};
    data_header(out, sizes[next_random(&seed) % COUNT(sizes)], peer.base, opcodes[next_random(&seed) % 4]);
    return 24 + random_bytes(out + 24);
}

static size_t data_wrapping(unsigned char *out) {
    uint64_t addr = UINT64_MAX - next_random(&seed) % 8192;
    data_header(out, UINT64_MAX - addr + 1 + next_random(&seed) % 3, addr, next_random(&seed) % 2 ? 0x81 : 0x80);
    return 24 + random_bytes(out + 24);
}

static size_t data_over_the_end(unsigned char *out) {
    data_header(out, 4096, peer.base + BYTES - 1 - next_random(&seed) % 4000, next_random(&seed) % 2 ? 0x81 : 1);
    return 24 + random_bytes(out + 24);
}

static size_t data_strange_opcode(unsigned char *out) {
    data_header(out, 64, next_random(&seed) % 2 ? peer.base : 4096, next_random(&seed) % 2 ? 0xff : 0x7f);
    return 24;
}

static size_t data_cut_header(unsigned char *out) {
    data_header(out, 4096, peer.base, 0x81);
    return 1 + next_random(&seed) % 23;
}

/* A header for the first bytes of the arena whose body never ends. */
static size_t data_cut_body(unsigned char *out) {
    data_header(out, GUARD_AT / 2, peer.base, 0x81);
    size_t len = random_bytes(out + 24);
    return 24 + len;
}

/* What a hello begins with, and then noise. */
static size_t hello_of_noise(unsigned char *out) {
    size_t len = random_bytes(out + 64);
    memcpy(out, "MTE-KEY\1", 8);
    memset(out + 8, 0, 16);
    out[16] = 0x80;
    out[17] = (unsigned char)(next_random(&seed) % 4);
    for (size_t i = 24; i < 64; i++) out[i] = (unsigned char)next_random(&seed);
    return next_random(&seed) % 2 ? 64 + len : 1 + next_random(&seed) % 64;
}

/* What begins as TLS does, and then noise. */
static size_t tls_of_noise(unsigned char *out) {
    size_t len = random_bytes(out + 11), record = len + 6;
    unsigned char begin[] = {0x16, 3, 1, (unsigned char)(record >> 8), (unsigned char)record, 1, 0, (unsigned char)((len + 2) >> 8), (unsigned char)(len + 2), 3, 3};
    memcpy(out, begin, sizeof begin);
    return 11 + len;
}

static bool send_and_drain(uint16_t port, const unsigned char *data, size_t len) {
    unsigned char sink[4096];
    int fd = wire_connect(port);
    if (fd < 0) return false;
    wire_send(fd, data, len);
    shutdown(fd, SHUT_WR);
    int64_t end = now_ms() + 5000;
    while (now_ms() < end && recv(fd, sink, sizeof sink, 0) > 0) continue;
    close(fd);
    return true;
}

static void still_serves(const char *after) {
    char name[128];
    uint64_t pattern = next_random(&seed);
    pattern_fill(source, 8192, pattern);
    snprintf(name, sizeof name, "after %s: a write completes", after);
    CHECK_EQ(name, transfer_once(engine, request(OPCODE_WRITE, source, target, peer.base + 32 * KIB, 8192), 20000), STATUS_COMPLETED);
    memset(source, 0, 8192);
    transfer_once(engine, request(OPCODE_READ, source, target, peer.base + 32 * KIB, 8192), 20000);
    snprintf(name, sizeof name, "after %s: and reads back", after);
    CHECK(name, pattern_matches(source, 8192, pattern) && pattern_matches(peer.view + 32 * KIB, 8192, pattern));
    snprintf(name, sizeof name, "after %s: nothing else changed", after);
    CHECK(name, pattern_matches(peer.view + GUARD_AT, BYTES - GUARD_AT, GUARD_SEED));
    snprintf(name, sizeof name, "after %s: the handshake port answers", after);
    CHECK_EQ(name, openSegmentNoCache(engine, peer.name), target);
}

static void flood(const char *after, uint16_t port, const unsigned char *start, size_t len) {
    int fds[FLOOD], open = 0;
    for (int i = 0; i < FLOOD; i++) {
        fds[i] = wire_connect(port);
        if (fds[i] >= 0) {
            open++;
            wire_send(fds[i], start, len);
        }
    }
    printf("#     %d of %d half-open connections\n", open, FLOOD);
    still_serves(after);
    for (int i = 0; i < FLOOD; i++)
        if (fds[i] >= 0) close(fds[i]);
}

int main(int argc, char **argv) {
    static const struct {
        const char *name;
        size_t (*make)(unsigned char *);
        bool data, both;
    } kinds[] = {
        {"random bytes", random_bytes, false, true},
        {"frames of noise", frame_of_noise, false, false},
        {"frames of impossible length", frame_huge, false, false},
        {"frames cut off", frame_cut, false, false},
        {"JSON of the wrong shape", frame_wrong_shape, false, false},
        {"JSON nested deeply", frame_nested, false, false},
        {"frames without a type", frame_untyped, false, false},
        {"impossible sizes", data_huge, true, false},
        {"ranges that wrap", data_wrapping, true, false},
        {"ranges over the end", data_over_the_end, true, false},
        {"strange opcodes", data_strange_opcode, true, false},
        {"headers cut off", data_cut_header, true, false},
        {"bodies cut off", data_cut_body, true, false},
        {"hellos of noise", hello_of_noise, false, true},
        {"TLS of noise", tls_of_noise, false, true},
    };
    static unsigned char data[FRAME_MAX];
    peer_dispatch(argc, argv);
    harness_begin();
    peer = peer_start(BYTES, NULL);
    pattern_fill(peer.view + GUARD_AT, BYTES - GUARD_AT, GUARD_SEED);
    engine = engine_open();
    source = registered_bytes(engine, 8192);
    target = openSegment(engine, peer.name);
    handshake_port = name_port(peer.name);
    bool tells = getenv("MC_CLUSTER_KEY") == NULL && getenv("MC_TLS_CERT_FILE") == NULL;
    tcp_port = tells ? data_port(peer.name) : other_port(peer.pid, handshake_port);
    REQUIRE("the peer and both its ports are known", target > 0 && tcp_port != 0);
    still_serves("nothing");
    for (size_t k = 0; k < COUNT(kinds); k++) {
        int refused = 0;
        for (int round = 0; round < ROUNDS; round++) {
            size_t len = kinds[k].make(data);
            if (!kinds[k].data) refused += !send_and_drain(handshake_port, data, len);
            if (kinds[k].data || kinds[k].both) refused += !send_and_drain(tcp_port, data, len);
        }
        CHECK_EQ("every connection is accepted", refused, 0);
        still_serves(kinds[k].name);
    }
    data_header(data, 4096, peer.base, 0x81);
    flood("half-open headers on the data port", tcp_port, data, 10);
    flood("half-open bodies on the data port", tcp_port, data, 24);
    frame(data, 100, 1, "{", 1);
    flood("half-open frames on the handshake port", handshake_port, data, 10);
    flood("silent connections to the handshake port", handshake_port, data, 0);
    still_serves("everything");
    peer_notifications(&peer);
    CHECK("the peer process is alive", kill(peer.pid, 0) == 0);
    CHECK_EQ("and ends in order", peer_stop(&peer), 0);
    destroyTransferEngine(engine);
    return harness_finish();
}

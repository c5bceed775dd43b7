/* A stand-in for a peer of upstream in POSIX shared memory: handshake answers that name objects below /dev/shm. What is proven
 * to be the peer's is read and written; what is hostile, gone or somebody else's is refused, and nothing of it is touched. */
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "fake.h"

#define BYTES (8 * MIB)
#define END_MS 30000
#define NOBODY 65534
#define PAGE 4096

static transfer_engine_t engine;
static unsigned char *bytes;
static fake_t *fake;

typedef struct object {
    char name[64], path[128];
    int fd;
    unsigned char *at;
} object_t;

static const char *path_of(const char *name) {
    static char path[128];
    snprintf(path, sizeof path, "/dev/shm%.64s", name);
    return path;
}

static void name_object(object_t *object) {
    static int next;
    snprintf(object->name, sizeof object->name, "/mooncake_%d_test%d", (int)getpid(), next++);
    snprintf(object->path, sizeof object->path, "%s", path_of(object->name));
    unlink(object->path);
}

static object_t object_new(void) {
    object_t object;
    name_object(&object);
    object.fd = open(object.path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (object.fd < 0 || ftruncate(object.fd, BYTES) != 0) harness_give_up("an object");
    object.at = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, object.fd, 0);
    if (object.at == MAP_FAILED) harness_give_up("a mapping");
    return object;
}

static void object_free(object_t *object) {
    munmap(object->at, BYTES);
    close(object->fd);
    unlink(object->path);
}

static void publish(const char *name, const void *addr, uint64_t length) {
    char json[1024];
    snprintf(json, sizeof json,
             "{\"buffers\":[{\"addr\":%llu,\"length\":%llu,\"name\":\"*\",\"shm_name\":\"%s\"}],\"metadata_version\":0,\"name\":\"%s\","
             "\"protocol\":\"shm\",\"tcp_data_port\":0,\"tcp_proto_version\":1,\"timestamp\":\"2026-01-31 10:20:30.123456\"}\n",
             (unsigned long long)(uintptr_t)addr, (unsigned long long)length, name, fake->name);
    fake_set_metadata(fake, json);
}

/* A segment of one buffer with this name, at a handshake port of its own: nothing of another case is known of it. */
static segment_id_t published(const char *name, const void *addr, uint64_t length) {
    if (fake != NULL) fake_stop(fake);
    fake = fake_start(FAKE_SILENT);
    publish(name, addr, length);
    segment_id_t target = openSegment(engine, fake->name);
    REQUIRE("the segment opens", target > 0);
    return target;
}

/* The WRITE is refused, at once or by the task, with this code and word. */
static void refused(const char *what, transfer_request_t r, int code, const char *word) {
    mte_task_error_info_t why = {0};
    char text[1024] = "";
    batch_id_t batch = batch_open(engine, 1);
    int rc = submitTransfer(engine, batch, &r, 1);
    if (rc == 0) {
        CHECK_EQ(what, await_task(engine, batch, 0, END_MS), STATUS_FAILED);
        CHECK_EQ("says why", mte_task_error(engine, batch, 0, &why), 0);
        snprintf(text, sizeof text, "%s", why.text);
        rc = why.code;
    } else {
        mte_last_error(text, sizeof text);
    }
    CHECK_EQ(what, rc, code);
    if (!CHECK("in words", strstr(text, word) != NULL)) printf("note  %s: %s\n", word, text);
    CHECK_EQ("freed", freeBatchID(engine, batch), 0);
}

static void doubtful(const char *what, const char *name, const void *addr, uint64_t length, const char *word) {
    segment_id_t target = published(name, addr, length);
    refused(what, request(OPCODE_WRITE, bytes, target, (uintptr_t)addr, 64), ERR_INVALID_ARGUMENT, word);
    refused("and so is a READ", request(OPCODE_READ, bytes, target, (uintptr_t)addr, 64), ERR_INVALID_ARGUMENT, word);
}

static const char *links(void) {
    static char text[65536];
    if (showLinks(engine, text, sizeof text, 1) != 0) harness_give_up("showLinks");
    return text;
}

static void moves(void) {
    object_t object = object_new();
    segment_id_t target = published(object.name, object.at, BYTES);
    static const size_t lengths[] = {1, 4095, 65536, 300001, BYTES / 2};
    for (size_t i = 0; i < COUNT(lengths); i++) {
        size_t len = lengths[i], from = i * 7;
        memset(object.at, 0, BYTES);
        pattern_fill(bytes, len, i);
        CHECK_EQ("a WRITE", transfer_once(engine, request(OPCODE_WRITE, bytes, target, (uintptr_t)object.at + from, len), END_MS), STATUS_COMPLETED);
        CHECK("has its bytes", pattern_matches(object.at + from, len, i));
        CHECK("and no others", all_bytes(object.at, from, 0) && all_bytes(object.at + from + len, PAGE, 0));
        memset(bytes, 0, len + PAGE);
        CHECK_EQ("a READ", transfer_once(engine, request(OPCODE_READ, bytes, target, (uintptr_t)object.at + from, len), END_MS), STATUS_COMPLETED);
        CHECK("has its bytes", pattern_matches(bytes, len, i) && all_bytes(bytes + len, PAGE, 0));
    }
    CHECK("which is shown", strstr(links(), "\"device\":\"posix_shm\"") != NULL && strstr(links(), "\"state\":\"up\"") != NULL);
    refused("behind the buffer", request(OPCODE_WRITE, bytes, target, (uintptr_t)object.at + BYTES - 1, 2), ERR_ADDRESS_NOT_REGISTERED, "one buffer");
    unsigned char *gone = registered_bytes(engine, 2 * MIB);
    munmap(gone, 2 * MIB);
    refused("from memory that is gone", request(OPCODE_WRITE, gone, target, (uintptr_t)object.at, 64), ERR_INVALID_ARGUMENT, "not mapped");
    refused("into memory that is gone", request(OPCODE_READ, gone, target, (uintptr_t)object.at, 2 * MIB), ERR_INVALID_ARGUMENT, "not mapped");
    CHECK_EQ("unregistered", unregisterLocalMemory(engine, gone), 0);

    struct rlimit before, few = {.rlim_cur = MIB};
    getrlimit(RLIMIT_FSIZE, &before);
    few.rlim_max = before.rlim_max;
    setrlimit(RLIMIT_FSIZE, &few);
    refused("behind the limit for files", request(OPCODE_WRITE, bytes, target, (uintptr_t)object.at + MIB - 1, 2), ERR_MEMORY, "ulimit -f");
    refused("by the thread", request(OPCODE_WRITE, bytes, target, (uintptr_t)object.at + MIB, 2 * MIB), ERR_MEMORY, "ulimit -f");
    setrlimit(RLIMIT_FSIZE, &before);
    object_free(&object);
}

static void shrinks_and_goes(void) {
    object_t object = object_new();
    struct stat found;
    segment_id_t target = published(object.name, object.at, BYTES);
    transfer_request_t last = request(OPCODE_WRITE, bytes, target, (uintptr_t)object.at + BYTES - PAGE, PAGE);
    CHECK_EQ("a WRITE", transfer_once(engine, last, END_MS), STATUS_COMPLETED);
    CHECK_EQ("the peer cuts its object off", ftruncate(object.fd, BYTES - PAGE), 0);
    refused("behind its end", last, ERR_ADDRESS_NOT_REGISTERED, "shorter");
    last.opcode = OPCODE_READ;
    refused("also to be read", last, ERR_ADDRESS_NOT_REGISTERED, "shorter");
    CHECK("it did not become longer", fstat(object.fd, &found) == 0 && found.st_size == BYTES - PAGE);
    CHECK_EQ("and longer again", ftruncate(object.fd, BYTES), 0);
    CHECK_EQ("a READ", transfer_once(engine, last, END_MS), STATUS_COMPLETED);
    unlink(object.path);
    refused("after it was freed", last, ERR_ADDRESS_NOT_REGISTERED, "freed");
    refused("for good", last, ERR_ADDRESS_NOT_REGISTERED, "freed");
    object_free(&object);
}

static void hostile(void) {
    static const char *const names[] = {"",         "/",        "..", "/..", "/../etc/passwd", "/mooncake_1_../x", "/mooncake_1_a/b", "//mooncake_1_a",
                                        "/shadow_1_a", "/mooncake_x_a", "/mooncake_1_"};
    for (size_t i = 0; i < COUNT(names); i++) doubtful(names[i], names[i], bytes, PAGE, "none of Mooncake's");
    object_t object = object_new(), odd;
    doubtful("an object that is mapped elsewhere", object.name, object.at + PAGE, BYTES - PAGE, "mapped");
    doubtful("one that is not mapped", object.name, bytes, PAGE, "mapped");
    void *half = mmap(NULL, BYTES / 2, PROT_READ | PROT_WRITE, MAP_SHARED, object.fd, 0);
    doubtful("one that is mapped for less than the buffer", object.name, half, BYTES, "mapped");
    munmap(half, BYTES / 2);
    void *look = mmap(NULL, BYTES, PROT_READ, MAP_SHARED, object.fd, 0);
    doubtful("one that the peer may only read", object.name, look, BYTES, "mapped");
    munmap(look, BYTES);
    name_object(&odd);
    segment_id_t target = published(odd.name, object.at, BYTES);
    refused("one that is not there", request(OPCODE_WRITE, bytes, target, (uintptr_t)object.at, 64), ERR_ADDRESS_NOT_REGISTERED, "freed");
    if (symlink(object.path, odd.path) != 0) harness_give_up("symlink");
    doubtful("a link to one", odd.name, object.at, BYTES, "symbolic link");
    unlink(odd.path);
    if (mkfifo(odd.path, 0600) != 0) harness_give_up("mkfifo");
    doubtful("a pipe", odd.name, object.at, BYTES, "not a file");
    unlink(odd.path);
    if (mkdir(odd.path, 0700) != 0) harness_give_up("mkdir");
    doubtful("a folder", odd.name, object.at, BYTES, "");
    rmdir(odd.path);
    if (link(object.path, odd.path) != 0) harness_give_up("link");
    void *own = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE, object.fd, 0);
    doubtful("a copy of its own", odd.name, own, BYTES, "mapped");
    munmap(own, BYTES);
    unlink(odd.path);
    if (getuid() != 0) {
        SKIP("an object of another user", "this is not root");
    } else {
        if (fchown(object.fd, NOBODY, NOBODY) != 0) harness_give_up("fchown");
        doubtful("an object of another user", object.name, object.at, BYTES, "of user 65534");
        if (fchown(object.fd, 0, 0) != 0) harness_give_up("fchown");
    }
    CHECK("nothing was written", all_bytes(object.at, BYTES, 0));
    object_free(&object);
}

/* The same name and address in another process, which does not listen where the descriptor came from. */
static void somebody_else(void) {
    object_t object = object_new();
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (int fd = 3; fd < 1024; fd++) close(fd);
        pause();
        _exit(0);
    }
    char name[64];
    snprintf(name, sizeof name, "/mooncake_%d_test", (int)child);
    if (link(object.path, path_of(name)) != 0) harness_give_up("link");
    bool gone;
    char fds[64];
    snprintf(fds, sizeof fds, "/proc/%d/fd/%d", (int)child, object.fd);
    WAIT_UNTIL(gone, access(fds, F_OK) != 0, END_MS);
    REQUIRE("the child has closed what it inherited", gone);
    doubtful("a process that does not listen there", name, object.at, BYTES, "is not that of process");
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    doubtful("one that has ended", name, object.at, BYTES, "no process");
    unlink(path_of(name));
    object_free(&object);
}

#define SLOTS 512

static batch_id_t all(segment_id_t target, uint64_t addr) {
    static transfer_request_t requests[SLOTS];
    batch_id_t batch = batch_open(engine, SLOTS);
    for (size_t i = 0; i < SLOTS; i++) requests[i] = request(i % 2 ? OPCODE_READ : OPCODE_WRITE, bytes, target, addr, BYTES);
    CHECK_EQ("4 GiB", submitTransfer(engine, batch, requests, SLOTS), 0);
    return batch;
}

/* It has not come to its end before what ended it. */
static void ends(const char *what, batch_id_t batch, int class) {
    mte_task_error_info_t why = {0};
    CHECK_EQ(what, mte_wait_batch(engine, batch, END_MS), 0);
    CHECK_EQ("its last task", await_task(engine, batch, SLOTS - 1, 0), STATUS_FAILED);
    CHECK_EQ("says why", mte_task_error(engine, batch, SLOTS - 1, &why), 0);
    if (!CHECK_EQ("of a class", why.error_class, class)) printf("note  %s: %s\n", what, why.text);
    CHECK_EQ("its batch is freed", freeBatchID(engine, batch), 0);
}

/* A copy of this process, with its mappings and its sockets; the object has a name for it. */
static pid_t successor(const object_t *object, char *name, size_t len) {
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        pause();
        _exit(0);
    }
    snprintf(name, len, "/mooncake_%d_successor", (int)child);
    if (link(object->path, path_of(name)) != 0) harness_give_up("link");
    return child;
}

/* The peer's name goes to another process, which is killed: once between two requests, once under them. */
static void succeeded(void) {
    object_t object = object_new();
    uint64_t addr = (uintptr_t)object.at;
    char name[64];
    segment_id_t target = published(object.name, object.at, BYTES);
    transfer_request_t r = request(OPCODE_WRITE, bytes, target, addr, PAGE);
    for (uint64_t seed = 1; seed <= 2; seed++) {
        CHECK_EQ("a WRITE", transfer_once(engine, r, END_MS), STATUS_COMPLETED);
        pid_t child = successor(&object, name, sizeof name);
        publish(name, object.at, BYTES);
        CHECK_EQ("the descriptor is read again", syncSegmentCache(engine), 0);
        pattern_fill(bytes, PAGE, seed);
        CHECK_EQ("a WRITE to the successor", transfer_once(engine, r, END_MS), STATUS_COMPLETED);
        CHECK("has its bytes", pattern_matches(object.at, PAGE, seed));
        batch_id_t batch = seed == 2 ? all(target, addr) : 0;
        kill(child, SIGKILL);
        if (seed == 2) ends("what is under way when it is killed ends", batch, MTE_CLASS_NETWORK);
        waitpid(child, NULL, 0);
        batch = batch_open(engine, 1);
        if (submitTransfer(engine, batch, &r, 1) == 0)
            CHECK_EQ("a WRITE to one that was killed, whose object is still there", await_task(engine, batch, 0, END_MS), STATUS_FAILED);
        CHECK_EQ("freed", freeBatchID(engine, batch), 0);
        publish(object.name, object.at, BYTES);
        bool moved;
        WAIT_UNTIL(moved, transfer_once(engine, r, END_MS) == STATUS_COMPLETED, END_MS);
        CHECK("the next one is found", moved);
        unlink(path_of(name));
    }
    object_free(&object);
}

/* Not proven: not even tried for a while, and found without being opened again once it is. */
static void proven_later(void) {
    object_t object = object_new();
    char name[64];
    snprintf(name, sizeof name, "/mooncake_%d_other", (int)getppid());
    segment_id_t target = published(name, object.at, BYTES);
    transfer_request_t r = request(OPCODE_WRITE, bytes, target, (uintptr_t)object.at, 64);
    refused("named after another process", r, ERR_INVALID_ARGUMENT, "proven");
    publish(object.name, object.at, BYTES);
    bool moved;
    WAIT_UNTIL(moved, transfer_once(engine, r, END_MS) == STATUS_COMPLETED, END_MS);
    CHECK("the right one is found", moved);
    object_free(&object);
}

/* Descriptors of this process that lead to the object: its own is one. */
static int opened(const object_t *object) {
    int count = 0;
    for (int fd = 0; fd < 256; fd++) {
        struct stat one, other;
        count += fstat(fd, &one) == 0 && fstat(object->fd, &other) == 0 && one.st_dev == other.st_dev && one.st_ino == other.st_ino;
    }
    return count;
}

/* The last descriptors are the host program's: an object is opened for a request, and not kept. */
static void scarce(void) {
    object_t object = object_new(), other = object_new();
    segment_id_t target = published(object.name, object.at, BYTES);
    CHECK_EQ("a WRITE", transfer_once(engine, request(OPCODE_WRITE, bytes, target, (uintptr_t)object.at, 64), END_MS), STATUS_COMPLETED);
    CHECK_EQ("its object stays open", opened(&object), 2);
    struct rlimit before, few = {.rlim_cur = 256};
    getrlimit(RLIMIT_NOFILE, &before);
    few.rlim_max = before.rlim_max;
    REQUIRE("the limit of descriptors is lowered", setrlimit(RLIMIT_NOFILE, &few) == 0);
    int last = -1, taken[256], count = 0;
    while (last < 224 && (last = fcntl(0, F_DUPFD_CLOEXEC, 0)) >= 0) taken[count++] = last;
    REQUIRE("descriptors are scarce", last >= 224);
    publish(other.name, other.at, BYTES);
    CHECK_EQ("the descriptor is read again", syncSegmentCache(engine), 0);
    CHECK_EQ("a WRITE to another object", transfer_once(engine, request(OPCODE_WRITE, bytes, target, (uintptr_t)other.at, 64), END_MS), STATUS_COMPLETED);
    CHECK_EQ("which is closed again", opened(&other), 1);
    while (count > 0) close(taken[--count]);
    setrlimit(RLIMIT_NOFILE, &before);
    object_free(&object);
    object_free(&other);
}

/* What the peer has freed is not kept by us, though no request tells of it. */
static void freed(void) {
    object_t object = object_new(), other = object_new();
    segment_id_t target = published(object.name, object.at, BYTES);
    CHECK_EQ("a WRITE", transfer_once(engine, request(OPCODE_WRITE, bytes, target, (uintptr_t)object.at, 64), END_MS), STATUS_COMPLETED);
    publish(other.name, other.at, BYTES);
    CHECK_EQ("the descriptor is read again", syncSegmentCache(engine), 0);
    CHECK_EQ("a WRITE to another object", transfer_once(engine, request(OPCODE_WRITE, bytes, target, (uintptr_t)other.at, 64), END_MS), STATUS_COMPLETED);
    CHECK_EQ("both stay open", opened(&object) + opened(&other), 4);
    unlink(object.path);
    bool closed;
    WAIT_UNTIL(closed, opened(&object) == 1, END_MS);
    CHECK("what is freed is closed", closed);
    CHECK_EQ("the other one is not", opened(&other), 2);
    object_free(&object);
    object_free(&other);
}

static void in_traffic(void) {
    object_t object = object_new();
    uint64_t addr = (uintptr_t)object.at;
    segment_id_t target = published(object.name, object.at, BYTES);
    transfer_request_t one = request(OPCODE_WRITE, bytes, target, addr, 64);
    batch_id_t batch = all(target, addr);
    CHECK_EQ("canceled", mte_cancel_batch(engine, batch), 0);
    ends("a canceled batch ends", batch, MTE_CLASS_CANCELED);
    CHECK_EQ("the next one is served", transfer_once(engine, one, END_MS), STATUS_COMPLETED);
    batch = all(target, addr);
    CHECK_EQ("a small one beside many large ones", transfer_once(engine, one, END_MS), STATUS_COMPLETED);
    CHECK_EQ("unregistered in traffic", unregisterLocalMemory(engine, bytes), 0);
    munmap(bytes, BYTES);
    ends("what was there ends", batch, MTE_CLASS_CANCELED);
    bytes = registered_bytes(engine, BYTES);
    one.source = bytes;
    CHECK_EQ("the next one is served", transfer_once(engine, one, END_MS), STATUS_COMPLETED);
    batch = all(target, addr);
    unlink(object.path);
    ends("a batch whose object is freed meanwhile ends", batch, MTE_CLASS_REJECTED);
    object_free(&object);
    object = object_new();
    target = published(object.name, object.at, BYTES);
    batch = all(target, (uintptr_t)object.at);
    CHECK_EQ("removed in traffic", removeLocalSegment(engine, fake->name), 0);
    CHECK_EQ("what was there goes on", mte_wait_batch(engine, batch, END_MS), 0);
    CHECK_EQ("to its end", await_task(engine, batch, SLOTS - 1, 0), STATUS_COMPLETED);
    CHECK_EQ("its batch is freed", freeBatchID(engine, batch), 0);
    target = published(object.name, object.at, BYTES);
    all(target, (uintptr_t)object.at);
    destroyTransferEngine(engine);
    munmap(bytes, BYTES);
    object_free(&object);
}

int main(void) {
    harness_begin();
    engine = engine_open();
    bytes = registered_bytes(engine, BYTES);
    size_t threads = lasting_thread_count();
    moves();
    CHECK_EQ("one thread came with it", lasting_thread_count(), threads + 2); /* and the stand-in's */
    shrinks_and_goes();
    hostile();
    somebody_else();
    proven_later();
    scarce();
    freed();
    succeeded();
    in_traffic();
    setenv("MC_POSIX_SHM", "0", 1);
    engine = engine_open();
    bytes = registered_bytes(engine, BYTES);
    object_t object = object_new();
    doubtful("switched off", object.name, object.at, BYTES, "MC_POSIX_SHM=1");
    CHECK_EQ("no task waits for it", strstr(links(), "posix_shm") == NULL, 1);
    CHECK("installed by name all the same", installTransport(engine, "posix_shm", NULL) != NULL);
    segment_id_t target = published(object.name, object.at, BYTES);
    CHECK_EQ("a WRITE", transfer_once(engine, request(OPCODE_WRITE, bytes, target, (uintptr_t)object.at, 64), END_MS), STATUS_COMPLETED);
    object_free(&object);
    destroyTransferEngine(engine);
    fake_stop(fake);
    return harness_finish();
}

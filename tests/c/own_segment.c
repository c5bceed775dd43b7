/* Copies inside the own segment: the right bytes for every size and overlap, and a task that fails, with the process alive,
 * for memory that was registered and is gone. */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "harness.h"

#define PAGE ((size_t)4096)
#define BIG (64 * MIB)
#define END_MS 60000

static transfer_engine_t engine;

/* The task fails with the code and class of a wrong argument, and its text names `side` and `at`. */
static void fails(const char *name, int opcode, unsigned char *from, unsigned char *to, size_t len, const char *side,
                  const unsigned char *at) {
    char expected[64];
    mte_task_error_info_t why;
    transfer_request_t r = opcode == OPCODE_WRITE ? request(opcode, from, LOCAL_SEGMENT, (uintptr_t)to, len)
                                                  : request(opcode, to, LOCAL_SEGMENT, (uintptr_t)from, len);
    batch_id_t batch = batch_open(engine, 1);
    snprintf(expected, sizeof expected, "%s address 0x%llx ", side, (unsigned long long)(uintptr_t)at);
    printf("# %s\n", name);
    CHECK_EQ("the submit is accepted", submitTransfer(engine, batch, &r, 1), 0);
    CHECK_EQ("the task fails", await_task(engine, batch, 0, END_MS), STATUS_FAILED);
    CHECK_EQ("it has a reason", mte_task_error(engine, batch, 0, &why), 0);
    CHECK_EQ("an invalid argument", why.code, ERR_INVALID_ARGUMENT);
    CHECK_EQ("of the caller", why.error_class, MTE_CLASS_ARGUMENT);
    CHECK_EQ("with EFAULT", why.os_errno, EFAULT);
    CHECK(expected, strstr(why.text, expected) != NULL);
    CHECK_EQ("the batch is freed", freeBatchID(engine, batch), 0);
}

/* Memory that is gone faults, and what merely was unmapped may be mapped again by another thread of the process at once:
 * so its place is kept, by a mapping that gives no access. */
static void take_away(unsigned char *from, size_t len) {
    if (mmap(from, len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED) harness_give_up("mmap");
}

static void unmapped(void) {
    static const int opcodes[] = {OPCODE_WRITE, OPCODE_READ};
    static const size_t sizes[] = {1, PAGE, 4 * MIB};
    for (size_t o = 0; o < COUNT(opcodes); o++)
        for (size_t s = 0; s < COUNT(sizes); s++) {
            size_t len = sizes[s];
            unsigned char *gone = registered_bytes(engine, len), *kept = registered_bytes(engine, len);
            take_away(gone, len);
            fails("a source that is not mapped any more", opcodes[o], gone, kept, len, "source", gone);
            fails("a destination that is not mapped any more", opcodes[o], kept, gone, len, "destination", gone);
            CHECK_EQ("what is gone is unregistered", unregisterLocalMemory(engine, gone), 0);
            CHECK_EQ("and what was kept", unregisterLocalMemory(engine, kept), 0);
            munmap(gone, len);
            munmap(kept, len);
        }
}

static void half_unmapped(void) {
    static const int opcodes[] = {OPCODE_WRITE, OPCODE_READ};
    for (size_t o = 0; o < COUNT(opcodes); o++) {
        unsigned char *half = registered_bytes(engine, 4 * MIB), *kept = registered_bytes(engine, 4 * MIB);
        pattern_fill(kept, 4 * MIB, 5);
        take_away(half + 2 * MIB + PAGE, 2 * MIB - PAGE);
        fails("a destination whose end is gone", opcodes[o], kept, half, 4 * MIB, "destination", half + 2 * MIB + PAGE);
        CHECK("whole pieces before it were copied", pattern_matches(half, 2 * MIB, 5));
        fails("a source whose end is gone", opcodes[o], half, kept, 4 * MIB, "source", half + 2 * MIB + PAGE);
        CHECK_EQ("the half that is left still moves", transfer_once(engine, request(OPCODE_WRITE, kept, LOCAL_SEGMENT, (uintptr_t)half, 2 * MIB), END_MS), STATUS_COMPLETED);
        CHECK_EQ("unregistered", unregisterLocalMemory(engine, half), 0);
        CHECK_EQ("unregistered", unregisterLocalMemory(engine, kept), 0);
        munmap(half, 4 * MIB);
        munmap(kept, 4 * MIB);
    }
}

static void read_only(void) {
    unsigned char *fixed = registered_bytes(engine, PAGE), *kept = registered_bytes(engine, PAGE);
    memset(fixed, 0x5a, PAGE);
    if (mprotect(fixed, PAGE, PROT_READ) != 0) harness_give_up("mprotect");
    fails("a destination that is mapped read-only", OPCODE_WRITE, kept, fixed, PAGE, "destination", fixed);
    fails("the same by READ", OPCODE_READ, kept, fixed, PAGE, "destination", fixed);
    fails("onto itself", OPCODE_WRITE, fixed, fixed, PAGE, "destination", fixed);
    CHECK("it keeps its bytes", all_bytes(fixed, PAGE, 0x5a));
    CHECK_EQ("as a source it serves", transfer_once(engine, request(OPCODE_WRITE, fixed, LOCAL_SEGMENT, (uintptr_t)kept, PAGE), END_MS), STATUS_COMPLETED);
    CHECK("with its bytes", all_bytes(kept, PAGE, 0x5a));
    unregisterLocalMemory(engine, fixed);
    unregisterLocalMemory(engine, kept);
    munmap(fixed, PAGE);
    munmap(kept, PAGE);
}

static void overlapping(unsigned char *area, unsigned char *expected) {
    static const size_t distances[] = {0, 1, 4096, 65535, 65536, 300001, MIB, 3 * MIB - 1};
    const size_t len = 3 * MIB;
    int wrong = 0;
    for (size_t d = 0; d < COUNT(distances); d++)
        for (int way = 0; way < 4; way++) {
            size_t from = way & 1 ? distances[d] : 0, to = way & 1 ? 0 : distances[d], all = len + distances[d];
            int opcode = way & 2 ? OPCODE_READ : OPCODE_WRITE;
            transfer_request_t r = opcode == OPCODE_WRITE ? request(opcode, area + from, LOCAL_SEGMENT, (uintptr_t)area + to, len)
                                                          : request(opcode, area + to, LOCAL_SEGMENT, (uintptr_t)area + from, len);
            pattern_fill(area, all, d + 1);
            pattern_fill(expected, all, d + 1);
            memmove(expected + to, expected + from, len);
            wrong += transfer_once(engine, r, END_MS) != STATUS_COMPLETED;
            wrong += memcmp(area, expected, all) != 0;
        }
    CHECK_EQ("overlapping ranges end as after memmove, in both directions", wrong, 0);
}

/* Memory in regions that adjoin, as allocators hand it out piece by piece: a request may cross their borders on either side. */
static void adjoining(unsigned char *expected) {
    enum { REGIONS = 3 };
    const size_t each = MIB + PAGE, whole = REGIONS * each, len = 2 * MIB;
    unsigned char *area = mmap(NULL, whole + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int wrong = 0;
    if (area == MAP_FAILED) harness_give_up("mmap");
    for (size_t r = 0; r < REGIONS; r++) wrong += registerLocalMemory(engine, area + r * each, each, "*", 1) != 0;
    CHECK_EQ("three regions that adjoin are registered", wrong, 0);
    static const size_t distances[] = {1, PAGE, 65537, MIB};
    for (size_t d = 0; d < COUNT(distances); d++)
        for (int way = 0; way < 4; way++) {
            size_t from = way & 1 ? distances[d] : 0, to = way & 1 ? 0 : distances[d];
            int opcode = way & 2 ? OPCODE_READ : OPCODE_WRITE;
            transfer_request_t r = opcode == OPCODE_WRITE ? request(opcode, area + from, LOCAL_SEGMENT, (uintptr_t)area + to, len)
                                                          : request(opcode, area + to, LOCAL_SEGMENT, (uintptr_t)area + from, len);
            pattern_fill(area, whole, d + 1);
            pattern_fill(expected, whole, d + 1);
            memmove(expected + to, expected + from, len);
            wrong += transfer_once(engine, r, END_MS) != STATUS_COMPLETED;
            wrong += memcmp(area, expected, whole) != 0;
        }
    CHECK_EQ("copies across their borders end as after memmove", wrong, 0);
    batch_id_t batch = batch_open(engine, 1);
    transfer_request_t past = request(OPCODE_WRITE, area, LOCAL_SEGMENT, (uintptr_t)area + PAGE, whole);
    CHECK_EQ("one that leaves the last is refused", submitTransfer(engine, batch, &past, 1), ERR_ADDRESS_NOT_REGISTERED);
    CHECK_EQ("the batch is freed", freeBatchID(engine, batch), 0);
    for (size_t r = 0; r < REGIONS; r++) unregisterLocalMemory(engine, area + r * each);
    munmap(area, whole + PAGE);
}

static void sizes(unsigned char *source, unsigned char *sink) {
    static const size_t lengths[] = {1, 2, 7, 8, 63, 4095, 4096, 4097, 65535, 65536, 65537, MIB - 1, MIB, MIB + 1, 16 * MIB + 3, BIG};
    int wrong = 0;
    for (size_t s = 0; s < COUNT(lengths); s++)
        for (int opcode = OPCODE_READ; opcode <= OPCODE_WRITE; opcode++) {
            size_t len = lengths[s];
            transfer_request_t r = opcode == OPCODE_WRITE ? request(opcode, source, LOCAL_SEGMENT, (uintptr_t)sink, len)
                                                          : request(opcode, sink, LOCAL_SEGMENT, (uintptr_t)source, len);
            pattern_fill(source, len, 100 + s * 2 + (size_t)opcode);
            sink[len] = 0xee;
            wrong += transfer_once(engine, r, END_MS) != STATUS_COMPLETED;
            wrong += !pattern_matches(sink, len, 100 + s * 2 + (size_t)opcode) || sink[len] != 0xee;
        }
    CHECK_EQ("every size from 1 byte to 64 MiB moves, and no byte more", wrong, 0);
}

/* What seccomp does in a container: the kernel's copy within the process is refused. */
static void forbidden(unsigned char *source, unsigned char *sink) {
    static struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_process_vm_writev, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = COUNT(code), .filter = code};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) {
        SKIP("where process_vm_writev is forbidden", "no filters for system calls here");
        return;
    }
    errno = 0;
    REQUIRE("the filter works", syscall(SYS_process_vm_writev, getpid(), NULL, 0, NULL, 0, 0) == -1 && errno == EPERM);
    printf("# once more without process_vm_writev\n");
    sizes(source, sink);
    overlapping(source, sink);
    unmapped();
    half_unmapped();
    read_only();
}

int main(void) {
    harness_begin();
    engine = engine_open();
    unsigned char *source = registered_bytes(engine, BIG + PAGE), *sink = registered_bytes(engine, BIG + PAGE);
    unmapped();
    half_unmapped();
    read_only();
    sizes(source, sink);
    overlapping(source, sink);
    adjoining(sink);
    forbidden(source, sink);
    destroyTransferEngine(engine);
    return harness_finish();
}

/* A peer that offers memory and obeys: one command per line of standard input, one line of reply each.
 *
 *     passive [--protocol=rdma] [--device_name=rxe1] [--bytes=16777216] [--port=0]
 *
 * Buffer 0 is there from the start. Buffer I always lies at the same address, also after a restart:
 *     add LENGTH REMOTE [1]       registers a new buffer (REMOTE 0: local use only); 1: right behind the one before
 *     remove I, restore I         unregisters it, registers the same memory again
 *     fill I OFFSET LENGTH SEED   and check I OFFSET LENGTH SEED: a pattern ("yes" or "no")
 *     set I OFFSET LENGTH BYTE    and is I OFFSET LENGTH BYTE: one value throughout
 *     sum I OFFSET LENGTH         FNV-1a in hex
 *     show I OFFSET LENGTH        the first bytes in hex
 *     notes                       "<name>=<message>" of all notifications, blank-separated
 *     counts                      "fds=N threads=N" of this process
 *     quit                        destroys the engine and exits
 */
#include <dirent.h>
#include <inttypes.h>

#include "rig.h"

#define MAX_BUFFERS 64
#define BASE UINT64_C(0x200000000000)
#define STRIDE (UINT64_C(1) << 32)

static transfer_engine_t engine;
static struct buffer {
    unsigned char *bytes;
    size_t len;
    int remote;
} buffers[MAX_BUFFERS];
static size_t buffer_count;

static void reply_error(const char *what) {
    char text[512] = "";
    int code = mte_last_error(text, sizeof text);
    printf("error %s: %d %s\n", what, code, text);
}

static int add(size_t len, int remote, bool adjacent) {
    struct buffer *b = &buffers[buffer_count];
    void *at = (void *)(uintptr_t)(BASE + buffer_count * STRIDE);
    if (adjacent && buffer_count > 0) at = b[-1].bytes + b[-1].len;
    b->bytes = mmap(at, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    if (b->bytes == MAP_FAILED) return -1;
    b->len = len, b->remote = remote;
    memset(b->bytes, 0, len);
    buffer_count++;
    return registerLocalMemory(engine, b->bytes, len, "cpu:0", remote);
}

static size_t open_files(void) {
    size_t count = 0;
    DIR *folder = opendir("/proc/self/fd");
    while (folder != NULL && readdir(folder) != NULL) count++;
    if (folder != NULL) closedir(folder);
    return count - 3; /* ".", ".." and the folder itself */
}

static void say_notes(void) {
    int count = 0;
    notify_msg_t *notes = getNotifsFromEngine(engine, &count);
    printf("notes");
    for (int i = 0; i < count; i++) printf(" %s=%s", notes[i].name, notes[i].msg);
    putchar('\n');
    freeNotifsMsgBuf(notes, count);
}

/* Commands on a range of a buffer; false when it is none of them. */
static bool obey_range(const char *verb, struct buffer *b, size_t offset, size_t len, uint64_t value) {
    if (strcmp(verb, "fill") == 0) pattern_fill(b->bytes + offset, len, value), puts("ok");
    else if (strcmp(verb, "check") == 0) puts(pattern_matches(b->bytes + offset, len, value) ? "yes" : "no");
    else if (strcmp(verb, "set") == 0) memset(b->bytes + offset, (int)value, len), puts("ok");
    else if (strcmp(verb, "is") == 0) puts(all_bytes(b->bytes + offset, len, (unsigned char)value) ? "yes" : "no");
    else if (strcmp(verb, "sum") == 0) printf("%016" PRIx64 "\n", fnv1a(FNV_START, b->bytes + offset, len));
    else if (strcmp(verb, "show") == 0) {
        for (size_t i = 0; i < len && i < 64; i++) printf("%02x", b->bytes[offset + i]);
        putchar('\n');
    } else return false;
    return true;
}

static void obey(const char *line) {
    char verb[16] = "";
    uint64_t n[4] = {0};
    int read = sscanf(line, "%15s %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNi64, verb, &n[0], &n[1], &n[2], (int64_t *)&n[3]);
    struct buffer *b = read >= 2 && n[0] < buffer_count ? &buffers[n[0]] : NULL;
    if (strcmp(verb, "add") == 0 && read >= 3 && buffer_count < MAX_BUFFERS) {
        if (add(n[0], (int)n[1], read > 3) != 0) reply_error("add");
        else printf("ok %zu %" PRIu64 "\n", buffer_count - 1, (uint64_t)(uintptr_t)buffers[buffer_count - 1].bytes);
    } else if (strcmp(verb, "notes") == 0) say_notes();
    else if (strcmp(verb, "counts") == 0) printf("fds=%zu threads=%zu\n", open_files(), lasting_thread_count());
    else if (b == NULL) printf("error no such buffer or command: %s\n", verb);
    else if (strcmp(verb, "remove") == 0) {
        if (unregisterLocalMemory(engine, b->bytes) != 0) reply_error("remove");
        else puts("ok");
    } else if (strcmp(verb, "restore") == 0) {
        if (registerLocalMemory(engine, b->bytes, b->len, "cpu:0", b->remote) != 0) reply_error("restore");
        else puts("ok");
    } else if (read < 4 || n[1] > b->len || n[2] > b->len - n[1]) printf("error bad range: %s\n", verb);
    else if (!obey_range(verb, b, n[1], n[2], n[3])) printf("error unknown command: %s\n", verb);
}

int main(int argc, char **argv) {
    const char *protocol = "rdma", *devices = "rxe1", *value;
    size_t bytes = DEFAULT_BYTES;
    char name[128], line[256];
    for (int i = 1; i < argc; i++) {
        if ((value = flag(argv[i], "protocol")) != NULL) protocol = value;
        else if ((value = flag(argv[i], "device_name")) != NULL) devices = value;
        else if ((value = flag(argv[i], "bytes")) != NULL) bytes = strtoull(value, NULL, 10);
        else if ((value = flag(argv[i], "port")) != NULL && strcmp(value, "0") != 0) {
            setenv("MC_MIN_RPC_PORT", value, 1);
            setenv("MC_MAX_RPC_PORT", value, 1);
        } else if (value != NULL) continue;
        else usage_error(argv[0], argv[i]);
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    engine = rig_engine(protocol, devices);
    if (add(bytes, 1, false) != 0) harness_give_up("register the first buffer");
    engine_name(engine, name, sizeof name);
    printf("LISTENING %s\n", name);
    while (fgets(line, sizeof line, stdin) != NULL && strncmp(line, "quit", 4) != 0) obey(line);
    destroyTransferEngine(engine);
    puts("bye");
    return 0;
}

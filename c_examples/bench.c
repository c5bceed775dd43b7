/* Throughput and latency between two engines; flags and report line are those of upstream's
 * transfer_engine_bench.
 *
 *     ./bench --mode=target --metadata_server=P2PHANDSHAKE --local_server_name=127.0.0.1 --protocol=tcp
 *     ./bench --mode=initiator ... --segment_id=<name that the target printed> --operation=write
 */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "transfer_engine_c.h"
#include "transfer_engine_ext.h"

#define BYTES_NOTE "bench_bytes"

/* ---- flags ---- */

static const char *mode = "initiator", *metadata_server = "192.168.3.77:2379", *protocol = "rdma";
static const char *local_server_name, *segment_id = "192.168.3.76", *operation = "read", *report_unit = "GB";
static const char *device_name = "mlx5_2", *nic_priority_matrix = "", *backend = "classic", *wait_for = "poll";
static const char *memory = "private";
static uint64_t block_size = 65536, batch_size = 128, threads = 12, duration = 10, buffer_size = UINT64_C(1) << 30;
static uint64_t report_precision = 2;
static bool auto_discovery, report_cpu;

enum kind { TEXT, NUMBER, SWITCH };

static const struct flag {
    const char *name;
    enum kind kind;
    void *value;
    const char *help;
} flags[] = {
    {"mode", TEXT, &mode, "initiator or target"},
    {"metadata_server", TEXT, &metadata_server, "P2PHANDSHAKE, or the address of a metadata store"},
    {"local_server_name", TEXT, &local_server_name, "name or address under which others reach this process"},
    {"protocol", TEXT, &protocol, "rdma, tcp, or shm within one host"},
    {"memory", TEXT, &memory, "private, or shared: then shm copies straight into the peer's"},
    {"device_name", TEXT, &device_name, "rdma: comma-separated NICs"},
    {"nic_priority_matrix", TEXT, &nic_priority_matrix, "rdma: file with a NIC priority matrix, instead of device_name"},
    {"auto_discovery", SWITCH, &auto_discovery, "let the engine choose the transport"},
    {"segment_id", TEXT, &segment_id, "initiator: name of the target, or self: from one half of the buffer to the other"},
    {"operation", TEXT, &operation, "read or write"},
    {"block_size", NUMBER, &block_size, "bytes of one request"},
    {"batch_size", NUMBER, &batch_size, "requests of one batch"},
    {"threads", NUMBER, &threads, "submitting threads"},
    {"duration", NUMBER, &duration, "seconds"},
    {"buffer_size", NUMBER, &buffer_size, "bytes of the buffer, on both sides"},
    {"report_unit", TEXT, &report_unit, "GB|GiB|Gb|MB|MiB|Mb|KB|KiB|Kb"},
    {"report_precision", NUMBER, &report_precision, "digits after the point"},
    {"backend", TEXT, &backend, "classic"},
    {"wait", TEXT, &wait_for, "poll (every task in a loop) or sleep (mte_wait_batch)"},
    {"report_cpu", SWITCH, &report_cpu, "print CPU seconds per GB; on a target, give it to the initiator too"},
};
#define FLAGS (sizeof flags / sizeof flags[0])

static void usage(FILE *out, const char *program) {
    fprintf(out, "usage: %s [--flag=value | --flag value]...\n", program);
    for (size_t i = 0; i < FLAGS; i++) {
        fprintf(out, "  --%-20s %s", flags[i].name, flags[i].help);
        if (flags[i].kind == TEXT) fprintf(out, " [%s]\n", *(const char **)flags[i].value);
        else if (flags[i].kind == NUMBER) fprintf(out, " [%" PRIu64 "]\n", *(uint64_t *)flags[i].value);
        else fprintf(out, " [%s]\n", *(bool *)flags[i].value ? "true" : "false");
    }
}

static void refuse(const char *program, const char *what, const char *which) {
    fprintf(stderr, "%s: %s\n", what, which);
    usage(stderr, program);
    exit(2);
}

static bool one_of(const char *word, const char *list) {
    size_t len = strlen(word);
    for (const char *at = list; len > 0 && (at = strstr(at, word)) != NULL; at += len)
        if ((at == list || at[-1] == '|') && (at[len] == '|' || at[len] == '\0')) return true;
    return false;
}

static bool set_flag(const struct flag *flag, const char *value) {
    char *end;
    if (flag->kind == TEXT) *(const char **)flag->value = value;
    else if (flag->kind == SWITCH) {
        bool on = one_of(value, "true|t|yes|y|1");
        if (!on && !one_of(value, "false|f|no|n|0")) return false;
        *(bool *)flag->value = on;
    } else {
        errno = 0;
        uint64_t n = strtoull(value, &end, 10);
        if (value[0] < '0' || value[0] > '9' || *end != '\0' || errno != 0) return false;
        *(uint64_t *)flag->value = n;
    }
    return true;
}

static const struct flag *find_flag(const char *name, size_t len) {
    for (size_t i = 0; i < FLAGS; i++)
        if (strlen(flags[i].name) == len && strncmp(flags[i].name, name, len) == 0) return &flags[i];
    return NULL;
}

static void parse_flags(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        const char *name = argv[i];
        if (name[0] != '-') refuse(argv[0], "not a flag", argv[i]);
        name += name[1] == '-' ? 2 : 1;
        if (strcmp(name, "help") == 0 || strcmp(name, "h") == 0) {
            usage(stdout, argv[0]);
            exit(0);
        }
        const char *equals = strchr(name, '=');
        size_t len = equals != NULL ? (size_t)(equals - name) : strlen(name);
        const struct flag *flag = find_flag(name, len);
        const char *value = equals != NULL ? equals + 1 : NULL;
        if (flag == NULL && equals == NULL && strncmp(name, "no", 2) == 0 && (flag = find_flag(name + 2, len - 2)) != NULL) {
            if (flag->kind != SWITCH) flag = NULL;
            value = "false";
        }
        if (flag == NULL) refuse(argv[0], "unknown flag", argv[i]);
        if (value == NULL && flag->kind == SWITCH) value = "true";
        if (value == NULL && i + 1 < argc) value = argv[++i];
        if (value == NULL || !set_flag(flag, value)) refuse(argv[0], "missing or bad value of flag", flag->name);
    }
    if (!one_of(mode, "initiator|target")) refuse(argv[0], "--mode is initiator or target, not", mode);
    if (!one_of(operation, "read|write")) refuse(argv[0], "--operation is read or write, not", operation);
    if (!one_of(wait_for, "poll|sleep")) refuse(argv[0], "--wait is poll or sleep, not", wait_for);
    if (!one_of(memory, "private|shared")) refuse(argv[0], "--memory is private or shared, not", memory);
    if (!one_of(backend, "classic")) refuse(argv[0], "--backend is classic, not", backend);
    if (!one_of(report_unit, "GB|GiB|Gb|MB|MiB|Mb|KB|KiB|Kb")) {
        fprintf(stderr, "Unknown report unit %s, using GB.\n", report_unit);
        report_unit = "GB";
    }
    if (block_size == 0 || batch_size == 0 || threads == 0 || duration == 0 || buffer_size == 0)
        refuse(argv[0], "must not be 0", "block_size, batch_size, threads, duration, buffer_size");
    if (report_precision > 9) report_precision = 9;
}

/* ---- helpers ---- */

static void give_up(const char *what) {
    char why[512] = "";
    int code = mte_last_error(why, sizeof why);
    fprintf(stderr, "Could not %s: error %d, %s.\n", what, code, why[0] != '\0' ? why : mte_strerror(code));
    exit(1);
}

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static double cpu_seconds(void) {
    struct rusage use;
    getrusage(RUSAGE_SELF, &use);
    return (double)(use.ru_utime.tv_sec + use.ru_stime.tv_sec) + (double)(use.ru_utime.tv_usec + use.ru_stime.tv_usec) / 1e6;
}

static double unit_bytes(void) {
    double size = strncmp(report_unit, "G", 1) == 0 ? 1e9 : strncmp(report_unit, "M", 1) == 0 ? 1e6 : 1e3;
    if (strchr(report_unit, 'i') != NULL)
        size = size == 1e9 ? 1073741824.0 : size == 1e6 ? 1048576.0 : 1024.0;
    return strchr(report_unit, 'b') != NULL ? size / 8 : size;
}

static void print_cpu(double cpu, uint64_t bytes) {
    if (bytes == 0) printf("CPU: %.2f s, no bytes known\n", cpu);
    else printf("CPU: %.2f s, %.3f s per GB\n", cpu, cpu / ((double)bytes / 1e9));
}

static char *read_file(const char *path) {
    char *text = calloc(1, 65536);
    FILE *file = fopen(path, "r");
    if (file == NULL || text == NULL || fread(text, 1, 65535, file) == 0) {
        fprintf(stderr, "Could not read %s.\n", path);
        exit(1);
    }
    fclose(file);
    return text;
}

/* Every location prefers all the NICs of --device_name. */
static char *matrix_of_devices(void) {
    char names[1024] = "", *text = calloc(1, 4096), *list = strdup(device_name), *rest = NULL;
    if (text == NULL || list == NULL) give_up("allocate memory");
    for (char *name = strtok_r(list, ", ", &rest); name != NULL; name = strtok_r(NULL, ", ", &rest)) {
        size_t used = strlen(names);
        snprintf(names + used, sizeof names - used, "%s\"%s\"", used == 0 ? "" : ",", name);
    }
    snprintf(text, 4096, "{\"cpu:0\":[[%s],[]],\"cpu:1\":[[%s],[]],\"cuda:0\":[[%s],[]]}", names, names, names);
    free(list);
    return text;
}

static transfer_engine_t start_engine(void) {
    transfer_engine_t engine = createTransferEngine(metadata_server, local_server_name, local_server_name, 0, auto_discovery);
    if (engine == NULL) give_up("create an engine");
    if (auto_discovery) return engine;
    if (strcmp(protocol, "rdma") == 0) {
        char *matrix = nic_priority_matrix[0] != '\0' ? read_file(nic_priority_matrix) : matrix_of_devices();
        void *args[2] = {matrix, NULL};
        if (installTransport(engine, protocol, args) == NULL) give_up("install the transport");
        free(matrix);
    } else if (installTransport(engine, protocol, NULL) == NULL) give_up("install the transport");
    return engine;
}

static unsigned char *start_buffer(transfer_engine_t engine) {
    void *at = NULL;
    if (memory[0] == 's') {
        if (mte_allocate_shared(engine, buffer_size, 0, -1, &at) != 0) give_up("allocate shared memory");
    } else if ((at = mmap(NULL, buffer_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) == MAP_FAILED) {
        perror("Could not allocate the buffer");
        exit(1);
    }
    unsigned char *buffer = at;
    memset(buffer, 0xcc, buffer_size);
    if (registerLocalMemory(engine, buffer, buffer_size, "cpu:0", 1) != 0) give_up("register the buffer");
    return buffer;
}

static void end(transfer_engine_t engine, unsigned char *buffer) {
    unregisterLocalMemory(engine, buffer);
    if (memory[0] == 's') mte_free_shared(engine, buffer);
    destroyTransferEngine(engine);
    if (memory[0] != 's') munmap(buffer, buffer_size);
}

/* ---- latency ---- */

#define SUB_BITS 5
#define SUB (1u << SUB_BITS)
#define BUCKETS ((64 - SUB_BITS + 1) * SUB)

/* Log scale: each power of two of nanoseconds has 32 buckets, so a value is known to 3 %. */
struct histogram {
    uint64_t counts[BUCKETS];
    uint64_t total, max;
};

static void record(struct histogram *h, uint64_t ns) {
    unsigned top = 63u - (unsigned)__builtin_clzll(ns | SUB), shift = top - SUB_BITS;
    h->counts[(size_t)shift * SUB + (ns >> shift)]++;
    h->total++;
    if (ns > h->max) h->max = ns;
}

static double percentile_us(const struct histogram *h, double part) {
    uint64_t rank = (uint64_t)((double)h->total * part), seen = 0;
    for (size_t i = 0; i < BUCKETS; i++) {
        seen += h->counts[i];
        if (seen <= rank) continue;
        size_t shift = i < 2 * SUB ? 0 : i / SUB - 1;
        return (double)((uint64_t)(i - shift * SUB) << shift) / 1e3;
    }
    return (double)h->max / 1e3;
}

/* ---- initiator ---- */

struct worker {
    pthread_t thread;
    uint64_t index;
    unsigned char *buffer;
    transfer_request_t *requests;
    _Atomic uint64_t batches; /* written by the worker, read by the progress line */
    struct histogram latency;
};

static transfer_engine_t engine;
static segment_id_t target;
static uint64_t remote_base;
static atomic_bool stop;

static void stop_on_failure(batch_id_t batch, size_t task) {
    mte_task_error_info_t why;
    if (mte_task_error(engine, batch, task, &why) == 0)
        fprintf(stderr, "Task %zu FAILED: error %d, class %d, peer %s, %s.\n", task, why.code, why.error_class, why.peer, why.text);
    else
        fprintf(stderr, "Task %zu FAILED.\n", task);
    exit(1);
}

static void await_tasks(batch_id_t batch) {
    if (wait_for[0] == 's' && mte_wait_batch(engine, batch, -1) != 0) give_up("wait for a batch");
    for (size_t task = 0; task < batch_size; task++) {
        transfer_status_t status;
        do {
            if (getTransferStatus(engine, batch, task, &status) != 0) give_up("get the status of a task");
        } while (status.status == STATUS_WAITING || status.status == STATUS_PENDING);
        if (status.status != STATUS_COMPLETED) stop_on_failure(batch, task);
    }
}

static void *work(void *arg) {
    struct worker *w = arg;
    int opcode = operation[0] == 'r' ? OPCODE_READ : OPCODE_WRITE;
    for (uint64_t i = 0; i < batch_size; i++) {
        uint64_t offset = block_size * (i * threads + w->index);
        w->requests[i] = (transfer_request_t){.opcode = opcode, .source = w->buffer + offset, .target_id = target,
                                              .target_offset = remote_base + offset, .length = block_size};
    }
    while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
        batch_id_t batch = allocateBatchID(engine, batch_size);
        if (batch == INVALID_BATCH) give_up("allocate a batch");
        uint64_t start = now_ns();
        if (submitTransfer(engine, batch, w->requests, batch_size) != 0) give_up("submit a batch");
        await_tasks(batch);
        record(&w->latency, now_ns() - start);
        if (freeBatchID(engine, batch) != 0) give_up("free a batch");
        atomic_fetch_add_explicit(&w->batches, 1, memory_order_relaxed);
    }
    return NULL;
}

static uint64_t batches_so_far(struct worker *workers) {
    uint64_t sum = 0;
    for (uint64_t t = 0; t < threads; t++) sum += atomic_load_explicit(&workers[t].batches, memory_order_relaxed);
    return sum;
}

static void run_out_the_time(struct worker *workers, uint64_t start) {
    bool terminal = isatty(STDERR_FILENO);
    uint64_t before = 0;
    for (uint64_t second = 1; second <= duration; second++) {
        uint64_t next = start + second * 1000000000u;
        struct timespec until = {(time_t)(next / 1000000000u), (long)(next % 1000000000u)};
        while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR) continue;
        uint64_t now = batches_so_far(workers);
        if (terminal)
            fprintf(stderr, "\r%3" PRIu64 " s  %.*f %s/s   ", second, (int)report_precision,
                    (double)(now - before) * (double)(batch_size * block_size) / unit_bytes(), report_unit);
        before = now;
    }
    if (terminal) fprintf(stderr, "\n");
}

static void report(struct worker *workers, double took, double cpu) {
    static struct histogram all;
    uint64_t batches = batches_so_far(workers), bytes = batches * batch_size * block_size;
    for (uint64_t t = 0; t < threads; t++) {
        const struct histogram *h = &workers[t].latency;
        for (size_t i = 0; i < BUCKETS; i++) all.counts[i] += h->counts[i];
        all.total += h->total;
        if (h->max > all.max) all.max = h->max;
    }
    printf("Test completed: duration %.2f, batch count %" PRIu64 ", throughput %.*f %s/s\n", took, batches,
           (int)report_precision, (double)bytes / took / unit_bytes(), report_unit);
    printf("Batch latency in us: p50 %.1f, p90 %.1f, p99 %.1f, p99.9 %.1f, max %.1f\n", percentile_us(&all, 0.5),
           percentile_us(&all, 0.9), percentile_us(&all, 0.99), percentile_us(&all, 0.999), (double)all.max / 1e3);
    if (report_cpu) print_cpu(cpu, bytes);
    fflush(stdout);
    if (!report_cpu) return;
    char name[] = BYTES_NOTE, text[32];
    snprintf(text, sizeof text, "%" PRIu64, bytes);
    genNotifyInEngine(engine, (uint64_t)target, (notify_msg_t){.name = name, .msg = text});
}

static void check_sizes(void) {
    uint64_t need;
    if (__builtin_mul_overflow(block_size, batch_size, &need) || __builtin_mul_overflow(need, threads, &need) || need > buffer_size) {
        fprintf(stderr, "block_size * batch_size * threads = %" PRIu64 " * %" PRIu64 " * %" PRIu64
                " is more than buffer_size = %" PRIu64 ". Raise --buffer_size on both sides, or lower one of the others.\n",
                block_size, batch_size, threads, buffer_size);
        exit(2);
    }
}

static void find_remote_buffer(unsigned char *own) {
    mte_buffer_t buffer;
    size_t count = 1;
    if (strcmp(segment_id, "self") == 0) {
        if (block_size * batch_size * threads > buffer_size / 2) {
            fprintf(stderr, "Half of the buffer is the target: raise --buffer_size.\n");
            exit(2);
        }
        target = 0; /* the engine's own segment */
        remote_base = (uint64_t)(uintptr_t)own + buffer_size / 2;
        return;
    }
    target = openSegment(engine, segment_id);
    if (target < 0) give_up("open the segment");
    if (mte_segment_buffers(engine, target, &buffer, &count) != 0) give_up("list the target's buffers");
    if (count == 0 || buffer.length < block_size * batch_size * threads) {
        fprintf(stderr, "The target's first buffer has %" PRIu64 " bytes, and %" PRIu64 " are needed.\n",
                count == 0 ? 0 : buffer.length, block_size * batch_size * threads);
        exit(1);
    }
    remote_base = buffer.addr;
}

static int initiate(void) {
    check_sizes();
    engine = start_engine();
    unsigned char *buffer = start_buffer(engine);
    find_remote_buffer(buffer);
    struct worker *workers = calloc(threads, sizeof *workers);
    if (workers == NULL) give_up("allocate the workers");
    double cpu = cpu_seconds();
    uint64_t start = now_ns();
    for (uint64_t t = 0; t < threads; t++) {
        workers[t].index = t;
        workers[t].buffer = buffer;
        workers[t].requests = calloc(batch_size, sizeof *workers[t].requests);
        if (workers[t].requests == NULL || pthread_create(&workers[t].thread, NULL, work, &workers[t]) != 0) give_up("start a worker");
    }
    run_out_the_time(workers, start);
    atomic_store(&stop, true);
    for (uint64_t t = 0; t < threads; t++) pthread_join(workers[t].thread, NULL);
    report(workers, (double)(now_ns() - start) / 1e9, cpu_seconds() - cpu);
    for (uint64_t t = 0; t < threads; t++) free(workers[t].requests);
    free(workers);
    end(engine, buffer);
    return 0;
}

/* ---- target ---- */

static uint64_t bytes_reported(void) {
    uint64_t sum = 0;
    int count = 0;
    notify_msg_t *notes = getNotifsFromEngine(engine, &count);
    for (int i = 0; i < count; i++)
        if (strcmp(notes[i].name, BYTES_NOTE) == 0) sum += strtoull(notes[i].msg, NULL, 10);
    freeNotifsMsgBuf(notes, count);
    return sum;
}

static int serve(void) {
    char name[256];
    uint64_t bytes = 0;
    sigset_t ends;
    struct timespec second = {.tv_sec = 1};
    sigemptyset(&ends);
    sigaddset(&ends, SIGINT);
    sigaddset(&ends, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &ends, NULL);
    engine = start_engine();
    unsigned char *buffer = start_buffer(engine);
    if (strcmp(metadata_server, "P2PHANDSHAKE") != 0) snprintf(name, sizeof name, "%s", local_server_name);
    else if (getLocalIpAndPort(engine, name, sizeof name) != 0) give_up("learn my own name");
    printf("LISTENING %s\n", name);
    fflush(stdout);
    double cpu = cpu_seconds();
    while (sigtimedwait(&ends, NULL, &second) < 0)
        if (report_cpu) bytes += bytes_reported();
    if (report_cpu) print_cpu(cpu_seconds() - cpu, bytes + bytes_reported());
    end(engine, buffer);
    return 0;
}

int main(int argc, char **argv) {
    static char host[256] = "localhost";
    gethostname(host, sizeof host - 1);
    local_server_name = host;
    parse_flags(argc, argv);
    return strcmp(mode, "target") == 0 ? serve() : initiate();
}

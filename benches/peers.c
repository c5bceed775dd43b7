/* One engine that writes to many others at once, all in this process, over the simulated NIC sim0. Each peer has a batch of its own
 * under way all the time. Prints GB/s of all together, CPU seconds per GB, and the batches of the peer with the fewest and of the
 * one with the most.
 *
 *     peers PEERS BLOCK BATCH SECONDS */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#include "transfer_engine_c.h"
#include "transfer_engine_ext.h"

#define MOST_PEERS 64
#define MOST_REQUESTS 4096

struct peer {
    segment_id_t segment;
    uint64_t base;
    batch_id_t batch;
    size_t done;
};

static void give_up(const char *what) {
    char why[512] = "";
    int code = mte_last_error(why, sizeof why);
    fprintf(stderr, "peers: could not %s: error %d, %s\n", what, code, why);
    exit(1);
}

static double seconds(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static transfer_engine_t start(void) {
    static char matrix[] = "{\"cpu:0\":[[\"sim0\"],[]]}";
    void *nics[] = {matrix, NULL};
    transfer_engine_t engine = createTransferEngine("P2PHANDSHAKE", "127.0.0.1", "", 0, 0);
    if (engine == NULL || installTransport(engine, "rdma", nics) == NULL) give_up("make an engine");
    return engine;
}

static unsigned char *registered(transfer_engine_t engine, size_t len) {
    unsigned char *memory = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED || registerLocalMemory(engine, memory, len, "cpu:0", 1) != 0) give_up("register memory");
    return memory;
}

static bool has_ended(transfer_engine_t engine, batch_id_t batch, size_t count) {
    for (size_t task = 0; task < count; task++) {
        transfer_status_t status;
        if (getTransferStatus(engine, batch, task, &status) != 0) give_up("ask for a status");
        if (status.status == STATUS_WAITING || status.status == STATUS_PENDING) return false;
        if (status.status != STATUS_COMPLETED) give_up("complete a task");
    }
    return true;
}

int main(int argc, char **argv) {
    static transfer_request_t requests[MOST_REQUESTS];
    static struct peer peers[MOST_PEERS];
    if (argc != 5) return 2;
    size_t count = strtoull(argv[1], NULL, 10), block = strtoull(argv[2], NULL, 10), batch = strtoull(argv[3], NULL, 10);
    double duration = atof(argv[4]);
    if (count == 0 || count > MOST_PEERS || batch == 0 || batch > MOST_REQUESTS || block == 0) return 2;
    size_t len = block * batch;
    transfer_engine_t engine = start();
    unsigned char *memory = registered(engine, len);
    for (size_t i = 0; i < count; i++) {
        char name[256];
        transfer_engine_t other = start();
        peers[i].base = (uint64_t)(uintptr_t)registered(other, len);
        if (getLocalIpAndPort(other, name, sizeof name) != 0) give_up("ask for a name");
        peers[i].segment = openSegment(engine, name);
        if (peers[i].segment < 0) give_up("open a segment");
    }
    size_t batches = 0, least = SIZE_MAX, most = 0;
    double began = 0, used = 0, end = 0;
    /* In the first round connections are made. */
    for (int round = 0; round < 2; round++) {
        began = seconds(CLOCK_MONOTONIC);
        used = seconds(CLOCK_PROCESS_CPUTIME_ID);
        end = began + (round == 0 ? 0.2 : duration);
        batches = 0;
        for (size_t i = 0; i < count; i++) peers[i] = (struct peer){peers[i].segment, peers[i].base, INVALID_BATCH, 0};
        for (bool running = true; running;) {
            running = false;
            for (struct peer *peer = peers; peer < peers + count; peer++) {
                if (peer->batch != INVALID_BATCH) {
                    running = true;
                    if (!has_ended(engine, peer->batch, batch)) continue;
                    freeBatchID(engine, peer->batch);
                    peer->batch = INVALID_BATCH;
                    peer->done++;
                    batches++;
                }
                if (seconds(CLOCK_MONOTONIC) >= end) continue;
                for (size_t i = 0; i < batch; i++)
                    requests[i] = (transfer_request_t){.opcode = OPCODE_WRITE, .source = memory + i * block, .target_id = peer->segment,
                                                       .target_offset = peer->base + i * block, .length = block};
                peer->batch = allocateBatchID(engine, batch);
                if (peer->batch == INVALID_BATCH || submitTransfer(engine, peer->batch, requests, batch) != 0) give_up("submit");
                running = true;
            }
        }
    }
    double gigabytes = (double)batches * (double)len / 1e9;
    for (size_t i = 0; i < count; i++) {
        if (peers[i].done < least) least = peers[i].done;
        if (peers[i].done > most) most = peers[i].done;
    }
    printf("%.3f %.5f %zu %zu\n", gigabytes / (seconds(CLOCK_MONOTONIC) - began), (seconds(CLOCK_PROCESS_CPUTIME_ID) - used) / gigabytes, least, most);
    return 0;
}

/* The active side: writes into the target's buffer, reads it back, and checks both.
 *
 *     ./initiator <name that the target printed> [--host 127.0.0.1] [--bytes 16777216] [--protocol rdma --device_name mlx5_0,mlx5_1]
 */
#include <inttypes.h>
#include <poll.h>

#include "example.h"

#define REQUESTS 16
#define ANSWER_SECONDS 10.0

static transfer_engine_t engine;

static void print_task_error(batch_id_t batch, size_t task) {
    mte_task_error_info_t why;
    if (mte_task_error(engine, batch, task, &why) == 0)
        fprintf(stderr, "Request %zu failed: error %d with peer %s, %s. Trying again %s help.\n", task, why.code, why.peer,
                why.text, why.retryable ? "may" : "will not");
}

/* Moves `len` bytes as one batch of several requests, and returns when all of them are done. */
static void move_bytes(int opcode, unsigned char *local, segment_id_t target, uint64_t remote, size_t len) {
    transfer_request_t requests[REQUESTS];
    size_t count = 0, failed = 0, piece = (len + REQUESTS - 1) / REQUESTS;
    for (size_t at = 0; at < len; at += piece, count++)
        requests[count] = (transfer_request_t){.opcode = opcode, .source = local + at, .target_id = target,
                                               .target_offset = remote + at, .length = len - at < piece ? len - at : piece};

    double start = seconds();
    batch_id_t batch = allocateBatchID(engine, count);
    if (batch == INVALID_BATCH) give_up("allocate a batch");
    if (submitTransfer(engine, batch, requests, count) != 0) give_up("submit the batch");
    if (mte_wait_batch(engine, batch, -1) != 0) give_up("wait for the batch");
    double took = seconds() - start;

    for (size_t task = 0; task < count; task++) {
        transfer_status_t status;
        if (getTransferStatus(engine, batch, task, &status) != 0) give_up("ask for the status of a request");
        if (status.status == STATUS_COMPLETED) continue;
        print_task_error(batch, task);
        failed++;
    }
    if (freeBatchID(engine, batch) != 0) give_up("free the batch");
    if (failed != 0) exit(1);
    printf("  %zu bytes in %zu requests took %.3f ms: %.2f GB/s.\n", len, count, took * 1e3, (double)len / took / 1e9);
}

static void tell(segment_id_t target, const char *name, const char *message) {
    char name_copy[32], message_copy[64];
    snprintf(name_copy, sizeof name_copy, "%s", name);
    snprintf(message_copy, sizeof message_copy, "%s", message);
    notify_msg_t note = {.name = name_copy, .msg = message_copy};
    if (genNotifyInEngine(engine, (uint64_t)target, note) != 0) give_up("notify the target");
}

static uint64_t first_remote_buffer(segment_id_t target, size_t len) {
    mte_buffer_t buffer;
    size_t count = 1;
    if (mte_segment_buffers(engine, target, &buffer, &count) != 0) give_up("list the target's buffers");
    if (count == 0) {
        fprintf(stderr, "The target offers no buffer.\n");
        exit(1);
    }
    if (buffer.length < len) {
        fprintf(stderr, "The target's buffer has %" PRIu64 " bytes, fewer than the %zu to move. Use --bytes.\n", buffer.length, len);
        exit(1);
    }
    printf("The target offers %" PRIu64 " bytes at its address 0x%" PRIx64 ".\n", buffer.length, buffer.addr);
    return buffer.addr;
}

int main(int argc, char **argv) {
    const char *segment = NULL, *host = "127.0.0.1", *protocol = "tcp", *devices = NULL, *value;
    size_t len = (size_t)16 << 20;
    char message[64];
    for (int i = 1; i < argc; i++) {
        if ((value = option(argc, argv, &i, "--bytes")) != NULL) len = bytes_from(value);
        else if ((value = option(argc, argv, &i, "--host")) != NULL) host = value;
        else if ((value = option(argc, argv, &i, "--protocol")) != NULL) protocol = value;
        else if ((value = option(argc, argv, &i, "--device_name")) != NULL) devices = value;
        else if (argv[i][0] != '-' && segment == NULL) segment = argv[i];
        else segment = NULL, i = argc;
    }
    if (segment == NULL) {
        fprintf(stderr, "usage: %s <segment> [--host ADDRESS] [--bytes N] [--protocol tcp|rdma] [--device_name NIC,NIC]\n", argv[0]);
        return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);

    engine = start_engine(host, protocol, devices);
    unsigned char *out = register_buffer(engine, len);
    unsigned char *back = register_buffer(engine, len);
    segment_id_t target = openSegment(engine, segment);
    if (target < 0) give_up("open the segment");
    printf("Connected to %s.\n", segment);
    uint64_t remote = first_remote_buffer(target, len);

    fill(out, len, PATTERN_OF_INITIATOR);
    uint64_t sent = checksum(out, len);
    printf("I write a pattern with checksum %016" PRIx64 " into the target's memory.\n", sent);
    move_bytes(OPCODE_WRITE, out, target, remote, len);
    printf("I read it back into another buffer.\n");
    move_bytes(OPCODE_READ, back, target, remote, len);
    if (checksum(back, len) != sent) {
        fprintf(stderr, "What came back has checksum %016" PRIx64 ".\n", checksum(back, len));
        return 1;
    }
    printf("What came back has the same checksum.\n");

    printf("I tell the target. It will check its memory and put bytes of its own there.\n");
    snprintf(message, sizeof message, "%zu %016" PRIx64, len, sent);
    tell(target, "written", message);
    fill(out, len, PATTERN_OF_TARGET);
    uint64_t expected = checksum(out, len);
    double deadline = seconds() + ANSWER_SECONDS;
    do {
        if (seconds() > deadline) {
            fprintf(stderr, "The target did not change its buffer within %.0f seconds.\n", ANSWER_SECONDS);
            return 1;
        }
        poll(NULL, 0, 10);
        move_bytes(OPCODE_READ, back, target, remote, len);
    } while (checksum(back, len) != expected);
    printf("I have read the target's own bytes, checksum %016" PRIx64 ", without its help.\n", expected);

    tell(target, "done", "");
    unregisterLocalMemory(engine, out);
    unregisterLocalMemory(engine, back);
    destroyTransferEngine(engine);
    munmap(out, len);
    munmap(back, len);
    return 0;
}

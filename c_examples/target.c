/* The passive side: offers a buffer, and checks what others write into it.
 *
 *     ./target [--host 127.0.0.1] [--bytes 67108864] [--protocol rdma --device_name mlx5_0,mlx5_1]
 */
#include <inttypes.h>
#include <poll.h>

#include "example.h"

#define SILENCE_SECONDS 60.0
#define POLL_MS 10

struct outcome {
    int wrong;
    int done;
};

/* "written" carries "<length> <checksum in hex>". */
static void check_written(unsigned char *buffer, size_t len, const char *message, struct outcome *outcome) {
    size_t written;
    uint64_t expected;
    if (sscanf(message, "%zu %" SCNx64, &written, &expected) != 2 || written > len) {
        printf("I was told that something was written, but not what: \"%s\".\n", message);
        outcome->wrong++;
        return;
    }
    uint64_t found = checksum(buffer, written);
    if (found == expected) {
        printf("%zu bytes appeared in my buffer, and their checksum %016" PRIx64 " is right.\n", written, found);
    } else {
        printf("%zu bytes appeared in my buffer, but their checksum is %016" PRIx64 " and should be %016" PRIx64 ".\n",
               written, found, expected);
        outcome->wrong++;
    }
    fill(buffer, written, PATTERN_OF_TARGET);
    printf("I have filled the buffer with bytes of my own, for whoever reads it next.\n");
}

static int take_notifications(transfer_engine_t engine, unsigned char *buffer, size_t len, struct outcome *outcome) {
    int count = 0;
    notify_msg_t *notes = getNotifsFromEngine(engine, &count);
    for (int i = 0; i < count; i++) {
        if (strcmp(notes[i].name, "written") == 0) check_written(buffer, len, notes[i].msg, outcome);
        else if (strcmp(notes[i].name, "done") == 0) outcome->done = 1;
        else printf("Somebody sent \"%s\": \"%s\". It is not for me.\n", notes[i].name, notes[i].msg);
    }
    freeNotifsMsgBuf(notes, count);
    return count;
}

int main(int argc, char **argv) {
    const char *host = "127.0.0.1", *protocol = "tcp", *devices = NULL, *value;
    size_t len = (size_t)64 << 20;
    char name[256];
    for (int i = 1; i < argc; i++) {
        if ((value = option(argc, argv, &i, "--bytes")) != NULL) len = bytes_from(value);
        else if ((value = option(argc, argv, &i, "--host")) != NULL) host = value;
        else if ((value = option(argc, argv, &i, "--protocol")) != NULL) protocol = value;
        else if ((value = option(argc, argv, &i, "--device_name")) != NULL) devices = value;
        else {
            fprintf(stderr, "usage: %s [--host ADDRESS] [--bytes N] [--protocol tcp|rdma] [--device_name NIC,NIC]\n", argv[0]);
            return 2;
        }
    }
    setvbuf(stdout, NULL, _IOLBF, 0);

    transfer_engine_t engine = start_engine(host, protocol, devices);
    unsigned char *buffer = register_buffer(engine, len);
    if (getLocalIpAndPort(engine, name, sizeof name) != 0) give_up("learn my own name");
    printf("I offer a buffer of %zu bytes. Others reach it under this name:\n", len);
    printf("LISTENING %s\n", name);
    printf("Now start: ./initiator %s\n", name);
    fflush(stdout);

    struct outcome outcome = {0, 0};
    double last_heard = seconds();
    while (!outcome.done && seconds() - last_heard < SILENCE_SECONDS) {
        if (take_notifications(engine, buffer, len, &outcome) > 0) last_heard = seconds();
        else poll(NULL, 0, POLL_MS);
    }
    if (!outcome.done) printf("Nobody has talked to me for %.0f seconds, so I stop.\n", SILENCE_SECONDS);
    else if (outcome.wrong != 0) printf("The initiator is done, but %d messages were wrong.\n", outcome.wrong);
    else printf("The initiator is done, and everything was right.\n");

    unregisterLocalMemory(engine, buffer);
    destroyTransferEngine(engine);
    munmap(buffer, len);
    return outcome.done && outcome.wrong == 0 ? 0 : 1;
}

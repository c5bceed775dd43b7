/* A WRITE between two engines of one process, over TCP and without a store, in C and C++ alike. FN names the way to a
 * function of the first and of the second engine; by default both are this program's own. */
#ifndef MOVES_H
#define MOVES_H

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "transfer_engine_c.h"
#include "transfer_engine_ext.h"

#ifndef FROM
#define FROM(name) name
#define TO(name) name
#endif

enum { MOVED_BYTES = 300000 };

/* A step that has to hold; says where it did not, with the library's own words. */
#define STEP(holds)                                                                \
    if (!(holds)) {                                                                \
        char words[512] = "";                                                      \
        FROM(mte_last_error)(words, sizeof words);                                 \
        fprintf(stderr, "line %d: %s does not hold; %s\n", __LINE__, #holds, words); \
        return 1;                                                                  \
    }

/* 0, or 1 after saying why. */
static inline int moves_bytes(void) {
    static unsigned char source[MOVED_BYTES], target[MOVED_BYTES];
    char name[64] = "";
    transfer_status_t status;
    for (int i = 0; i < MOVED_BYTES; i++) source[i] = (unsigned char)(i * 31 + (i >> 8) + 1);
    memset(target, 0, sizeof target);
    transfer_engine_t to = TO(createTransferEngine)("P2PHANDSHAKE", "127.0.0.1", "", 0, 0);
    transfer_engine_t from = FROM(createTransferEngine)("P2PHANDSHAKE", "127.0.0.1", "", 0, 0);
    STEP(from != NULL && to != NULL)
    STEP(TO(installTransport)(to, "tcp", NULL) != NULL && FROM(installTransport)(from, "tcp", NULL) != NULL)
    STEP(TO(registerLocalMemory)(to, target, MOVED_BYTES, "cpu:0", 1) == 0)
    STEP(FROM(registerLocalMemory)(from, source, MOVED_BYTES, "cpu:0", 1) == 0)
    STEP(TO(getLocalIpAndPort)(to, name, sizeof name) == 0)
    segment_id_t segment = FROM(openSegment)(from, name);
    STEP(segment >= 0)
    batch_id_t batch = FROM(allocateBatchID)(from, 1);
    transfer_request_t request;
    memset(&request, 0, sizeof request);
    request.opcode = OPCODE_WRITE;
    request.source = source;
    request.target_id = segment;
    request.target_offset = (uint64_t)(uintptr_t)target;
    request.length = MOVED_BYTES;
    STEP(FROM(submitTransfer)(from, batch, &request, 1) == 0)
    STEP(FROM(mte_wait_batch)(from, batch, 60000) == 0)
    STEP(FROM(getTransferStatus)(from, batch, 0, &status) == 0 && status.status == STATUS_COMPLETED)
    STEP(memcmp(source, target, MOVED_BYTES) == 0)
    STEP(FROM(freeBatchID)(from, batch) == 0)
    FROM(destroyTransferEngine)(from);
    TO(destroyTransferEngine)(to);
    return 0;
}

#endif

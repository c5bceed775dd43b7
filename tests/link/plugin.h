/* What plugins and their host (host.c) agree on. */
#ifndef PLUGIN_H
#define PLUGIN_H

#include "transfer_engine_c.h"
#include "transfer_engine_ext.h"

#define FUNCTIONS(X)                                                                                          \
    X(createTransferEngine) X(destroyTransferEngine) X(installTransport) X(registerLocalMemory)                \
    X(getLocalIpAndPort) X(openSegment) X(allocateBatchID) X(submitTransfer) X(getTransferStatus) X(freeBatchID) \
    X(mte_wait_batch) X(mte_last_error)

struct engine_table {
#define MEMBER(name) __typeof__(&name) name;
    FUNCTIONS(MEMBER)
};

#endif

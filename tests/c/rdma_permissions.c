/* P37: permissions over NICs, which refuse by themselves. */
#include "rdma.h"
#include "permissions.h"

int main(int argc, char **argv) {
    peer_dispatch(argc, argv);
    harness_begin();
    transfer_engine_t from = rdma_engine("sim0"), owner = rdma_engine("sim1");
    return permissions(from, owner);
}

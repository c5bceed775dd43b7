/* P37: permissions over TCP, and over memory of one host (TEST_TRANSPORT). */
#include "permissions.h"

int main(void) {
    harness_begin();
    transfer_engine_t from = engine_open(), owner = engine_open();
    return permissions(from, owner);
}

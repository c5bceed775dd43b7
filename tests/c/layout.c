/* The layout that callers were compiled against (x86_64 and aarch64), checked by the compiler. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "error.h"
#include "transfer_engine_c.h"
#include "transfer_engine_ext.h"

#define SAME_SIZE(type, size) _Static_assert(sizeof(type) == (size), "size of " #type)
#define FIELD(type, field, at, size)                                                       \
    _Static_assert(offsetof(type, field) == (at), "offset of " #type "." #field);          \
    _Static_assert(sizeof(((type *)0)->field) == (size), "size of " #type "." #field)
#define VALUE(name, value) _Static_assert((name) == (value), #name)

SAME_SIZE(transfer_request_t, 40);
FIELD(transfer_request_t, opcode, 0, 4);
FIELD(transfer_request_t, source, 8, 8);
FIELD(transfer_request_t, target_id, 16, 4);
FIELD(transfer_request_t, target_offset, 24, 8);
FIELD(transfer_request_t, length, 32, 8);
SAME_SIZE(struct transfer_request, 40);

SAME_SIZE(transfer_status_t, 16);
FIELD(transfer_status_t, status, 0, 4);
FIELD(transfer_status_t, transferred_bytes, 8, 8);
SAME_SIZE(struct transfer_status, 16);

SAME_SIZE(notify_msg_t, 16);
FIELD(notify_msg_t, name, 0, 8);
FIELD(notify_msg_t, msg, 8, 8);
SAME_SIZE(struct notify_msg, 16);

SAME_SIZE(buffer_entry_t, 16);
FIELD(buffer_entry_t, addr, 0, 8);
FIELD(buffer_entry_t, length, 8, 8);
SAME_SIZE(struct buffer_entry, 16);

SAME_SIZE(nic_load_stat_t, 80);
FIELD(nic_load_stat_t, device_name, 0, 64);
FIELD(nic_load_stat_t, inflight_bytes, 64, 8);
FIELD(nic_load_stat_t, ewma_bandwidth_bps, 72, 8);
SAME_SIZE(struct nic_load_stat, 80);

SAME_SIZE(segment_desc_t, 48);
FIELD(segment_desc_t, type, 0, 4);
FIELD(segment_desc_t, desc_, 8, 40);
FIELD(segment_desc_t, desc_.rdma, 8, 24);
FIELD(segment_desc_t, desc_.rdma.addr, 8, 8);
FIELD(segment_desc_t, desc_.rdma.size, 16, 8);
FIELD(segment_desc_t, desc_.rdma.location, 24, 8);
FIELD(segment_desc_t, desc_.nvmeof, 8, 40);
FIELD(segment_desc_t, desc_.nvmeof.file_path, 8, 8);
FIELD(segment_desc_t, desc_.nvmeof.subsystem_name, 16, 8);
FIELD(segment_desc_t, desc_.nvmeof.proto, 24, 8);
FIELD(segment_desc_t, desc_.nvmeof.ip, 32, 8);
FIELD(segment_desc_t, desc_.nvmeof.port, 40, 8);
SAME_SIZE(struct segment_desc, 48);

SAME_SIZE(transfer_engine_t, 8);
SAME_SIZE(transport_t, 8);
SAME_SIZE(segment_handle_t, 4);
SAME_SIZE(segment_id_t, 4);
SAME_SIZE(batch_id_t, 8);
_Static_assert((segment_id_t)-1 < 0, "segment_id_t is signed");
_Static_assert((batch_id_t)-1 > 0, "batch_id_t is unsigned");

SAME_SIZE(mte_task_error_info_t, 656);
FIELD(mte_task_error_info_t, code, 0, 4);
FIELD(mte_task_error_info_t, error_class, 4, 4);
FIELD(mte_task_error_info_t, retryable, 8, 4);
FIELD(mte_task_error_info_t, os_errno, 12, 4);
FIELD(mte_task_error_info_t, peer, 16, 128);
FIELD(mte_task_error_info_t, text, 144, 512);
SAME_SIZE(mte_buffer_t, 80);
FIELD(mte_buffer_t, addr, 0, 8);
FIELD(mte_buffer_t, length, 8, 8);
FIELD(mte_buffer_t, location, 16, 64);

VALUE(LOCAL_SEGMENT, 0);
VALUE(INVALID_BATCH, UINT64_MAX);
VALUE(OPCODE_READ, 0);
VALUE(OPCODE_WRITE, 1);
VALUE(STATUS_WAITING, 0);
VALUE(STATUS_PENDING, 1);
VALUE(STATUS_INVALID, 2);
VALUE(STATUS_CANCELED, 3);
VALUE(STATUS_COMPLETED, 4);
VALUE(STATUS_TIMEOUT, 5);
VALUE(STATUS_FAILED, 6);

VALUE(ERR_INVALID_ARGUMENT, -1);
VALUE(ERR_TOO_MANY_REQUESTS, -2);
VALUE(ERR_ADDRESS_NOT_REGISTERED, -3);
VALUE(ERR_BATCH_BUSY, -4);
VALUE(ERR_DEVICE_NOT_FOUND, -6);
VALUE(ERR_ADDRESS_OVERLAPPED, -7);
VALUE(ERR_DNS, -101);
VALUE(ERR_SOCKET, -102);
VALUE(ERR_MALFORMED_JSON, -103);
VALUE(ERR_REJECT_HANDSHAKE, -104);
VALUE(ERR_METADATA, -200);
VALUE(ERR_ENDPOINT, -201);
VALUE(ERR_CONTEXT, -202);
VALUE(ERR_NUMA, -300);
VALUE(ERR_CLOCK, -301);
VALUE(ERR_MEMORY, -302);
VALUE(ERR_NOT_IMPLEMENTED, -303);

VALUE(MTE_CLASS_ARGUMENT, 1);
VALUE(MTE_CLASS_RESOURCE, 2);
VALUE(MTE_CLASS_NETWORK, 3);
VALUE(MTE_CLASS_TIMEOUT, 4);
VALUE(MTE_CLASS_REJECTED, 5);
VALUE(MTE_CLASS_PROTOCOL, 6);
VALUE(MTE_CLASS_METADATA, 7);
VALUE(MTE_CLASS_DEVICE, 8);
VALUE(MTE_CLASS_CANCELED, 9);
VALUE(MTE_CLASS_UNSUPPORTED, 10);
VALUE(MTE_CLASS_INTERNAL, 11);

int main(void) {
    puts("ok    every size, offset and constant is what callers were compiled against");
    return 0;
}

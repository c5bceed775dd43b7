/* The C API as programs compiled against upstream's header see it, restated by hand. With
 * OUR_TYPES defined the types come from elsewhere and only the 27 prototypes are here. No include guard on
 * purpose: it is meant to be read after another declaration of the same functions. */
#include <stddef.h>
#include <stdint.h>

#ifndef OUR_TYPES
#define segment_handle_t int32_t
#define segment_id_t int32_t
#define batch_id_t uint64_t

#define LOCAL_SEGMENT (0)
#define INVALID_BATCH UINT64_MAX
#define OPCODE_READ (0)
#define OPCODE_WRITE (1)
#define STATUS_WAITING (0)
#define STATUS_PENDING (1)
#define STATUS_INVALID (2)
#define STATUS_CANCELED (3)
#define STATUS_COMPLETED (4)
#define STATUS_TIMEOUT (5)
#define STATUS_FAILED (6)

struct transfer_request {
    int opcode;
    void *source;
    segment_id_t target_id;
    uint64_t target_offset;
    uint64_t length;
};
struct transfer_status {
    int status;
    uint64_t transferred_bytes;
};
struct notify_msg {
    char *name;
    char *msg;
};
struct buffer_entry {
    void *addr;
    size_t length;
};
struct nic_load_stat {
    char device_name[64];
    uint64_t inflight_bytes;
    double ewma_bandwidth_bps;
};
struct segment_desc {
    int type;
    union {
        struct {
            void *addr;
            uint64_t size;
            const char *location;
        } rdma;
        struct {
            const char *file_path;
            const char *subsystem_name;
            const char *proto;
            const char *ip;
            uint64_t port;
        } nvmeof;
    } desc_;
};
#endif

/* A typedef may be repeated when it names the same type, so these are in both readings. */
typedef void *transfer_engine_t;
typedef void *transport_t;
typedef struct transfer_request transfer_request_t;
typedef struct transfer_status transfer_status_t;
typedef struct notify_msg notify_msg_t;
typedef struct buffer_entry buffer_entry_t;
typedef struct nic_load_stat nic_load_stat_t;
typedef struct segment_desc segment_desc_t;

transfer_engine_t createTransferEngine(const char *metadata_conn_string, const char *local_server_name,
                                       const char *ip_or_host_name, uint64_t rpc_port, int auto_discover);
void destroyTransferEngine(transfer_engine_t engine);
int discoverTopology(transfer_engine_t engine);
int getLocalIpAndPort(transfer_engine_t engine, char *buf_out, size_t buf_len);
transport_t installTransport(transfer_engine_t engine, const char *proto, void **args);
int uninstallTransport(transfer_engine_t engine, const char *proto);
void enableGracefulShutdown(transfer_engine_t engine);

int32_t openSegment(transfer_engine_t engine, const char *segment_name);
int32_t openSegmentNoCache(transfer_engine_t engine, const char *segment_name);
int closeSegment(transfer_engine_t engine, int32_t segment_id);
int removeLocalSegment(transfer_engine_t engine, const char *segment_name);
int syncSegmentCache(transfer_engine_t engine);
int warmupEfaSegment(transfer_engine_t engine, const char *segment_name);

int registerLocalMemory(transfer_engine_t engine, void *addr, size_t length, const char *location,
                        int remote_accessible);
int unregisterLocalMemory(transfer_engine_t engine, void *addr);
int registerLocalMemoryBatch(transfer_engine_t engine, struct buffer_entry *buffer_list, size_t buffer_len,
                             const char *location);
int unregisterLocalMemoryBatch(transfer_engine_t engine, void **addr_list, size_t addr_len);

uint64_t allocateBatchID(transfer_engine_t engine, size_t batch_size);
int submitTransfer(transfer_engine_t engine, uint64_t batch_id, struct transfer_request *entries, size_t count);
int submitTransferWithNotify(transfer_engine_t engine, uint64_t batch_id, struct transfer_request *entries,
                             size_t count, struct notify_msg notify_msg);
int getTransferStatus(transfer_engine_t engine, uint64_t batch_id, size_t task_id, struct transfer_status *status);
int freeBatchID(transfer_engine_t engine, uint64_t batch_id);

struct notify_msg *getNotifsFromEngine(transfer_engine_t engine, int *size);
int freeNotifsMsgBuf(struct notify_msg *msg, int size);
int genNotifyInEngine(transfer_engine_t engine, uint64_t target_id, struct notify_msg notify_msg);

int getNicLoadStats(transfer_engine_t engine, struct nic_load_stat *stats, size_t *count);
int showLinks(transfer_engine_t engine, char *buf_out, size_t buf_len, int json);

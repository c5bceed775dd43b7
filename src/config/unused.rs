//! Variables of upstream without effect here: whoever sets one is told why.

/// Variables of upstream that mean nothing to this library, and why.
pub(super) const UNUSED: &[(&str, &str)] = &[
    ("MC_TCP_SLICE_SIZE", "requests are not cut into socket operations of a fixed size"),
    ("MC_TCP_MAX_QUEUED_TRANSFERS_PER_PEER", "requests wait in their lane, as many as were submitted"),
    ("MC_TCP_MAX_PENDING_ADMISSIONS_PER_PEER", "requests wait in their lane, as many as were submitted"),
    ("MC_TCP_MAX_QUEUED_BYTES_PER_PEER", "requests wait in their lane, as many as were submitted"),
    ("MC_TCP_ADMISSION_TIMEOUT_MS", "a request's deadline is MC_TCP_STATUS_TIMEOUT_SEC or MC_SLICE_TIMEOUT"),
    ("MC_TE_METRIC_HTTP_THREADS", "one thread serves metrics"),
    ("MC_WORKERS_PER_CTX", "the callers' threads post, and one thread per NIC reaps what nobody polls for"),
    ("MC_NUM_COMP_CHANNELS_PER_CTX", "each NIC has one completion channel"),
    ("MC_RDMA_WORKER_IDLE_SPIN_US", "the callers' threads post, and one thread per NIC reaps what nobody polls for"),
    ("MC_RDMA_SIGNAL_INTERVAL", "which work requests ask for a completion is decided here"),
    ("MC_CONTEXT_PAUSE_TTL_MS", "a NIC is used whenever its port is up; what failed over it pauses as MC_RDMA_RAIL_PAUSE_SECONDS says"),
    ("MC_RDMA_DATA_DIRECT", "it needs libmlx5, which this library does not use"),
    ("MC_RDMA_DATA_DIRECT_PAIRING", "it needs libmlx5, which this library does not use"),
    ("MC_MLX5_QP_UDP_SPORTS", "it needs libmlx5, which this library does not use"),
    ("MC_MLX5_QP_LAG_PORT_BALANCE", "it needs libmlx5, which this library does not use"),
    ("MC_LOG_RDMA_SLICE_AFFINITY", "showLinks tells which rails carry what"),
    ("MC_TRACK_RDMA_POSTED_SLICES", "showLinks tells what is posted"),
    ("MC_USE_TENT", ONE_ENGINE),
    ("MC_USE_TEV1", ONE_ENGINE),
    (
        "MC_TCP_PROGRESS_TIMEOUT_SEC",
        "as initiator MC_TCP_STATUS_TIMEOUT_SEC and MC_TCP_MIN_RATE say how long to wait",
    ),
    ("MC_TE_RPC_CLIENT_IO_THREADS", NO_RPC),
    ("MC_RPC_CLIENT_IO_THREADS", NO_RPC),
    ("MC_RPC_CONNECT_TIMEOUT_MS", NO_RPC),
    ("MC_RPC_PROTOCOL", NO_RPC),
    ("MC_RPC_TIMEOUT_MS", NO_RPC),
    ("MC_USE_RDMA_TWOSIDED", ONE_SIDED),
    ("MC_RDMA_NOTIFY_CONNECT_TIMEOUT_MS", ONE_SIDED),
    ("MC_RDMA_NOTIFY_MAX_PENDING_SENDS", ONE_SIDED),
    ("MC_RDMA_NOTIFY_OOB_FALLBACK", ONE_SIDED),
    ("MC_MAX_EP_PI", "connections per NIC are limited by MC_MAX_EP_PER_CTX"),
    ("MC_MS_AUTO_DISC", "discovery is asked for by the program (auto_discover, discoverTopology)"),
    ("MC_MS_FILTERS", "NICs are chosen by MC_TE_FILTERS"),
    ("MC_FILEREAD_WORKERS", OTHER_TRANSPORT),
    ("MC_NOF_TRTYPE", OTHER_TRANSPORT),
    ("MC_CXL_DEV_SIZE", OTHER_TRANSPORT),
    ("MC_DEVICE_API_P2P_ALLOW_CROSS_LOGICAL_NODE", OTHER_TRANSPORT),
    ("MC_EFA_CQ_DRAIN_TIMEOUT_MS", OTHER_TRANSPORT),
    ("MC_EFA_DISABLE_NEURON", OTHER_TRANSPORT),
    ("MC_EFA_HOMOGENEOUS_PEERS", OTHER_TRANSPORT),
    ("MC_EFA_STALL_MIN_MS", OTHER_TRANSPORT),
    ("MC_FORCE_SHM", "segments in POSIX shared memory are read and written without it (MC_POSIX_SHM), and none is published"),
    ("MC_HIP_KFD_PIN_FIX", OTHER_TRANSPORT),
    ("MC_LIBFABRIC_PATH", OTHER_TRANSPORT),
    ("MC_USE_NVLINK_IPC", OTHER_TRANSPORT),
    ("MC_EFA_CQ_THREADS", OTHER_TRANSPORT),
    ("MC_EFA_NIC_SELECTION", OTHER_TRANSPORT),
    ("MC_FORCE_MNNVL", OTHER_TRANSPORT),
    ("MC_INTRA_NVLINK", OTHER_TRANSPORT),
    ("MC_INTRANODE_NVLINK", OTHER_TRANSPORT),
    ("MC_MAX_CONCURRENT_REG_MR", OTHER_TRANSPORT),
    ("MC_MIN_REG_SIZE", OTHER_TRANSPORT),
    ("MC_DISABLE_MMAP_ARENA", OWN_MEMORY),
    ("MC_MMAP_ARENA_POOL_SIZE", OWN_MEMORY),
];

const ONE_ENGINE: &str = "this library has one engine; its transports are chosen by installTransport";
const NO_RPC: &str =
    "there is no RPC client here; MC_HANDSHAKE_* and MC_METADATA_TIMEOUT_MS limit what peers and stores take";
const ONE_SIDED: &str = "data moves by one-sided RDMA, and notifications are sent over the handshake port";
const OTHER_TRANSPORT: &str = "it is of a transport that this build does not have";
const OWN_MEMORY: &str = "the library gives out no memory of its own";

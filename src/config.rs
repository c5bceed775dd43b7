//! The table of `MC_*` environment variables and the plain `Config` read from it.
//! Nothing else in the library reads the environment. A bad value keeps the default
//! and gives one warning.

mod names;
mod parse;
mod types;
mod unused;

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

pub use names::Stranger;
use parse::*;
pub use types::{LogLevel, Pem, Secret};
use unused::UNUSED;

/// One documented variable; the table in docs/src/settings.md is tested against these rows.
#[cfg_attr(not(feature = "internals"), allow(dead_code))]
pub struct Row {
    /// Environment variable.
    pub name: &'static str,
    /// Value when it is unset.
    pub default: &'static str,
    /// What it does.
    pub meaning: &'static str,
}

macro_rules! config {
    ($($field:ident: $type:ty = $default:expr, $shown:literal, $name:literal $(or $old:literal)?, $parse:expr, $meaning:literal;)*) => {
        /// Settings of one engine, read once when it is created.
        #[derive(Clone, Debug)]
        pub struct Config {
            $(#[doc = concat!("`", $name, "`: ", $meaning)] pub $field: $type,)*
        }

        impl Default for Config {
            fn default() -> Self {
                Config { $($field: $default,)* }
            }
        }

        /// Every variable, in the order of the table in docs/src/settings.md.
        #[cfg_attr(not(feature = "internals"), allow(dead_code))]
        pub const ROWS: &[Row] = &[
            $(Row { name: $name, default: $shown, meaning: $meaning },)*
        ];

        /// Older names of variables, which are read where the newer one is unset.
        const OLD_NAMES: &[&str] = &[$($($old,)?)*];

        impl Config {
            /// Reads every row through `lookup`; the second value is the warnings.
            pub fn read(lookup: impl Fn(&str) -> Option<OsString>) -> (Self, Vec<String>) {
                let mut config = Self::default();
                let mut warnings = Vec::new();
                $({
                    let found = lookup($name).map(|v| ($name, v));
                    $(let found = found.or_else(|| lookup($old).map(|v| ($old, v)));)?
                    if let Some((name, value)) = found {
                        match ($parse)(&value.to_string_lossy()) {
                            Ok(parsed) => config.$field = parsed,
                            Err(why) => warnings.push(format!(
                                "{name}={} ignored: {why}; using {}",
                                value.to_string_lossy(), $shown
                            )),
                        }
                    }
                })*
                let unused = UNUSED.iter().filter(|(name, _)| lookup(name).is_some());
                warnings.extend(unused.map(|(name, why)| format!("{name} has no effect: {why}")));
                config.reconcile(&mut warnings);
                (config, warnings)
            }
        }
    };
}

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

// Defaults of variables that upstream knows are upstream's, so that the settings of a deployment mean the same here;
// the others are chosen.
config! {
    handshake_port: u16 = 12001, "12001", "MC_HANDSHAKE_PORT", int(1..=65535),
        "port assumed for server names without one";
    min_rpc_port: u16 = 15000, "15000", "MC_MIN_RPC_PORT" or "MC_MIN_PRC_PORT", int(1024..=65535),
        "first port of the range for the handshake and TCP data listeners; outside 32768..60999";
    max_rpc_port: u16 = 17000, "17000", "MC_MAX_RPC_PORT" or "MC_MAX_PRC_PORT", int(1024..=65535),
        "last port of that range";
    use_ipv6: bool = false, "unset", "MC_USE_IPV6", present,
        "when set: IPv6 sockets, discovery and lookup for handshakes";
    listen_backlog: i32 = 128, "128", "MC_HANDSHAKE_LISTEN_BACKLOG", int(1..=65535),
        "backlog of the listeners";
    connect_timeout: Duration = s(5), "5", "MC_HANDSHAKE_CONNECT_TIMEOUT", secs(1..=3599),
        "seconds for one connect, of handshakes and TCP lanes, per address";
    handshake_timeout: Duration = s(60), "60", "MC_HANDSHAKE_TIMEOUT", secs(1..=3600),
        "seconds for one whole handshake exchange as client";
    handshake_max_length: usize = 1 << 20, "1048576", "MC_HANDSHAKE_MAX_LENGTH", int(1048576..=134217728),
        "largest handshake request accepted, bytes; for replies see MC_METADATA_MAX_BYTES";
    handshake_max_clients: usize = 256, "256", "MC_HANDSHAKE_MAX_CLIENTS", int(1..=65535),
        "handshake connections served at once, half of them from one address, and fewer where ulimit -n is low; beyond it the oldest without a complete request is closed";
    cluster_key: Option<Secret> = None, "unset", "MC_CLUSTER_KEY", |t: &str| Ok::<_, String>(Some(Secret(t.into()))),
        "keys of at least 32 characters, separated by commas: peers have to prove that they know one, at the handshake port and on data connections; this side proves the first";
    cluster_key_file: Option<String> = None, "unset", "MC_CLUSTER_KEY_FILE", |t: &str| Ok::<_, String>(Some(t.into())),
        "file with these keys, one per line, instead of MC_CLUSTER_KEY";
    cluster_key_required: Option<bool> = None, "1", "MC_CLUSTER_KEY_REQUIRED", |t: &str| on_off(t).map(Some),
        "0: peers without a key, upstream's among them, are served and reached all the same: while a cluster changes to keys";
    cluster_key_addresses: bool = true, "1", "MC_CLUSTER_KEY_ADDRESSES", on_off,
        "0: on all engines, where addresses or ports are translated between them (NAT): proofs on data connections do not cover the address that was dialled";
    tls_ca_file: Option<Pem> = None, "unset", "MC_TLS_CA_FILE", pem,
        "TLS between engines, at the handshake port and on TCP data connections: PEM file with the authorities whose certificates peers have to show; needs the next two as well";
    tls_cert_file: Option<Pem> = None, "unset", "MC_TLS_CERT_FILE", pem,
        "PEM file with this engine's certificate, and those between it and the authority";
    tls_key_file: Option<Pem> = None, "unset", "MC_TLS_KEY_FILE", pem,
        "PEM file with its private key";
    tls_required: Option<bool> = None, "1", "MC_TLS_REQUIRED", |t: &str| on_off(t).map(Some),
        "0: peers without TLS, upstream's among them, are served and reached all the same: while a cluster changes to TLS";
    tls_names: bool = false, "0", "MC_TLS_NAMES", on_off,
        "1: the certificate of a peer has to name the host, or the address, by which this engine knows it; 0: whoever has a certificate of the authority is one of the cluster";
    notify_queue_max: usize = 65536, "65536", "MC_NOTIFY_QUEUE_MAX" or "MC_HANDSHAKE_MAX_NOTIFY_ENTRIES", int(1..=16777216),
        "notifications kept until the caller fetches them; more are refused with -200 at the sender";
    notify_queue_bytes: usize = 64 << 20, "67108864", "MC_NOTIFY_QUEUE_BYTES", int(4096..=1 << 40),
        "bytes of text that these notifications may have in all";
    allow_reregister: bool = false, "0", "MC_ALLOW_REREGISTER", on_off,
        "1: registering a region again, exactly (address, length, location, access), is 0 instead of -7, and each registration needs an unregistration";
    slice_timeout: Option<Duration> = None, "unset", "MC_SLICE_TIMEOUT", slice_timeout,
        "seconds from submit until a task that is not done becomes FAILED (class TIMEOUT); unset: the per-request deadlines below";
    report_timeout: bool = false, "0", "MC_REPORT_TIMEOUT", on_off,
        "1: report STATUS_TIMEOUT instead of STATUS_FAILED for tasks that ran out of time, as upstream does";
    force_hca: bool = false, "unset", "MC_FORCE_HCA", present,
        "when set: auto-discovery installs RDMA or fails";
    disable_metacache: bool = false, "unset", "MC_DISABLE_METACACHE", present,
        "when set: every submit call reads its targets' descriptors again; also stops the refresh below";
    refresh_interval: Option<Duration> = None, "0", "MC_TE_METADATA_REFRESH_INTERVAL_SECONDS", |t: &str| secs(0..=86400)(t).map(|d| Some(d).filter(|d| !d.is_zero())),
        "seconds between refreshes of all cached descriptors; 0: none";
    metadata_cluster_id: Option<String> = None, "unset", "MC_METADATA_CLUSTER_ID", text,
        "stores: second part of every key, so that several clusters can share a store";
    metadata_timeout: Duration = s(5), "5000", "MC_METADATA_TIMEOUT_MS", millis(100..=600000),
        "stores: milliseconds for one operation, attempts on other endpoints included; also the longest start";
    metadata_ttl: Duration = s(30), "30", "MC_METADATA_TTL_SEC", secs(2..=86400),
        "stores: seconds until the keys of an engine that died are gone (etcd, redis, mte metadata-server); a live engine looks after its keys three times as often";
    metadata_take_over: bool = true, "1", "MC_METADATA_TAKE_OVER", on_off,
        "stores: 0: never start under a name that the store already has, even if its owner does not answer";
    metadata_max_bytes: usize = 32 << 20, "33554432", "MC_METADATA_MAX_BYTES", int(1048576..=134217728),
        "largest descriptor, or other answer, read from a peer or a store, bytes; 32 MiB are 250000 buffers and more";
    metadata_revalidate: Duration = s(5), "5000", "MC_METADATA_REVALIDATE_MS", millis(0..=86400000),
        "stores that cannot tell of changes (http, redis): a descriptor in use that is older than these milliseconds is read again in the background; 0: never";
    open_age: Duration = s(1), "1000", "MC_OPEN_AGE_MS", millis(0..=86400000),
        "openSegment of a segment that is open reads its descriptor again if it is older than these milliseconds and no TCP connection shows that its owner lives";
    metadata_ca_file: Option<String> = None, "unset", "MC_METADATA_CA_FILE", text,
        "etcd, https, rediss: PEM file with the authorities to trust instead of the system's; with etcd it also turns TLS on";
    metadata_cert_file: Option<String> = None, "unset", "MC_METADATA_CERT_FILE", text,
        "etcd, https, rediss: PEM file with the client's certificate; needs MC_METADATA_KEY_FILE too";
    metadata_key_file: Option<String> = None, "unset", "MC_METADATA_KEY_FILE", text,
        "etcd, https, rediss: PEM file with its private key";
    metadata_http_proxy: Option<String> = None, "unset", "MC_METADATA_HTTP_PROXY", text,
        "http: proxy (http://host:port) for the store; http_proxy and no_proxy are never looked at";
    metadata_http_token: Option<Secret> = None, "unset", "MC_METADATA_HTTP_TOKEN", secret,
        "http: sent with every request as `Authorization: Bearer`, for servers that ask for it; `mte metadata-server` asks for it when it is set";
    etcd_username: Option<String> = None, "unset", "MC_ETCD_USERNAME", text,
        "etcd: user";
    etcd_password: Option<Secret> = None, "unset", "MC_ETCD_PASSWORD", secret,
        "etcd: password";
    redis_username: Option<String> = None, "unset", "MC_REDIS_USERNAME", text,
        "redis: user; used only with a password";
    redis_password: Option<Secret> = None, "unset", "MC_REDIS_PASSWORD", secret,
        "redis: password";
    redis_db_index: u8 = 0, "0", "MC_REDIS_DB_INDEX", int(0..=255),
        "redis: database";
    legacy_rpc_port_binding: bool = false, "unset", "MC_LEGACY_RPC_PORT_BINDING", present,
        "stores: when set: the handshake address is the one in the local server name, instead of this host's and a free port";
    bind_address: Option<String> = None, "unset", "MC_TCP_BIND_ADDRESS", text,
        "stores: host that peers are told to connect to; unset: the address of the first interface that is up";
    listen_address: Option<String> = None, "unset", "MC_BIND_ADDRESS", text,
        "IP address of this host that the handshake port and TCP's data port listen at, and that peers are told if MC_TCP_BIND_ADDRESS is unset; an IPv6 one needs MC_USE_IPV6; unset: all addresses";
    force_tcp: bool = false, "unset", "MC_FORCE_TCP", present,
        "when set: install TCP at creation and nothing else";
    same_host: bool = false, "0", "MC_SAME_HOST", on_off,
        "1: whatever transport is installed, peers of this project on the same host are reached through their memory too, where that is proven to work (no other container, user or Yama in between); 0: only where \"shm\" is installed";
    posix_shm: bool = true, "1", "MC_POSIX_SHM", on_off,
        "1: segments of upstream that were started with MC_FORCE_SHM on this host are read and written through their POSIX shared memory, where it is proven to be theirs; 0: they are refused, unless \"posix_shm\" is installed";
    tcp_pool: bool = true, "1", "MC_TCP_ENABLE_CONNECTION_POOL", on_off,
        "keep connections to peers that publish tcp_proto_version 2; 0: a connection per request";
    tcp_lanes: usize = 0, "0", "MC_TCP_LANES_PER_PEER" or "MC_TCP_MAX_CONNECTIONS_PER_PEER", int(0..=16),
        "connections per peer; 0: four, and within the host no more than data-plane threads";
    tcp_stripe_bytes: u64 = 1 << 20, "1048576", "MC_TCP_STRIPE_SIZE", int(65536..=1 << 40),
        "requests larger than this are cut into pieces of this size, spread over the lanes";
    tcp_threads: usize = 0, "0", "MC_TCP_THREADS" or "MC_NUM_TCP_IO_THREADS", int(0..=64),
        "data-plane threads of the TCP transport, and of the one between engines of a host; 0: half the processors, 4 at most, and two at least where there are two processors";
    tcp_busy_poll: Duration = Duration::from_micros(100), "100", "MC_TCP_BUSY_POLL_US", |t: &str| int(0..=10000)(t).map(Duration::from_micros),
        "microseconds a data-plane thread looks for more before it sleeps, after it moved something; 0: sleeps at once";
    tcp_force_v1: bool = false, "unset", "MC_TCP_PROTO", |t: &str| Ok::<_, String>(t == "1"),
        "exactly 1: initiate with v1 framing, whose WRITE completes before it is applied";
    tcp_status_timeout: Duration = s(30), "30", "MC_TCP_STATUS_TIMEOUT_SEC", secs(1..=86400),
        "seconds a peer may take to answer one request once its turn has come, plus the time its bytes take at the minimum rate";
    tcp_min_rate: u64 = 1 << 20, "1048576", "MC_TCP_MIN_RATE", int(1024..=1 << 40),
        "slowest acceptable payload rate of one connection, bytes per second; scales the deadline with the bytes";
    tcp_liveness: Duration = s(3), "3", "MC_TCP_LIVENESS_SEC", secs(0..=3600),
        "seconds a peer may take to answer on its handshake port, where it is asked once nothing has moved on a busy connection for a second; then it is given up; upstream's peers have 10 at least; 0: it is not asked";
    tcp_resend_writes: bool = false, "0", "MC_TCP_RESEND_WRITES", on_off,
        "1: a WRITE that was begun is sent again after an upstream peer has hung up, although the first copy may come later; peers of this project are asked first, and need no setting";
    tcp_body_timeout: Duration = s(60), "60", "MC_TCP_BODY_TIMEOUT_SEC", secs(1..=86400),
        "as server: seconds without progress inside a begun header or body before the connection is closed";
    tcp_first_request_timeout: Duration = s(300), "300", "MC_TCP_FIRST_REQUEST_TIMEOUT_SEC", secs(1..=86400),
        "as server: seconds from a connection to its first complete header before it is closed; afterwards it may be idle for ever";
    tcp_max_inbound: usize = 4096, "4096", "MC_TCP_MAX_INBOUND", int(1..=1048576),
        "inbound data connections served at once, half of them for one address where others want them, and fewer where ulimit -n is low; beyond it the oldest that never made a request is closed, else the new one";
    tcp_sockbuf_bytes: usize = 0, "0", "MC_TCP_SOCKET_BUFFER", int(0..=1 << 30),
        "socket buffer size asked for on data connections, bytes; 0 leaves it to the kernel";
    tcp_nics: Option<String> = None, "unset", "MC_TCP_NICS", text,
        "comma list of devices, or of their addresses, that data connections to a peer are spread over by measured rate; each in a subnet of its own that the peer's MC_TCP_NICS names an address of too; unset: the address that everybody knows";
    tcp_congestion: Option<String> = None, "unset", "MC_TCP_CONGESTION", text,
        "congestion control of data connections; unset: the system's, and reno within the host, where pacing only costs";
    tcp_allow_unregistered_source: bool = false, "0", "MC_TCP_ALLOW_UNREGISTERED_SOURCE", on_off,
        "1: accept submits whose local buffer is not registered, as upstream does over TCP";
    ib_port: u8 = 1, "1", "MC_IB_PORT", int(1..=255),
        "rdma: port of each NIC";
    gid_index: Option<u8> = None, "-1", "MC_GID_INDEX" or "NCCL_IB_GID_INDEX", minus_one(int(0..=255)),
        "rdma: GID table index; -1: the best-ranked one, and the next candidate if it does not connect";
    pkey_index: u16 = 0, "0", "MC_PKEY_INDEX", int(0..=65535),
        "rdma: P_Key table index";
    cqs_per_nic: usize = 1, "1", "MC_NUM_CQ_PER_CTX", int(1..=255),
        "rdma: completion queues per NIC";
    max_cqe: u32 = 4096, "4096", "MC_MAX_CQE_PER_CTX", int(1..=65535),
        "rdma: entries of a completion queue, the most work requests under way on it";
    max_endpoints: usize = 65536, "65536", "MC_MAX_EP_PER_CTX", int(1..=65536),
        "rdma: connections per NIC; beyond it idle ones are evicted";
    evict_fifo: bool = false, "SIEVE", "MC_ENDPOINT_STORE_TYPE", |t: &str| one_of(t, &[("SIEVE", false), ("FIFO", true)]),
        "rdma: which connection is evicted: SIEVE (not used lately) or FIFO (oldest)";
    qps_per_endpoint: usize = 2, "2", "MC_NUM_QP_PER_EP", int(1..=255),
        "rdma: queue pairs per connection; upstream peers need the same value";
    max_wr: u32 = 256, "256", "MC_MAX_WR", int(1..=65535),
        "rdma: work requests under way per queue pair";
    max_sge: u32 = 4, "4", "MC_MAX_SGE", int(1..=65535),
        "rdma: scatter entries asked of a queue pair (one is used)";
    max_inline: u32 = 64, "64", "MC_MAX_INLINE", int(0..=65535),
        "rdma: inline bytes asked of a queue pair (none are used)";
    mtu: u32 = 4096, "4096", "MC_MTU", |t: &str| one_of(t, &[("512", 512), ("1024", 1024), ("2048", 2048), ("4096", 4096)]),
        "rdma: largest path MTU, bytes";
    slice_bytes: Option<u64> = None, "unset", "MC_SLICE_SIZE", |t: &str| int(1..=1 << 40)(t).map(Some),
        "rdma: most bytes per work request; unset: what a port moves in 20 microseconds, at least 65536";
    fragment_ratio: Option<u64> = None, "unset", "MC_FRAGMENT_RATIO", |t: &str| int(1..=1 << 40)(t).map(Some),
        "rdma: a rest of up to the length of a slice divided by this is added to the last slice; unset: a rest of up to 16384 bytes";
    retry_cnt: u8 = 9, "9", "MC_RETRY_CNT", int(1..=127),
        "rdma: attempts per slice";
    max_mr_bytes: u64 = 1 << 40, "1099511627776", "MC_MAX_MR_SIZE", int(4096..=1 << 62),
        "rdma: longer buffers are registered in pieces of this size";
    parallel_reg_mr: Option<bool> = None, "-1", "MC_ENABLE_PARALLEL_REG_MR", |t: &str| one_of(t.trim(), &[("-1", None), ("0", Some(false)), ("1", Some(true))]),
        "rdma: register a buffer on all NICs at once; -1: with several NICs and large buffers";
    auto_gid_retries: usize = 2, "2", "MC_AUTO_GID_MAX_RETRIES", int(0..=16),
        "rdma: other GIDs tried when a connection cannot be made with the best one";
    rail_pause: Duration = s(30), "30", "MC_RDMA_RAIL_PAUSE_SECONDS", secs(1..=3599),
        "rdma: longest pause before a rail that failed is tried again, seconds; pauses double from 100 ms to 2 s at most, whatever this allows";
    conn_pause: Duration = Duration::ZERO, "0", "MC_CONN_PAUSE_TTL_MS", millis(0..=600000),
        "rdma: milliseconds without new handshakes to a rail after its connection failed";
    dest_device_affinity: bool = false, "unset", "MC_ENABLE_DEST_DEVICE_AFFINITY", present,
        "rdma: when set: prefer the peer's NIC of the same name";
    hca_peer_affinity: bool = false, "0", "MC_ENABLE_HCA_PEER_AFFINITY", on_off,
        "rdma: prefer the peer NICs that MC_NIC_PEER_AFFINITY lists; set together with MC_ENABLE_DEST_DEVICE_AFFINITY both are off";
    nic_peer_affinity: Option<String> = None, "unset", "MC_NIC_PEER_AFFINITY", text,
        "rdma: local=peer,peer;...: for each local NIC the peer's NICs to prefer; acts on GPU rows of the peer's matrix only (memory at cuda:0 and the like), for those of the NICs that the row prefers";
    traffic_class: u8 = 0, "-1", "MC_IB_TC", |t: &str| minus_one(int(0..=255))(t).map(Option::unwrap_or_default),
        "rdma: traffic class; -1: 0";
    service_level: u8 = 0, "-1", "MC_IB_SL", |t: &str| minus_one(int(0..=15))(t).map(Option::unwrap_or_default),
        "rdma: service level; -1: 0";
    relaxed_ordering: bool = true, "1", "MC_IB_PCI_RELAXED_ORDERING", |t: &str| int(0..=2)(t).map(|v: u8| v != 0),
        "rdma: ask for PCI relaxed ordering where libibverbs can; 0: never";
    rdma_bind_address: Option<String> = None, "unset", "MC_RDMA_BIND_ADDRESS", text,
        "rdma: host in the NIC paths that peers see, instead of the segment name's";
    path_roundrobin: bool = false, "0", "MC_PATH_ROUNDROBIN", |t: &str| Ok::<_, String>(t == "1" || t == "true"),
        "rdma: 1 or true: take the preferred NICs in turn instead of the one with the least to do";
    custom_topo_json: Option<String> = None, "unset", "MC_CUSTOM_TOPO_JSON", text,
        "rdma: file with the NIC priority matrix, instead of discovery";
    nic_filters: Option<String> = None, "unset", "MC_TE_FILTERS", text,
        "rdma: comma list of the NICs that discovery may use; unset: all";
    rdma_stall_timeout: Duration = s(3), "3000", "MC_RDMA_STALL_TIMEOUT_MS", millis(50..=600000),
        "rdma: milliseconds a queue pair may be without any completion before its work requests are moved elsewhere, plus the time its bytes take at the minimum rate";
    rdma_task_timeout: Duration = s(30), "30", "MC_RDMA_TASK_TIMEOUT_SEC", secs(1..=86400),
        "rdma: seconds until a request that is not done becomes FAILED (class TIMEOUT) when MC_SLICE_TIMEOUT is unset, plus the time its submit call's bytes take at the minimum rate";
    rdma_min_rate: u64 = 1 << 20, "1048576", "MC_RDMA_MIN_RATE", int(1024..=1 << 40),
        "rdma: slowest acceptable rate, bytes per second; scales both deadlines with the bytes";
    rdma_repost_writes: bool = true, "1", "MC_RDMA_REPOST_WRITES", on_off,
        "rdma: 0: a WRITE whose first posting failed without a completion is FAILED instead of posted on another rail, so that no copy can arrive late";
    notify_enabled: bool = true, "1", "MC_RDMA_NOTIFY_ENABLED", on_off,
        "rdma: 0: upstream's peers get no queue pair for notifications, so they send them to the handshake port; ours always go there";
    notify_buffer_bytes: u32 = 65536, "65536", "MC_RDMA_NOTIFY_BUFFER_SIZE", int(64..=16777216),
        "rdma: longest notification that such a queue pair takes, bytes; no shorter than the same setting of the peers";
    notify_recv_count: u32 = 8, "8", "MC_RDMA_NOTIFY_RECV_COUNT", int(1..=4096),
        "rdma: notifications that such a queue pair takes before the next one has to wait; each costs a buffer (upstream has 256)";
    notify_max_peers: usize = 256, "256", "MC_RDMA_NOTIFY_MAX_PEERS", int(0..=65536),
        "rdma: such queue pairs per NIC; peers beyond it send to the handshake port";
    strict: bool = false, "0", "MC_STRICT", on_off,
        "1: turn counted fall-backs (v1 framing, loss of the pool, tcp because no NIC works) into errors";
    metric: bool = false, "0", "MC_TE_METRIC", |t: &str| Ok::<_, String>(["1", "true", "yes", "on"].contains(&t.to_ascii_lowercase().as_str())),
        "1: a line with counts goes to the log now and then, and metrics are served where MC_TE_METRIC_HTTP_PORT says; they are counted and told by mte_metrics in any case";
    metric_port: u16 = 0, "0", "MC_TE_METRIC_HTTP_PORT", int(0..=65535),
        "with MC_TE_METRIC: port that serves a status page, /metrics, /metrics/json, /metrics/summary, /links and /health for all engines of the process; 0: none";
    metric_host: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST), "127.0.0.1", "MC_TE_METRIC_HTTP_HOST", |t: &str| t.trim().parse::<IpAddr>().map_err(|_| "not an IP address"),
        "IP address that it listens on (upstream: 0.0.0.0, which is all of them); nothing protects it";
    metric_names: Option<String> = None, "unset", "MC_TE_METRIC_HTTP_NAMES", text,
        "comma list of the names that it may be called by; it answers to addresses, localhost and the host's own name in any case, and to no other name, so that pages of strangers cannot read it in somebody's browser";
    metric_interval: Duration = s(5), "5", "MC_TE_METRIC_INTERVAL_SECONDS", secs(1..=86400),
        "with MC_TE_METRIC: seconds between two lines in the log";
    metric_peers: usize = 64, "64", "MC_TE_METRIC_PEERS", int(0..=4096),
        "peers per engine that metrics tell apart, by segment name; the others are told together, and 0 counts nothing by peer";
    log_level: LogLevel = LogLevel::Info, "INFO", "MC_LOG_LEVEL", log_level,
        "least severe line written: TRACE, INFO, WARNING or ERROR";
    log_dir: Option<String> = None, "unset", "MC_LOG_DIR", text,
        "folder for the log file; unset: standard error";
}

impl Config {
    /// The settings that this process's environment asks for, and the warnings.
    pub fn from_env() -> (Self, Vec<String>) {
        Self::read(|name| std::env::var_os(name))
    }

    /// Variables of this process's environment that look like settings and that nothing here reads.
    pub fn strangers() -> Vec<Stranger> {
        let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
        let settings: Vec<&'static str> = ROWS.iter().map(|row| row.name).collect();
        names::strangers(names, &settings, OLD_NAMES)
    }

    /// How many settings this process's environment has, those without effect included.
    pub fn count_set() -> usize {
        let names = ROWS.iter().map(|row| row.name).chain(OLD_NAMES.iter().copied());
        let names = names.chain(UNUSED.iter().map(|(name, _)| *name));
        names.filter(|name| std::env::var_os(name).is_some()).count()
    }

    /// Keeps peers from taking the descriptors that the host needs: of `limit`, which the process has, a half stays with
    /// the host, an eighth is for handshakes and the rest for data connections of peers. Says so if that lowers a
    /// setting. Chosen: with the usual 1024 they are 128 and 384.
    pub fn leave_descriptors(&mut self, limit: usize) -> Option<String> {
        let wanted = (self.handshake_max_clients, self.tcp_max_inbound);
        self.handshake_max_clients = wanted.0.min(limit / 8).max(1);
        self.tcp_max_inbound = wanted.1.min(limit / 8 * 3).max(1);
        let now = (self.handshake_max_clients, self.tcp_max_inbound);
        (now != wanted).then(|| {
            format!(
                "of {limit} descriptors (ulimit -n) half are left to the host: at most {} handshake and {} inbound data \
                 connections are served",
                now.0, now.1
            )
        })
    }

    /// Rules over more than one row.
    fn reconcile(&mut self, warnings: &mut Vec<String>) {
        let ephemeral = 32768..=60999;
        let (min, max) = (self.min_rpc_port, self.max_rpc_port);
        if min > max || ephemeral.contains(&min) || ephemeral.contains(&max) {
            warnings.push(format!(
                "MC_MIN_RPC_PORT..MC_MAX_RPC_PORT {min}..{max} ignored: the ends must be ordered and \
                 outside the ephemeral range 32768..60999; using 15000..17000"
            ));
            (self.min_rpc_port, self.max_rpc_port) = (15000, 17000);
        }
        if self.dest_device_affinity && self.hca_peer_affinity {
            warnings.push("MC_ENABLE_DEST_DEVICE_AFFINITY and MC_ENABLE_HCA_PEER_AFFINITY exclude each other; both are off".into());
            (self.dest_device_affinity, self.hca_peer_affinity) = (false, false);
        }
        if self.fragment_ratio.is_some_and(|ratio| ratio >= self.slice_bytes.unwrap_or(65536)) {
            warnings.push("MC_FRAGMENT_RATIO is not below MC_SLICE_SIZE; using 4".into());
            self.fragment_ratio = Some(4);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> (Config, Vec<String>) {
        let pairs: Vec<(String, String)> =
            pairs.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
        Config::read(move |name| pairs.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone().into()))
    }

    #[test]
    fn p34_a_bad_value_warns_once_and_keeps_the_default() {
        for (name, value) in [
            ("MC_HANDSHAKE_PORT", "0"),
            ("MC_TCP_LANES_PER_PEER", "17"),
            ("MC_TCP_LANES_PER_PEER", "4x"),
            ("MC_TCP_STATUS_TIMEOUT_SEC", "-3"),
            ("MC_HANDSHAKE_MAX_LENGTH", "1"),
            ("MC_LOG_LEVEL", "loud"),
        ] {
            let (config, warnings) = read(&[(name, value)]);
            assert_eq!(warnings.len(), 1, "{name}={value}");
            assert!(warnings[0].contains(name) && warnings[0].contains(value));
            assert_eq!(format!("{config:?}"), format!("{:?}", Config::default()));
        }
    }

    #[test]
    fn peers_get_no_more_than_half_of_the_descriptors() {
        for (limit, handshakes, data) in [(1 << 20, 256, 4096), (1024, 128, 384), (16, 2, 6), (0, 1, 1)] {
            let mut config = Config::default();
            let lowered = config.leave_descriptors(limit);
            assert_eq!((config.handshake_max_clients, config.tcp_max_inbound), (handshakes, data));
            assert_eq!(lowered.is_some(), limit < 1 << 20);
        }
    }

    #[test]
    fn a_bad_port_range_is_rejected_as_a_whole() {
        let (config, warnings) = read(&[("MC_MIN_RPC_PORT", "20000"), ("MC_MAX_RPC_PORT", "40000")]);
        assert_eq!((config.min_rpc_port, config.max_rpc_port), (15000, 17000));
        assert_eq!(warnings.len(), 1);
        let (config, warnings) = read(&[("MC_MIN_PRC_PORT", "20000"), ("MC_MAX_PRC_PORT", "20010")]);
        assert_eq!((config.min_rpc_port, config.max_rpc_port), (20000, 20010));
        assert!(warnings.is_empty());
    }

    #[test]
    fn good_values_are_taken() {
        let (config, warnings) = read(&[
            ("MC_USE_IPV6", ""),
            ("MC_TCP_PROTO", "1"),
            ("MC_TCP_ENABLE_CONNECTION_POOL", "No"),
            ("MC_SLICE_TIMEOUT", "7"),
            ("MC_TCP_MAX_CONNECTIONS_PER_PEER", "3"),
        ]);
        assert!(warnings.is_empty());
        assert!(config.use_ipv6 && config.tcp_force_v1 && !config.tcp_pool);
        assert_eq!(config.slice_timeout, Some(Duration::from_secs(7)));
        assert_eq!(config.tcp_lanes, 3);
    }
}

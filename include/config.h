/* SPDX-License-Identifier: Apache-2.0
 * The settings as programs read them, from the environment. The engine reads the environment itself: what a program writes
 * into globalConfig() changes what it reads there later, and nothing in the engine. */

#ifndef CONFIG_H
#define CONFIG_H

#ifdef MTE_WITH_GLOG
#include <glog/logging.h>
#endif

#include <cstddef>
#include <cstdint>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace mooncake {

enum class EndpointStoreType { FIFO = 0, SIEVE = 1 };
enum class EfaNicSelection { ALL = 0, LOCAL = 1 };

struct GlobalConfig {
    size_t num_cq_per_ctx = 1;
    size_t num_comp_channels_per_ctx = 1;
    uint8_t port = 1;
    /** -1: chosen by itself. */
    int gid_index = -1;
    uint16_t pkey_index = 0;
    uint64_t max_mr_size = 0x10000000000;
    size_t max_cqe = 4096;
    int max_ep_per_ctx = 65536;
    size_t num_qp_per_ep = 2;
    size_t max_sge = 4;
    size_t max_wr = 256;
    bool max_wr_from_env = false;
    size_t max_inline = 64;
    /** A number of libibverbs' enum ibv_mtu: 2 is 512 bytes, 5 is 4096. */
    int mtu_length = 5;
    uint16_t handshake_port = 12001;
    int workers_per_ctx = 2;
    size_t slice_size = 65536;
    int retry_cnt = 9;
    int auto_gid_max_retries = 2;
    int handshake_listen_backlog = 128;
    int handshake_connect_timeout = 5;
    uint64_t rdma_rail_pause_seconds = 30;
    bool metacache = true;
    uint64_t te_metadata_refresh_interval_seconds = 0;
    /** 0 information, 1 warnings, 2 errors. */
    int log_level = 0;
    bool trace = false;
    int64_t slice_timeout = -1;
    int conn_pause_ttl_ms = 0;
    uint16_t rpc_min_port = 15000;
    uint16_t rpc_max_port = 17000;
    bool use_ipv6 = false;
    size_t fragment_limit = 16384;
    bool enable_dest_device_affinity = false;
    bool enable_hca_peer_affinity = false;
    std::unordered_map<std::string, std::vector<std::string>> nic_peer_affinity;
    bool log_rdma_slice_affinity = false;
    bool track_rdma_posted_slices = false;
    int parallel_reg_mr = -1;
    size_t max_concurrent_reg_mr = 0;
    EfaNicSelection efa_nic_selection = EfaNicSelection::ALL;
    size_t eic_max_block_size = size_t{64} << 20;
    EndpointStoreType endpoint_store_type = EndpointStoreType::SIEVE;
    int ib_traffic_class = -1;
    int ib_service_level = -1;
    std::vector<uint16_t> mlx5_qp_udp_sports;
    bool mlx5_qp_lag_port_balance = false;
    int ib_pci_relaxed_ordering_mode = 1;
    bool ascend_use_fabric_mem = false;
    bool ascend_agent_mode = false;
    bool sunrise_use_device_mem = false;
    bool ascend_store_te_init = false;
    size_t num_jfc_per_ctx = 2;
    size_t num_jfce_per_ctx = 2;
    int eid_index = 0;
    uint64_t max_seg_size = 0x10000000000;
    size_t max_jfc_e = 4096;
    size_t num_jetty_per_ep = 1;
};

/** The defaults if a port is reserved (below 1024), ephemeral (32768 to 60999) or none, or the range is upside down. */
inline std::pair<int, int> ValidatePortRange(int min_port, int max_port, int default_min, int default_max) {
    const auto usable = [](int port) { return port >= 1024 && port <= 65535 && (port < 32768 || port > 60999); };
    if (!usable(min_port) || !usable(max_port) || min_port > max_port) return {default_min, default_max};
    return {min_port, max_port};
}

/** Reads the environment over `config`; a value that is malformed or out of range leaves its field as it is. */
inline void loadGlobalConfig(GlobalConfig &config);

/** Read at the first call. Not guarded: write to it before threads read it. */
inline GlobalConfig &globalConfig() {
    static GlobalConfig config = [] {
        GlobalConfig read;
        loadGlobalConfig(read);
        return read;
    }();
    return config;
}

/** Prints the settings to standard error. */
inline void dumpGlobalConfig();

inline uint16_t getDefaultHandshakePort() { return globalConfig().handshake_port; }

}  // namespace mooncake

#include "transfer_engine/detail/settings.h"

#endif  // CONFIG_H

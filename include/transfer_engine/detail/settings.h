/* SPDX-License-Identifier: Apache-2.0
 * Which environment variable sets which field of GlobalConfig. Included by config.h. */

#ifndef TRANSFER_ENGINE_DETAIL_SETTINGS_H
#define TRANSFER_ENGINE_DETAIL_SETTINGS_H

#include <charconv>
#include <cstdlib>
#include <initializer_list>
#include <iostream>
#include <limits>
#include <optional>
#include <string_view>

#include "config.h"

namespace mooncake {
namespace detail {

/** A whole decimal number, a plus sign allowed. */
template <typename T>
std::optional<T> wholeNumber(std::string_view text) {
    if (text.size() > 1 && text[0] == '+' && text[1] != '-') text.remove_prefix(1);
    T value = T();
    const auto [last, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || last != text.data() + text.size()) return std::nullopt;
    return value;
}

inline std::string_view trimmed(std::string_view text) {
    const size_t first = text.find_first_not_of(" \t\r\n");
    if (first == std::string_view::npos) return {};
    return text.substr(first, text.find_last_not_of(" \t\r\n") - first + 1);
}

/** The parts of `text` between `delimiter`s, without the blanks around them; empty ones are left out. */
inline std::vector<std::string> parts(std::string_view text, char delimiter) {
    std::vector<std::string> found;
    for (;;) {
        const size_t end = text.find(delimiter);
        const std::string_view part = trimmed(text.substr(0, end));
        if (!part.empty()) found.emplace_back(part);
        if (end == std::string_view::npos) return found;
        text.remove_prefix(end + 1);
    }
}

inline const char *variable(std::initializer_list<const char *> names) {
    for (const char *name : names)
        if (const char *value = std::getenv(name)) return value;
    return nullptr;
}

/** Whether one of `names` is set to a number within the bounds, which `field` then has. */
template <typename T>
bool set(T &field, std::initializer_list<const char *> names, long long least, long long most) {
    const char *value = variable(names);
    if (value == nullptr) return false;
    const std::optional<long long> number = wholeNumber<long long>(trimmed(value));
    if (!number || *number < least || *number > most) return false;
    field = static_cast<T>(*number);
    return true;
}

inline void setFlag(bool &field, const char *name) {
    const char *value = std::getenv(name);
    if (value == nullptr) return;
    const std::string_view text = trimmed(value);
    if (text == "1" || text == "true" || text == "TRUE" || text == "True") field = true;
    if (text == "0" || text == "false" || text == "FALSE" || text == "False") field = false;
}

/** "mlx5_0=mlx5_1,mlx5_2;mlx5_3=mlx5_4" */
inline std::unordered_map<std::string, std::vector<std::string>> affinities(std::string_view text) {
    std::unordered_map<std::string, std::vector<std::string>> found;
    for (const std::string &rule : parts(text, ';')) {
        const size_t equals = rule.find('=');
        if (equals == std::string::npos) continue;
        const std::string_view local = trimmed(std::string_view(rule).substr(0, equals));
        std::vector<std::string> peers = parts(std::string_view(rule).substr(equals + 1), ',');
        if (!local.empty() && !peers.empty()) found[std::string(local)] = std::move(peers);
    }
    return found;
}

}  // namespace detail

inline void loadGlobalConfig(GlobalConfig &config) {
    constexpr long long kShort = std::numeric_limits<uint16_t>::max(), kLong = std::numeric_limits<long long>::max();
    using detail::set;
    using detail::setFlag;
    const auto text = [](const char *name) {
        const char *value = std::getenv(name);
        return value == nullptr ? std::string_view() : detail::trimmed(value);
    };

    if (set(config.num_cq_per_ctx, {"MC_NUM_CQ_PER_CTX"}, 1, 255))
        config.num_jfc_per_ctx = config.num_jfce_per_ctx = config.num_cq_per_ctx;
    set(config.num_comp_channels_per_ctx, {"MC_NUM_COMP_CHANNELS_PER_CTX"}, 1, 255);
    set(config.port, {"MC_IB_PORT"}, 1, 255);
    set(config.gid_index, {"MC_GID_INDEX", "NCCL_IB_GID_INDEX"}, 0, 255);
    set(config.pkey_index, {"MC_PKEY_INDEX"}, 0, kShort);
    set(config.max_cqe, {"MC_MAX_CQE_PER_CTX"}, 1, kShort);
    set(config.max_ep_per_ctx, {"MC_MAX_EP_PER_CTX"}, 1, kShort);
    set(config.num_qp_per_ep, {"MC_NUM_QP_PER_EP"}, 1, 255);
    set(config.max_sge, {"MC_MAX_SGE"}, 1, kShort);
    if (set(config.max_wr, {"MC_MAX_WR"}, 1, kShort)) config.max_wr_from_env = true;
    set(config.max_inline, {"MC_MAX_INLINE"}, 0, kShort);
    int mtu = 0;
    for (int number = 2, bytes = 512; number <= 5; ++number, bytes *= 2)
        if (set(mtu, {"MC_MTU"}, bytes, bytes)) config.mtu_length = number;
    set(config.handshake_port, {"MC_HANDSHAKE_PORT"}, 1, kShort);
    set(config.workers_per_ctx, {"MC_WORKERS_PER_CTX"}, 1, 8);
    set(config.slice_size, {"MC_SLICE_SIZE"}, 1, kLong);
    set(config.eic_max_block_size, {"MC_MIN_REG_SIZE"}, 1, kLong);
    set(config.max_mr_size, {"MC_MAX_MR_SIZE"}, 1, kLong);
    set(config.retry_cnt, {"MC_RETRY_CNT"}, 1, 127);
    set(config.auto_gid_max_retries, {"MC_AUTO_GID_MAX_RETRIES"}, 0, 16);
    if (std::getenv("MC_DISABLE_METACACHE")) config.metacache = false;
    set(config.te_metadata_refresh_interval_seconds, {"MC_TE_METADATA_REFRESH_INTERVAL_SECONDS"}, 0, INT32_MAX);
    set(config.handshake_listen_backlog, {"MC_HANDSHAKE_LISTEN_BACKLOG"}, 1, INT32_MAX);
    set(config.handshake_connect_timeout, {"MC_HANDSHAKE_CONNECT_TIMEOUT"}, 1, 3599);
    set(config.rdma_rail_pause_seconds, {"MC_RDMA_RAIL_PAUSE_SECONDS"}, 1, 3599);
    const std::string_view level = text("MC_LOG_LEVEL");
    config.trace = level == "TRACE";
    if (config.trace || level == "INFO") config.log_level = 0;
    if (level == "WARNING") config.log_level = 1;
    if (level == "ERROR") config.log_level = 2;
    set(config.slice_timeout, {"MC_SLICE_TIMEOUT"}, 1, kShort);
    set(config.conn_pause_ttl_ms, {"MC_CONN_PAUSE_TTL_MS"}, 0, 600000);
    int least = config.rpc_min_port, most = config.rpc_max_port;
    // The second spelling is upstream's older one.
    set(least, {"MC_MIN_RPC_PORT", "MC_MIN_PRC_PORT"}, INT32_MIN, INT32_MAX);
    set(most, {"MC_MAX_RPC_PORT", "MC_MAX_PRC_PORT"}, INT32_MIN, INT32_MAX);
    const auto [lower, upper] = ValidatePortRange(least, most, 15000, 17000);
    config.rpc_min_port = static_cast<uint16_t>(lower);
    config.rpc_max_port = static_cast<uint16_t>(upper);
    if (std::getenv("MC_USE_IPV6")) config.use_ipv6 = true;
    size_t ratio = 4;
    if (std::getenv("MC_FRAGMENT_RATIO")) {
        set(ratio, {"MC_FRAGMENT_RATIO"}, 1, static_cast<long long>(config.slice_size) - 1);
        config.fragment_limit = config.slice_size / ratio;
    }
    if (std::getenv("MC_ENABLE_DEST_DEVICE_AFFINITY")) config.enable_dest_device_affinity = true;
    setFlag(config.enable_hca_peer_affinity, "MC_ENABLE_HCA_PEER_AFFINITY");
    config.nic_peer_affinity = detail::affinities(text("MC_NIC_PEER_AFFINITY"));
    // They contradict each other.
    if (config.enable_hca_peer_affinity && config.enable_dest_device_affinity)
        config.enable_hca_peer_affinity = config.enable_dest_device_affinity = false;
    setFlag(config.log_rdma_slice_affinity, "MC_LOG_RDMA_SLICE_AFFINITY");
    setFlag(config.track_rdma_posted_slices, "MC_TRACK_RDMA_POSTED_SLICES");
    set(config.parallel_reg_mr, {"MC_ENABLE_PARALLEL_REG_MR"}, -1, 1);
    set(config.max_concurrent_reg_mr, {"MC_MAX_CONCURRENT_REG_MR"}, 0, kLong);
    const std::string_view selection = text("MC_EFA_NIC_SELECTION");
    if (selection == "all" || selection == "ALL") config.efa_nic_selection = EfaNicSelection::ALL;
    if (selection == "local" || selection == "LOCAL") config.efa_nic_selection = EfaNicSelection::LOCAL;
    const std::string_view store = text("MC_ENDPOINT_STORE_TYPE");
    if (store == "FIFO") config.endpoint_store_type = EndpointStoreType::FIFO;
    if (store == "SIEVE") config.endpoint_store_type = EndpointStoreType::SIEVE;
    set(config.ib_traffic_class, {"MC_IB_TC"}, 0, 255);
    set(config.ib_service_level, {"MC_IB_SL"}, 0, 15);
    set(config.ib_pci_relaxed_ordering_mode, {"MC_IB_PCI_RELAXED_ORDERING"}, 0, 2);
    if (std::getenv("MC_MLX5_QP_UDP_SPORTS")) {
        config.mlx5_qp_udp_sports.clear();
        for (const std::string &port : detail::parts(text("MC_MLX5_QP_UDP_SPORTS"), ','))
            if (const auto number = detail::wholeNumber<uint16_t>(port)) config.mlx5_qp_udp_sports.push_back(*number);
    }
    setFlag(config.mlx5_qp_lag_port_balance, "MC_MLX5_QP_LAG_PORT_BALANCE");
}

inline void dumpGlobalConfig() {
    const GlobalConfig &config = globalConfig();
    std::clog << "num_cq_per_ctx = " << config.num_cq_per_ctx << "\nport = " << int{config.port}
              << "\ngid_index = " << config.gid_index << "\nmax_mr_size = " << config.max_mr_size
              << "\nmax_cqe = " << config.max_cqe << "\nmax_ep_per_ctx = " << config.max_ep_per_ctx
              << "\nnum_qp_per_ep = " << config.num_qp_per_ep << "\nmax_sge = " << config.max_sge
              << "\nmax_wr = " << config.max_wr << "\nmax_inline = " << config.max_inline
              << "\nmtu_length = " << config.mtu_length << "\nhandshake_port = " << config.handshake_port
              << "\nworkers_per_ctx = " << config.workers_per_ctx << "\nslice_size = " << config.slice_size
              << "\nretry_cnt = " << config.retry_cnt << "\nrpc_ports = " << config.rpc_min_port << ".."
              << config.rpc_max_port << "\nslice_timeout = " << config.slice_timeout << std::endl;
}

}  // namespace mooncake

#endif  // TRANSFER_ENGINE_DETAIL_SETTINGS_H

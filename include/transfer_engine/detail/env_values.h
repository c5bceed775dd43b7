/* SPDX-License-Identifier: Apache-2.0
 * Values of environment variables: how they are read, and upstream's names and defaults. Included by environ.h. */

#ifndef TRANSFER_ENGINE_DETAIL_ENV_VALUES_H
#define TRANSFER_ENGINE_DETAIL_ENV_VALUES_H

#include <cerrno>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <optional>
#include <string>
#include <type_traits>

#include "transfer_engine/detail/settings.h"

namespace mooncake {
namespace detail {

/** A text in lower case, without the blanks around it, one of two lists of words. */
inline std::optional<bool> truth(std::string_view text) {
    std::string word;
    for (const char c : trimmed(text)) word += c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    for (const char *yes : {"1", "true", "yes", "on", "enable"})
        if (word == yes) return true;
    for (const char *no : {"0", "false", "no", "off", "disable"})
        if (word == no) return false;
    return std::nullopt;
}

inline std::optional<double> finite(const char *text) {
    char *end = nullptr;
    errno = 0;
    const double value = std::strtod(text, &end);
    if (end == text || errno == ERANGE || !std::isfinite(value) || !trimmed(end).empty()) return std::nullopt;
    return value;
}

template <typename T>
std::optional<T> environmentValue(const char *text) {
    if constexpr (std::is_same_v<T, std::string>) return std::string(text);
    else if constexpr (std::is_same_v<T, bool>) return truth(text);
    else if constexpr (std::is_floating_point_v<T>) return finite(text);
    else return wholeNumber<T>(trimmed(text));
}

/** The value of a text that may be NULL. */
template <typename T>
T valueOr(const char *name, const char *text, T otherwise) {
    if (text == nullptr) return otherwise;
    if (std::optional<T> value = environmentValue<T>(text)) return *std::move(value);
    std::cerr << name << "=" << text << " is not understood and left out" << std::endl;
    return otherwise;
}

template <typename T>
T fromEnvironment(const char *name, T otherwise) {
    return valueOr<T>(name, std::getenv(name), std::move(otherwise));
}

struct EnvironmentValues {
    int num_cq_per_ctx, num_comp_channels_per_ctx, ib_port, ib_tc, ib_pci_relaxed_ordering, gid_index, max_cqe_per_ctx;
    int max_ep_per_ctx, num_qp_per_ep, max_sge, max_wr, max_inline, mtu, workers_per_ctx, retry_cnt, handshake_listen_backlog;
    int handshake_max_length, redis_db_index, fragment_ratio, min_rpc_port, max_rpc_port, enable_parallel_reg_mr;
    size_t slice_size;
    bool disable_metacache, enable_dest_device_affinity, use_ipv6, force_tcp, force_hca, force_mnnvl, intra_nvlink;
    bool path_roundrobin, with_nvidia_peermem;
    std::string log_level, log_dir, redis_password, endpoint_store_type;

    /** `get(name)` is a text or NULL. */
    template <typename Source>
    void read(Source get) {
        const auto take = [&get](auto &field, const char *name, auto otherwise) {
            using Field = std::decay_t<decltype(field)>;
            field = valueOr<Field>(name, get(name), Field(otherwise));
        };
        take(num_cq_per_ctx, "MC_NUM_CQ_PER_CTX", 1);
        take(num_comp_channels_per_ctx, "MC_NUM_COMP_CHANNELS_PER_CTX", 1);
        take(ib_port, "MC_IB_PORT", 1);
        take(ib_tc, "MC_IB_TC", -1);
        take(ib_pci_relaxed_ordering, "MC_IB_PCI_RELAXED_ORDERING", 0);
        take(gid_index, "MC_GID_INDEX", 3);
        take(max_cqe_per_ctx, "MC_MAX_CQE_PER_CTX", 4096);
        take(max_ep_per_ctx, "MC_MAX_EP_PER_CTX", 65536);
        take(num_qp_per_ep, "MC_NUM_QP_PER_EP", 2);
        take(max_sge, "MC_MAX_SGE", 4);
        take(max_wr, "MC_MAX_WR", 256);
        take(max_inline, "MC_MAX_INLINE", 64);
        take(mtu, "MC_MTU", 4096);
        take(workers_per_ctx, "MC_WORKERS_PER_CTX", 2);
        take(slice_size, "MC_SLICE_SIZE", 65536);
        take(retry_cnt, "MC_RETRY_CNT", 9);
        take(log_level, "MC_LOG_LEVEL", "INFO");
        take(disable_metacache, "MC_DISABLE_METACACHE", false);
        take(handshake_listen_backlog, "MC_HANDSHAKE_LISTEN_BACKLOG", 128);
        take(handshake_max_length, "MC_HANDSHAKE_MAX_LENGTH", 1 << 20);
        take(log_dir, "MC_LOG_DIR", "");
        take(redis_password, "MC_REDIS_PASSWORD", "");
        take(redis_db_index, "MC_REDIS_DB_INDEX", 0);
        take(fragment_ratio, "MC_FRAGMENT_RATIO", 4);
        take(enable_dest_device_affinity, "MC_ENABLE_DEST_DEVICE_AFFINITY", false);
        take(use_ipv6, "MC_USE_IPV6", false);
        // The older spelling counts where the newer is not set.
        take(min_rpc_port, "MC_MIN_PRC_PORT", 15000);
        take(min_rpc_port, "MC_MIN_RPC_PORT", int{min_rpc_port});
        take(max_rpc_port, "MC_MAX_PRC_PORT", 17000);
        take(max_rpc_port, "MC_MAX_RPC_PORT", int{max_rpc_port});
        take(enable_parallel_reg_mr, "MC_ENABLE_PARALLEL_REG_MR", -1);
        take(endpoint_store_type, "MC_ENDPOINT_STORE_TYPE", "SIEVE");
        take(force_tcp, "MC_FORCE_TCP", false);
        take(force_hca, "MC_FORCE_HCA", false);
        take(force_mnnvl, "MC_FORCE_MNNVL", false);
        take(intra_nvlink, "MC_INTRA_NVLINK", false);
        take(path_roundrobin, "MC_PATH_ROUNDROBIN", false);
        take(with_nvidia_peermem, "WITH_NVIDIA_PEERMEM", true);
    }
};

}  // namespace detail
}  // namespace mooncake

#endif  // TRANSFER_ENGINE_DETAIL_ENV_VALUES_H

/* SPDX-License-Identifier: Apache-2.0
 * Typed access to environment variables, and a snapshot of those that upstream's programs read. The engine does not use it. */

#ifndef TRANSFER_ENGINE_ENVIRON_H
#define TRANSFER_ENGINE_ENVIRON_H

#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <optional>
#include <string>

#include "transfer_engine/detail/env_values.h"

namespace mooncake {

/** The name of a variable with a type. */
template <typename T>
struct EnvironmentVariable {
    const char *name;
};

/** Where values come from: in tests not the process. */
class EnvironSource {
  public:
    virtual ~EnvironSource() = default;
    /** NULL for one that is not set. */
    virtual const char *Get(const char *name) const = 0;
};

class Environ {
  public:
    /** The process's environment, as it was at the first call. */
    static Environ &Get() {
        static Environ process(0, [](const char *name) { return std::getenv(name); });
        return process;
    }
    explicit Environ(const EnvironSource &source) : Environ(0, [&source](const char *name) { return source.Get(name); }) {}

    int GetNumCqPerCtx() const { return values_.num_cq_per_ctx; }
    int GetNumCompChannelsPerCtx() const { return values_.num_comp_channels_per_ctx; }
    int GetIbPort() const { return values_.ib_port; }
    int GetIbTc() const { return values_.ib_tc; }
    int GetIbPciRelaxedOrdering() const { return values_.ib_pci_relaxed_ordering; }
    int GetGidIndex() const { return values_.gid_index; }
    int GetMaxCqePerCtx() const { return values_.max_cqe_per_ctx; }
    int GetMaxEpPerCtx() const { return values_.max_ep_per_ctx; }
    int GetNumQpPerEp() const { return values_.num_qp_per_ep; }
    int GetMaxSge() const { return values_.max_sge; }
    int GetMaxWr() const { return values_.max_wr; }
    int GetMaxInline() const { return values_.max_inline; }
    int GetMtu() const { return values_.mtu; }
    int GetWorkersPerCtx() const { return values_.workers_per_ctx; }
    size_t GetSliceSize() const { return values_.slice_size; }
    int GetRetryCnt() const { return values_.retry_cnt; }
    std::string GetLogLevel() const { return values_.log_level; }
    bool GetDisableMetacache() const { return values_.disable_metacache; }
    int GetHandshakeListenBacklog() const { return values_.handshake_listen_backlog; }
    int GetHandshakeMaxLength() const { return values_.handshake_max_length; }
    std::string GetLogDir() const { return values_.log_dir; }
    std::string GetRedisPassword() const { return values_.redis_password; }
    int GetRedisDbIndex() const { return values_.redis_db_index; }
    int GetFragmentRatio() const { return values_.fragment_ratio; }
    bool GetEnableDestDeviceAffinity() const { return values_.enable_dest_device_affinity; }
    bool GetUseIpv6() const { return values_.use_ipv6; }
    int GetMinRpcPort() const { return values_.min_rpc_port; }
    int GetMaxRpcPort() const { return values_.max_rpc_port; }
    int GetEnableParallelRegMr() const { return values_.enable_parallel_reg_mr; }
    std::string GetEndpointStoreType() const { return values_.endpoint_store_type; }
    bool GetForceTcp() const { return values_.force_tcp; }
    bool GetForceHca() const { return values_.force_hca; }
    bool GetForceMnnvl() const { return values_.force_mnnvl; }
    bool GetIntraNvlink() const { return values_.intra_nvlink; }
    bool GetPathRoundrobin() const { return values_.path_roundrobin; }
    bool GetWithNvidiaPeermem() const { return values_.with_nvidia_peermem; }

    /** The default for a variable that is not set or, with a line on standard error, malformed. */
    static int GetInt(const char *name, int default_value) { return detail::fromEnvironment(name, default_value); }
    static int64_t GetInt64(const char *name, int64_t default_value) { return detail::fromEnvironment(name, default_value); }
    static uint32_t GetUInt32(const char *name, uint32_t default_value) { return detail::fromEnvironment(name, default_value); }
    static uint64_t GetUInt64(const char *name, uint64_t default_value) { return detail::fromEnvironment(name, default_value); }
    static double GetDouble(const char *name, double default_value) { return detail::fromEnvironment(name, default_value); }
    static size_t GetSizeT(const char *name, size_t default_value) { return detail::fromEnvironment(name, default_value); }
    static bool GetBool(const char *name, bool default_value) { return detail::fromEnvironment(name, default_value); }
    static std::string GetString(const char *name, const std::string &default_value) {
        return detail::fromEnvironment(name, default_value);
    }

    /** Nothing for a variable that is not set or malformed. */
    template <typename T>
    static std::optional<T> Read(const EnvironmentVariable<T> &variable) {
        const char *value = std::getenv(variable.name);
        return value == nullptr ? std::nullopt : detail::environmentValue<T>(value);
    }
    template <typename T>
    static T ReadOr(const EnvironmentVariable<T> &variable, T default_value) {
        return detail::fromEnvironment(variable.name, std::move(default_value));
    }

  private:
    // The int keeps it apart from the public one, which sources of any class go to.
    template <typename Source>
    Environ(int, Source get) {
        values_.read(get);
    }

    detail::EnvironmentValues values_;
};

}  // namespace mooncake

#endif  // TRANSFER_ENGINE_ENVIRON_H

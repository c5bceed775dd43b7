#include <gtest/gtest.h>

#include <map>

#include "config.h"
#include "environ.h"

using namespace mooncake;

namespace {

/** A variable for the length of a test. */
class Set {
  public:
    Set(const char *name, const char *value) : name_(name) { setenv(name, value, 1); }
    ~Set() { unsetenv(name_); }
    Set(const Set &) = delete;
    Set &operator=(const Set &) = delete;

  private:
    const char *name_;
};

GlobalConfig loaded() {
    GlobalConfig config;
    loadGlobalConfig(config);
    return config;
}

class Given : public EnvironSource {
  public:
    const char *Get(const char *name) const override {
        const auto found = values.find(name);
        return found == values.end() ? nullptr : found->second;
    }
    std::map<std::string, const char *> values;
};

}  // namespace

TEST(Settings, HaveDefaults) {
    const GlobalConfig config = loaded();
    EXPECT_EQ(config.slice_size, 65536u);
    EXPECT_EQ(config.mtu_length, 5);
    EXPECT_EQ(config.gid_index, -1);
    EXPECT_EQ(config.rpc_min_port, 15000);
    EXPECT_EQ(config.rpc_max_port, 17000);
    EXPECT_EQ(config.slice_timeout, -1);
    EXPECT_TRUE(config.metacache);
    EXPECT_FALSE(config.max_wr_from_env);
    EXPECT_EQ(&globalConfig(), &globalConfig());
    EXPECT_EQ(getDefaultHandshakePort(), globalConfig().handshake_port);
    dumpGlobalConfig();
}

TEST(Settings, AreReadFromTheEnvironment) {
    const Set cq("MC_NUM_CQ_PER_CTX", "3"), mtu("MC_MTU", "1024"), wr("MC_MAX_WR", " 17 "), gid("NCCL_IB_GID_INDEX", "4"),
        cache("MC_DISABLE_METACACHE", "1"), level("MC_LOG_LEVEL", "TRACE"), type("MC_ENDPOINT_STORE_TYPE", "FIFO"),
        affinity("MC_NIC_PEER_AFFINITY", "a=b, c;d;=e;f=g"), sports("MC_MLX5_QP_UDP_SPORTS", "49152,x,49153"),
        low("MC_MIN_PRC_PORT", "20000"), high("MC_MAX_RPC_PORT", "21000"), six("MC_USE_IPV6", ""), ratio("MC_FRAGMENT_RATIO", "8");
    const GlobalConfig config = loaded();
    EXPECT_EQ(config.num_cq_per_ctx, 3u);
    EXPECT_EQ(config.num_jfc_per_ctx, 3u);
    EXPECT_EQ(config.mtu_length, 3);
    EXPECT_EQ(config.max_wr, 17u);
    EXPECT_TRUE(config.max_wr_from_env);
    EXPECT_EQ(config.gid_index, 4);
    EXPECT_FALSE(config.metacache);
    EXPECT_TRUE(config.trace);
    EXPECT_EQ(config.endpoint_store_type, EndpointStoreType::FIFO);
    ASSERT_EQ(config.nic_peer_affinity.size(), 2u);
    EXPECT_EQ(config.nic_peer_affinity.at("a"), (std::vector<std::string>{"b", "c"}));
    EXPECT_EQ(config.mlx5_qp_udp_sports, (std::vector<uint16_t>{49152, 49153}));
    EXPECT_EQ(config.rpc_min_port, 20000);
    EXPECT_EQ(config.rpc_max_port, 21000);
    EXPECT_TRUE(config.use_ipv6);
    EXPECT_EQ(config.fragment_limit, 65536u / 8);
}

TEST(Settings, KeepTheirDefaultsForBadValues) {
    for (const char *bad : {"", "x", "-1", "0x10", "1e3", "99999999999999999999", "12abc"}) {
        const Set port("MC_IB_PORT", bad), slice("MC_SLICE_SIZE", bad), sl("MC_IB_SL", bad), mtu("MC_MTU", bad), pkey("MC_PKEY_INDEX", bad),
            retries("MC_RETRY_CNT", bad), low("MC_MIN_RPC_PORT", bad), flag("MC_LOG_RDMA_SLICE_AFFINITY", bad);
        const GlobalConfig config = loaded();
        EXPECT_EQ(config.port, 1) << bad;
        EXPECT_EQ(config.slice_size, 65536u) << bad;
        EXPECT_EQ(config.ib_service_level, -1) << bad;
        EXPECT_EQ(config.mtu_length, 5) << bad;
        EXPECT_EQ(config.pkey_index, 0) << bad;
        EXPECT_EQ(config.retry_cnt, 9) << bad;
        EXPECT_EQ(config.rpc_min_port, 15000) << bad;
        EXPECT_FALSE(config.log_rdma_slice_affinity) << bad;
    }
}

TEST(Settings, AllowPortsThatNobodyElseUses) {
    EXPECT_EQ(ValidatePortRange(1024, 32767, 1, 2), std::make_pair(1024, 32767));
    EXPECT_EQ(ValidatePortRange(61000, 65535, 1, 2), std::make_pair(61000, 65535));
    for (const auto &[low, high] : {std::pair{1023, 2000}, {2000, 1999}, {2000, 40000}, {-1, 2000}, {2000, 65536}})
        EXPECT_EQ(ValidatePortRange(low, high, 1, 2), std::make_pair(1, 2)) << low << " " << high;
}

TEST(Environment, IsReadByType) {
    const Set number("MTE_T_NUMBER", " 42 "), bad("MTE_T_BAD", "4x2"), yes("MTE_T_YES", "On"), real("MTE_T_REAL", "2.5"), text("MTE_T_TEXT", "");
    EXPECT_EQ(Environ::GetInt("MTE_T_NUMBER", 1), 42);
    EXPECT_EQ(Environ::GetInt("MTE_T_BAD", 1), 1);
    EXPECT_EQ(Environ::GetInt("MTE_T_UNSET", 1), 1);
    EXPECT_EQ(Environ::GetInt64("MTE_T_NUMBER", 1), 42);
    EXPECT_EQ(Environ::GetUInt32("MTE_T_NUMBER", 1), 42u);
    EXPECT_EQ(Environ::GetUInt64("MTE_T_NUMBER", 1), 42u);
    EXPECT_EQ(Environ::GetSizeT("MTE_T_NUMBER", 1), 42u);
    EXPECT_TRUE(Environ::GetBool("MTE_T_YES", false));
    EXPECT_TRUE(Environ::GetBool("MTE_T_BAD", true));
    EXPECT_EQ(Environ::GetDouble("MTE_T_REAL", 0), 2.5);
    EXPECT_EQ(Environ::GetDouble("MTE_T_BAD", 0.5), 0.5);
    EXPECT_EQ(Environ::GetString("MTE_T_TEXT", "x"), "");
    EXPECT_EQ(Environ::GetString("MTE_T_UNSET", "x"), "x");
    EXPECT_EQ(Environ::Read(EnvironmentVariable<int>{"MTE_T_NUMBER"}), 42);
    EXPECT_FALSE(Environ::Read(EnvironmentVariable<int>{"MTE_T_BAD"}).has_value());
    EXPECT_FALSE(Environ::Read(EnvironmentVariable<bool>{"MTE_T_UNSET"}).has_value());
    EXPECT_EQ(Environ::ReadOr(EnvironmentVariable<uint16_t>{"MTE_T_NUMBER"}, uint16_t{3}), 42);
}

TEST(Environment, MayBeGiven) {
    Given given;
    EXPECT_EQ(Environ(given).GetMaxWr(), 256);
    EXPECT_TRUE(Environ(given).GetWithNvidiaPeermem());
    EXPECT_EQ(Environ(given).GetEndpointStoreType(), "SIEVE");
    given.values = {{"MC_MAX_WR", "8"}, {"MC_FORCE_TCP", "yes"}, {"MC_LOG_LEVEL", "ERROR"}, {"MC_MIN_PRC_PORT", "20001"}, {"MC_IB_TC", "bad"}};
    const Environ read(given);
    EXPECT_EQ(read.GetMaxWr(), 8);
    EXPECT_TRUE(read.GetForceTcp());
    EXPECT_EQ(read.GetLogLevel(), "ERROR");
    EXPECT_EQ(read.GetMinRpcPort(), 20001);
    EXPECT_EQ(read.GetIbTc(), -1);
    EXPECT_EQ(&Environ::Get(), &Environ::Get());
}

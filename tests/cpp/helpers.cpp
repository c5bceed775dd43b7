#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <set>
#include <thread>

#include "common.h"
#include "memory_location.h"

using namespace mooncake;

TEST(HostNames, AreTakenApart) {
    struct Case {
        const char *name;
        const char *host;
        uint16_t port;
        bool explicit_port;
    };
    const uint16_t otherwise = getDefaultHandshakePort();
    const Case cases[] = {
        {"node", "node", otherwise, false},
        {"node:15000", "node", 15000, true},
        {"node:x", "node", otherwise, true},
        {"node:70000", "node", otherwise, true},
        {"10.0.0.1:65535", "10.0.0.1", 65535, true},
        {"", "", otherwise, false},
        {":7", "", 7, true},
        {"::1", "::1", otherwise, false},
        {"[::1]", "::1", otherwise, false},
        {"[::1]:15000", "::1", 15000, true},
        {"[2001:db8::7]:1", "2001:db8::7", 1, true},
        {"fe80::1%eth0", "fe80::1%eth0", otherwise, false},
        {"fe80::1%eth0:9", "fe80::1%eth0", 9, true},
        {"[fe80::1%eth0]:9", "fe80::1%eth0", 9, true},
        {"[node]:9", "[node]", 9, true},
        {"[::1", "[:", 1, true},
    };
    for (const Case &one : cases) {
        const auto [host, port] = parseHostNameWithPort(one.name);
        EXPECT_EQ(host, one.host) << one.name;
        EXPECT_EQ(port, one.port) << one.name;
        EXPECT_EQ(hasExplicitPort(one.name), one.explicit_port) << one.name;
        EXPECT_EQ(getHostNameWithoutPort(one.name), one.host) << one.name;
    }
    EXPECT_EQ(buildHostNameWithPort("::1", 5), "[::1]:5");
    EXPECT_EQ(buildHostNameWithPort("node", 5), "node:5");
    EXPECT_EQ(maybeWrapIpV6("1.2.3.4"), "1.2.3.4");
    EXPECT_TRUE(isValidIpV6("fe80::1%lo"));
    EXPECT_FALSE(isValidIpV6("1.2.3.4"));
    EXPECT_FALSE(getHostname().empty());
    EXPECT_EQ(parseFromString<int>("-5"), -5);
    EXPECT_FALSE(parseFromString<uint8_t>("256").has_value());
    EXPECT_EQ(getPortFromString("5x", 7), 7);
}

TEST(HostNames, MayNameADevice) {
    int device = -1;
    EXPECT_EQ(parseHostNameWithPortAscend("node:12:npu_3", &device), std::make_pair(std::string("node"), uint16_t{12}));
    EXPECT_EQ(device, 3);
    EXPECT_EQ(parseHostNameWithPortAscend("[::1]:12:npu_4", &device), std::make_pair(std::string("::1"), uint16_t{12}));
    EXPECT_EQ(device, 4);
    EXPECT_EQ(parseHostNameWithPortAscend("node", &device).second, getDefaultHandshakePort());
    EXPECT_EQ(parsePortAndDevice("9:_5", 1, &device), 9);
    EXPECT_EQ(device, 4);
}

TEST(NicPaths, AreMadeAndTakenApart) {
    EXPECT_EQ(MakeNicPath("node:15000", "mlx5_0"), "node:15000@mlx5_0");
    EXPECT_EQ(getServerNameFromNicPath("node:15000@mlx5_0"), "node:15000");
    EXPECT_EQ(getNicNameFromNicPath("node:15000@mlx5_0"), "mlx5_0");
    EXPECT_EQ(getNicNameFromNicPath("node"), "");
    EXPECT_EQ(normalizeNicPath("node:15000@mlx5_0"), "node@mlx5_0");
    EXPECT_EQ(normalizeNicPath("node"), "node");
}

TEST(Ranges, Overlap) {
    const char bytes[64] = {};
    EXPECT_TRUE(overlap(bytes, 10, bytes + 9, 1));
    EXPECT_TRUE(overlap(bytes + 9, 1, bytes, 10));
    EXPECT_FALSE(overlap(bytes, 10, bytes + 10, 1));
    EXPECT_FALSE(overlap(bytes + 10, 1, bytes, 10));
}

TEST(Clocks, TellTheTime) {
    const int64_t before = getCurrentTimeInNano();
    EXPECT_GT(before, int64_t{1} << 60);
    EXPECT_GE(getCurrentTimeInMilli(), before / 1000000);
    const std::string now = getCurrentDateTime();
    ASSERT_EQ(now.size(), 26u);
    EXPECT_EQ(now[19], '.');
}

TEST(Locks, KeepOthersOut) {
    RWSpinlock lock;
    TicketLock ticket;
    int guarded = 0, counted = 0;
    const auto work = [&] {
        for (int i = 0; i < 20000; ++i) {
            {
                const RWSpinlock::WriteGuard guard(lock);
                ++guarded;
            }
            const RWSpinlock::ReadGuard guard(lock);
            EXPECT_GT(guarded, 0);
            ticket.lock();
            ++counted;
            ticket.unlock();
        }
    };
    std::thread first(work), second(work);
    first.join();
    second.join();
    EXPECT_EQ(guarded, 40000);
    EXPECT_EQ(counted, 40000);
    lock.lock();
    EXPECT_FALSE(lock.tryLockShared());
    lock.unlockAndLockShared();
    EXPECT_FALSE(lock.tryLock());
    EXPECT_TRUE(lock.tryLockShared());
    lock.unlockShared();
    lock.unlockShared();
    EXPECT_TRUE(lock.tryLock());
    lock.unlock();
}

TEST(RandomNumbers, StayBelowTheirBound) {
    std::set<uint32_t> seen;
    for (int i = 0; i < 1000; ++i) seen.insert(SimpleRandom::Get().next(8));
    EXPECT_EQ(seen.size(), 8u);
    EXPECT_EQ(*seen.rbegin(), 7u);
    EXPECT_EQ(SimpleRandom(0).next(0), 0u);
    EXPECT_NE(SimpleRandom(0).next(), 0u);
}

TEST(Frames, GoThroughASocket) {
    int ends[2];
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    for (const auto type : {HandShakeRequestType::Connection, HandShakeRequestType::Metadata, HandShakeRequestType::Notify,
                            HandShakeRequestType::Probe}) {
        ASSERT_EQ(writeString(ends[0], type, "{}"), 0);
        EXPECT_EQ(readString(ends[1]), std::make_pair(type, std::string("{}")));
    }
    ASSERT_EQ(writeString(ends[0], HandShakeRequestType::OldProtocol, "{\"a\":1}"), 0);
    EXPECT_EQ(readString(ends[1]), std::make_pair(HandShakeRequestType::OldProtocol, std::string("{\"a\":1}")));
    for (const uint64_t length : {uint64_t{0}, UINT64_MAX, uint64_t{getHandshakeMaxLength()} + 1}) {
        ASSERT_EQ(writeFully(ends[0], &length, sizeof length), ssize_t{sizeof length});
        EXPECT_EQ(readString(ends[1]).first, HandShakeRequestType::Invalid);
    }
    const uint64_t length = 100;
    ASSERT_EQ(writeFully(ends[0], &length, sizeof length), ssize_t{sizeof length});
    close(ends[0]);
    EXPECT_EQ(readString(ends[1]), std::make_pair(HandShakeRequestType::Invalid, std::string()));
    close(ends[1]);
    EXPECT_EQ(writeString(-1, HandShakeRequestType::Probe, ""), ERR_SOCKET);
    EXPECT_GE(getHandshakeMaxLength(), kDefaultHandshakeMaxLength);
    EXPECT_LE(getHandshakeMaxLength(), kMaxHandshakeMaxLength);
}

TEST(Locations, CoverARange) {
    const size_t length = 8 * pagesize;
    void *mapped = mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ASSERT_NE(mapped, MAP_FAILED);
    // Half of it has pages.
    std::memset(mapped, 1, length / 2);
    char *const start = static_cast<char *>(mapped) + 100;
    const auto entries = getMemoryLocation(start, length - 100, false);
    uint64_t at = reinterpret_cast<uint64_t>(start);
    for (const MemoryLocationEntry &entry : entries) {
        EXPECT_EQ(entry.start, at);
        at += entry.len;
    }
    EXPECT_EQ(at, reinterpret_cast<uint64_t>(mapped) + length);
    EXPECT_EQ(entries.back().location, kWildcardLocation);
    ASSERT_EQ(getMemoryLocation(start, length - 100, true).size(), 1u);
    ASSERT_EQ(getMemoryLocation(start, 0, false).size(), 1u);
    munmap(mapped, length);
}

TEST(Locations, MayBeSpreadOverNodes) {
    SegmentsLocationInfo info;
    const std::string text = buildSegmentsLocation(4096, {1, 3, 5});
    EXPECT_EQ(text, "segments:4096:1,3,5");
    ASSERT_TRUE(parseSegmentsLocation(text, info));
    EXPECT_EQ(info.page_size, 4096u);
    EXPECT_EQ(info.numa_nodes, (std::vector<int>{1, 3, 5}));
    EXPECT_EQ(resolveSegmentsLocation(info, 300, 0), "cpu:1");
    EXPECT_EQ(resolveSegmentsLocation(info, 300, 100), "cpu:3");
    EXPECT_EQ(resolveSegmentsLocation(info, 300, UINT64_MAX), "cpu:5");
    EXPECT_EQ(resolveSegmentsLocation(info, 2, 0), kWildcardLocation);
    for (const char *bad : {"", "cpu:0", "segments:", "segments:4096", "segments:x:1", "segments:4096:", "segments:4096:a",
                            "segments:99999999999999999999999:1"})
        EXPECT_FALSE(parseSegmentsLocation(bad, info)) << bad;
    EXPECT_EQ(info.numa_nodes.size(), 3u);
}

TEST(Nodes, TakeThreads) {
    std::thread([] {
        EXPECT_EQ(bindToSocket(0), 0);
        EXPECT_EQ(bindToSocket(-1), 0);
        EXPECT_EQ(bindToSocket(100000), 0);
    }).join();
}

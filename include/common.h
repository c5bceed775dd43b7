/* SPDX-License-Identifier: Apache-2.0
 * Free helpers that programs take from this header: host names with ports, clocks, locks, frames of the handshake protocol. */

#ifndef COMMON_H
#define COMMON_H

// The programs rely on these, too.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <unistd.h>
#if __has_include(<numa.h>)
#include <numa.h>
#endif
#ifdef MTE_WITH_GLOG
#include <glog/logging.h>
#endif

#include <atomic>
#include <charconv>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <iomanip>
#include <iostream>
#include <mutex>
#include <optional>
#include <sstream>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "config.h"
#include "error.h"
#include "transfer_engine/detail/clock.h"
#include "transfer_engine/detail/frames.h"
#include "transfer_engine/detail/host_port.h"
#include "transfer_engine/detail/locks.h"
#include "transfer_engine/detail/numa.h"

#ifndef likely
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#endif

namespace mooncake {

/** The id of the engine's own segment. */
inline constexpr int LOCAL_SEGMENT_ID = 0;

/** "server@nic" */
inline const std::string NIC_PATH_DELIM = "@";

inline std::string getServerNameFromNicPath(const std::string &nic_path) {
    const size_t at = nic_path.find(NIC_PATH_DELIM);
    return at == std::string::npos ? std::string() : nic_path.substr(0, at);
}

inline std::string getNicNameFromNicPath(const std::string &nic_path) {
    const size_t at = nic_path.find(NIC_PATH_DELIM);
    return at == std::string::npos ? std::string() : nic_path.substr(at + 1);
}

inline std::string MakeNicPath(const std::string &server_name, const std::string &nic_name) {
    return server_name + NIC_PATH_DELIM + nic_name;
}

/** Without the server's port. */
inline std::string normalizeNicPath(const std::string &nic_path) {
    const std::string server = getServerNameFromNicPath(nic_path), nic = getNicNameFromNicPath(nic_path);
    if (server.empty() || nic.empty()) return nic_path;
    return MakeNicPath(server.substr(0, server.rfind(':')), nic);
}

/** Whether two ranges have a byte in common. */
inline bool overlap(const void *a, size_t a_len, const void *b, size_t b_len) {
    const auto first = reinterpret_cast<uintptr_t>(a), second = reinterpret_cast<uintptr_t>(b);
    return first >= second ? first - second < b_len : second - first < a_len;
}

/** A generator of numbers that need not be secret. */
class SimpleRandom {
  public:
    explicit SimpleRandom(uint32_t seed) : current_(seed) {}

    /** This thread's own. */
    static SimpleRandom &Get() {
        static std::atomic<uint32_t> threads{0};
        thread_local SimpleRandom random(static_cast<uint32_t>(getCurrentTimeInNano()) + threads.fetch_add(0x9e3779b9));
        return random;
    }

    uint32_t next() {
        // xorshift32, which needs a state that is not 0.
        if (current_ == 0) current_ = 0x9e3779b9;
        current_ ^= current_ << 13;
        current_ ^= current_ >> 17;
        current_ ^= current_ << 5;
        return current_;
    }

    /** Below `max`; 0 if that is 0. */
    uint32_t next(uint32_t max) { return max == 0 ? 0 : next() % max; }

  private:
    uint32_t current_;
};

}  // namespace mooncake

#endif  // COMMON_H

/* SPDX-License-Identifier: Apache-2.0
 * What TransferEngine::showLinks says before init: the NICs that the topology names. */

#ifndef MOONCAKE_SHOW_LINKS_H_
#define MOONCAKE_SHOW_LINKS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "topology.h"

namespace mooncake {

struct NicDiagInfo {
    std::string device_name;
    int numa_node = -1;
    std::string gid;
    int gid_index = -1;
    uint8_t port = 0;
    int active_speed = 0;
    int active_width = 0;
};

namespace detail {

/** Members as the engine's own, of which only the names are known. */
inline std::string linksAsJson(const Topology &topology) {
    std::string text = "{\"local_nics\":[";
    for (const std::string &nic : topology.getHcaList()) {
        if (text.back() != '[') text += ',';
        text += "{\"device\":" + detail::quoted(nic) + ",\"source\":\"topology\"}";
    }
    return text + "],\"topology\":" + topology.toString() + "}";
}

inline std::string linksAsText(const Topology &topology) {
    std::string text = "=== Local NICs ===\n";
    if (topology.getHcaList().empty()) text += "  (no RDMA devices found)\n";
    for (const std::string &nic : topology.getHcaList()) text += "  " + nic + "  (topology only; RDMA is not installed)\n";
    return text;
}

}  // namespace detail
}  // namespace mooncake

#endif  // MOONCAKE_SHOW_LINKS_H_

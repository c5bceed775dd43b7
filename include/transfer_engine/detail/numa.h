/* SPDX-License-Identifier: Apache-2.0
 * NUMA nodes, from /sys and move_pages(2): libnuma is not needed. */

#ifndef TRANSFER_ENGINE_DETAIL_NUMA_H
#define TRANSFER_ENGINE_DETAIL_NUMA_H

#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <fstream>
#include <string>
#include <vector>

#include "error.h"
#include "transfer_engine/detail/settings.h"

namespace mooncake {
namespace detail {

/** The processors of a node, of a list like "0-3,8"; empty if there is no such node. */
inline std::vector<int> processorsOf(int node) {
    std::ifstream file("/sys/devices/system/node/node" + std::to_string(node) + "/cpulist");
    std::string list;
    std::vector<int> found;
    std::getline(file, list);
    for (const std::string &range : parts(list, ',')) {
        const size_t line = range.find('-');
        const auto first = wholeNumber<int>(std::string_view(range).substr(0, line));
        const auto last = line == std::string::npos ? first : wholeNumber<int>(std::string_view(range).substr(line + 1));
        if (!first || !last) continue;
        for (int processor = *first; processor <= *last && processor < CPU_SETSIZE; ++processor) found.push_back(processor);
    }
    return found;
}

/** The node of each page, negative where there is none yet; false if the system cannot tell. */
inline bool nodesOfPages(std::vector<void *> &pages, std::vector<int> &nodes) {
    nodes.assign(pages.size(), -1);
    return syscall(SYS_move_pages, 0, pages.size(), pages.data(), nullptr, nodes.data(), 0) == 0;
}

}  // namespace detail

/** Keeps the calling thread on a node's processors; node 0 for a node that does not exist. 0 or ERR_NUMA. */
inline int bindToSocket(int socket_id) {
    std::vector<int> processors = socket_id < 0 ? std::vector<int>() : detail::processorsOf(socket_id);
    if (processors.empty()) processors = detail::processorsOf(0);
    if (processors.empty()) return ERR_NUMA;
    cpu_set_t set;
    CPU_ZERO(&set);
    for (const int processor : processors) CPU_SET(static_cast<size_t>(processor), &set);
    return pthread_setaffinity_np(pthread_self(), sizeof set, &set) == 0 ? 0 : ERR_NUMA;
}

}  // namespace mooncake

#endif  // TRANSFER_ENGINE_DETAIL_NUMA_H

/* SPDX-License-Identifier: Apache-2.0
 * Where memory lies: "cpu:0", "cuda:1", "*" for nobody knows, and buffers that are spread over nodes. */

#ifndef MEMORY_LOCATION_H
#define MEMORY_LOCATION_H

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "common.h"

namespace mooncake {

inline constexpr int kPageSize = 4096;

inline const std::string kWildcardLocation = "*";
inline const std::string kSegmentsLocationPrefix = "segments:";

struct MemoryLocationEntry {
    uint64_t start;
    size_t len;
    std::string location;
};

/** The range in pieces that lie on one node each; "*" for pages that are not there yet. Device memory is not recognised.
 * A large range takes long: only_first_page looks at one page and speaks for all. */
inline std::vector<MemoryLocationEntry> getMemoryLocation(void *start, size_t len, bool only_first_page) {
    const auto location = [](int node) { return node >= 0 ? "cpu:" + std::to_string(node) : kWildcardLocation; };
    const auto first = reinterpret_cast<uint64_t>(start);
    const uint64_t page = first / kPageSize * kPageSize;
    uint64_t count = 1;
    if (!only_first_page && len > 0) count = (first - page + len + kPageSize - 1) / kPageSize;
    std::vector<void *> pages;
    std::vector<int> nodes;
    pages.reserve(count);
    for (uint64_t i = 0; i < count; ++i) pages.push_back(reinterpret_cast<void *>(page + i * kPageSize));
    if (!detail::nodesOfPages(pages, nodes)) return {{first, len, kWildcardLocation}};

    std::vector<MemoryLocationEntry> entries;
    uint64_t from = first;
    for (uint64_t i = 1; i < count; ++i) {
        // Absent pages have several error numbers and one location.
        if (nodes[i] == nodes[i - 1] || (nodes[i] < 0 && nodes[i - 1] < 0)) continue;
        const uint64_t until = page + i * kPageSize;
        entries.push_back({from, static_cast<size_t>(until - from), location(nodes[i - 1])});
        from = until;
    }
    entries.push_back({from, static_cast<size_t>(first + len - from), location(nodes.back())});
    return entries;
}

/** A buffer in equal parts, each on a node: "segments:4096:1,3". */
struct SegmentsLocationInfo {
    size_t page_size = 0;
    std::vector<int> numa_nodes;
};

inline std::string buildSegmentsLocation(size_t page_size, const std::vector<int> &numa_nodes) {
    std::string text = kSegmentsLocationPrefix + std::to_string(page_size) + ":";
    for (size_t i = 0; i < numa_nodes.size(); ++i) text += (i == 0 ? "" : ",") + std::to_string(numa_nodes[i]);
    return text;
}

/** False, and `info` as it was, for what is not of that form. */
inline bool parseSegmentsLocation(const std::string &name, SegmentsLocationInfo &info) {
    if (name.compare(0, kSegmentsLocationPrefix.size(), kSegmentsLocationPrefix) != 0) return false;
    const std::string_view body = std::string_view(name).substr(kSegmentsLocationPrefix.size());
    const size_t colon = body.find(':');
    if (colon == std::string_view::npos) return false;
    const auto page_size = detail::wholeNumber<size_t>(body.substr(0, colon));
    std::vector<int> nodes;
    for (const std::string &part : detail::parts(body.substr(colon + 1), ',')) {
        const auto node = detail::wholeNumber<int>(part);
        if (!node) return false;
        nodes.push_back(*node);
    }
    if (!page_size || nodes.empty()) return false;
    info.page_size = *page_size;
    info.numa_nodes = std::move(nodes);
    return true;
}

/** The location of one offset in such a buffer. */
inline std::string resolveSegmentsLocation(const SegmentsLocationInfo &info, uint64_t buffer_length, uint64_t offset) {
    const size_t nodes = info.numa_nodes.size();
    const uint64_t part = nodes == 0 ? 0 : buffer_length / nodes;
    if (part == 0) return kWildcardLocation;
    const uint64_t index = offset / part;
    return "cpu:" + std::to_string(info.numa_nodes[index < nodes ? index : nodes - 1]);
}

}  // namespace mooncake

/** Upstream's name for it, outside the namespace. */
inline constexpr int pagesize = mooncake::kPageSize;

#endif  // MEMORY_LOCATION_H

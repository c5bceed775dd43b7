/* SPDX-License-Identifier: Apache-2.0
 * The parts of a segment's descriptor, and how they are read from its JSON. */

#ifndef TRANSFER_ENGINE_DETAIL_DESCRIPTORS_H
#define TRANSFER_ENGINE_DETAIL_DESCRIPTORS_H

#include <cstdint>
#include <string>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "transfer_engine/detail/json.h"

namespace mooncake {
namespace detail {

struct DeviceDesc {
    std::string name;
    uint16_t lid = 0;
    std::string gid;
    std::string eid;

    auto key() const { return std::tie(name, lid, gid, eid); }
    bool operator==(const DeviceDesc &other) const { return key() == other.key(); }
    bool operator!=(const DeviceDesc &other) const { return !(*this == other); }

    static DeviceDesc read(const Json &from) {
        return {from.string("name"), from.number<uint16_t>("lid"), from.string("gid"), from.string("eid")};
    }
};

struct BufferDesc {
    using mr_key_t = uint32_t;

    /** The location, or with TCP the server's name. */
    std::string name;
    uint64_t addr = 0;
    uint64_t length = 0;
    int32_t device_id = -1;
    std::string protocol;
    /** One per device. */
    std::vector<mr_key_t> lkey;
    std::vector<mr_key_t> rkey;
    std::string shm_name;
    uint64_t offset = 0;
    std::vector<std::string> tseg;
    std::vector<uint32_t> l_seg_index;

    auto key() const {
        return std::tie(name, addr, length, device_id, protocol, lkey, rkey, shm_name, offset, tseg, l_seg_index);
    }
    bool operator==(const BufferDesc &other) const { return key() == other.key(); }
    bool operator!=(const BufferDesc &other) const { return !(*this == other); }

    static BufferDesc read(const Json &from) {
        BufferDesc buffer;
        buffer.name = from.string("name");
        buffer.addr = from.number<uint64_t>("addr");
        buffer.length = from.number<uint64_t>("length");
        buffer.device_id = from.number<int32_t>("device_id", -1);
        buffer.shm_name = from.string("shm_name");
        buffer.offset = from.number<uint64_t>("offset");
        keys(from.find("lkey"), buffer.lkey);
        keys(from.find("rkey"), buffer.rkey);
        return buffer;
    }

  private:
    static void keys(const Json *from, std::vector<mr_key_t> &to) {
        if (from == nullptr || !from->isArray()) return;
        for (const Json &item : from->items) to.push_back(item.as<mr_key_t>(0));
    }
};

struct NVMeoFBufferDesc {
    std::string file_path;
    uint64_t length = 0;
    std::unordered_map<std::string, std::string> local_path_map;

    bool operator==(const NVMeoFBufferDesc &other) const {
        return file_path == other.file_path && length == other.length && local_path_map == other.local_path_map;
    }
    bool operator!=(const NVMeoFBufferDesc &other) const { return !(*this == other); }
};

struct RankInfoDesc {
    uint64_t rankId = 0xFFFFFFFF;
    std::string hostIp;
    uint64_t hostPort = 0;
    uint64_t deviceLogicId = 0;
    uint64_t devicePhyId = 0;
    uint64_t deviceType = 5;
    std::string deviceIp;
    uint64_t devicePort = 0;
    uint64_t pid = 0;
    std::vector<std::string> endpoints;

    auto key() const {
        return std::tie(rankId, hostIp, hostPort, deviceLogicId, devicePhyId, deviceType, deviceIp, devicePort, pid, endpoints);
    }
    bool operator==(const RankInfoDesc &other) const { return key() == other.key(); }
    bool operator!=(const RankInfoDesc &other) const { return !(*this == other); }
};

/** Reads the elements of an array; nothing from what is none. */
template <typename T>
std::vector<T> readAll(const Json *from) {
    std::vector<T> found;
    if (from == nullptr || !from->isArray()) return found;
    found.reserve(from->items.size());
    for (const Json &item : from->items) found.push_back(T::read(item));
    return found;
}

}  // namespace detail
}  // namespace mooncake

#endif  // TRANSFER_ENGINE_DETAIL_DESCRIPTORS_H

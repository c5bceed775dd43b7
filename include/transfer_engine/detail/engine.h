/* SPDX-License-Identifier: Apache-2.0
 * Members of TransferEngine that are longer than a line or two. Included by transfer_engine.h. */

#ifndef TRANSFER_ENGINE_DETAIL_ENGINE_H
#define TRANSFER_ENGINE_DETAIL_ENGINE_H

#include <cstring>

#include "transfer_engine.h"

namespace mooncake {

inline int TransferEngine::getSegmentBuffers(SegmentID segment_id, std::vector<SegmentBufferInfo> &buffers) {
    if (!detail::isSegmentId(segment_id)) return detail::noSuchSegment(segment_id);
    std::vector<mte_buffer_t> found;
    size_t count = 0;
    const int code = call([&](transfer_engine_t engine) {
        int asked = 0;
        // Between two calls there may be more.
        do {
            found.resize(count);
            asked = mte_segment_buffers(engine, static_cast<int32_t>(segment_id), found.empty() ? nullptr : found.data(), &count);
        } while (asked == 0 && count > found.size());
        return asked;
    });
    if (code < 0) return code;
    found.resize(count);
    buffers.clear();
    for (const mte_buffer_t &buffer : found) buffers.push_back({buffer.addr, buffer.length, buffer.location});
    return 0;
}

inline Status TransferEngine::getNicLoadStats(std::vector<NicLoadStats> &stats) const {
    std::vector<nic_load_stat_t> found;
    size_t count = 4;
    const Status asked = owned().status([&](transfer_engine_t engine) {
        int code = 0;
        do {
            found.resize(count);
            code = ::getNicLoadStats(engine, found.data(), &count);
        } while (code == 0 && count > found.size());
        return code;
    });
    if (!asked.ok()) return asked;
    found.resize(count);
    stats.clear();
    for (const nic_load_stat_t &nic : found) stats.push_back({nic.device_name, nic.inflight_bytes, nic.ewma_bandwidth_bps});
    return asked;
}

inline Status TransferEngine::getBatchTransferStatus(BatchID batch_id, TransferStatus &status) {
    transfer_status_t found{};
    const Status asked = owned().status([&](transfer_engine_t engine) { return ::getBatchTransferStatus(engine, batch_id, &found); });
    if (asked.ok()) status = {static_cast<TransferStatusEnum>(found.status), static_cast<size_t>(found.transferred_bytes)};
    return asked;
}

inline Status TransferEngine::submitTransferWithNotify(BatchID batch_id, const std::vector<TransferRequest> &entries,
                                                       TransferMetadata::NotifyDesc notify_msg) {
    if (!detail::isText(notify_msg.name) || !detail::isText(notify_msg.notify_msg))
        return detail::failed(Status::InvalidArgument("a notification with a NUL inside would arrive cut"));
    return Transport::convert(owned(), entries, [&](transfer_engine_t engine, std::vector<transfer_request_t> &requests) {
        const notify_msg_t message{notify_msg.name.data(), notify_msg.notify_msg.data()};
        return ::submitTransferWithNotify(engine, batch_id, requests.data(), requests.size(), message);
    });
}

inline int TransferEngine::mp_registerLocalMemory(std::unordered_map<std::string, std::vector<RegisteredBuffer>> &buffer_map) {
    std::vector<void *> done;
    int code = 0;
    for (const auto &[proto, list] : buffer_map) {
        if (getTransport(proto) == nullptr) code = ERR_INVALID_ARGUMENT;
        for (size_t i = 0; code == 0 && i < list.size(); ++i) {
            code = registerLocalMemory(list[i].addr, list[i].length, list[i].location, list[i].remote_accessible);
            if (code == 0) done.push_back(list[i].addr);
        }
        if (code != 0) break;
    }
    if (code != 0 && !done.empty()) {
        const Status why = lastError();
        unregisterLocalMemoryBatch(done);
        detail::failed(why);
    }
    return code;
}

inline int TransferEngine::mp_unregisterLocalMemory(std::unordered_map<std::string, std::vector<RegisteredBuffer>> &buffer_map) {
    int first = 0;
    for (const auto &[proto, list] : buffer_map) {
        if (getTransport(proto) == nullptr) return ERR_INVALID_ARGUMENT;
        for (const RegisteredBuffer &buffer : list) {
            const int code = unregisterLocalMemory(buffer.addr);
            if (first == 0) first = code;
        }
    }
    return first;
}

}  // namespace mooncake

#endif  // TRANSFER_ENGINE_DETAIL_ENGINE_H

/* SPDX-License-Identifier: Apache-2.0
 * What peers publish about themselves: descriptors of segments, and whether a peer is alive.
 *
 * A descriptor belongs to the caller: to change one changes nothing else. What upstream's own transports do with this class (publish, serve handshakes) is not here: the engine does that by itself. */

#ifndef TRANSFER_METADATA
#define TRANSFER_METADATA

#include <netdb.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <iostream>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "common.h"
#include "topology.h"
#include "transfer_engine/detail/descriptors.h"
#include "transfer_engine/detail/handle.h"

#define P2PHANDSHAKE "P2PHANDSHAKE"

namespace mooncake {

class TransferMetadata {
  public:
    using SegmentID = uint64_t;
    using DeviceDesc = detail::DeviceDesc;
    using BufferDesc = detail::BufferDesc;
    using NVMeoFBufferDesc = detail::NVMeoFBufferDesc;
    using RankInfoDesc = detail::RankInfoDesc;

    struct SegmentDesc {
        std::string name;
        std::string protocol;
        std::vector<DeviceDesc> devices;
        Topology topology;
        std::vector<BufferDesc> buffers;
        std::vector<NVMeoFBufferDesc> nvmeof_buffers;
        std::string cxl_name;
        uint64_t cxl_base_addr = 0;
        /** When it was published, by its owner's clock. */
        std::string timestamp;
        RankInfoDesc rank_info;
        int tcp_data_port = 0;
        int tcp_proto_version = 1;
        /** Empty: as `name`. */
        std::string rdma_server_name;

        const std::string &nicPathServerName() const { return rdma_server_name.empty() ? name : rdma_server_name; }

        /** The timestamp does not count. */
        bool operator==(const SegmentDesc &other) const {
            return std::tie(name, protocol, devices, buffers, nvmeof_buffers, cxl_name, cxl_base_addr, rank_info, tcp_data_port,
                            tcp_proto_version, rdma_server_name) ==
                       std::tie(other.name, other.protocol, other.devices, other.buffers, other.nvmeof_buffers, other.cxl_name,
                                other.cxl_base_addr, other.rank_info, other.tcp_data_port, other.tcp_proto_version,
                                other.rdma_server_name) &&
                   topology == other.topology;
        }
        bool operator!=(const SegmentDesc &other) const { return !(*this == other); }

        /** Prints it to standard error. */
        void dump() const {
            std::clog << "segment " << name << ", " << protocol << ", tcp port " << tcp_data_port << ", NICs " << topology.toString() << '\n';
            for (const DeviceDesc &device : devices) std::clog << "  " << device.name << ' ' << device.gid << '\n';
            for (const BufferDesc &buffer : buffers)
                std::clog << "  " << buffer.name << " 0x" << std::hex << buffer.addr << std::dec << " + " << buffer.length << '\n';
        }
    };

    struct RpcMetaDesc {
        std::string ip_or_host_name;
        uint16_t rpc_port = 0;
        int sockfd = -1;
    };

    struct HandShakeDesc {
        std::string payload;
        std::string local_nic_path;
        uint16_t local_lid = 0;
        std::string local_gid;
        std::string peer_nic_path;
        std::vector<uint32_t> qp_num;
        bool ready_ack = false;
        bool ready_ack_supported = false;
        std::string reply_msg;
    };

    struct NotifyDesc {
        std::string name;
        std::string notify_msg;
    };

    /** Without an engine it knows nothing: every call fails. TransferEngine::getMetadata() gives one that does. */
    explicit TransferMetadata(const std::string &conn_string) : TransferMetadata(std::make_shared<detail::Handle>()) {
        (void)conn_string;
    }
    TransferMetadata(const TransferMetadata &) = delete;
    TransferMetadata &operator=(const TransferMetadata &) = delete;

    /** The descriptor of an open segment, 0 for the own. Another's is at most a second old, or half a minute
     * while its owner does not answer; force_update: its owner or the store
     * is asked. NULL on failure; lastError() says why. */
    std::shared_ptr<SegmentDesc> getSegmentDescByID(SegmentID segment_id, bool force_update = false) {
        if (handle_->get() == nullptr) return detail::refused(ERR_INVALID_ARGUMENT, detail::kNotInitialised), nullptr;
        if (segment_id == LOCAL_SEGMENT_ID) return describe(segment_id);
        Known known = recall(segment_id);
        const auto now = std::chrono::steady_clock::now();
        if (force_update || known.desc == nullptr || now - known.read > known.life) {
            std::shared_ptr<const SegmentDesc> desc = describe(segment_id);
            // A peer that does not answer is what it last was, unless that is not good enough.
            if (desc == nullptr && (force_update || known.desc == nullptr)) return nullptr;
            // Whoever asks per request must not wait for a silent peer each time.
            known.life = desc != nullptr ? std::chrono::seconds(1) : std::chrono::seconds(30);
            known.read = std::chrono::steady_clock::now();
            if (desc != nullptr) known.desc = std::move(desc);
            const std::lock_guard<std::mutex> guard(mutex_);
            known_[segment_id] = known;
        }
        return std::make_shared<SegmentDesc>(*known.desc);
    }

    /** As getSegmentDescByID; the segment need not be open. */
    std::shared_ptr<SegmentDesc> getSegmentDescByName(const std::string &segment_name, bool force_update = false) {
        const transfer_engine_t engine = handle_->get();
        if (engine == nullptr) return detail::refused(ERR_INVALID_ARGUMENT, detail::kNotInitialised), nullptr;
        if (!isName(segment_name)) return nullptr;
        const detail::OpenSegment segment(engine, segment_name, force_update);
        if (detail::result(segment.id()) < 0) return nullptr;
        return getSegmentDescByID(static_cast<SegmentID>(segment.id()), force_update);
    }

    std::shared_ptr<SegmentDesc> getSegmentDesc(const std::string &segment_name) { return getSegmentDescByName(segment_name, true); }

    /** Opens the segment. SegmentID(-1) on failure. */
    SegmentID getSegmentID(const std::string &segment_name) {
        if (!isName(segment_name)) return static_cast<SegmentID>(-1);
        const int id = handle_->call([&](transfer_engine_t engine) { return openSegment(engine, segment_name.c_str()); });
        return id < 0 ? static_cast<SegmentID>(-1) : static_cast<SegmentID>(id);
    }

    /** Reads the descriptors of all open segments again, or of one. 0 or a code; of all, failures are only logged. */
    int syncSegmentCache(const std::string &segment_name = "") {
        forget();
        if (segment_name.empty()) return handle_->call([](transfer_engine_t engine) { return ::syncSegmentCache(engine); });
        if (!isName(segment_name)) return ERR_INVALID_ARGUMENT;
        const int code = handle_->call([&](transfer_engine_t engine) { return detail::OpenSegment(engine, segment_name, true).id(); });
        return code < 0 ? code : 0;
    }

    /** Forgets a peer's descriptor. A store keeps it: what a peer published is not taken out by others. */
    int removeSegmentDesc(const std::string &segment_name) { return removeLocalSegment(segment_name); }
    int removeLocalSegment(const std::string &segment_name) {
        if (!isName(segment_name)) return ERR_INVALID_ARGUMENT;
        forget();
        return handle_->call([&](transfer_engine_t engine) { return ::removeLocalSegment(engine, segment_name.c_str()); });
    }

    /** The engine publishes what has changed or was lost by itself, so this only says whether there is one: 0 or a code. */
    int updateLocalSegmentDesc(SegmentID segment_id = LOCAL_SEGMENT_ID) {
        if (segment_id != LOCAL_SEGMENT_ID) return detail::refused(ERR_INVALID_ARGUMENT, "only the own segment can be published");
        return handle_->call([](transfer_engine_t) { return 0; });
    }
    int rePublishRpcMetaEntry(const std::string &) { return updateLocalSegmentDesc(); }

    /** Where the engine's own handshake port is. */
    const RpcMetaDesc &localRpcMeta() const { return local_rpc_meta_; }

    /** As TransferEngine::getNotifies. */
    int getNotifies(std::vector<NotifyDesc> &notifies) {
        int count = 0;
        const int code = handle_->call([&](transfer_engine_t engine) {
            const auto done = [&count](notify_msg_t *list) { freeNotifsMsgBuf(list, count); };
            const std::unique_ptr<notify_msg_t, decltype(done)> list(getNotifsFromEngine(engine, &count), done);
            for (int i = 0; list != nullptr && i < count; ++i) notifies.push_back({list.get()[i].name, list.get()[i].msg});
            return 0;
        });
        return code;
    }

    /** Sends a message to the engine that owns a segment and waits for the receipt. peer_desc stays as it is. */
    int sendNotify(const std::string &peer_server_name, const NotifyDesc &local_desc, NotifyDesc &peer_desc) {
        (void)peer_desc;
        if (!isName(peer_server_name)) return ERR_INVALID_ARGUMENT;
        return notify(local_desc, [&](transfer_engine_t engine, notify_msg_t message) {
            const detail::OpenSegment segment(engine, peer_server_name);
            return segment.id() < 0 ? segment.id() : genNotifyInEngine(engine, static_cast<uint64_t>(segment.id()), message);
        });
    }

    /** 0 if the peer's engine answers, else why not. */
    int sendProbe(const std::string &peer_server_name) {
        if (!isName(peer_server_name)) return ERR_INVALID_ARGUMENT;
        return handle_->call([&](transfer_engine_t engine) { return mte_probe_peer(engine, peer_server_name.c_str()); });
    }

    /** Prints the descriptor of a segment, the own for "", to standard error. */
    void dumpMetadataContent(const std::string &segment_name = "", uint64_t = 0, uint64_t = 0) {
        const auto desc = segment_name.empty() ? describe(LOCAL_SEGMENT_ID) : getSegmentDescByName(segment_name);
        if (desc != nullptr) desc->dump();
    }

  private:
    friend class TransferEngine;
    friend class TransferEngineState;

    explicit TransferMetadata(std::shared_ptr<detail::Handle> handle) : handle_(std::move(handle)) {}

    struct Known {
        std::shared_ptr<const SegmentDesc> desc;
        std::chrono::steady_clock::time_point read;
        /** How long it is good enough. */
        std::chrono::seconds life{0};
    };

    Known recall(SegmentID segment_id) {
        const std::lock_guard<std::mutex> guard(mutex_);
        const auto found = known_.find(segment_id);
        return found == known_.end() ? Known() : found->second;
    }

    void forget() {
        const std::lock_guard<std::mutex> guard(mutex_);
        known_.clear();
    }

    static bool isName(const std::string &name) {
        if (!name.empty() && detail::isText(name)) return true;
        detail::refused(ERR_INVALID_ARGUMENT, "a segment's name is not empty and has no NUL inside");
        return false;
    }

    template <typename Send>
    int notify(const NotifyDesc &desc, Send send) const {
        if (!detail::isText(desc.name) || !detail::isText(desc.notify_msg))
            return detail::refused(ERR_INVALID_ARGUMENT, "a notification with a NUL inside would arrive cut");
        // The C API does not write to them.
        const notify_msg_t message{const_cast<char *>(desc.name.c_str()), const_cast<char *>(desc.notify_msg.c_str())};
        return handle_->call([&](transfer_engine_t engine) { return send(engine, message); });
    }

    std::shared_ptr<SegmentDesc> describe(SegmentID segment_id) {
        if (!detail::isSegmentId(segment_id)) return detail::noSuchSegment(segment_id), nullptr;
        std::string text;
        const int code = handle_->call([&](transfer_engine_t engine) {
            return detail::readText(text, [&](char *buffer, size_t *length) {
                return mte_segment_descriptor(engine, static_cast<int32_t>(segment_id), buffer, length);
            });
        });
        if (code < 0) return nullptr;
        const auto value = detail::Json::parse(text);
        if (value && value->kind == detail::Json::Kind::Null) {
            detail::refused(ERR_METADATA, "nothing is published before a transport is installed");
            return nullptr;
        }
        if (!value || !value->isObject()) {
            detail::refused(ERR_MALFORMED_JSON, "the descriptor of segment " + std::to_string(segment_id) + " cannot be read");
            return nullptr;
        }
        return decode(*value);
    }

    static std::shared_ptr<SegmentDesc> decode(const detail::Json &from) {
        auto desc = std::make_shared<SegmentDesc>();
        desc->name = from.string("name");
        desc->protocol = from.string("protocol");
        desc->timestamp = from.string("timestamp");
        desc->rdma_server_name = from.string("rdma_server_name");
        desc->tcp_data_port = from.number<int>("tcp_data_port");
        desc->tcp_proto_version = from.number<int>("tcp_proto_version", 1);
        desc->devices = detail::readAll<DeviceDesc>(from.find("devices"));
        desc->buffers = detail::readAll<BufferDesc>(from.find("buffers"));
        if (const detail::Json *matrix = from.find("priority_matrix")) desc->topology.read(*matrix, false);
        return desc;
    }

    std::shared_ptr<detail::Handle> handle_;
    RpcMetaDesc local_rpc_meta_;
    /** Guards known_. */
    std::mutex mutex_;
    std::unordered_map<SegmentID, Known> known_;
};

}  // namespace mooncake

#endif  // TRANSFER_METADATA

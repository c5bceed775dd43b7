/* SPDX-License-Identifier: Apache-2.0
 * mooncake::TransferEngine: moves blocks of memory between processes and hosts. A class over the C API of libtransfer_engine,
 * with upstream's names, so that programs written for it compile unchanged. Headers only; link -ltransfer_engine.
 *
 * Any mixture of threads may use an engine, but init and what configures init run alone. No call before init, or after
 * freeEngine, does anything but fail. Functions that return an int give 0 or a code of error.h, lastError() the text.
 *
 * Transfers may touch memory until freeEngine has returned. Calls beside it fail earlier, which does not say that buffers are
 * free; the waits and destructors of scatter operations and of scoped.h's classes return only when they are. */

#ifndef MULTI_TRANSFER_ENGINE_H_
#define MULTI_TRANSFER_ENGINE_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "memory_location.h"
#include "transfer_engine/detail/scatter.h"
#include "transfer_engine/detail/state.h"
#include "transfer_metadata.h"
#include "transport/transport.h"

namespace mooncake {

using TransferRequest = Transport::TransferRequest;
using TransferStatus = Transport::TransferStatus;
using TransferStatusEnum = Transport::TransferStatusEnum;
using SegmentHandle = Transport::SegmentHandle;
using SegmentID = Transport::SegmentID;
using BatchID = Transport::BatchID;
using BufferEntry = Transport::BufferEntry;
using NicLoadStats = Transport::NicLoadStats;

/** What allocateBatchID returns on failure. */
inline constexpr BatchID INVALID_BATCH_ID = UINT64_MAX;

enum class PeerLiveness : uint8_t { Alive = 0, Unreachable = 1 };

/** What peers may do with registered memory. */
enum class PeerAccess : int { None = 0, Read = MTE_PEERS_READ, Write = MTE_PEERS_WRITE, ReadWrite = MTE_PEERS_READ + MTE_PEERS_WRITE };

/** A buffer that a peer lets others reach. */
struct SegmentBufferInfo {
    uint64_t addr;
    uint64_t length;
    std::string location;
};

class TransferEngine {
  public:
    using ScatterTransferRange = detail::ScatterTransferRange;
    using ScatterTransferOperation = detail::ScatterTransferOperation;

    struct RegisteredBuffer {
        void *addr;
        size_t length;
        std::string location;
        bool remote_accessible;
        bool update_metadata;

        RegisteredBuffer(void *address, size_t bytes = 0, std::string where = kWildcardLocation, bool remote = true, bool update = true)
            : addr(address), length(bytes), location(std::move(where)), remote_accessible(remote), update_metadata(update) {}
    };

    /** auto_discover: init installs a transport, RDMA where a NIC works, else TCP. `filter`: the only NICs to use. */
    TransferEngine(bool auto_discover = false) : TransferEngine(auto_discover, {}) {}
    TransferEngine(bool auto_discover, const std::vector<std::string> &filter) : state_(std::make_shared<TransferEngineState>()) {
        state_->discovery.enabled = auto_discover;
        state_->filter = filter;
    }

    /** The source is as after freeEngine, and cannot be initialised again. */
    TransferEngine(TransferEngine &&other) noexcept = default;
    TransferEngine &operator=(TransferEngine &&other) noexcept {
        if (this != &other) {
            freeEngine();
            state_ = std::move(other.state_);
        }
        return *this;
    }
    ~TransferEngine() { freeEngine(); }

    /** Before init: as the constructor says. A protocol ("tcp", "rdma") is installed in place of the one that suits best. */
    void setAutoDiscover(bool auto_discover) { setAutoDiscover(AutoDiscoverConfig{auto_discover, ""}); }
    void setAutoDiscover(const AutoDiscoverConfig &config) {
        if (state_ != nullptr) state_->discovery = config;
    }
    void setWhitelistFilters(std::vector<std::string> &&filters) {
        if (state_ != nullptr) state_->filter = std::move(filters);
    }

    /** metadata_conn_string: P2PHANDSHAKE, "etcd://…", "http://…/metadata", "redis://…". local_server_name: host or host:port.
     * ip_or_host_name and rpc_port are not used. An engine is initialised once. */
    int init(const std::string &metadata_conn_string, const std::string &local_server_name, const std::string &ip_or_host_name = "",
             uint64_t rpc_port = 12345) {
        return init(metadata_conn_string, local_server_name, ip_or_host_name, rpc_port, "");
    }
    /** protocol: the transports to install, "tcp", "rdma", "rdma,tcp" or "auto". */
    int init(const std::string &metadata_conn_string, const std::string &local_server_name, const std::string &ip_or_host_name,
             uint64_t rpc_port, const std::string &protocol) {
        (void)ip_or_host_name;
        (void)rpc_port;
        if (state_ == nullptr) return detail::refused(ERR_INVALID_ARGUMENT, "the engine was moved away");
        return state_->init(metadata_conn_string, local_server_name, protocol);
    }

    /** Ends every transfer and thread of the engine. Beside another thread's it waits for that one; again, or before init, it
     * does nothing. Callbacks of scatter operations may call it. 0. */
    int freeEngine() {
        if (state_ != nullptr) state_->handle->close();
        return 0;
    }

    /** args: NULL, or args[0] is NULL or a NIC priority matrix as JSON text. Without one a topology that the program has chosen
     * (getLocalTopology()->discover or parse) is used. The same pointer for a transport every time; NULL on failure. */
    Transport *installTransport(const std::string &proto, void **args) {
        return state_ == nullptr ? uninitialised<Transport *>(nullptr) : state_->install(proto, args);
    }
    int uninstallTransport(const std::string &proto) {
        return call([&](transfer_engine_t engine) { return ::uninstallTransport(engine, proto.c_str()); });
    }
    /** NULL if it is not installed. */
    Transport *getTransport(const std::string &proto) {
        return state_ == nullptr ? uninitialised<Transport *>(nullptr) : state_->transport(proto);
    }
    bool isTcpOnly() const {
        return call([](transfer_engine_t engine) { return ::mte_only_transport(engine, "tcp"); }) == 1;
    }
    bool isUsingTent() const { return false; }

    /** "host:port" of the handshake port, which is the segment's name with P2PHANDSHAKE; "" on failure. */
    std::string getLocalIpAndPort() {
        std::string text;
        call([&](transfer_engine_t engine) {
            return detail::growText(text, [engine](char *buffer, size_t size) { return ::getLocalIpAndPort(engine, buffer, size); });
        });
        return text;
    }
    int getRpcPort() {
        return call([](transfer_engine_t engine) { return ::getRpcPort(engine); });
    }

    /** SegmentHandle(-1) on failure. */
    SegmentHandle openSegment(const std::string &segment_name) {
        return state_ == nullptr ? uninitialised(static_cast<SegmentHandle>(-1)) : state_->metadata->getSegmentID(segment_name);
    }
    /** Any handle may be closed, also one that openSegment failed with. */
    int closeSegment(SegmentHandle handle) {
        if (!detail::isSegmentId(handle)) return 0;
        return call([&](transfer_engine_t engine) { return ::closeSegment(engine, static_cast<int32_t>(handle)); });
    }
    int removeLocalSegment(const std::string &segment_name) {
        return state_ == nullptr ? uninitialised(ERR_INVALID_ARGUMENT) : state_->metadata->removeLocalSegment(segment_name);
    }
    /** OK for an id that openSegment gave. Asks no peer. */
    Status CheckSegmentStatus(SegmentID segment_id) { return Transport::check(owned(), segment_id); }
    Status checkSegmentStatus(SegmentID segment_id) { return CheckSegmentStatus(segment_id); }
    /** Reads the descriptor of a segment again, or of all. */
    int syncSegmentCache(const std::string &segment_name = "") {
        return state_ == nullptr ? uninitialised(ERR_INVALID_ARGUMENT) : state_->metadata->syncSegmentCache(segment_name);
    }
    /** The buffers of an open segment, 0 for the own. */
    int getSegmentBuffers(SegmentID segment_id, std::vector<SegmentBufferInfo> &buffers);
    /** Whether the peer's engine answers on its handshake port; lastError() says why not. */
    PeerLiveness probePeerAliveByID(SegmentID target_id) {
        if (!detail::isSegmentId(target_id)) return detail::noSuchSegment(target_id), PeerLiveness::Unreachable;
        return alive(call([&](transfer_engine_t engine) { return ::probePeerAliveByID(engine, static_cast<int32_t>(target_id)); }));
    }
    PeerLiveness probePeerAlive(const std::string &segment_name) {
        return alive(state_ == nullptr ? uninitialised(ERR_INVALID_ARGUMENT) : state_->metadata->sendProbe(segment_name));
    }

    /** Always published at once: update_metadata is not used. */
    int registerLocalMemory(void *addr, size_t length, const std::string &location = kWildcardLocation, bool remote_accessible = true,
                            bool update_metadata = true) {
        (void)update_metadata;
        if (!detail::isText(location)) return detail::noText();
        return call([&](transfer_engine_t engine) {
            return ::registerLocalMemory(engine, addr, length, location.c_str(), remote_accessible ? 1 : 0);
        });
    }
    /** For peers that may do only this with it; mte_register_memory says what that protects from. */
    int registerLocalMemory(void *addr, size_t length, const std::string &location, PeerAccess peers) {
        if (!detail::isText(location)) return detail::noText();
        return call([&](transfer_engine_t engine) {
            return ::mte_register_memory(engine, addr, length, location.c_str(), static_cast<int>(peers));
        });
    }
    int unregisterLocalMemory(void *addr, bool update_metadata = true) {
        (void)update_metadata;
        return call([&](transfer_engine_t engine) { return ::unregisterLocalMemory(engine, addr); });
    }
    /** All or none. */
    int registerLocalMemoryBatch(const std::vector<BufferEntry> &buffer_list, const std::string &location) {
        if (!detail::isText(location)) return detail::noText();
        std::vector<buffer_entry_t> list;
        list.reserve(buffer_list.size());
        for (const BufferEntry &entry : buffer_list) list.push_back({entry.addr, entry.length});
        return call([&](transfer_engine_t engine) {
            return list.empty() ? 0 : ::registerLocalMemoryBatch(engine, list.data(), list.size(), location.c_str());
        });
    }
    /** Each that it can; the first failure is returned. */
    int unregisterLocalMemoryBatch(const std::vector<void *> &addr_list) {
        std::vector<void *> list = addr_list;
        return call([&](transfer_engine_t engine) {
            return list.empty() ? 0 : ::unregisterLocalMemoryBatch(engine, list.data(), list.size());
        });
    }
    /** Whether a byte of the range is registered. */
    bool checkOverlap(void *addr, uint64_t length) {
        return call([&](transfer_engine_t engine) { return mte_overlaps(engine, addr, static_cast<size_t>(length)); }) == 1;
    }
    /** Lists by protocol, which has to be installed; memory is registered with every transport all the same. All or none. */
    int mp_registerLocalMemory(std::unordered_map<std::string, std::vector<RegisteredBuffer>> &buffer_map);
    int mp_unregisterLocalMemory(std::unordered_map<std::string, std::vector<RegisteredBuffer>> &buffer_map);

    BatchID allocateBatchID(size_t batch_size) { return Transport::allocate(owned(), batch_size); }
    /** kBatchBusy while tasks run. */
    Status freeBatchID(BatchID batch_id) { return Transport::free(owned(), batch_id); }
    /** All entries are accepted or none. */
    Status submitTransfer(BatchID batch_id, const std::vector<TransferRequest> &entries) {
        return Transport::submit(owned(), batch_id, entries);
    }
    /** notify_msg reaches the first entry's target once all tasks of the batch are COMPLETED, by the call that sees that. */
    Status submitTransferWithNotify(BatchID batch_id, const std::vector<TransferRequest> &entries, TransferMetadata::NotifyDesc notify_msg);
    Status mp_submitTransfer(BatchID batch_id, const std::vector<TransferRequest> &entries, std::string &proto) {
        return getTransport(proto) == nullptr ? lastError() : submitTransfer(batch_id, entries);
    }
    Status mp_submitTransferWithNotify(BatchID batch_id, const std::vector<TransferRequest> &entries, TransferMetadata::NotifyDesc notify_msg,
                                       std::string &proto) {
        return getTransport(proto) == nullptr ? lastError() : submitTransferWithNotify(batch_id, entries, std::move(notify_msg));
    }
    /** `status` is untouched on failure. */
    Status getTransferStatus(BatchID batch_id, size_t task_id, TransferStatus &status) {
        return Transport::ask(owned(), batch_id, task_id, status);
    }
    /** WAITING while a task runs, then FAILED if one failed, else COMPLETED; the bytes of all. */
    Status getBatchTransferStatus(BatchID batch_id, TransferStatus &status);

    /** Starts the fragments of all ranges; one that cannot start fails, and its callback is told. */
    ScatterTransferOperation submitScatter(const std::vector<ScatterTransferRange> &ranges) {
        return ScatterTransferOperation(shared(), ranges);
    }
    Status transferScatter(const std::vector<ScatterTransferRange> &ranges) { return submitScatter(ranges).wait(); }

    /** Appends what was received. */
    int getNotifies(std::vector<TransferMetadata::NotifyDesc> &notifies) {
        return state_ == nullptr ? uninitialised(ERR_INVALID_ARGUMENT) : state_->metadata->getNotifies(notifies);
    }
    /** Waits for the receipt. */
    int sendNotifyByID(SegmentID target_id, TransferMetadata::NotifyDesc notify_msg) {
        if (state_ == nullptr) return uninitialised(ERR_INVALID_ARGUMENT);
        if (!detail::isSegmentId(target_id)) return detail::noSuchSegment(target_id);
        return state_->metadata->notify(notify_msg, [&](transfer_engine_t engine, notify_msg_t message) {
            return genNotifyInEngine(engine, target_id, message);
        });
    }
    int sendNotifyByName(std::string remote_agent, TransferMetadata::NotifyDesc notify_msg) {
        TransferMetadata::NotifyDesc reply;
        return state_ == nullptr ? uninitialised(ERR_INVALID_ARGUMENT) : state_->metadata->sendNotify(remote_agent, notify_msg, reply);
    }

    Status getNicLoadStats(std::vector<NicLoadStats> &stats) const;

    /** NULL before init. It outlives the engine, and then fails. */
    std::shared_ptr<TransferMetadata> getMetadata() {
        return state_ == nullptr || !state_->initialised ? nullptr : state_->metadata;
    }
    /** Before init the program may fill it; afterwards it is the engine's, unless the program has. */
    std::shared_ptr<Topology> getLocalTopology() { return state_ == nullptr ? std::make_shared<Topology>() : state_->topology; }
    std::string getLocalTopologyString() { return getLocalTopology()->toString(); }
    /** NICs of the topology. */
    int numContexts() const { return state_ == nullptr ? 0 : static_cast<int>(state_->topology->getHcaList().size()); }
    /** Of shared device memory, which there is none of: NULL. */
    void *getBaseAddr() { return nullptr; }
    /** NICs, connections and fall-backs as text or JSON; before init the topology's NICs. */
    std::string showLinks(bool json = false) const { return state_ == nullptr ? (json ? "{}" : "") : state_->showLinks(json); }
    /** What all engines of this process have done, in the form MTE_METRICS_*; as Prometheus reads it, if none is given. Empty on failure. */
    std::string metrics(int form = MTE_METRICS_TEXT) const {
        std::string text;
        call([&](transfer_engine_t) { return detail::readText(text, [&](char *buffer, size_t *size) { return ::mte_metrics(form, buffer, size); }); });
        return text;
    }
    /** On SIGTERM and SIGINT this engine is freed and the process ends with 128 plus the signal's number. */
    void enableGracefulShutdown() {
        if (state_ != nullptr) state_->enableGracefulShutdown();
    }

    /** The engine of the C API, for functions that have no member here; NULL before init. It stays this object's. */
    transfer_engine_t handle() const { return owned().get(); }

  private:
    friend class ScopedBatch;
    friend class ScopedRegistration;
    friend class ScopedSharedMemory;

    template <typename T>
    static T uninitialised(T value) {
        detail::refused(ERR_INVALID_ARGUMENT, detail::kNotInitialised);
        return value;
    }
    static PeerLiveness alive(int code) { return code == 0 ? PeerLiveness::Alive : PeerLiveness::Unreachable; }

    const detail::Handle &owned() const {
        static const detail::Handle none;
        return state_ == nullptr ? none : *state_->handle;
    }
    std::shared_ptr<detail::Handle> shared() const { return state_ == nullptr ? std::make_shared<detail::Handle>() : state_->handle; }
    template <typename Function>
    int call(Function function) const {
        return owned().call(function);
    }

    std::shared_ptr<TransferEngineState> state_;
};

}  // namespace mooncake

#include "transfer_engine/detail/engine.h"
#include "transfer_engine/scoped.h"

#endif  // MULTI_TRANSFER_ENGINE_H_

/* SPDX-License-Identifier: Apache-2.0
 * The types of requests and their states, and an installed transport. */

#ifndef TRANSPORT_H_
#define TRANSPORT_H_

#include <cstddef>
#include <cstdint>
#include <iostream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/base/status.h"
#include "transfer_metadata.h"

namespace mooncake {

/** Given by TransferEngine::installTransport and getTransport, valid as long as the engine. A batch is the engine's: to
 * submit through a transport is to submit through its engine, which chooses the way. */
class Transport {
  public:
    using SegmentID = uint64_t;
    using SegmentHandle = SegmentID;
    using BatchID = uint64_t;
    using BufferDesc = TransferMetadata::BufferDesc;
    using SegmentDesc = TransferMetadata::SegmentDesc;
    using HandShakeDesc = TransferMetadata::HandShakeDesc;
    using NotifyDesc = TransferMetadata::NotifyDesc;

    struct TransferRequest {
        enum OpCode : int { READ, WRITE };

        static constexpr uint64_t kNoTaskGroup = 0;

        OpCode opcode = READ;
        /** Local address, in registered memory. */
        void *source = nullptr;
        SegmentID target_id = 0;
        /** Address in the target's memory. */
        uint64_t target_offset = 0;
        size_t length = 0;
        /** This and what follows is not used. */
        int advise_retry_cnt = 0;
        int transport_hint = 0;
        uint64_t task_group_id = kNoTaskGroup;
    };

    enum TransferStatusEnum : int { WAITING, PENDING, INVALID, CANCELED, COMPLETED, TIMEOUT, FAILED };

    struct TransferStatus {
        TransferStatusEnum s = WAITING;
        size_t transferred_bytes = 0;
    };

    struct NicLoadStats {
        std::string device_name;
        uint64_t inflight_bytes{0};
        double ewma_bandwidth_bps{0.0};
    };

    struct BufferEntry {
        void *addr;
        size_t length;
    };

    Transport(const Transport &) = delete;
    Transport &operator=(const Transport &) = delete;
    virtual ~Transport() = default;

    /** "tcp", "rdma" */
    virtual const char *getName() const { return name_.c_str(); }

    virtual BatchID allocateBatchID(size_t batch_size) { return allocate(*engine_, batch_size); }
    virtual Status freeBatchID(BatchID batch_id) { return free(*engine_, batch_id); }
    virtual Status submitTransfer(BatchID batch_id, const std::vector<TransferRequest> &entries) {
        return submit(*engine_, batch_id, entries);
    }
    virtual Status getTransferStatus(BatchID batch_id, size_t task_id, TransferStatus &status) {
        return ask(*engine_, batch_id, task_id, status);
    }
    virtual Status OpenChannel(const std::string &, SegmentID) { return Status::OK(); }
    virtual Status CheckStatus(SegmentID segment_id) { return check(*engine_, segment_id); }

    std::shared_ptr<TransferMetadata> &meta() { return metadata_; }

  private:
    friend class TransferEngine;
    friend class TransferEngineState;

    Transport(std::string name, std::shared_ptr<detail::Handle> engine, std::shared_ptr<TransferMetadata> metadata)
        : name_(std::move(name)), engine_(std::move(engine)), metadata_(std::move(metadata)) {}

    static BatchID allocate(const detail::Handle &engine, size_t batch_size) {
        uint64_t batch = UINT64_MAX;
        engine.call([&](transfer_engine_t handle) {
            batch = ::allocateBatchID(handle, batch_size);
            return batch == UINT64_MAX ? mte_last_error(nullptr, 0) : 0;
        });
        return batch;
    }

    static Status free(const detail::Handle &engine, BatchID batch_id) {
        return engine.status([&](transfer_engine_t handle) { return ::freeBatchID(handle, batch_id); });
    }

    /** `send` gets the engine and the requests as the C API has them. */
    template <typename Send>
    static Status convert(const detail::Handle &engine, const std::vector<TransferRequest> &entries, Send send) {
        std::vector<transfer_request_t> requests;
        requests.reserve(entries.size());
        for (const TransferRequest &entry : entries) {
            if (!detail::isSegmentId(entry.target_id)) return detail::noSuchSegment(entry.target_id), detail::lastFailure();
            requests.push_back({static_cast<int>(entry.opcode), entry.source, static_cast<int32_t>(entry.target_id), entry.target_offset,
                                entry.length});
        }
        return engine.status([&](transfer_engine_t handle) { return send(handle, requests); });
    }

    static Status submit(const detail::Handle &engine, BatchID batch_id, const std::vector<TransferRequest> &entries) {
        return convert(engine, entries, [&](transfer_engine_t handle, std::vector<transfer_request_t> &requests) {
            return ::submitTransfer(handle, batch_id, requests.data(), requests.size());
        });
    }

    static Status ask(const detail::Handle &engine, BatchID batch_id, size_t task_id, TransferStatus &status) {
        transfer_status_t found{};
        Status asked = engine.status([&](transfer_engine_t handle) { return ::getTransferStatus(handle, batch_id, task_id, &found); });
        if (asked.ok()) status = {static_cast<TransferStatusEnum>(found.status), static_cast<size_t>(found.transferred_bytes)};
        return asked;
    }

    static Status check(const detail::Handle &engine, SegmentID segment_id) {
        if (!detail::isSegmentId(segment_id)) return detail::noSuchSegment(segment_id), detail::lastFailure();
        return engine.status([&](transfer_engine_t handle) { return ::checkSegmentStatus(handle, static_cast<int32_t>(segment_id)); });
    }

    std::string name_;
    std::shared_ptr<detail::Handle> engine_;
    std::shared_ptr<TransferMetadata> metadata_;
};

}  // namespace mooncake

#endif  // TRANSPORT_H_

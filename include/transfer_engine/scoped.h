/* SPDX-License-Identifier: Apache-2.0
 * Owners for what TransferEngine gives and wants back. Included by transfer_engine.h.
 *
 * Batches and registrations keep to the engine wherever its object is moved, and end well when it was freed before them. While
 * another thread frees it, their end waits until it is destroyed. A segment must not outlive its engine's object. */

#ifndef TRANSFER_ENGINE_SCOPED_H
#define TRANSFER_ENGINE_SCOPED_H

#include <algorithm>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "transfer_engine.h"

namespace mooncake {

/** A batch. Its end waits for the tasks, canceled if they still run, so that no buffer of theirs is touched afterwards. The
 * same holds after wait(), unless that said kBatchBusy. */
class ScopedBatch {
  public:
    /** id() is INVALID_BATCH_ID on failure; lastError() says why. */
    ScopedBatch(TransferEngine &engine, size_t batch_size) : engine_(engine.shared()), id_(engine.allocateBatchID(batch_size)) {}
    ScopedBatch(ScopedBatch &&other) noexcept : engine_(other.engine_), id_(std::exchange(other.id_, INVALID_BATCH_ID)) {}
    ScopedBatch &operator=(ScopedBatch &&other) noexcept {
        if (this != &other) {
            release();
            engine_ = other.engine_;
            id_ = std::exchange(other.id_, INVALID_BATCH_ID);
        }
        return *this;
    }
    ScopedBatch(const ScopedBatch &) = delete;
    ScopedBatch &operator=(const ScopedBatch &) = delete;
    ~ScopedBatch() { release(); }

    BatchID id() const { return id_; }

    /** Sleeps until every task has ended: OK, or why the first that failed did. timeout_ms < 0: as long as the tasks'
     * own deadlines; kBatchBusy when the time passed first. */
    Status wait(int64_t timeout_ms = -1) const {
        std::optional<std::chrono::steady_clock::time_point> until;
        if (timeout_ms >= 0)
            until = std::chrono::steady_clock::now() + std::chrono::milliseconds(std::min<int64_t>(timeout_ms, int64_t{1} << 40));
        const Status outcome = ask(timeout_ms);
        if (outcome.ok() || outcome.IsBatchBusy() || engine_->awaitEnd(until)) return outcome;
        return detail::failed(Status::BatchBusy("another thread is freeing the engine"));
    }

    /** Gives up what runs; wait() tells when it has ended. */
    Status cancel() const { return detail::resultStatus(mte_cancel_batch(engine_->get(), id_)); }

  private:
    Status ask(int64_t timeout_ms) const {
        const transfer_engine_t engine = engine_->get();
        if (const int code = mte_wait_batch(engine, id_, timeout_ms); code < 0) return detail::resultStatus(code);
        mte_batch_status_t summary{};
        if (const int code = mte_batch_status(engine, id_, &summary, nullptr, 0); code < 0) return detail::resultStatus(code);
        for (size_t task = 0; summary.failed > 0 && task < summary.tasks; ++task) {
            mte_task_error_info_t why{};
            if (mte_task_error(engine, id_, task, &why) == 0 && why.code != 0)
                return detail::failed(Status(detail::codeOf(why.code), why.text));
        }
        return Status::OK();
    }

    void release() noexcept {
        if (id_ == INVALID_BATCH_ID) return;
        const transfer_engine_t engine = engine_->get();
        if (::freeBatchID(engine, id_) == ERR_BATCH_BUSY) {
            mte_cancel_batch(engine, id_);
            mte_wait_batch(engine, id_, -1);
            ::freeBatchID(engine, id_);
        }
        engine_->awaitEnd();
        id_ = INVALID_BATCH_ID;
    }

    std::shared_ptr<detail::Handle> engine_;
    BatchID id_;
};

/** Registered memory, which its end unregisters; afterwards nobody touches it. The memory itself is the caller's. */
class ScopedRegistration {
  public:
    /** code() is 0, or why it is not registered. */
    ScopedRegistration(TransferEngine &engine, void *addr, size_t length, const std::string &location = kWildcardLocation,
                       bool remote_accessible = true)
        : engine_(engine.shared()), addr_(addr), code_(engine.registerLocalMemory(addr, length, location, remote_accessible)) {}
    /** For peers that may do only this with it. */
    ScopedRegistration(TransferEngine &engine, void *addr, size_t length, const std::string &location, PeerAccess peers)
        : engine_(engine.shared()), addr_(addr), code_(engine.registerLocalMemory(addr, length, location, peers)) {}
    ScopedRegistration(ScopedRegistration &&other) noexcept
        : engine_(other.engine_), addr_(other.addr_), code_(std::exchange(other.code_, ERR_INVALID_ARGUMENT)) {}
    ScopedRegistration &operator=(ScopedRegistration &&other) noexcept {
        if (this != &other) {
            release();
            engine_ = other.engine_;
            addr_ = other.addr_;
            code_ = std::exchange(other.code_, ERR_INVALID_ARGUMENT);
        }
        return *this;
    }
    ScopedRegistration(const ScopedRegistration &) = delete;
    ScopedRegistration &operator=(const ScopedRegistration &) = delete;
    ~ScopedRegistration() { release(); }

    int code() const { return code_; }

  private:
    void release() noexcept {
        if (code_ == 0) {
            ::unregisterLocalMemory(engine_->get(), addr_);
            engine_->awaitEnd();
        }
        code_ = ERR_INVALID_ARGUMENT;
    }

    std::shared_ptr<detail::Handle> engine_;
    void *addr_;
    int code_;
};

/** Memory that engines of other processes on this host can map, so that bytes move without system calls (transport "shm"). It is
 * of zeros, registered with nobody (ScopedRegistration does that), and belongs to no engine: it may outlive the one that it was
 * made with. Its end frees it. Where it is still registered then, it stays mapped until that registration ends, so the order of
 * the two does not matter; pointers of the program into it end with this object all the same. */
class ScopedSharedMemory {
  public:
    /** huge: with huge pages, if the system has some. numa_node: where its pages are made, -1: anywhere. code() is 0, or why there
     * is no memory. */
    ScopedSharedMemory(TransferEngine &engine, size_t length, bool huge = false, int numa_node = -1)
        : size_(length), code_(engine.call([&](transfer_engine_t made) {
              return mte_allocate_shared(made, length, huge ? MTE_SHARED_HUGE : 0, numa_node, &data_);
          })) {}
    ScopedSharedMemory(ScopedSharedMemory &&other) noexcept
        : data_(std::exchange(other.data_, nullptr)), size_(other.size_), code_(std::exchange(other.code_, ERR_INVALID_ARGUMENT)) {}
    ScopedSharedMemory &operator=(ScopedSharedMemory &&other) noexcept {
        if (this != &other) {
            release();
            data_ = std::exchange(other.data_, nullptr);
            size_ = other.size_;
            code_ = std::exchange(other.code_, ERR_INVALID_ARGUMENT);
        }
        return *this;
    }
    ScopedSharedMemory(const ScopedSharedMemory &) = delete;
    ScopedSharedMemory &operator=(const ScopedSharedMemory &) = delete;
    ~ScopedSharedMemory() { release(); }

    /** NULL on failure. */
    void *data() const { return data_; }
    /** Bytes that were asked for; 0 on failure. */
    size_t size() const { return data_ == nullptr ? 0 : size_; }
    int code() const { return code_; }

  private:
    void release() noexcept {
        if (data_ != nullptr) mte_free_shared(nullptr, data_);
        data_ = nullptr;
    }

    void *data_ = nullptr;
    size_t size_;
    int code_;
};

/** An open segment. */
class ScopedSegment {
  public:
    /** id() is SegmentHandle(-1) on failure; lastError() says why. */
    ScopedSegment(TransferEngine &engine, const std::string &name) : engine_(&engine), id_(engine.openSegment(name)) {}
    ScopedSegment(ScopedSegment &&other) noexcept : engine_(other.engine_), id_(std::exchange(other.id_, static_cast<SegmentHandle>(-1))) {}
    ScopedSegment &operator=(ScopedSegment &&other) noexcept {
        if (this != &other) {
            engine_->closeSegment(id_);
            engine_ = other.engine_;
            id_ = std::exchange(other.id_, static_cast<SegmentHandle>(-1));
        }
        return *this;
    }
    ScopedSegment(const ScopedSegment &) = delete;
    ScopedSegment &operator=(const ScopedSegment &) = delete;
    ~ScopedSegment() { engine_->closeSegment(id_); }

    SegmentHandle id() const { return id_; }

  private:
    TransferEngine *engine_;
    SegmentHandle id_;
};

}  // namespace mooncake

#endif  // TRANSFER_ENGINE_SCOPED_H

/* SPDX-License-Identifier: Apache-2.0
 * The engine of the C API, owned: shared by the classes that use it, destroyed once. */

#ifndef TRANSFER_ENGINE_DETAIL_HANDLE_H
#define TRANSFER_ENGINE_DETAIL_HANDLE_H

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <limits>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "transfer_engine/detail/error.h"

namespace mooncake {
namespace detail {

class Handle {
  public:
    Handle() = default;
    Handle(const Handle &) = delete;
    Handle &operator=(const Handle &) = delete;
    ~Handle() { close(); }

    /** NULL before init, and as soon as close() begins. The C API refuses handles of engines that are gone, so a call beside
     * close() fails and does nothing worse. Its failure does not say that transfers have ended: awaitEnd() does. */
    transfer_engine_t get() const { return engine_.load(std::memory_order_acquire); }

    /** False if there is one already. */
    bool open(transfer_engine_t engine) {
        transfer_engine_t none = nullptr;
        return engine_.compare_exchange_strong(none, engine, std::memory_order_acq_rel);
    }

    /** Destroys the engine, once. When it returns, in whichever thread, no transfer touches memory any more. */
    void close() {
        std::unique_lock<std::mutex> guard(mutex_);
        // Under the lock, so that whoever reads NULL finds closer_ set.
        const transfer_engine_t engine = engine_.exchange(nullptr, std::memory_order_acq_rel);
        if (engine == nullptr) {
            guard.unlock();
            awaitEnd();
            return;
        }
        closer_ = std::this_thread::get_id();
        guard.unlock();
        destroyTransferEngine(engine);
        guard.lock();
        closer_ = std::thread::id();
        ended_.notify_all();
    }

    /** If close() has begun in another thread, sleeps until the engine is destroyed; false if `until` came first. The thread
     * that closes is not held up by itself. */
    bool awaitEnd(std::optional<std::chrono::steady_clock::time_point> until = std::nullopt) const {
        std::unique_lock<std::mutex> guard(mutex_);
        const auto ended = [this] { return closer_ == std::thread::id() || closer_ == std::this_thread::get_id(); };
        if (until) return ended_.wait_until(guard, *until, ended);
        ended_.wait(guard, ended);
        return true;
    }

    /** The result of `function(engine)`; a failure is remembered. */
    template <typename Function>
    int call(Function function) const {
        const transfer_engine_t engine = get();
        return engine == nullptr ? refused(ERR_INVALID_ARGUMENT, kNotInitialised) : result(function(engine));
    }
    template <typename Function>
    Status status(Function function) const {
        const int code = call(function);
        return code < 0 ? lastFailure() : Status::OK();
    }

  private:
    std::atomic<transfer_engine_t> engine_{nullptr};
    /** Guards closer_, and the change of engine_ to NULL. */
    mutable std::mutex mutex_;
    /** Told when closer_ becomes none. */
    mutable std::condition_variable ended_;
    /** The thread that is inside destroyTransferEngine. */
    std::thread::id closer_;
};

/** Ids of segments have 32 bits in the C API; a larger one, such as the id of a failed openSegment, is no segment's. */
inline bool isSegmentId(uint64_t id) { return id <= static_cast<uint64_t>(std::numeric_limits<int32_t>::max()); }

inline int noSuchSegment(uint64_t id) {
    return refused(ERR_INVALID_ARGUMENT, "segment id " + std::to_string(id) + " was never given by openSegment");
}

/** A text that C can take: it has no NUL inside. */
inline bool isText(const std::string &text) { return text.find('\0') == std::string::npos; }

inline int noText() { return refused(ERR_INVALID_ARGUMENT, "a text has a NUL inside"); }

/** What is opened is closed again, however the block is left. */
class OpenSegment {
  public:
    OpenSegment(transfer_engine_t engine, const std::string &name, bool again = false)
        : engine_(engine), id_(again ? openSegmentNoCache(engine, name.c_str()) : openSegment(engine, name.c_str())) {}
    OpenSegment(OpenSegment &&other) noexcept : engine_(other.engine_), id_(std::exchange(other.id_, -1)) {}
    OpenSegment(const OpenSegment &) = delete;
    OpenSegment &operator=(const OpenSegment &) = delete;
    OpenSegment &operator=(OpenSegment &&) = delete;
    ~OpenSegment() {
        if (id_ >= 0) closeSegment(engine_, id_);
    }
    /** Or a negative code. */
    int32_t id() const { return id_; }

  private:
    transfer_engine_t engine_;
    int32_t id_;
};

}  // namespace detail
}  // namespace mooncake

#endif  // TRANSFER_ENGINE_DETAIL_HANDLE_H

/* SPDX-License-Identifier: Apache-2.0
 * Transfers of many fragments between local buffers and ranges of peers' memory, as one operation. */

#ifndef TRANSFER_ENGINE_DETAIL_SCATTER_H
#define TRANSFER_ENGINE_DETAIL_SCATTER_H

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "transfer_engine/detail/handle.h"
#include "transfer_engine/detail/span.h"
#include "transport/transport.h"

namespace mooncake {
namespace detail {

/** Fragments between one local buffer and one range of a peer. The sequences must live until submitScatter returns. */
struct ScatterTransferRange {
    Transport::TransferRequest::OpCode opcode;
    /** Name, as openSegment takes it. */
    std::string remote_segment;
    /** Address in the peer. */
    uint64_t remote_base_offset;
    size_t remote_size;
    void *local_buffer;
    size_t local_capacity;
    /** Fragment i is lengths[i] bytes at these offsets. */
    Span<const size_t> local_offsets;
    Span<const size_t> remote_offsets;
    Span<const size_t> lengths;
    /** Called once per fragment, in submitScatter, wait or waitFor. What it throws becomes the operation's failure. */
    std::function<void(size_t, const Status &)> on_fragment_complete;
};

/** A running operation; one thread may wait for it. The local buffers are not touched any more once wait() has returned, or
 * waitFor() with anything but kClock; those of a fragment once its callback is told. Destruction waits. All this holds also
 * while another thread frees the engine: then each waits until the engine is destroyed. */
class ScatterTransferOperation {
  public:
    ScatterTransferOperation(ScatterTransferOperation &&) noexcept = default;
    ScatterTransferOperation &operator=(ScatterTransferOperation &&other) noexcept {
        if (this != &other) {
            if (work_ != nullptr) work_->finishQuietly();
            work_ = std::move(other.work_);
        }
        return *this;
    }
    ScatterTransferOperation(const ScatterTransferOperation &) = delete;
    ScatterTransferOperation &operator=(const ScatterTransferOperation &) = delete;
    ~ScatterTransferOperation() {
        if (work_ != nullptr) work_->finishQuietly();
    }

    /** OK when every fragment is at its destination, else the first failure. */
    Status wait() { return work_ == nullptr ? movedFrom() : work_->wait(-1); }

    /** kClock when the time is up and fragments run on: wait again, and leave the buffers alone. */
    Status waitFor(std::chrono::nanoseconds timeout) {
        if (work_ == nullptr) return movedFrom();
        const auto rounded = std::chrono::ceil<std::chrono::milliseconds>(std::max(timeout, std::chrono::nanoseconds::zero()));
        return work_->wait(rounded.count());
    }

    ScatterTransferOperation(std::shared_ptr<Handle> engine, const std::vector<ScatterTransferRange> &ranges)
        : work_(std::make_unique<Work>(std::move(engine))) {
        work_->start(ranges);
    }

  private:
    static Status movedFrom() { return Status::InvalidArgument("the operation was moved away"); }

    class Work {
      public:
        explicit Work(std::shared_ptr<Handle> engine) : engine_(std::move(engine)) {}

        void start(const std::vector<ScatterTransferRange> &ranges) {
            std::map<std::string, OpenSegment> segments;
            for (const ScatterTransferRange &range : ranges) {
                callbacks_.push_back(range.on_fragment_complete);
                plan(range, callbacks_.size() - 1, segments);
            }
            if (requests_.empty()) return;
            const transfer_engine_t engine = engine_->get();
            batch_ = ::allocateBatchID(engine, requests_.size());
            if (batch_ == UINT64_MAX) return endAll(statusOf(mte_last_error(nullptr, 0)));
            const int code = ::submitTransfer(engine, batch_, requests_.data(), requests_.size());
            if (code < 0) {
                engine_->awaitEnd();
                endAll(statusOf(code));
            }
            // The batch keeps what it needs of the segments; `segments` closes them.
        }

        /** Waits for at most `timeout_ms`, or as long as the tasks' deadlines if that is negative. */
        Status wait(int64_t timeout_ms) {
            // Whoever consumes fragments as they come hears of them in time.
            constexpr int64_t kSlice = 1;
            Deadline deadline;
            if (timeout_ms >= 0)
                deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(std::min<int64_t>(timeout_ms, int64_t{1} << 40));
            while (open_ > 0) {
                const int code = mte_wait_batch(engine_->get(), batch_, timeout_ms == 0 ? 0 : kSlice);
                if (code < 0 && code != ERR_BATCH_BUSY) endWithEngine(code, deadline);
                else collect(deadline);
                if (open_ > 0 && deadline && std::chrono::steady_clock::now() >= *deadline)
                    return Status::Clock("fragments of the scatter transfer are under way");
            }
            return outcome_;
        }

        /** For destructors: nobody is told any more. */
        void finishQuietly() noexcept {
            for (auto &callback : callbacks_) callback = nullptr;
            if (open_ > 0) {
                mte_wait_batch(engine_->get(), batch_, -1);
                engine_->awaitEnd();
            }
            open_ = 0;
            release();
        }

        ~Work() { release(); }
        Work(const Work &) = delete;
        Work &operator=(const Work &) = delete;

      private:
        /** None: for ever. */
        using Deadline = std::optional<std::chrono::steady_clock::time_point>;

        struct Fragment {
            size_t range;
            size_t index;
            bool done;
        };

        void plan(const ScatterTransferRange &range, size_t number, std::map<std::string, OpenSegment> &segments) {
            const size_t count = range.local_offsets.size();
            if (range.remote_offsets.size() != count || range.lengths.size() != count)
                return refuse(number, count, Status::InvalidArgument("a scatter range has as many lengths as offsets"));
            if (range.local_buffer == nullptr || range.remote_segment.empty() || !isText(range.remote_segment))
                return refuse(number, count, Status::InvalidArgument("a scatter range has a local buffer and a remote segment"));
            for (size_t i = 0; i < count; ++i) {
                if (!within(range.local_offsets[i], range.lengths[i], range.local_capacity) ||
                    !within(range.remote_offsets[i], range.lengths[i], range.remote_size) ||
                    range.remote_base_offset > UINT64_MAX - range.remote_offsets[i] - range.lengths[i]) {
                    tell(number, i, Status::InvalidArgument("fragment " + std::to_string(i) + " is not within its range"));
                } else if (range.lengths[i] == 0) {
                    tell(number, i, Status::OK());
                } else {
                    const int32_t id = open(range.remote_segment, segments);
                    if (id < 0) {
                        tell(number, i, statusOf(id));
                        continue;
                    }
                    requests_.push_back({static_cast<int>(range.opcode), static_cast<char *>(range.local_buffer) + range.local_offsets[i], id,
                                         range.remote_base_offset + range.remote_offsets[i], range.lengths[i]});
                    fragments_.push_back({number, i, false});
                    ++open_;
                }
            }
        }

        int32_t open(const std::string &name, std::map<std::string, OpenSegment> &segments) {
            auto found = segments.find(name);
            if (found == segments.end()) found = segments.emplace(name, OpenSegment(engine_->get(), name)).first;
            return found->second.id();
        }

        static bool within(size_t offset, size_t length, size_t size) { return offset <= size && length <= size - offset; }

        void refuse(size_t range, size_t count, const Status &status) {
            remember(status);
            for (size_t i = 0; i < count; ++i) tell(range, i, status);
        }

        void remember(const Status &status) {
            if (outcome_.ok() && !status.ok()) outcome_ = failed(status);
        }

        void tell(size_t range, size_t index, const Status &status) {
            remember(status);
            if (!callbacks_[range]) return;
#ifdef __cpp_exceptions
            try {
                callbacks_[range](index, status);
            } catch (const std::exception &thrown) {
                remember(Status::Context(std::string("the callback of a fragment failed: ") + thrown.what()));
            } catch (...) {
                remember(Status::Context("the callback of a fragment failed"));
            }
#else
            callbacks_[range](index, status);
#endif
        }

        void end(size_t task, const Status &status) {
            fragments_[task].done = true;
            --open_;
            tell(fragments_[task].range, fragments_[task].index, status);
        }

        void endAll(const Status &status) {
            for (size_t task = 0; task < fragments_.size(); ++task)
                if (!fragments_[task].done) end(task, status);
            release();
        }

        /** The engine is gone, and every transfer with it, or another thread is destroying it: transfers touch memory until
         * that has ended. Past the deadline the fragments stay open. */
        void endWithEngine(int code, const Deadline &deadline) {
            const Status status = statusOf(code);
            if (engine_->awaitEnd(deadline)) endAll(status);
        }

        /** Tells of the fragments that have ended since the last time. */
        void collect(const Deadline &deadline) {
            states_.resize(fragments_.size());
            mte_batch_status_t summary{};
            if (const int code = mte_batch_status(engine_->get(), batch_, &summary, states_.data(), states_.size()); code < 0)
                return endWithEngine(code, deadline);
            for (size_t task = 0; task < fragments_.size(); ++task) {
                if (fragments_[task].done) continue;
                if (states_[task].status == STATUS_COMPLETED) {
                    end(task, Status::OK());
                } else if (states_[task].status != STATUS_WAITING && states_[task].status != STATUS_PENDING) {
                    const Status reason = why(task);
                    if (!engine_->awaitEnd(deadline)) return;
                    end(task, reason);
                }
            }
            if (open_ == 0) release();
        }

        Status why(size_t task) const {
            mte_task_error_info_t info{};
            const int code = mte_task_error(engine_->get(), batch_, task, &info);
            if (code < 0) return statusOf(code);
            return info.code == 0 ? Status::Socket("the fragment failed") : Status(codeOf(info.code), info.text);
        }

        void release() noexcept {
            if (batch_ != UINT64_MAX) ::freeBatchID(engine_->get(), std::exchange(batch_, UINT64_MAX));
        }

        std::shared_ptr<Handle> engine_;
        std::vector<std::function<void(size_t, const Status &)>> callbacks_;
        std::vector<transfer_request_t> requests_;
        /** By task. */
        std::vector<Fragment> fragments_;
        std::vector<transfer_status_t> states_;
        /** Fragments that run. */
        size_t open_ = 0;
        uint64_t batch_ = UINT64_MAX;
        Status outcome_;
    };

    std::unique_ptr<Work> work_;
};

}  // namespace detail
}  // namespace mooncake

#endif  // TRANSFER_ENGINE_DETAIL_SCATTER_H

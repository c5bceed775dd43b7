/* SPDX-License-Identifier: Apache-2.0
 * Spin locks for sections of a few instructions. */

#ifndef TRANSFER_ENGINE_DETAIL_LOCKS_H
#define TRANSFER_ENGINE_DETAIL_LOCKS_H

#include <atomic>
#include <cstdint>
#include <thread>

#ifndef PAUSE
#if defined(__x86_64__) || defined(__i386__)
#define PAUSE() __builtin_ia32_pause()
#elif defined(__aarch64__) || defined(__arm__)
#define PAUSE() __asm__ __volatile__("yield")
#else
#define PAUSE()
#endif
#endif

namespace mooncake {

/** Many readers or one writer. A writer that waits keeps new readers out. Not recursive. */
class RWSpinlock {
  public:
    RWSpinlock() = default;
    RWSpinlock(const RWSpinlock &) = delete;
    RWSpinlock &operator=(const RWSpinlock &) = delete;

    void lock() {
        waiting_.fetch_add(1, std::memory_order_relaxed);
        spin([this] { return tryLock(); });
        waiting_.fetch_sub(1, std::memory_order_relaxed);
    }
    void writeLockAggressive() { lock(); }
    void writeLockNice() { lock(); }

    bool tryLock() {
        int32_t free = 0;
        // Acquires what the last holders published at their release.
        return holders_.compare_exchange_strong(free, kWriter, std::memory_order_acquire, std::memory_order_relaxed);
    }

    void unlock() { holders_.store(0, std::memory_order_release); }

    /** From writer to reader, with no other writer in between. */
    void unlockAndLockShared() { holders_.store(1, std::memory_order_release); }

    void lockShared() {
        spin([this] { return tryLockShared(); });
    }

    bool tryLockShared() {
        int32_t readers = holders_.load(std::memory_order_relaxed);
        if (readers < 0 || waiting_.load(std::memory_order_relaxed) != 0) return false;
        return holders_.compare_exchange_strong(readers, readers + 1, std::memory_order_acquire, std::memory_order_relaxed);
    }

    void unlockShared() { holders_.fetch_sub(1, std::memory_order_release); }

    struct WriteGuard {
        explicit WriteGuard(RWSpinlock &held) : lock(held) { lock.lock(); }
        WriteGuard(const WriteGuard &) = delete;
        WriteGuard &operator=(const WriteGuard &) = delete;
        ~WriteGuard() { lock.unlock(); }
        RWSpinlock &lock;
    };

    struct ReadGuard {
        explicit ReadGuard(RWSpinlock &held) : lock(held) { lock.lockShared(); }
        ReadGuard(const ReadGuard &) = delete;
        ReadGuard &operator=(const ReadGuard &) = delete;
        ~ReadGuard() { lock.unlockShared(); }
        RWSpinlock &lock;
    };

  private:
    static constexpr int32_t kWriter = -1;

    /** Until `taken`; after a while other threads get the processor in between. */
    template <typename Try>
    static void spin(Try taken) {
        for (int round = 0; !taken(); ++round) {
            PAUSE();
            if (round > 1000) std::this_thread::yield();
        }
    }

    /** The number of readers, or kWriter. */
    std::atomic<int32_t> holders_{0};
    /** Writers that wait. */
    std::atomic<int32_t> waiting_{0};
};

/** First come, first served. */
class TicketLock {
  public:
    void lock() {
        const uint32_t mine = next_.fetch_add(1, std::memory_order_relaxed);
        while (serving_.load(std::memory_order_acquire) != mine) std::this_thread::yield();
    }
    void unlock() { serving_.store(serving_.load(std::memory_order_relaxed) + 1, std::memory_order_release); }

  private:
    std::atomic<uint32_t> next_{0};
    std::atomic<uint32_t> serving_{0};
};

}  // namespace mooncake

#endif  // TRANSFER_ENGINE_DETAIL_LOCKS_H

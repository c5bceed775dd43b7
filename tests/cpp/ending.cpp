/* Engines that are freed in one thread while another waits for their transfers. */

#include <dlfcn.h>

#include <chrono>
#include <future>
#include <memory>
#include <thread>

#include "support.h"

using namespace mooncake;
using Code = Status::Code;
using Range = TransferEngine::ScatterTransferRange;
using Operation = TransferEngine::ScatterTransferOperation;

namespace {

/** How long an engine's end is held up, if the test does not let it go on. */
enum class Held { Awhile, ForEver };

/** Frees an engine in a thread of its own, which stays inside destroyTransferEngine. What has to wait for that thread cannot
 * let it go on, so it goes on after a while; only what wrongly does not wait has to be quicker. */
class Freeing {
  public:
    Freeing(TransferEngine &engine, Held held) : held_(held) {
        next = this;
        thread_ = std::thread([&engine] { engine.freeEngine(); });
        begun_.get_future().wait();
    }
    Freeing(const Freeing &) = delete;
    Freeing &operator=(const Freeing &) = delete;
    ~Freeing() { thread_.join(); }

    /** What the test has just called returned after the engine's end. */
    void expectEnded() {
        EXPECT_TRUE(ended_);
        if (held_ == Held::Awhile) goOn();
    }
    void goOn() { going_on_.set_value(); }

    void destroy(transfer_engine_t engine, void (*real)(transfer_engine_t)) {
        begun_.set_value();
        if (held_ == Held::ForEver) going_on_.get_future().wait();
        else going_on_.get_future().wait_for(std::chrono::milliseconds(300));
        real(engine);
        ended_ = true;
    }

    /** Takes the next engine that is destroyed. */
    static inline std::atomic<Freeing *> next{nullptr};

  private:
    const Held held_;
    std::promise<void> begun_, going_on_;
    std::atomic<bool> ended_{false};
    std::thread thread_;
};

/** A read of all the target's memory, in so many fragments. */
struct Reading {
    Reading(Node &node, const Node &target, size_t count = 1) : lengths(count, target.memory.size() / count) {
        for (size_t i = 0; i < count; ++i) offsets.push_back(i * lengths[0]);
        range = {TransferRequest::READ, target.name, target.address(), target.memory.size(), node.memory.data(), node.memory.size(),
                 offsets, offsets, lengths, {}};
    }
    std::vector<size_t> lengths, offsets;
    Range range{};
};

}  // namespace

/** Stands before the library's. */
extern "C" void destroyTransferEngine(transfer_engine_t engine) {
    static const auto real = reinterpret_cast<void (*)(transfer_engine_t)>(dlsym(RTLD_NEXT, "destroyTransferEngine"));
    Freeing *const freeing = Freeing::next.exchange(nullptr);
    return freeing == nullptr ? real(engine) : freeing->destroy(engine, real);
}

TEST(Ending, ScatterWaitsUntilTheEngineIsDestroyed) {
    Node target(3), node;
    Reading reading(node, target);
    bool told = false;
    Freeing *beside = nullptr;
    reading.range.on_fragment_complete = [&](size_t, const Status &status) {
        told = true;
        expectFailure(status, Code::kInvalidArgument);
        beside->expectEnded();
    };
    Operation operation = node.engine.submitScatter({reading.range});
    Freeing freeing(node.engine, Held::Awhile);
    beside = &freeing;
    expectFailure(operation.wait(), Code::kInvalidArgument);
    EXPECT_TRUE(told);
}

TEST(Ending, ScatterWaitsNoLongerThanItIsTold) {
    Node target(3), node;
    const Reading reading(node, target);
    Operation operation = node.engine.submitScatter({reading.range});
    Freeing freeing(node.engine, Held::ForEver);
    for (const int milliseconds : {0, 1}) expectFailure(operation.waitFor(std::chrono::milliseconds(milliseconds)), Code::kClock);
    freeing.goOn();
    expectFailure(operation.waitFor(std::chrono::hours(1)), Code::kInvalidArgument);
    freeing.expectEnded();
}

TEST(Ending, ScatterIsDroppedWhenTheEngineIsDestroyed) {
    Node target(3), node;
    const Reading reading(node, target);
    auto operation = std::make_unique<Operation>(node.engine.submitScatter({reading.range}));
    Freeing freeing(node.engine, Held::Awhile);
    operation.reset();
    freeing.expectEnded();
}

TEST(Ending, BatchesAreDroppedWhenTheEngineIsDestroyed) {
    Node target(3), node;
    const SegmentHandle peer = node.engine.openSegment(target.name);
    auto batch = std::make_unique<ScopedBatch>(node.engine, 1);
    ASSERT_TRUE(node.engine.submitTransfer(batch->id(), {request(TransferRequest::READ, node.memory.data(), peer, target.address(), 64)}).ok());
    Freeing freeing(node.engine, Held::Awhile);
    batch.reset();
    freeing.expectEnded();
}

TEST(Ending, BatchesWaitUntilTheEngineIsDestroyed) {
    Node node;
    const ScopedBatch batch(node.engine, 1);
    Freeing freeing(node.engine, Held::Awhile);
    expectFailure(batch.wait(), Code::kInvalidArgument);
    freeing.expectEnded();
}

TEST(Ending, BatchesWaitNoLongerThanTheyAreTold) {
    Node node;
    const ScopedBatch batch(node.engine, 1);
    Freeing freeing(node.engine, Held::ForEver);
    for (const int milliseconds : {0, 1}) expectFailure(batch.wait(milliseconds), Code::kBatchBusy);
    freeing.goOn();
    expectFailure(batch.wait(3600000), Code::kInvalidArgument);
    freeing.expectEnded();
}

TEST(Ending, RegistrationsAreDroppedWhenTheEngineIsDestroyed) {
    Node node;
    std::vector<char> memory(4096);
    auto registration = std::make_unique<ScopedRegistration>(node.engine, memory.data(), memory.size());
    ASSERT_EQ(registration->code(), 0);
    Freeing freeing(node.engine, Held::Awhile);
    registration.reset();
    freeing.expectEnded();
}

TEST(Ending, TwoThreadsMayFreeAnEngine) {
    Node node;
    Freeing freeing(node.engine, Held::Awhile);
    EXPECT_EQ(node.engine.freeEngine(), 0);
    freeing.expectEnded();
}

TEST(Ending, CallbacksMayFreeTheEngine) {
    Node target(3), node;
    Reading reading(node, target, 64);
    size_t told = 0;
    reading.range.on_fragment_complete = [&](size_t, const Status &) {
        ++told;
        node.engine.freeEngine();
    };
    node.engine.submitScatter({reading.range}).wait();
    EXPECT_EQ(told, 64u);
    EXPECT_EQ(node.engine.handle(), nullptr);
}

TEST(Ending, CallbacksMayFreeTheEngineWhileAnotherThreadDoes) {
    Node target(3), node;
    Reading reading(node, target, 64);
    std::unique_ptr<Freeing> freeing;
    size_t told = 0;
    reading.range.on_fragment_complete = [&](size_t, const Status &) {
        if (told++ > 0) return;
        freeing = std::make_unique<Freeing>(node.engine, Held::Awhile);
        node.engine.freeEngine();
        freeing->expectEnded();
    };
    node.engine.submitScatter({reading.range}).wait();
    EXPECT_EQ(told, 64u);
}

TEST(Ending, OwnersOutliveAMoveAndTheEngine) {
    Node target(3), node;
    std::vector<char> memory(4096);
    TransferEngine moved;
    const ScopedBatch batch(node.engine, 1);
    {
        const ScopedRegistration registration(node.engine, memory.data(), memory.size());
        moved = std::move(node.engine);
        EXPECT_TRUE(moved.checkOverlap(memory.data(), memory.size()));
    }
    EXPECT_FALSE(moved.checkOverlap(memory.data(), memory.size()));
    EXPECT_TRUE(batch.wait(0).ok());
    moved = TransferEngine();
    expectFailure(batch.wait(0), Code::kInvalidArgument);
}

/** The real end of an engine, in the middle of its transfers. */
TEST(Ending, LeavesMemoryAlone) {
    constexpr size_t kSize = 64 << 20;
    Node target(3, kSize);
    for (int round = 0; round < 6; ++round) {
        Node node(1, kSize);
        Reading reading(node, target, 64);
        size_t told = 0;
        reading.range.on_fragment_complete = [&told](size_t, const Status &) { ++told; };
        auto operation = std::make_unique<Operation>(node.engine.submitScatter({reading.range}));
        while (told == 0) operation->waitFor(std::chrono::nanoseconds::zero());
        std::thread freeing([&node] { node.engine.freeEngine(); });
        while (node.engine.handle() != nullptr) std::this_thread::yield();
        if (round % 2 == 0) operation->wait();
        else operation.reset();
        node.memory.assign(kSize, 0);
        freeing.join();
        EXPECT_TRUE(node.memory == std::vector<uint8_t>(kSize)) << "round " << round;
    }
}

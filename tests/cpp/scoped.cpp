#include <chrono>
#include <fstream>
#include <memory>
#include <thread>

#include "support.h"

using namespace mooncake;
using Code = Status::Code;

TEST(Scoped, BatchesAreFreedAtTheirEnd) {
    Node target(3), node;
    const ScopedSegment peer(node.engine, target.name);
    BatchID kept;
    {
        ScopedBatch batch(node.engine, 4);
        kept = batch.id();
        ASSERT_NE(kept, INVALID_BATCH_ID);
        ASSERT_TRUE(node.engine.submitTransfer(batch.id(), {request(TransferRequest::READ, node.memory.data(), peer.id(), target.address(), 64)}).ok());
        EXPECT_TRUE(batch.wait().ok());
        EXPECT_TRUE(batch.wait(0).ok());
        EXPECT_EQ(node.memory[5], 15);
        ScopedBatch moved(std::move(batch));
        EXPECT_EQ(batch.id(), INVALID_BATCH_ID);  // NOLINT: that is the question.
        batch = std::move(moved);
        EXPECT_EQ(batch.id(), kept);
    }
    expectFailure(node.engine.freeBatchID(kept), Code::kInvalidArgument);
}

TEST(Scoped, BatchesThatRunAreCanceled) {
    Node target(3, 64 << 20), node(1, 64 << 20);
    const ScopedSegment peer(node.engine, target.name);
    ScopedBatch batch(node.engine, 1);
    ASSERT_TRUE(node.engine.submitTransfer(batch.id(), {request(TransferRequest::READ, node.memory.data(), peer.id(), target.address(), 64 << 20)}).ok());
    ASSERT_TRUE(batch.cancel().ok());
    const Status ended = batch.wait();
    if (!ended.ok()) {
        EXPECT_FALSE(ended.message().empty());
    }
    {
        const ScopedBatch running(node.engine, 1);
        ASSERT_TRUE(node.engine.submitTransfer(running.id(), {request(TransferRequest::READ, node.memory.data(), peer.id(), target.address(), 64 << 20)}).ok());
    }
    // Its end waited: nothing writes to this memory any more.
    node.memory.assign(node.memory.size(), 0);
    for (const uint8_t byte : node.memory) ASSERT_EQ(byte, 0);
}

TEST(Scoped, BatchesTellWhyATaskFailed) {
    Node node;
    auto target = std::make_unique<Node>();
    const ScopedSegment peer(node.engine, target->name);
    const TransferRequest read = request(TransferRequest::READ, node.memory.data(), peer.id(), target->address(), 64);
    target.reset();
    const ScopedBatch batch(node.engine, 1);
    const Status submitted = node.engine.submitTransfer(batch.id(), {read});
    const Status ended = submitted.ok() ? batch.wait() : submitted;
    EXPECT_FALSE(ended.ok());
    EXPECT_FALSE(ended.message().empty());
}

TEST(Scoped, MemoryIsUnregisteredAtItsEnd) {
    Node node;
    std::vector<char> memory(4096), other(4096);
    {
        ScopedRegistration first(node.engine, memory.data(), memory.size());
        EXPECT_EQ(first.code(), 0);
        EXPECT_EQ(ScopedRegistration(node.engine, memory.data(), 1).code(), ERR_ADDRESS_OVERLAPPED);
        ScopedRegistration second(node.engine, other.data(), other.size(), "cpu:0", false);
        second = std::move(first);
        EXPECT_FALSE(node.engine.checkOverlap(other.data(), other.size()));
        const ScopedRegistration third(std::move(second));
        EXPECT_TRUE(node.engine.checkOverlap(memory.data(), memory.size()));
    }
    EXPECT_FALSE(node.engine.checkOverlap(memory.data(), memory.size()));
}

/** Shared memory of this process that is mapped here. */
static int mapped() {
    std::ifstream maps("/proc/self/maps");
    int count = 0;
    for (std::string line; std::getline(maps, line);) count += line.find("mte-shared") != std::string::npos;
    return count;
}

/** Whether so much is mapped in the end: a thread may hold a region for a moment after the transfer is over. */
static bool endsMapped(int count) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (mapped() != count && std::chrono::steady_clock::now() < end) std::this_thread::yield();
    return mapped() == count;
}

TEST(Scoped, SharedMemoryIsFreedAtItsEnd) {
    const int before = mapped();
    Node target(3), node;
    const ScopedSegment peer(node.engine, target.name);
    {
        ScopedSharedMemory first(node.engine, 10000);
        ASSERT_EQ(first.code(), 0) << lastError();
        EXPECT_EQ(first.size(), 10000u);
        auto *const bytes = static_cast<uint8_t *>(first.data());
        EXPECT_EQ(bytes[0] + bytes[9999], 0);
        const ScopedRegistration registration(node.engine, first.data(), first.size());
        ASSERT_EQ(registration.code(), 0) << lastError();
        ScopedBatch batch(node.engine, 1);
        ASSERT_TRUE(node.engine.submitTransfer(batch.id(), {request(TransferRequest::READ, bytes, peer.id(), target.address(), 10000)}).ok());
        EXPECT_TRUE(batch.wait().ok());
        EXPECT_EQ(bytes[9999], static_cast<uint8_t>(9999 * 3));
        ScopedSharedMemory second(node.engine, 4096, true);
        ASSERT_EQ(second.code(), 0) << lastError();
        EXPECT_EQ(mapped(), before + 2);
        second = std::move(first);
        EXPECT_EQ(mapped(), before + 1);
        const ScopedSharedMemory third(std::move(second));
        EXPECT_EQ(third.data(), bytes);
        EXPECT_EQ(first.data(), nullptr);  // NOLINT: that is the question.
        EXPECT_EQ(second.size(), 0u);      // NOLINT: as above.
    }
    EXPECT_TRUE(endsMapped(before)) << mapped();
    EXPECT_EQ(ScopedSharedMemory(node.engine, 0).code(), ERR_INVALID_ARGUMENT);
    EXPECT_EQ(ScopedSharedMemory(node.engine, 4096, false, 9999).code(), ERR_NUMA);
}

TEST(Scoped, SharedMemoryOutlivesItsEngineAndItsOwnerARegistration) {
    const int before = mapped();
    {
        auto node = std::make_unique<Node>();
        const ScopedSharedMemory kept(node->engine, 4096);
        auto lost = std::make_unique<ScopedSharedMemory>(node->engine, 4096);
        const ScopedRegistration registration(node->engine, lost->data(), lost->size());
        ASSERT_EQ(registration.code(), 0) << lastError();
        lost.reset();
        EXPECT_EQ(mapped(), before + 2);
        node->engine.freeEngine();
        EXPECT_TRUE(endsMapped(before + 1)) << mapped();
        static_cast<char *>(kept.data())[4095] = 1;
    }
    EXPECT_TRUE(endsMapped(before)) << mapped();
}

TEST(Scoped, SegmentsAreClosedAtTheirEnd) {
    Node target, node;
    ScopedSegment first(node.engine, target.name);
    ASSERT_NE(first.id(), static_cast<SegmentHandle>(-1));
    ScopedSegment second(std::move(first));
    EXPECT_EQ(first.id(), static_cast<SegmentHandle>(-1));  // NOLINT: that is the question.
    first = std::move(second);
    EXPECT_TRUE(node.engine.CheckSegmentStatus(first.id()).ok());
    EXPECT_EQ(ScopedSegment(node.engine, "").id(), static_cast<SegmentHandle>(-1));
}

#include <thread>

#include "support.h"

using namespace mooncake;
using Code = Status::Code;

TEST(Transfers, MoveTheRightBytes) {
    Node target(3), node(5);
    const SegmentHandle peer = node.engine.openSegment(target.name);
    ASSERT_NE(peer, static_cast<SegmentHandle>(-1)) << lastError();
    const BatchID batch = node.engine.allocateBatchID(2);
    ASSERT_NE(batch, INVALID_BATCH_ID);
    const size_t length = 300000;
    const Status submitted = node.engine.submitTransfer(batch, {request(TransferRequest::READ, node.memory.data(), peer, target.address(1000), length),
                                                                request(TransferRequest::WRITE, &node.memory[500000], peer, target.address(500000), length)});
    ASSERT_TRUE(submitted.ok()) << submitted;
    for (const size_t task : {0, 1}) {
        const TransferStatus status = finished(node.engine, batch, task);
        EXPECT_EQ(status.s, TransferStatusEnum::COMPLETED);
        EXPECT_EQ(status.transferred_bytes, length);
    }
    TransferStatus all;
    EXPECT_TRUE(node.engine.getBatchTransferStatus(batch, all).ok());
    EXPECT_EQ(all.s, TransferStatusEnum::COMPLETED);
    EXPECT_EQ(all.transferred_bytes, 2 * length);
    EXPECT_TRUE(node.engine.freeBatchID(batch).ok());
    for (size_t i = 0; i < length; ++i) {
        ASSERT_EQ(node.memory[i], static_cast<uint8_t>((1000 + i) * 3)) << i;
        ASSERT_EQ(target.memory[500000 + i], static_cast<uint8_t>((500000 + i) * 5)) << i;
    }
    EXPECT_EQ(node.engine.closeSegment(peer), 0);
}

TEST(Transfers, GoThroughATransportsOwnMembers) {
    Node target(3), node;
    Transport *const transport = node.engine.getTransport(protocol());
    ASSERT_NE(transport, nullptr);
    EXPECT_EQ(transport, node.engine.installTransport(protocol(), nullptr));
    EXPECT_EQ(transport->getName(), protocol());
    EXPECT_EQ(transport->meta(), node.engine.getMetadata());
    const SegmentHandle peer = node.engine.openSegment(target.name);
    EXPECT_TRUE(transport->OpenChannel(target.name, peer).ok());
    EXPECT_TRUE(transport->CheckStatus(peer).ok());
    const BatchID batch = transport->allocateBatchID(1);
    ASSERT_TRUE(transport->submitTransfer(batch, {request(TransferRequest::READ, node.memory.data(), peer, target.address(), 64)}).ok());
    TransferStatus status;
    while (transport->getTransferStatus(batch, 0, status).ok() && status.s == TransferStatusEnum::WAITING) {
    }
    EXPECT_EQ(status.s, TransferStatusEnum::COMPLETED);
    EXPECT_EQ(node.memory[63], static_cast<uint8_t>(63 * 3));
    EXPECT_TRUE(transport->freeBatchID(batch).ok());
    EXPECT_EQ(node.engine.getTransport("no such"), nullptr);
    EXPECT_EQ(node.engine.installTransport("no such", nullptr), nullptr);
    EXPECT_FALSE(lastError().ok());
    EXPECT_EQ(node.engine.uninstallTransport(protocol()), 0);
}

TEST(Transfers, TellTheTargetWhenAsked) {
    Node target, node;
    const SegmentHandle peer = node.engine.openSegment(target.name);
    const BatchID batch = node.engine.allocateBatchID(1);
    const Status submitted = node.engine.submitTransferWithNotify(
        batch, {request(TransferRequest::WRITE, node.memory.data(), peer, target.address(), 4096)}, {"sender", "done \x01 \xc3\xa9"});
    ASSERT_TRUE(submitted.ok()) << submitted;
    EXPECT_EQ(finished(node.engine, batch, 0).s, TransferStatusEnum::COMPLETED);
    std::vector<TransferMetadata::NotifyDesc> received;
    while (received.empty()) {
        ASSERT_EQ(target.engine.getNotifies(received), 0);
        std::this_thread::yield();
    }
    ASSERT_EQ(received.size(), 1u);
    EXPECT_EQ(received[0].name, "sender");
    EXPECT_EQ(received[0].notify_msg, "done \x01 \xc3\xa9");
    EXPECT_TRUE(node.engine.freeBatchID(batch).ok());
}

TEST(Transfers, AreAcceptedAsAWholeOrRefused) {
    Node target, node;
    const SegmentHandle peer = node.engine.openSegment(target.name);
    const BatchID batch = node.engine.allocateBatchID(1);
    const TransferRequest good = request(TransferRequest::WRITE, node.memory.data(), peer, target.address(), 8);
    char stranger[8];
    TransferRequest other = good;
    expectFailure(node.engine.submitTransfer(batch, {good, good}), Code::kTooManyRequests);
    other.source = stranger;
    expectFailure(node.engine.submitTransfer(batch, {other}), Code::kAddressNotRegistered);
    other = good;
    other.target_offset = target.address(target.memory.size());
    expectFailure(node.engine.submitTransfer(batch, {other}), Code::kAddressNotRegistered);
    other = good;
    other.length = SIZE_MAX;
    EXPECT_FALSE(node.engine.submitTransfer(batch, {other}).ok());
    for (const uint64_t unknown : {uint64_t{77777}, uint64_t{1} << 31, (uint64_t{1} << 32) + peer, UINT64_MAX}) {
        other = good;
        other.target_id = unknown;
        expectFailure(node.engine.submitTransfer(batch, {other}), Code::kInvalidArgument);
        expectFailure(node.engine.submitTransferWithNotify(batch, {other}, {"a", "b"}), Code::kInvalidArgument);
    }
    other = good;
    other.opcode = static_cast<TransferRequest::OpCode>(7);
    expectFailure(node.engine.submitTransfer(batch, {other}), Code::kInvalidArgument);
    expectFailure(node.engine.submitTransferWithNotify(batch, {good}, {std::string("a\0b", 3), "b"}), Code::kInvalidArgument);
    expectFailure(node.engine.submitTransferWithNotify(batch, {good}, {"a", "\xff"}), Code::kInvalidArgument);
    // The batch is as it was.
    ASSERT_TRUE(node.engine.submitTransfer(batch, {good}).ok());
    EXPECT_EQ(finished(node.engine, batch, 0).s, TransferStatusEnum::COMPLETED);
    TransferStatus untouched{TransferStatusEnum::PENDING, 5};
    expectFailure(node.engine.getTransferStatus(batch, 1, untouched), Code::kInvalidArgument);
    expectFailure(node.engine.getTransferStatus(batch, SIZE_MAX, untouched), Code::kInvalidArgument);
    expectFailure(node.engine.getBatchTransferStatus(12345, untouched), Code::kInvalidArgument);
    EXPECT_EQ(untouched.transferred_bytes, 5u);
    EXPECT_TRUE(node.engine.freeBatchID(batch).ok());
    expectFailure(node.engine.freeBatchID(batch), Code::kInvalidArgument);
    expectFailure(node.engine.freeBatchID(INVALID_BATCH_ID), Code::kInvalidArgument);
    EXPECT_EQ(node.engine.allocateBatchID(SIZE_MAX), INVALID_BATCH_ID);
    EXPECT_FALSE(lastError().ok());
}

TEST(Transfers, OfNothingAreFine) {
    Node node;
    const BatchID batch = node.engine.allocateBatchID(1);
    const Status empty = node.engine.submitTransfer(batch, {});
    TransferStatus status{TransferStatusEnum::FAILED, 1};
    EXPECT_TRUE(node.engine.getBatchTransferStatus(batch, status).ok());
    EXPECT_EQ(status.s, TransferStatusEnum::COMPLETED);
    EXPECT_EQ(status.transferred_bytes, 0u);
    EXPECT_TRUE(node.engine.freeBatchID(batch).ok());
    EXPECT_TRUE(empty.ok() || empty.IsInvalidArgument());
    EXPECT_EQ(node.engine.registerLocalMemoryBatch({}, "cpu:0"), 0);
    EXPECT_EQ(node.engine.unregisterLocalMemoryBatch({}), 0);
}

TEST(Transfers, MayBePinnedToAnInstalledProtocol) {
    Node target, node;
    std::vector<char> first(4096), second(4096);
    std::string proto = protocol(), none = "no such";
    std::unordered_map<std::string, std::vector<TransferEngine::RegisteredBuffer>> map{
        {proto, {{first.data(), first.size()}, {second.data(), second.size(), "cpu:0", false, false}}}};
    EXPECT_EQ(node.engine.mp_registerLocalMemory(map), 0);
    const SegmentHandle peer = node.engine.openSegment(target.name);
    const BatchID batch = node.engine.allocateBatchID(2);
    const TransferRequest read = request(TransferRequest::READ, first.data(), peer, target.address(7), 64);
    EXPECT_FALSE(node.engine.mp_submitTransfer(batch, {read}, none).ok());
    EXPECT_FALSE(node.engine.mp_submitTransferWithNotify(batch, {read}, {"a", "b"}, none).ok());
    ASSERT_TRUE(node.engine.mp_submitTransfer(batch, {read}, proto).ok());
    ASSERT_TRUE(node.engine.mp_submitTransferWithNotify(batch, {read}, {"a", "b"}, proto).ok());
    for (const size_t task : {0, 1}) EXPECT_EQ(finished(node.engine, batch, task).s, TransferStatusEnum::COMPLETED);
    EXPECT_EQ(first[0], 7);
    EXPECT_TRUE(node.engine.freeBatchID(batch).ok());
    EXPECT_EQ(node.engine.mp_unregisterLocalMemory(map), 0);
    // One that fails leaves none registered.
    map[proto].push_back({first.data(), 0});
    EXPECT_EQ(node.engine.mp_registerLocalMemory(map), ERR_INVALID_ARGUMENT);
    EXPECT_FALSE(node.engine.checkOverlap(first.data(), first.size()));
    map = {{none, {{first.data(), 64}}}};
    EXPECT_EQ(node.engine.mp_registerLocalMemory(map), ERR_INVALID_ARGUMENT);
    EXPECT_EQ(node.engine.mp_unregisterLocalMemory(map), ERR_INVALID_ARGUMENT);
}

TEST(Transfers, RunInManyThreadsOfOneEngine) {
    Node target(3), node;
    const SegmentHandle peer = node.engine.openSegment(target.name);
    std::vector<std::thread> threads;
    for (size_t number = 0; number < 8; ++number) {
        threads.emplace_back([&, number] {
            const size_t at = number * 65536;
            for (int round = 0; round < 20; ++round) {
                ScopedBatch batch(node.engine, 1);
                ASSERT_TRUE(node.engine.submitTransfer(batch.id(), {request(TransferRequest::READ, &node.memory[at], peer, target.address(at), 65536)}).ok());
                ASSERT_TRUE(batch.wait().ok());
            }
        });
    }
    for (std::thread &thread : threads) thread.join();
    for (size_t i = 0; i < 8 * 65536; ++i) ASSERT_EQ(node.memory[i], static_cast<uint8_t>(i * 3)) << i;
}

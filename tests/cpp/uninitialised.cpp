/* Every member on an engine that is not initialised, freed, or moved away: a failure with a text, never a crash. */

#include "support.h"

using namespace mooncake;
using Code = Status::Code;

namespace {

void expectRefused(int code) {
    EXPECT_EQ(code, ERR_INVALID_ARGUMENT);
    expectFailure(lastError(), Code::kInvalidArgument);
}

void expectEverythingRefused(TransferEngine &engine) {
    char memory[64];
    TransferStatus status{TransferStatusEnum::PENDING, 77};
    std::vector<TransferMetadata::NotifyDesc> notifies;
    std::vector<SegmentBufferInfo> buffers;
    std::vector<NicLoadStats> stats;
    const TransferRequest write = request(TransferRequest::WRITE, memory, 0, 0, 1);
    const TransferMetadata::NotifyDesc message{"name", "text"};
    std::unordered_map<std::string, std::vector<TransferEngine::RegisteredBuffer>> map{{"tcp", {{memory, 64}}}};
    std::string proto = "tcp";

    EXPECT_EQ(engine.handle(), nullptr);
    EXPECT_EQ(engine.installTransport("tcp", nullptr), nullptr);
    expectFailure(lastError(), Code::kInvalidArgument);
    EXPECT_EQ(engine.getTransport("tcp"), nullptr);
    expectRefused(engine.uninstallTransport("tcp"));
    EXPECT_FALSE(engine.isTcpOnly());
    EXPECT_FALSE(engine.isUsingTent());
    EXPECT_EQ(engine.getLocalIpAndPort(), "");
    expectRefused(engine.getRpcPort());
    EXPECT_EQ(engine.openSegment("127.0.0.1:1"), static_cast<SegmentHandle>(-1));
    expectFailure(lastError(), Code::kInvalidArgument);
    expectRefused(engine.closeSegment(0));
    expectRefused(engine.removeLocalSegment("127.0.0.1:1"));
    expectFailure(engine.CheckSegmentStatus(0), Code::kInvalidArgument);
    expectFailure(engine.checkSegmentStatus(0), Code::kInvalidArgument);
    expectRefused(engine.syncSegmentCache());
    expectRefused(engine.syncSegmentCache("127.0.0.1:1"));
    expectRefused(engine.getSegmentBuffers(0, buffers));
    EXPECT_EQ(engine.probePeerAliveByID(0), PeerLiveness::Unreachable);
    EXPECT_EQ(engine.probePeerAlive("127.0.0.1:1"), PeerLiveness::Unreachable);
    expectRefused(engine.registerLocalMemory(memory, 64));
    expectRefused(engine.registerLocalMemory(memory, 64, kWildcardLocation, PeerAccess::Read));
    expectRefused(engine.unregisterLocalMemory(memory));
    expectRefused(engine.registerLocalMemoryBatch({{memory, 64}}, "cpu:0"));
    expectRefused(engine.registerLocalMemoryBatch({}, "cpu:0"));
    expectRefused(engine.unregisterLocalMemoryBatch({memory}));
    EXPECT_FALSE(engine.checkOverlap(memory, 64));
    expectRefused(engine.mp_registerLocalMemory(map));
    expectRefused(engine.mp_unregisterLocalMemory(map));
    EXPECT_EQ(engine.allocateBatchID(1), INVALID_BATCH_ID);
    expectFailure(lastError(), Code::kInvalidArgument);
    expectFailure(engine.freeBatchID(0), Code::kInvalidArgument);
    expectFailure(engine.submitTransfer(0, {write}), Code::kInvalidArgument);
    expectFailure(engine.submitTransferWithNotify(0, {write}, message), Code::kInvalidArgument);
    expectFailure(engine.mp_submitTransfer(0, {write}, proto), Code::kInvalidArgument);
    expectFailure(engine.mp_submitTransferWithNotify(0, {write}, message, proto), Code::kInvalidArgument);
    expectFailure(engine.getTransferStatus(0, 0, status), Code::kInvalidArgument);
    expectFailure(engine.getBatchTransferStatus(0, status), Code::kInvalidArgument);
    EXPECT_EQ(status.s, TransferStatusEnum::PENDING);
    EXPECT_EQ(status.transferred_bytes, 77u);
    expectRefused(engine.getNotifies(notifies));
    expectRefused(engine.sendNotifyByID(0, message));
    expectRefused(engine.sendNotifyByName("127.0.0.1:1", message));
    expectFailure(engine.getNicLoadStats(stats), Code::kInvalidArgument);
    EXPECT_EQ(engine.metrics(), "");
    expectFailure(lastError(), Code::kInvalidArgument);
    EXPECT_EQ(engine.getBaseAddr(), nullptr);
    ASSERT_NE(engine.getLocalTopology(), nullptr);
    EXPECT_FALSE(engine.getLocalTopologyString().empty());
    EXPECT_GE(engine.numContexts(), 0);

    const size_t offset = 0, length = 8;
    Status told;
    TransferEngine::ScatterTransferRange range{TransferRequest::READ, "127.0.0.1:1", 0, 64, memory, 64, {&offset, 1}, {&offset, 1}, {&length, 1},
                                               [&told](size_t, const Status &status) { told = status; }};
    expectFailure(engine.transferScatter({range}), Code::kInvalidArgument);
    expectFailure(told, Code::kInvalidArgument);
    EXPECT_TRUE(engine.transferScatter({}).ok());
    EXPECT_EQ(ScopedBatch(engine, 1).id(), INVALID_BATCH_ID);
    EXPECT_NE(ScopedRegistration(engine, memory, 64).code(), 0);
    EXPECT_NE(ScopedRegistration(engine, memory, 64, kWildcardLocation, PeerAccess::Write).code(), 0);
    EXPECT_EQ(ScopedSharedMemory(engine, 64).code(), ERR_INVALID_ARGUMENT);
    EXPECT_EQ(ScopedSegment(engine, "127.0.0.1:1").id(), static_cast<SegmentHandle>(-1));
    EXPECT_EQ(engine.freeEngine(), 0);
    EXPECT_EQ(engine.freeEngine(), 0);
}

}  // namespace

TEST(Uninitialised, EveryMemberFails) {
    TransferEngine engine(false);
    EXPECT_EQ(engine.getMetadata(), nullptr);
    expectEverythingRefused(engine);
}

TEST(Uninitialised, EveryMemberFailsAfterFreeEngine) {
    Node node;
    const auto metadata = node.engine.getMetadata();
    ASSERT_NE(metadata, nullptr);
    Transport *const transport = node.engine.getTransport(protocol());
    ASSERT_NE(transport, nullptr);
    Node target;
    const SegmentHandle peer = node.engine.openSegment(target.name);
    ASSERT_NE(metadata->getSegmentDescByID(peer), nullptr) << lastError();
    EXPECT_EQ(node.engine.freeEngine(), 0);
    EXPECT_EQ(metadata->getSegmentDescByID(peer), nullptr);
    expectEverythingRefused(node.engine);
    // What the engine gave fails, too.
    EXPECT_EQ(metadata->getSegmentDescByID(0), nullptr);
    expectFailure(lastError(), Code::kInvalidArgument);
    EXPECT_EQ(metadata->getSegmentDescByName("127.0.0.1:1"), nullptr);
    EXPECT_EQ(metadata->getSegmentID("127.0.0.1:1"), static_cast<SegmentID>(-1));
    expectRefused(metadata->sendProbe("127.0.0.1:1"));
    expectRefused(metadata->updateLocalSegmentDesc());
    EXPECT_EQ(transport->allocateBatchID(1), INVALID_BATCH_ID);
    expectRefused(node.engine.init(store(), freshName()));
}

TEST(Uninitialised, EveryMemberFailsAfterAMove) {
    TransferEngine engine(false);
    TransferEngine moved = std::move(engine);
    expectEverythingRefused(engine);  // NOLINT: that is the question.
    EXPECT_EQ(engine.getMetadata(), nullptr);
    expectRefused(engine.init(store(), freshName()));
    engine.setAutoDiscover(true);
    engine.setWhitelistFilters({"x"});
    engine.enableGracefulShutdown();
    EXPECT_EQ(engine.showLinks(), "");
    EXPECT_EQ(moved.init(store(), freshName()), 0) << lastError();
}

TEST(Uninitialised, LinksAreThoseOfTheTopology) {
    TransferEngine engine;
    EXPECT_NE(engine.showLinks().find("no RDMA devices found"), std::string::npos);
    ASSERT_EQ(engine.getLocalTopology()->parse("{\"cpu:0\":[[\"n\\\"0\"],[\"n1\"]]}"), 0);
    EXPECT_NE(engine.showLinks().find("n1"), std::string::npos);
    EXPECT_EQ(engine.numContexts(), 2);
    const auto json = detail::Json::parse(engine.showLinks(true));
    ASSERT_TRUE(json);
    ASSERT_EQ(json->find("local_nics")->items.size(), 2u);
    EXPECT_EQ(json->find("local_nics")->items[0].string("device"), "n\"0");
    EXPECT_EQ(json->find("topology")->find("cpu:0")->items.size(), 2u);
}

TEST(Uninitialised, MetadataOfItsOwnKnowsNothing) {
    TransferMetadata metadata(P2PHANDSHAKE);
    EXPECT_EQ(metadata.getSegmentDescByName("127.0.0.1:1"), nullptr);
    EXPECT_EQ(metadata.getSegmentDescByID(0, true), nullptr);
    EXPECT_EQ(metadata.getSegmentDescByID(UINT64_MAX), nullptr);
    EXPECT_LT(metadata.sendProbe(""), 0);
    metadata.dumpMetadataContent();
}

/* Members that move no data: names, segments, memory, notifications, metadata, reports. */

#include <thread>

#include "support.h"

using namespace mooncake;
using Code = Status::Code;

TEST(Engines, KnowTheirNameAndPort) {
    Node node;
    const std::string address = node.engine.getLocalIpAndPort();
    EXPECT_EQ(address, "127.0.0.1:" + std::to_string(node.engine.getRpcPort()));
    EXPECT_EQ(node.engine.openSegment(node.name), SegmentHandle{LOCAL_SEGMENT_ID});
    EXPECT_EQ(node.engine.isTcpOnly(), protocol() == "tcp");
    EXPECT_EQ(node.engine.getMetadata()->localRpcMeta().rpc_port, node.engine.getRpcPort());
    EXPECT_EQ(node.engine.getMetadata()->localRpcMeta().ip_or_host_name, "127.0.0.1");
    EXPECT_NE(node.engine.handle(), nullptr);
    EXPECT_EQ(node.engine.init(store(), freshName()), ERR_INVALID_ARGUMENT);
    EXPECT_EQ(node.engine.getLocalIpAndPort(), address);
}

TEST(Engines, MayBeInitialisedWithAProtocol) {
    TransferEngine engine, failing;
    EXPECT_EQ(engine.init(store(), freshName(), "", 0, "tcp"), 0) << lastError();
    EXPECT_NE(engine.getTransport("tcp"), nullptr);
    EXPECT_TRUE(engine.isTcpOnly());
    EXPECT_LT(failing.init(store(), freshName(), "", 0, "carrier-pigeon"), 0);
    EXPECT_FALSE(lastError().message().empty());
    EXPECT_EQ(failing.getMetadata(), nullptr);
    EXPECT_EQ(failing.init(store(), freshName()), 0) << "a failed init may be repeated";
}

TEST(Engines, MayDiscoverTheirTransport) {
    TransferEngine engine(true), configured, filtered(true, {"no-such-nic"});
    EXPECT_EQ(engine.init(store(), freshName()), 0) << lastError();
    EXPECT_TRUE(engine.getTransport("tcp") != nullptr || engine.getTransport("rdma") != nullptr);
    configured.setAutoDiscover({true, "tcp"});
    configured.setWhitelistFilters({"no-such-nic", ""});
    EXPECT_EQ(configured.init(store(), freshName()), 0) << lastError();
    EXPECT_TRUE(configured.isTcpOnly());
    // No NIC is left, so TCP it is.
    EXPECT_EQ(filtered.init(store(), freshName()), 0) << lastError();
    EXPECT_TRUE(filtered.isTcpOnly());
    EXPECT_EQ(filtered.numContexts(), 0);
    TransferEngine off(true);
    off.setAutoDiscover(false);
    EXPECT_EQ(off.init(store(), freshName()), 0);
    EXPECT_EQ(off.getTransport("tcp"), nullptr);
}

TEST(Engines, RefuseBadArgumentsOfInit) {
    TransferEngine engine;
    EXPECT_LT(engine.init("gopher://nowhere", "127.0.0.1"), 0);
    EXPECT_NE(lastError().message().find("gopher"), std::string_view::npos) << lastError();
    EXPECT_LT(engine.init("", ""), 0);
    EXPECT_LT(engine.init(std::string("P2PHANDSHAKE\0x", 14), "127.0.0.1"), 0);
    EXPECT_LT(engine.init(P2PHANDSHAKE, std::string(1 << 20, 'x')), 0);
    EXPECT_EQ(engine.init(P2PHANDSHAKE, "127.0.0.1"), 0);
}

TEST(Engines, SurviveAMoveWithEverythingTheyHave) {
    Node target, node;
    TransferEngine moved(std::move(node.engine));
    const SegmentHandle peer = moved.openSegment(target.name);
    Transport *const transport = moved.getTransport(protocol());
    ASSERT_NE(transport, nullptr);
    TransferEngine assigned(true);
    ASSERT_EQ(assigned.init(P2PHANDSHAKE, "127.0.0.1"), 0);
    assigned = std::move(moved);
    EXPECT_EQ(assigned.getTransport(protocol()), transport);
    TransferEngine &itself = assigned;
    assigned = std::move(itself);
    ScopedBatch batch(assigned, 1);
    ASSERT_TRUE(assigned.submitTransfer(batch.id(), {request(TransferRequest::READ, node.memory.data(), peer, target.address(), 64)}).ok());
    EXPECT_TRUE(batch.wait().ok());
    std::vector<TransferEngine> list;
    list.push_back(std::move(assigned));
    list.emplace_back(false);
    EXPECT_TRUE(list[0].checkOverlap(node.memory.data(), 1));
}

TEST(Segments, AreOpenedByNameAndKnownByTheirId) {
    Node target, node;
    const SegmentHandle peer = node.engine.openSegment(target.name);
    ASSERT_NE(peer, static_cast<SegmentHandle>(-1)) << lastError();
    EXPECT_EQ(node.engine.openSegment(target.name), peer);
    EXPECT_EQ(node.engine.openSegment("/" + target.name), peer);
    EXPECT_TRUE(node.engine.CheckSegmentStatus(peer).ok());
    EXPECT_TRUE(node.engine.CheckSegmentStatus(LOCAL_SEGMENT_ID).ok());
    for (const SegmentID unknown : {peer + 1000, SegmentID{1} << 40, SegmentID(-1)}) {
        expectFailure(node.engine.CheckSegmentStatus(unknown), Code::kInvalidArgument);
        EXPECT_EQ(node.engine.probePeerAliveByID(unknown), PeerLiveness::Unreachable);
        EXPECT_LT(node.engine.sendNotifyByID(unknown, {"a", "b"}), 0);
        EXPECT_EQ(node.engine.closeSegment(unknown), 0);
    }
    EXPECT_EQ(node.engine.probePeerAliveByID(peer), PeerLiveness::Alive) << lastError();
    EXPECT_EQ(node.engine.probePeerAlive(target.name), PeerLiveness::Alive) << lastError();
    EXPECT_EQ(node.engine.probePeerAlive(std::string("a\0b", 3)), PeerLiveness::Unreachable);
    for (const std::string &bad : {std::string(), std::string("/"), std::string("a\0b", 3), std::string(1 << 20, 'x')})
        EXPECT_EQ(node.engine.openSegment(bad), static_cast<SegmentHandle>(-1));
    EXPECT_EQ(node.engine.syncSegmentCache(), 0);
    EXPECT_EQ(node.engine.syncSegmentCache(target.name), 0) << lastError();
    EXPECT_EQ(node.engine.removeLocalSegment(target.name), 0);
    expectFailure(node.engine.CheckSegmentStatus(peer), Code::kInvalidArgument);
    EXPECT_LT(node.engine.removeLocalSegment(""), 0);
}

TEST(Segments, OfDeadPeersAreErrors) {
    Node node;
    std::string name;
    SegmentHandle peer;
    {
        Node target;
        name = target.name;
        peer = node.engine.openSegment(name);
        ASSERT_NE(peer, static_cast<SegmentHandle>(-1));
    }
    EXPECT_EQ(node.engine.probePeerAliveByID(peer), PeerLiveness::Unreachable);
    EXPECT_FALSE(lastError().message().empty());
    EXPECT_LT(node.engine.getMetadata()->sendProbe(name), 0);
    EXPECT_LT(node.engine.syncSegmentCache(name), 0);
    EXPECT_EQ(node.engine.getMetadata()->getSegmentDescByID(peer, true), nullptr);
    EXPECT_LT(node.engine.sendNotifyByName(name, {"a", "b"}), 0);
    EXPECT_EQ(node.engine.openSegment("127.0.0.1:1"), static_cast<SegmentHandle>(-1));
    EXPECT_FALSE(lastError().message().empty());
}

TEST(Memory, IsRegisteredOnce) {
    Node node;
    std::vector<char> memory(1 << 16), other(1 << 16);
    EXPECT_FALSE(node.engine.checkOverlap(memory.data(), memory.size()));
    EXPECT_EQ(node.engine.registerLocalMemory(memory.data(), memory.size()), 0);
    EXPECT_TRUE(node.engine.checkOverlap(memory.data() + 100, 1));
    EXPECT_FALSE(node.engine.checkOverlap(memory.data() + 100, 0));
    EXPECT_EQ(node.engine.registerLocalMemory(memory.data(), memory.size()), ERR_ADDRESS_OVERLAPPED);
    expectFailure(lastError(), Code::kAddressOverlapped);
    EXPECT_EQ(node.engine.registerLocalMemory(memory.data() + 8, 8, "*", true, false), ERR_ADDRESS_OVERLAPPED);
    EXPECT_EQ(node.engine.registerLocalMemory(nullptr, 0), ERR_INVALID_ARGUMENT);
    const std::string cut("cpu:0\0x", 7);
    EXPECT_EQ(node.engine.registerLocalMemory(other.data(), other.size(), cut), ERR_INVALID_ARGUMENT);
    EXPECT_EQ(node.engine.registerLocalMemoryBatch({{other.data(), other.size()}}, cut), ERR_INVALID_ARGUMENT);
    EXPECT_EQ(node.engine.installTransport(std::string("tcp\0x", 5), nullptr), nullptr);
    EXPECT_EQ(node.engine.getTransport(std::string("tcp\0x", 5)), nullptr);
    EXPECT_EQ(node.engine.registerLocalMemory(other.data(), SIZE_MAX), ERR_INVALID_ARGUMENT);
    EXPECT_EQ(node.engine.unregisterLocalMemory(memory.data() + 1), ERR_ADDRESS_NOT_REGISTERED);
    EXPECT_EQ(node.engine.unregisterLocalMemory(memory.data(), false), 0);
    EXPECT_EQ(node.engine.registerLocalMemoryBatch({{memory.data(), 4096}, {other.data(), 4096}}, "cpu:0"), 0) << lastError();
    EXPECT_EQ(node.engine.unregisterLocalMemoryBatch({memory.data(), other.data()}), 0);
    // All or none.
    EXPECT_EQ(node.engine.registerLocalMemoryBatch({{memory.data(), 4096}, {memory.data() + 1, 4096}}, "cpu:0"), ERR_ADDRESS_OVERLAPPED);
    EXPECT_FALSE(node.engine.checkOverlap(memory.data(), memory.size()));
    EXPECT_EQ(node.engine.unregisterLocalMemoryBatch({memory.data()}), ERR_ADDRESS_NOT_REGISTERED);
}

TEST(Memory, IsReachedByPeersAsFarAsTheyMay) {
    Node target, node;
    std::vector<uint8_t> readable(4096, 7), hidden(4096, 7);
    const ScopedRegistration first(target.engine, readable.data(), readable.size(), "cpu:0", PeerAccess::Read);
    ASSERT_EQ(first.code(), 0) << lastError();
    ASSERT_EQ(target.engine.registerLocalMemory(hidden.data(), hidden.size(), "cpu:0", PeerAccess::None), 0) << lastError();
    EXPECT_EQ(target.engine.registerLocalMemory(hidden.data(), 1, "cpu:0", static_cast<PeerAccess>(4)), ERR_INVALID_ARGUMENT);
    const std::string cut("cpu:0\0x", 7);
    EXPECT_EQ(target.engine.registerLocalMemory(hidden.data(), 1, cut, PeerAccess::Read), ERR_INVALID_ARGUMENT);
    const ScopedSegment peer(node.engine, target.name);
    const auto moves = [&](TransferRequest::OpCode op, std::vector<uint8_t> &there) {
        const ScopedBatch batch(node.engine, 1);
        const TransferRequest one = request(op, node.memory.data(), peer.id(), reinterpret_cast<uint64_t>(there.data()), 4096);
        return node.engine.submitTransfer(batch.id(), {one}).ok() && batch.wait().ok();
    };
    EXPECT_TRUE(moves(TransferRequest::READ, readable)) << lastError();
    EXPECT_FALSE(moves(TransferRequest::WRITE, readable));
    EXPECT_FALSE(moves(TransferRequest::WRITE, hidden));
    EXPECT_FALSE(moves(TransferRequest::READ, hidden));
    EXPECT_EQ(readable, std::vector<uint8_t>(4096, 7));
    EXPECT_EQ(hidden, std::vector<uint8_t>(4096, 7));
    EXPECT_EQ(target.engine.unregisterLocalMemory(hidden.data()), 0);
}

TEST(Memory, OfAPeerIsListed) {
    Node target, node;
    const SegmentHandle peer = node.engine.openSegment(target.name);
    std::vector<SegmentBufferInfo> buffers{{1, 2, "left over"}};
    ASSERT_EQ(node.engine.getSegmentBuffers(peer, buffers), 0) << lastError();
    ASSERT_EQ(buffers.size(), 1u);
    EXPECT_EQ(buffers[0].addr, target.address());
    EXPECT_EQ(buffers[0].length, target.memory.size());
    EXPECT_FALSE(buffers[0].location.empty());
    EXPECT_EQ(node.engine.getSegmentBuffers(UINT64_MAX, buffers), ERR_INVALID_ARGUMENT);
    EXPECT_EQ(node.engine.getSegmentBuffers(7777, buffers), ERR_INVALID_ARGUMENT);
    EXPECT_EQ(buffers.size(), 1u);
}

TEST(Metadata, DescribesSegments) {
    Node target, node;
    const auto metadata = node.engine.getMetadata();
    const SegmentHandle peer = node.engine.openSegment(target.name);
    for (const auto &desc : {metadata->getSegmentDescByID(peer), metadata->getSegmentDescByID(peer, true), metadata->getSegmentDescByName(target.name),
                             metadata->getSegmentDesc(target.name), target.engine.getMetadata()->getSegmentDescByID(LOCAL_SEGMENT_ID)}) {
        ASSERT_NE(desc, nullptr) << lastError();
        EXPECT_EQ(desc->name, target.name);
        EXPECT_EQ(desc->nicPathServerName(), target.name);
        EXPECT_EQ(desc->protocol, protocol());
        EXPECT_FALSE(desc->timestamp.empty());
        ASSERT_EQ(desc->buffers.size(), 1u);
        EXPECT_EQ(desc->buffers[0].addr, target.address());
        EXPECT_EQ(desc->buffers[0].length, target.memory.size());
        if (protocol() == "tcp") {
            EXPECT_GT(desc->tcp_data_port, 0);
            EXPECT_EQ(desc->tcp_proto_version, 2);
        } else {
            ASSERT_FALSE(desc->devices.empty());
            EXPECT_EQ(desc->devices[0].name, firstNic());
            EXPECT_EQ(desc->buffers[0].rkey.size(), desc->devices.size());
            EXPECT_EQ(desc->buffers[0].lkey.size(), desc->devices.size());
            EXPECT_FALSE(desc->topology.empty());
        }
    }
    EXPECT_EQ(metadata->getSegmentID(target.name), peer);
    EXPECT_EQ(metadata->getSegmentDescByID(peer + 1000), nullptr);
    expectFailure(lastError(), Code::kInvalidArgument);
    EXPECT_EQ(metadata->getSegmentDescByID(UINT64_MAX), nullptr);
    EXPECT_EQ(metadata->getSegmentDescByName(""), nullptr);
    EXPECT_EQ(metadata->sendProbe(target.name), 0);
    EXPECT_EQ(metadata->updateLocalSegmentDesc(), 0);
    EXPECT_EQ(metadata->rePublishRpcMetaEntry(node.name), 0);
    EXPECT_LT(metadata->updateLocalSegmentDesc(peer), 0);
    metadata->dumpMetadataContent();
    metadata->dumpMetadataContent(target.name);
    EXPECT_EQ(metadata->removeSegmentDesc(target.name), 0);
}

TEST(Metadata, IsReadAgainWhenForced) {
    Node target, node;
    const auto metadata = node.engine.getMetadata();
    const SegmentHandle peer = node.engine.openSegment(target.name);
    const auto before = metadata->getSegmentDescByID(peer);
    ASSERT_NE(before, nullptr);
    // It is the caller's own.
    before->buffers.clear();
    EXPECT_EQ(metadata->getSegmentDescByID(peer)->buffers.size(), 1u);
    std::vector<char> more(4096);
    ASSERT_EQ(target.engine.registerLocalMemory(more.data(), more.size(), "cpu:0"), 0);
    EXPECT_EQ(metadata->getSegmentDescByID(peer, true)->buffers.size(), 2u);
    ASSERT_EQ(target.engine.unregisterLocalMemory(more.data()), 0);
    ASSERT_EQ(node.engine.syncSegmentCache(), 0);
    EXPECT_EQ(metadata->getSegmentDescByID(peer)->buffers.size(), 1u);
}

TEST(Metadata, OfAnEngineWithoutATransportIsNone) {
    TransferEngine engine;
    ASSERT_EQ(engine.init(store(), freshName()), 0);
    EXPECT_EQ(engine.getMetadata()->getSegmentDescByID(LOCAL_SEGMENT_ID), nullptr);
    expectFailure(lastError(), Code::kMetadata);
    EXPECT_EQ(engine.openSegment("127.0.0.1:1"), static_cast<SegmentHandle>(-1));
}

TEST(Notifications, AreReceivedInTheirOrder) {
    Node target, node;
    const SegmentHandle peer = node.engine.openSegment(target.name);
    const std::string large(200000, 'x');
    ASSERT_EQ(node.engine.sendNotifyByID(peer, {"first", "1"}), 0) << lastError();
    ASSERT_EQ(node.engine.sendNotifyByName(target.name, {"second", large}), 0) << lastError();
    ASSERT_EQ(node.engine.sendNotifyByID(peer, {"", ""}), 0) << lastError();
    std::vector<TransferMetadata::NotifyDesc> received{{"kept", "0"}};
    ASSERT_EQ(target.engine.getNotifies(received), 0);
    ASSERT_EQ(received.size(), 4u);
    EXPECT_EQ(received[0].name, "kept");
    EXPECT_EQ(received[1].name + received[1].notify_msg, "first1");
    EXPECT_EQ(received[2].name, "second");
    EXPECT_EQ(received[2].notify_msg, large);
    EXPECT_EQ(received[3].name, "");
    received.clear();
    EXPECT_EQ(target.engine.getNotifies(received), 0);
    EXPECT_TRUE(received.empty());
    EXPECT_EQ(node.engine.sendNotifyByID(peer, {std::string("a\0b", 3), ""}), ERR_INVALID_ARGUMENT);
    EXPECT_EQ(node.engine.sendNotifyByName(target.name, {"a", std::string(1, '\0')}), ERR_INVALID_ARGUMENT);
    EXPECT_EQ(node.engine.sendNotifyByName("", {"a", "b"}), ERR_INVALID_ARGUMENT);
}

TEST(Reports, DescribeTheEngine) {
    Node node;
    std::vector<NicLoadStats> stats(3);
    ASSERT_TRUE(node.engine.getNicLoadStats(stats).ok());
    const auto json = detail::Json::parse(node.engine.showLinks(true));
    ASSERT_TRUE(json) << node.engine.showLinks(true);
    ASSERT_NE(json->find("local_nics"), nullptr);
    EXPECT_NE(node.engine.showLinks().find("Local NICs"), std::string::npos);
    EXPECT_NE(node.engine.metrics().find("\n# TYPE mte_engine_up gauge\n"), std::string::npos);
    EXPECT_TRUE(detail::Json::parse(node.engine.metrics(MTE_METRICS_JSON)));
    EXPECT_EQ(node.engine.metrics(MTE_METRICS_SUMMARY).compare(0, 6, "Read: "), 0);
    EXPECT_EQ(node.engine.metrics(99), "");
    expectFailure(lastError(), Code::kInvalidArgument);
    if (protocol() == "rdma") {
        ASSERT_FALSE(stats.empty());
        EXPECT_EQ(stats[0].device_name, firstNic());
        EXPECT_EQ(stats[0].inflight_bytes, 0u);
        EXPECT_EQ(json->find("local_nics")->items.size(), stats.size());
        EXPECT_EQ(static_cast<size_t>(node.engine.numContexts()), stats.size());
        EXPECT_NE(node.engine.getLocalTopologyString().find(firstNic()), std::string::npos);
    } else {
        EXPECT_TRUE(stats.empty());
    }
}

TEST(Engines, MayBeAskedForTheirTopologyWhileATransportIsInstalled) {
    Node node;
    std::string first = R"({"cpu:0":[["a","b"],["c"]]})", second = R"({"cpu:0":[["d"],[]]})";
    const auto topology = node.engine.getLocalTopology();
    ASSERT_EQ(topology->parse(first), 0);
    const std::vector<std::string> &nics = topology->getHcaList();
    std::atomic<bool> done{false};
    std::thread reader([&] {
        while (!done) {
            const std::string text = node.engine.getLocalTopologyString();
            EXPECT_TRUE(text == first || text == second) << text;
            const int contexts = node.engine.numContexts();
            EXPECT_TRUE(contexts == 3 || contexts == 1) << contexts;
            EXPECT_FALSE(node.engine.showLinks().empty());
            EXPECT_GE(topology->selectDevice("cpu:0"), 0);
        }
    });
    for (int i = 0; i < 200; ++i) {
        void *args[] = {(i % 2 == 0 ? second : first).data(), nullptr};
        EXPECT_NE(node.engine.installTransport(protocol(), args), nullptr) << lastError();
        EXPECT_EQ(topology->getHcaList().size(), i % 2 == 0 ? 1u : 3u);
        EXPECT_EQ(nics, (std::vector<std::string>{"a", "b", "c"}));
    }
    done = true;
    reader.join();
    const Topology copy(*topology);
    EXPECT_EQ(copy, *topology);
    EXPECT_EQ(copy.toString(), first);
}

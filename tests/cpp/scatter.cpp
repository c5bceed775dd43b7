#include <map>
#include <numeric>
#include <stdexcept>

#include "support.h"
#if __cplusplus >= 202002L
#include <span>
#endif

using namespace mooncake;
using Code = Status::Code;
using Range = TransferEngine::ScatterTransferRange;

namespace {

/** Offsets of fragments that lie apart, and their lengths. */
struct Fragments {
    explicit Fragments(size_t count) : local(count), remote(count), lengths(count) {
        for (size_t i = 0; i < count; ++i) {
            local[i] = i * 700;
            remote[i] = (count - 1 - i) * 900;
            lengths[i] = 100 + i;
        }
    }
    Range range(TransferRequest::OpCode opcode, Node &node, const Node &target) {
        return {opcode, target.name, target.address(), target.memory.size(), node.memory.data(), node.memory.size(), local, remote, lengths, {}};
    }
    std::vector<size_t> local, remote, lengths;
};

}  // namespace

TEST(Scatter, MovesEveryFragmentAndTellsOnce) {
    Node target(3), node;
    Fragments fragments(200), more(50);
    for (size_t &offset : more.local) offset += 500000;
    for (size_t &offset : more.remote) offset += 500000;
    std::map<size_t, int> told;
    Range read = fragments.range(TransferRequest::READ, node, target), write = more.range(TransferRequest::WRITE, node, target);
    read.on_fragment_complete = [&told](size_t fragment, const Status &status) {
        EXPECT_TRUE(status.ok()) << status;
        ++told[fragment];
    };
    const Status status = node.engine.transferScatter({read, write});
    EXPECT_TRUE(status.ok()) << status;
    EXPECT_EQ(told.size(), 200u);
    for (const auto &[fragment, times] : told) EXPECT_EQ(times, 1) << fragment;
    for (size_t i = 0; i < 200; ++i)
        for (size_t at = 0; at < fragments.lengths[i]; ++at)
            ASSERT_EQ(node.memory[fragments.local[i] + at], static_cast<uint8_t>((fragments.remote[i] + at) * 3)) << i;
    for (size_t i = 0; i < 50; ++i)
        for (size_t at = 0; at < more.lengths[i]; ++at)
            ASSERT_EQ(target.memory[more.remote[i] + at], static_cast<uint8_t>(more.local[i] + at)) << i;
}

TEST(Scatter, MayBeWaitedForInSteps) {
    Node target(3), node;
    const size_t offset = 0, length = node.memory.size();
    auto operation = node.engine.submitScatter(
        {{TransferRequest::READ, target.name, target.address(), length, node.memory.data(), length, {&offset, 1}, {&offset, 1}, {&length, 1}, {}}});
    Status status;
    do {
        status = operation.waitFor(std::chrono::nanoseconds(1));
    } while (status.IsClock());
    EXPECT_TRUE(status.ok()) << status;
    EXPECT_TRUE(operation.wait().ok());
    EXPECT_TRUE(operation.waitFor(std::chrono::nanoseconds::max()).ok());
    EXPECT_TRUE(operation.waitFor(std::chrono::nanoseconds::min()).ok());
    auto moved = std::move(operation);
    EXPECT_TRUE(moved.wait().ok());
    expectFailure(operation.wait(), Code::kInvalidArgument);  // NOLINT: that is the question.
    expectFailure(operation.waitFor(std::chrono::seconds(1)), Code::kInvalidArgument);
    EXPECT_EQ(node.memory[1001], static_cast<uint8_t>(1001 * 3));
}

TEST(Scatter, WaitsWhenItIsDropped) {
    Node target(3), node;
    const size_t offset = 0, length = node.memory.size();
    const Range range{TransferRequest::READ, target.name, target.address(), length, node.memory.data(), length, {&offset, 1}, {&offset, 1}, {&length, 1},
                      [](size_t, const Status &) { ADD_FAILURE() << "nobody waits"; }};
    {
        auto operation = node.engine.submitScatter({range});
        operation = node.engine.submitScatter({range});
    }
    for (size_t i = 0; i < length; ++i) ASSERT_EQ(node.memory[i], static_cast<uint8_t>(i * 3)) << i;
}

TEST(Scatter, RefusesFragmentsOutsideTheirRange) {
    Node target(3), node;
    const size_t most = SIZE_MAX;
    const std::vector<size_t> local{0, 900, most, 0, 0, 0}, remote{0, 0, 0, 950, most, 10}, lengths{8, 200, 1, 200, most, 0};
    std::map<size_t, Status> told;
    const Range range{TransferRequest::READ, target.name, target.address(), 1000, node.memory.data(), 1000, local, remote, lengths,
                      [&told](size_t fragment, const Status &status) { told[fragment] = status; }};
    expectFailure(node.engine.transferScatter({range}), Code::kInvalidArgument);
    ASSERT_EQ(told.size(), 6u);
    EXPECT_TRUE(told[0].ok()) << told[0];
    for (size_t i = 1; i < 5; ++i) expectFailure(told[i], Code::kInvalidArgument);
    EXPECT_TRUE(told[5].ok()) << "nothing to move";
    EXPECT_EQ(node.memory[7], static_cast<uint8_t>(7 * 3));
}

TEST(Scatter, RefusesRangesThatAreNone) {
    Node target, node;
    Fragments fragments(3);
    const Range good = fragments.range(TransferRequest::READ, node, target);
    std::vector<Range> bad(6, good);
    bad[0].lengths = {fragments.lengths.data(), 2};
    bad[1].remote_offsets = {};
    bad[2].local_buffer = nullptr;
    bad[3].remote_segment = "";
    bad[4].remote_segment = std::string("a\0b", 3);
    bad[5].remote_base_offset = UINT64_MAX - 50;
    for (Range &range : bad) {
        int told = 0;
        range.on_fragment_complete = [&told](size_t, const Status &status) {
            EXPECT_TRUE(status.IsInvalidArgument()) << status;
            ++told;
        };
        expectFailure(node.engine.transferScatter({range}), Code::kInvalidArgument);
        EXPECT_EQ(told, 3);
    }
    Range closed = good;
    closed.remote_segment = "127.0.0.1:1";
    EXPECT_FALSE(node.engine.transferScatter({closed}).ok());
    Range unknown = good;
    unknown.remote_base_offset = target.address(target.memory.size());
    expectFailure(node.engine.transferScatter({unknown}), Code::kAddressNotRegistered);
}

TEST(Scatter, TurnsWhatACallbackThrowsIntoItsFailure) {
    Node target, node;
    Fragments fragments(3);
    int told = 0;
    Range range = fragments.range(TransferRequest::READ, node, target);
    range.on_fragment_complete = [&told](size_t, const Status &) {
        if (++told == 2) throw std::runtime_error("the consumer is full");
        if (told == 3) throw 7;
    };
    const Status status = node.engine.transferScatter({range});
    expectFailure(status, Code::kContext);
    EXPECT_NE(status.message().find("the consumer is full"), std::string_view::npos) << status;
    EXPECT_EQ(told, 3);
}

TEST(Scatter, EndsWithItsEngine) {
    Node target, node;
    const size_t offset = 0, length = node.memory.size();
    int told = 0;
    auto operation = node.engine.submitScatter({{TransferRequest::READ, target.name, target.address(), length, node.memory.data(), length, {&offset, 1},
                                                 {&offset, 1}, {&length, 1}, [&told](size_t, const Status &) { ++told; }}});
    node.engine.freeEngine();
    expectFailure(operation.wait(), Code::kInvalidArgument);
    EXPECT_EQ(told, 1);
}

TEST(Scatter, TakesViewsOfAnything) {
    const std::vector<size_t> vector{1, 2, 3};
    const size_t array[] = {4, 5};
    const Span<const size_t> views[] = {vector, array, {vector.data(), 2}, {}};
    size_t sizes = 0, sum = 0;
    for (const auto &view : views) {
        sizes += view.size();
        sum = std::accumulate(view.begin(), view.end(), sum);
    }
    EXPECT_EQ(sizes, 7u);
    EXPECT_EQ(sum, 18u);
    EXPECT_TRUE(views[3].empty());
    EXPECT_EQ(views[0][2], 3u);
#if __cplusplus >= 202002L
    const std::span<const size_t> standard(vector);
    const Span<const size_t> from = standard;
    const std::span<const size_t> back(from);
    EXPECT_EQ(back.data(), vector.data());
    // As programs of C++20 write it.
    const Range range{.opcode = TransferRequest::READ, .remote_segment = "x", .remote_base_offset = 0, .remote_size = 0, .local_buffer = nullptr,
                      .local_capacity = 0, .local_offsets = standard, .remote_offsets = std::span<const size_t>(vector), .lengths = vector,
                      .on_fragment_complete = {}};
    EXPECT_EQ(range.local_offsets.size(), 3u);
#endif
}

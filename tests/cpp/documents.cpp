#include <gtest/gtest.h>

#include "topology.h"
#include "transfer_engine/detail/json.h"

using mooncake::Topology;
using mooncake::detail::Json;

TEST(Json, KeepsWhole64BitNumbers) {
    const auto value = Json::parse("{\"most\":18446744073709551615,\"least\":-9223372036854775808,\"real\":1.5e3,\"text\":\"7\"}");
    ASSERT_TRUE(value);
    EXPECT_EQ(value->number<uint64_t>("most"), UINT64_MAX);
    EXPECT_EQ(value->number<int64_t>("least"), INT64_MIN);
    EXPECT_EQ(value->number<uint64_t>("least", 5), 5u);
    EXPECT_EQ(value->number<uint32_t>("most", 5), 5u);
    EXPECT_EQ(value->number<int>("real", 5), 5);
    EXPECT_EQ(value->number<int>("text", 5), 5);
    EXPECT_EQ(value->number<int>("absent", 5), 5);
    EXPECT_EQ(value->string("text"), "7");
    EXPECT_EQ(value->string("most"), "");
}

TEST(Json, ReadsEscapes) {
    const auto value = Json::parse("[\"\\\"\\\\\\/\\b\\f\\n\\r\\t\",\"\\u0041\\u00e9\\u20ac\\ud83d\\ude00\",\"\xc3\xa9\"]");
    ASSERT_TRUE(value);
    EXPECT_EQ(value->items[0].text, "\"\\/\b\f\n\r\t");
    EXPECT_EQ(value->items[1].text, "A\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80");
    EXPECT_EQ(value->items[2].text, "\xc3\xa9");
    EXPECT_EQ(Json::parse(mooncake::detail::quoted("a\"\\\n\x01z"))->text, "a\"\\\n\x01z");
}

TEST(Json, TakesTheLastOfSeveralMembers) {
    const auto value = Json::parse(" { \"a\" : 1 , \"a\" : 2 } ");
    ASSERT_TRUE(value);
    EXPECT_EQ(value->number<int>("a"), 2);
}

TEST(Json, RefusesWhatIsNone) {
    for (const char *bad : {"", " ", "{", "[", "]", "[1", "[1,]", "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "{a:1}", "nul", "truex", "01", "1.", "-", "1e",
                            "\"", "\"\\x\"", "\"\\u12\"", "\"\\ud800\"", "\"\\udc00\"", "\"\\ud800\\u0041\"", "\"\n\"", "1 2", "[1]]", "+1", "\x01"})
        EXPECT_FALSE(Json::parse(bad)) << bad;
}

TEST(Json, HasABoundedDepth) {
    // As deep as the engine reads, and what its own documents add.
    EXPECT_TRUE(Json::parse(std::string(128, '[') + std::string(128, ']')));
    EXPECT_FALSE(Json::parse(std::string(130, '[') + std::string(130, ']')));
    EXPECT_FALSE(Json::parse(std::string(1000000, '[')));
    std::string objects;
    for (int i = 0; i < 100000; ++i) objects += "{\"a\":";
    EXPECT_FALSE(Json::parse(objects));
    objects.clear();
    for (int i = 0; i < 128; ++i) objects += "{\"a\":";
    EXPECT_TRUE(Json::parse(objects + "1" + std::string(128, '}')));
}

static const char *const kMatrix = "{\"cpu:0\":[[\"a\",\"b\"],[\"c\"]],\"cpu:1\":[[\"c\"],[\"a\"]],\"cuda:0\":[[\"b\"],[]]}";

TEST(Topologies, AreReadAndWritten) {
    Topology topology;
    EXPECT_TRUE(topology.empty());
    ASSERT_EQ(topology.parse(kMatrix), 0);
    EXPECT_FALSE(topology.empty());
    EXPECT_EQ(topology.toString(), kMatrix);
    EXPECT_EQ(topology.getHcaList().size(), 3u);
    const auto matrix = topology.getMatrix();
    ASSERT_EQ(matrix.size(), 3u);
    EXPECT_EQ(matrix.at("cpu:0").name, "cpu:0");
    EXPECT_EQ(matrix.at("cpu:0").preferred_hca, (std::vector<std::string>{"a", "b"}));
    EXPECT_EQ(matrix.at("cpu:0").avail_hca, (std::vector<std::string>{"c"}));
    Topology same;
    ASSERT_EQ(same.parse(topology.toString()), 0);
    EXPECT_TRUE(same == topology);
    same.clear();
    EXPECT_TRUE(same != topology);
    EXPECT_EQ(same.toString(), "{}");
    EXPECT_EQ(topology.parse("{}"), 0);
    EXPECT_TRUE(topology.empty());
}

TEST(Topologies, StayAsTheyWereForBadJson) {
    Topology topology;
    ASSERT_EQ(topology.parse(kMatrix), 0);
    for (const char *bad : {"", "[]", "{\"cpu:0\":[]}", "{\"cpu:0\":[[],[],[]]}", "{\"cpu:0\":[[1],[]]}", "{\"cpu:0\":\"a\"}", "{\"cpu:0\":[{},[]]}"}) {
        EXPECT_EQ(topology.parse(bad), ERR_MALFORMED_JSON) << bad;
        EXPECT_TRUE(mooncake::lastError().IsMalformedJson());
    }
    EXPECT_EQ(topology.toString(), kMatrix);
}

TEST(Topologies, ChooseNics) {
    Topology topology;
    ASSERT_EQ(topology.parse(kMatrix), 0);
    const auto &nics = topology.getHcaList();
    const auto name = [&nics](int number) { return nics.at(static_cast<size_t>(number)); };
    EXPECT_EQ(name(topology.selectDevice("cpu:0", 1)), "a");
    EXPECT_EQ(name(topology.selectDevice("cpu:0", 2)), "b");
    EXPECT_EQ(name(topology.selectDevice("cpu:0", 3)), "c");
    EXPECT_EQ(name(topology.selectDevice("cpu:0", 4)), "a");
    EXPECT_EQ(name(topology.selectDevice("cpu:1", 0)), "c");
    EXPECT_EQ(name(topology.selectDevice("cpu:0", std::string_view("c"), 0)), "c");
    EXPECT_EQ(name(topology.selectDevice("cuda:0", std::string_view("a"), 0)), "b");
    EXPECT_EQ(name(topology.selectDeviceByLocalHca("cpu:1", "a", 1)), "c");
    for (int turn = 1; turn <= 3; ++turn) EXPECT_EQ(topology.selectDevice("*", turn), turn - 1);
    for (const char *none : {"cpu:7", ""}) EXPECT_EQ(topology.selectDevice(none, 0), ERR_DEVICE_NOT_FOUND);
}

TEST(Topologies, KeepTheNumbersOfOthersWhenANicIsDisabled) {
    Topology topology;
    ASSERT_EQ(topology.parse(kMatrix), 0);
    const int before = topology.selectDevice("cpu:1", 1);
    EXPECT_EQ(topology.disableDevice("b"), 0);
    EXPECT_EQ(topology.disableDevice("no such"), 0);
    EXPECT_EQ(topology.selectDevice("cpu:1", 1), before);
    EXPECT_EQ(topology.selectDevice("cuda:0", 1), ERR_DEVICE_NOT_FOUND);
    EXPECT_EQ(topology.getHcaList().size(), 3u);
}

TEST(Topologies, KeepTheListsThatTheyHaveGiven) {
    Topology topology;
    ASSERT_EQ(topology.parse("{\"cpu:0\":[[\"a\"],[]]}"), 0);
    const std::vector<std::string> &nics = topology.getHcaList();
    Topology copy(topology);
    topology.clear();
    EXPECT_TRUE(topology.getHcaList().empty());
    ASSERT_EQ(topology.parse(kMatrix), 0);
    EXPECT_EQ(nics, std::vector<std::string>{"a"});
    EXPECT_EQ(copy.getHcaList(), nics);
    copy = topology;
    EXPECT_TRUE(copy == topology);
    EXPECT_EQ(topology.parse("{\"cpu:0\":[[\"a\"],[]]}"), 0);
    EXPECT_EQ(&topology.getHcaList(), &nics) << "each is kept once";
}

TEST(Topologies, AreDiscovered) {
    Topology topology, filtered;
    EXPECT_EQ(topology.discover(), 0) << mooncake::lastError();
    EXPECT_EQ(filtered.discover({"no-such-nic"}), 0) << mooncake::lastError();
    EXPECT_TRUE(filtered.empty());
    Topology again;
    EXPECT_EQ(again.parse(topology.toString()), 0);
    EXPECT_TRUE(again == topology);
}

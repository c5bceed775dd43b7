#include "common/base/status.h"

#include <gtest/gtest.h>

#include <sstream>
#include <utility>

#include "error.h"
#include "transfer_engine/detail/error.h"

using mooncake::Status;
using Code = Status::Code;

TEST(Status, CarriesCodeAndText) {
    const Status bad(Code::kMetadata, "the store is down");
    EXPECT_FALSE(bad.ok());
    EXPECT_EQ(bad.code(), Code::kMetadata);
    EXPECT_EQ(bad.message(), "the store is down");
    EXPECT_EQ(bad.ToString(), "Metadata: the store is down");
    EXPECT_TRUE(Status().ok());
    EXPECT_EQ(Status::OK().ToString(), "OK");
    EXPECT_TRUE(Status(Code::kOk, "not kept").message().empty());
}

TEST(Status, ComparesCodeAndText) {
    EXPECT_EQ(Status::OK(), Status());
    EXPECT_EQ(Status::Socket("a"), Status::Socket("a"));
    EXPECT_NE(Status::Socket("a"), Status::Socket("b"));
    EXPECT_NE(Status::Socket("a"), Status::Dns("a"));
}

TEST(Status, IsOkAfterAMove) {
    Status first = Status::Memory("none left");
    const Status copy = first;
    Status second = std::move(first);
    EXPECT_EQ(second, copy);
    EXPECT_TRUE(first.ok());  // NOLINT: a moved status is said to be OK.
    EXPECT_TRUE(first.message().empty());
    Status &same = second;
    second = std::move(same);
    EXPECT_EQ(second, copy);
    first = copy;
    EXPECT_EQ(first, copy);
}

TEST(Status, HasAFunctionAndAQuestionPerCode) {
    struct Kind {
        Status status;
        bool (Status::*is)() const;
        int number;
        const char *name;
    };
    const Kind kinds[] = {
        {Status::InvalidArgument("x"), &Status::IsInvalidArgument, 1, "InvalidArgument"},
        {Status::TooManyRequests("x"), &Status::IsTooManyRequests, 2, "TooManyRequests"},
        {Status::AddressNotRegistered("x"), &Status::IsAddressNotRegistered, 3, "AddressNotRegistered"},
        {Status::BatchBusy("x"), &Status::IsBatchBusy, 4, "BatchBusy"},
        {Status::DeviceNotFound("x"), &Status::IsDeviceNotFound, 6, "DeviceNotFound"},
        {Status::AddressOverlapped("x"), &Status::IsAddressOverlapped, 7, "AddressOverlapped"},
        {Status::NotSupportedTransport("x"), &Status::IsNotSupportedTransport, 8, "NotSupportedTransport"},
        {Status::Dns("x"), &Status::IsDns, 101, "Dns"},
        {Status::Socket("x"), &Status::IsSocket, 102, "Socket"},
        {Status::MalformedJson("x"), &Status::IsMalformedJson, 103, "MalformedJson"},
        {Status::RejectHandshake("x"), &Status::IsRejectHandshake, 104, "RejectHandshake"},
        {Status::Metadata("x"), &Status::IsMetadata, 200, "Metadata"},
        {Status::Endpoint("x"), &Status::IsEndpoint, 201, "Endpoint"},
        {Status::Context("x"), &Status::IsContext, 202, "Context"},
        {Status::Numa("x"), &Status::IsNuma, 300, "Numa"},
        {Status::Clock("x"), &Status::IsClock, 301, "Clock"},
        {Status::Memory("x"), &Status::IsMemory, 302, "Memory"},
        {Status::NotImplemented("x"), &Status::IsNotImplemented, 999, "NotImplemented"},
    };
    for (const Kind &kind : kinds) {
        EXPECT_TRUE((kind.status.*kind.is)()) << kind.name;
        EXPECT_EQ(static_cast<int>(kind.status.code()), kind.number);
        EXPECT_EQ(Status::CodeToString(kind.status.code()), kind.name);
        int asked = 0;
        for (const Kind &other : kinds) asked += (kind.status.*other.is)() ? 1 : 0;
        EXPECT_EQ(asked, 1) << kind.name;
        std::ostringstream printed;
        printed << kind.status << " " << kind.status.code();
        EXPECT_EQ(printed.str(), std::string(kind.name) + ": x " + kind.name);
    }
    EXPECT_EQ(Status::CodeToString(Code::kMaxCode), "UnknownCode");
}

TEST(Status, HasTheCodesOfTheCApiWithoutTheirSign) {
    for (const int code : {-1, -2, -3, -4, -6, -7, -101, -102, -103, -104, -200, -201, -202, -300, -301, -302})
        EXPECT_EQ(static_cast<int>(mooncake::detail::codeOf(code)), -code);
    EXPECT_EQ(mooncake::detail::codeOf(ERR_NOT_IMPLEMENTED), Code::kNotImplemented);
    EXPECT_EQ(mooncake::detail::codeOf(0), Code::kOk);
    EXPECT_EQ(mooncake::detail::codeOf(-12345), Code::kContext);
}

TEST(Status, TakesTheWholeTextOfTheCApi) {
    // Longer than the first room for it.
    const std::string name(3000, 'n');
    EXPECT_LT(mte_probe_peer(nullptr, name.c_str()), 0);
    char text[8192];
    const int code = mte_last_error(text, sizeof text);
    EXPECT_EQ(mooncake::detail::statusOf(code), Status(mooncake::detail::codeOf(code), text));
    std::string grown;
    EXPECT_EQ(mooncake::detail::growText(grown, [](char *buffer, size_t size) {
        std::snprintf(buffer, size, "%s", std::string(70000, 'x').c_str());
        return 0;
    }), 0);
    EXPECT_EQ(grown, std::string(70000, 'x'));
}

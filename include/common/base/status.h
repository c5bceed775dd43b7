/* SPDX-License-Identifier: Apache-2.0
 * The result of a call: a code, and for a failure the full text of what happened where and what to do. */

#ifndef STATUS_H
#define STATUS_H

#include <cstdint>
#include <ostream>
#include <string>
#include <string_view>
#include <utility>

namespace mooncake {

class Status final {
  public:
    /** The codes of error.h without their sign; kNotImplemented is -303 there. */
    enum class Code : uint16_t {
        kOk = 0,
        kInvalidArgument = 1,
        kTooManyRequests = 2,
        kAddressNotRegistered = 3,
        kBatchBusy = 4,
        kDeviceNotFound = 6,
        kAddressOverlapped = 7,
        kNotSupportedTransport = 8,
        kDns = 101,
        kSocket = 102,
        kMalformedJson = 103,
        kRejectHandshake = 104,
        kMetadata = 200,
        kEndpoint = 201,
        kContext = 202,
        kNuma = 300,
        kClock = 301,
        kMemory = 302,
        kNotImplemented = 999,
        kMaxCode
    };

    Status() = default;
    ~Status() = default;
    Status(const Status &) = default;
    Status &operator=(const Status &) = default;

    /** A kOk status has no message, whatever is given. */
    Status(Code code, std::string_view message) : code_(code), message_(code == Code::kOk ? std::string_view() : message) {}

    /** The source is OK afterwards. */
    Status(Status &&other) noexcept : code_(std::exchange(other.code_, Code::kOk)), message_(std::move(other.message_)) {
        other.message_.clear();
    }
    Status &operator=(Status &&other) noexcept {
        if (this != &other) {
            code_ = std::exchange(other.code_, Code::kOk);
            message_ = std::move(other.message_);
            other.message_.clear();
        }
        return *this;
    }

    Code code() const { return code_; }
    /** Valid as long as the status is. */
    std::string_view message() const { return message_; }

    [[nodiscard]] bool ok() const { return code_ == Code::kOk; }
    [[nodiscard]] bool IsInvalidArgument() const { return code_ == Code::kInvalidArgument; }
    [[nodiscard]] bool IsTooManyRequests() const { return code_ == Code::kTooManyRequests; }
    [[nodiscard]] bool IsAddressNotRegistered() const { return code_ == Code::kAddressNotRegistered; }
    [[nodiscard]] bool IsBatchBusy() const { return code_ == Code::kBatchBusy; }
    [[nodiscard]] bool IsDeviceNotFound() const { return code_ == Code::kDeviceNotFound; }
    [[nodiscard]] bool IsAddressOverlapped() const { return code_ == Code::kAddressOverlapped; }
    [[nodiscard]] bool IsDns() const { return code_ == Code::kDns; }
    [[nodiscard]] bool IsSocket() const { return code_ == Code::kSocket; }
    [[nodiscard]] bool IsMalformedJson() const { return code_ == Code::kMalformedJson; }
    [[nodiscard]] bool IsRejectHandshake() const { return code_ == Code::kRejectHandshake; }
    [[nodiscard]] bool IsMetadata() const { return code_ == Code::kMetadata; }
    [[nodiscard]] bool IsEndpoint() const { return code_ == Code::kEndpoint; }
    [[nodiscard]] bool IsContext() const { return code_ == Code::kContext; }
    [[nodiscard]] bool IsNuma() const { return code_ == Code::kNuma; }
    [[nodiscard]] bool IsClock() const { return code_ == Code::kClock; }
    [[nodiscard]] bool IsMemory() const { return code_ == Code::kMemory; }
    [[nodiscard]] bool IsNotImplemented() const { return code_ == Code::kNotImplemented; }
    [[nodiscard]] bool IsNotSupportedTransport() const { return code_ == Code::kNotSupportedTransport; }

    /** "OK", or "Code: message". */
    std::string ToString() const {
        if (ok()) return "OK";
        return std::string(CodeToString(code_)).append(": ").append(message_);
    }

    bool operator==(const Status &other) const { return code_ == other.code_ && message_ == other.message_; }
    bool operator!=(const Status &other) const { return !(*this == other); }

    static Status OK() { return Status(); }
    static Status InvalidArgument(std::string_view text) { return {Code::kInvalidArgument, text}; }
    static Status TooManyRequests(std::string_view text) { return {Code::kTooManyRequests, text}; }
    static Status AddressNotRegistered(std::string_view text) { return {Code::kAddressNotRegistered, text}; }
    static Status BatchBusy(std::string_view text) { return {Code::kBatchBusy, text}; }
    static Status DeviceNotFound(std::string_view text) { return {Code::kDeviceNotFound, text}; }
    static Status AddressOverlapped(std::string_view text) { return {Code::kAddressOverlapped, text}; }
    static Status Dns(std::string_view text) { return {Code::kDns, text}; }
    static Status Socket(std::string_view text) { return {Code::kSocket, text}; }
    static Status MalformedJson(std::string_view text) { return {Code::kMalformedJson, text}; }
    static Status RejectHandshake(std::string_view text) { return {Code::kRejectHandshake, text}; }
    static Status Metadata(std::string_view text) { return {Code::kMetadata, text}; }
    static Status Endpoint(std::string_view text) { return {Code::kEndpoint, text}; }
    static Status Context(std::string_view text) { return {Code::kContext, text}; }
    static Status Numa(std::string_view text) { return {Code::kNuma, text}; }
    static Status Clock(std::string_view text) { return {Code::kClock, text}; }
    static Status Memory(std::string_view text) { return {Code::kMemory, text}; }
    static Status NotImplemented(std::string_view text) { return {Code::kNotImplemented, text}; }
    static Status NotSupportedTransport(std::string_view text) { return {Code::kNotSupportedTransport, text}; }

    static std::string_view CodeToString(Code code) {
        switch (code) {
            case Code::kOk: return "OK";
            case Code::kInvalidArgument: return "InvalidArgument";
            case Code::kTooManyRequests: return "TooManyRequests";
            case Code::kAddressNotRegistered: return "AddressNotRegistered";
            case Code::kBatchBusy: return "BatchBusy";
            case Code::kDeviceNotFound: return "DeviceNotFound";
            case Code::kAddressOverlapped: return "AddressOverlapped";
            case Code::kNotSupportedTransport: return "NotSupportedTransport";
            case Code::kDns: return "Dns";
            case Code::kSocket: return "Socket";
            case Code::kMalformedJson: return "MalformedJson";
            case Code::kRejectHandshake: return "RejectHandshake";
            case Code::kMetadata: return "Metadata";
            case Code::kEndpoint: return "Endpoint";
            case Code::kContext: return "Context";
            case Code::kNuma: return "Numa";
            case Code::kClock: return "Clock";
            case Code::kMemory: return "Memory";
            case Code::kNotImplemented: return "NotImplemented";
            case Code::kMaxCode: break;
        }
        return "UnknownCode";
    }

  private:
    Code code_ = Code::kOk;
    std::string message_;
};

inline std::ostream &operator<<(std::ostream &out, Status::Code code) { return out << Status::CodeToString(code); }
inline std::ostream &operator<<(std::ostream &out, const Status &status) { return out << status.ToString(); }

}  // namespace mooncake

#endif  // STATUS_H

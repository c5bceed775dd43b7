/* SPDX-License-Identifier: Apache-2.0
 * From the C API's codes and this thread's last error text to Status, and the shim's own last error. */

#ifndef TRANSFER_ENGINE_DETAIL_ERROR_H
#define TRANSFER_ENGINE_DETAIL_ERROR_H

#include <cstring>
#include <string>
#include <string_view>

#include "common/base/status.h"
#include "transfer_engine_ext.h"

namespace mooncake {
namespace detail {

/** The Status code for a code of error.h. */
inline Status::Code codeOf(int code) {
    switch (code) {
        case ERR_NOT_IMPLEMENTED: return Status::Code::kNotImplemented;
        case ERR_INVALID_ARGUMENT:
        case ERR_TOO_MANY_REQUESTS:
        case ERR_ADDRESS_NOT_REGISTERED:
        case ERR_BATCH_BUSY:
        case ERR_DEVICE_NOT_FOUND:
        case ERR_ADDRESS_OVERLAPPED:
        case ERR_DNS:
        case ERR_SOCKET:
        case ERR_MALFORMED_JSON:
        case ERR_REJECT_HANDSHAKE:
        case ERR_METADATA:
        case ERR_ENDPOINT:
        case ERR_CONTEXT:
        case ERR_NUMA:
        case ERR_CLOCK:
        case ERR_MEMORY: return static_cast<Status::Code>(-code);
        default: return code >= 0 ? Status::Code::kOk : Status::Code::kContext;
    }
}

/** Reads a text of unknown length through `call(buffer, size)`, which cuts it to `size` with a NUL and returns a negative
 * code on failure. */
template <typename Call>
int growText(std::string &text, Call call) {
    constexpr size_t kMost = size_t{64} << 20;
    for (size_t size = 1024;; size *= 4) {
        std::string buffer(size, '\0');
        const int code = call(buffer.data(), buffer.size());
        if (code < 0) return code;
        const size_t length = std::strlen(buffer.c_str());
        if (length + 1 < size || size >= kMost) {
            buffer.resize(length);
            text = std::move(buffer);
            return 0;
        }
    }
}

/** Reads a text through `call(buffer, &length)`, which tells how many bytes the whole one takes, NUL included. */
template <typename Call>
int readText(std::string &text, Call call) {
    // Most fit at once; to ask for the size first may be a question to a peer.
    size_t room = 16384;
    for (;;) {
        std::string buffer(room, '\0');
        size_t needed = room;
        const int code = call(buffer.data(), &needed);
        if (code < 0) return code;
        if (needed <= room) {
            buffer.resize(std::strlen(buffer.c_str()));
            text = std::move(buffer);
            return 0;
        }
        // It may have grown by the next call.
        room = needed + needed / 4;
    }
}

/** This thread's last failure of the C API, if it had `code`; else the phrase for that code. */
inline Status statusOf(int code) {
    if (code >= 0) return Status::OK();
    std::string text;
    int last = 0;
    growText(text, [&last](char *buffer, size_t size) {
        last = mte_last_error(buffer, size);
        return 0;
    });
    return {codeOf(code), last == code && !text.empty() ? std::string_view(text) : std::string_view(mte_strerror(code))};
}

/** The last failure that the classes reported on this thread. */
inline Status &lastFailure() {
    thread_local Status status;
    return status;
}

/** Remembers and returns `status`, which is a failure. */
inline Status failed(Status status) {
    lastFailure() = status;
    return status;
}

/** Passes the result of a C function on, and remembers why it failed. */
inline int result(int code) {
    if (code < 0) lastFailure() = statusOf(code);
    return code;
}
inline Status resultStatus(int code) { return code < 0 ? failed(statusOf(code)) : Status::OK(); }

/** A failure that the shim itself finds. */
inline int refused(int code, std::string_view why) {
    lastFailure() = Status(codeOf(code), why);
    return code;
}

inline constexpr std::string_view kNotInitialised = "the engine is not initialised: call init first";

}  // namespace detail

/** Why the last failed call on this thread failed, also of calls that return an int, an id or a pointer. OK if none failed. */
inline Status lastError() { return detail::lastFailure(); }

}  // namespace mooncake

#endif  // TRANSFER_ENGINE_DETAIL_ERROR_H

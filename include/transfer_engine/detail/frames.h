/* SPDX-License-Identifier: Apache-2.0
 * Frames of the handshake protocol on a blocking socket: eight bytes of length, in the machine's order, a byte of type, text. */

#ifndef TRANSFER_ENGINE_DETAIL_FRAMES_H
#define TRANSFER_ENGINE_DETAIL_FRAMES_H

#include <sys/types.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <utility>

#include "error.h"
#include "transfer_engine/detail/settings.h"

namespace mooncake {

enum class HandShakeRequestType {
    Connection = 0,
    Metadata = 1,
    Notify = 2,
    Probe = 3,
    Invalid = 0xfe,
    /** A frame without a type. */
    OldProtocol = 0xff,
};

inline constexpr size_t kDefaultHandshakeMaxLength = size_t{1} << 20;
inline constexpr size_t kMaxHandshakeMaxLength = size_t{128} << 20;

/** MC_HANDSHAKE_MAX_LENGTH, at least 1 MiB and at most 128, as it was at the first call. */
inline size_t getHandshakeMaxLength() {
    static const size_t length = [] {
        size_t read = kDefaultHandshakeMaxLength;
        detail::set(read, {"MC_HANDSHAKE_MAX_LENGTH"}, kDefaultHandshakeMaxLength, kMaxHandshakeMaxLength);
        return read;
    }();
    return length;
}

/** The bytes written, fewer if the other end takes no more; negative with errno. */
inline ssize_t writeFully(int fd, const void *buffer, size_t length) {
    const char *at = static_cast<const char *>(buffer);
    for (size_t left = length; left > 0;) {
        const ssize_t written = write(fd, at, left);
        if (written < 0 && (errno == EINTR || errno == EAGAIN)) continue;
        if (written < 0) return written;
        if (written == 0) return static_cast<ssize_t>(length - left);
        at += written;
        left -= static_cast<size_t>(written);
    }
    return static_cast<ssize_t>(length);
}

/** The bytes read, fewer at the end of the stream, at the socket's own time-out and after five minutes; negative with errno. */
inline ssize_t readFully(int fd, void *buffer, size_t length) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::minutes(5);
    char *at = static_cast<char *>(buffer);
    size_t left = length;
    while (left > 0 && std::chrono::steady_clock::now() < deadline) {
        const ssize_t count = read(fd, at, left);
        if (count < 0 && errno == EINTR) continue;
        if (count < 0 && errno != EAGAIN && errno != EWOULDBLOCK) return count;
        if (count <= 0) break;
        at += count;
        left -= static_cast<size_t>(count);
    }
    return static_cast<ssize_t>(length - left);
}

/** 0 or ERR_SOCKET. */
inline int writeString(int fd, HandShakeRequestType type, const std::string &text) {
    std::string content;
    if (type != HandShakeRequestType::OldProtocol) content += static_cast<char>(type);
    content += text;
    const uint64_t length = content.size();
    if (writeFully(fd, &length, sizeof length) != static_cast<ssize_t>(sizeof length)) return ERR_SOCKET;
    return writeFully(fd, content.data(), content.size()) == static_cast<ssize_t>(content.size()) ? 0 : ERR_SOCKET;
}

/** Invalid and no text for what is no frame, or one longer than getHandshakeMaxLength(). */
inline std::pair<HandShakeRequestType, std::string> readString(int fd) {
    const std::pair<HandShakeRequestType, std::string> none{HandShakeRequestType::Invalid, ""};
    uint64_t length = 0;
    if (readFully(fd, &length, sizeof length) != static_cast<ssize_t>(sizeof length)) return none;
    if (length == 0 || length > getHandshakeMaxLength()) return none;
    std::string content(static_cast<size_t>(length), '\0');
    if (readFully(fd, content.data(), content.size()) != static_cast<ssize_t>(content.size())) return none;
    const auto first = static_cast<unsigned char>(content[0]);
    if (first > static_cast<unsigned char>(HandShakeRequestType::Probe)) return {HandShakeRequestType::OldProtocol, content};
    return {static_cast<HandShakeRequestType>(first), content.substr(1)};
}

}  // namespace mooncake

#endif  // TRANSFER_ENGINE_DETAIL_FRAMES_H

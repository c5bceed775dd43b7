/* SPDX-License-Identifier: Apache-2.0
 * Names of servers: a host name or address, with or without a port, IPv6 with or without brackets. */

#ifndef TRANSFER_ENGINE_DETAIL_HOST_PORT_H
#define TRANSFER_ENGINE_DETAIL_HOST_PORT_H

#include <arpa/inet.h>
#include <unistd.h>

#include <charconv>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "config.h"

namespace mooncake {

/** Of this machine; "" if it has none. */
inline std::string getHostname() {
    char name[256] = "";
    if (gethostname(name, sizeof name) != 0) return "";
    name[sizeof name - 1] = '\0';
    return name;
}

/** The whole text as a number. */
template <typename T>
std::optional<T> parseFromString(std::string_view text) {
    T value = T();
    const auto [last, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || last != text.data() + text.size()) return std::nullopt;
    return value;
}

inline uint16_t getPortFromString(std::string_view port, uint16_t default_port) {
    return parseFromString<uint16_t>(port).value_or(default_port);
}

/** An IPv6 address without brackets and port; a scope ("fe80::1%eth0") is part of it. */
inline bool isValidIpV6(const std::string &address) {
    const size_t scope = address.find('%');
    if (scope != std::string::npos && address.find(':', scope) != std::string::npos) return false;
    in6_addr parsed;
    return inet_pton(AF_INET6, address.substr(0, scope).c_str(), &parsed) == 1;
}

inline std::string maybeWrapIpV6(const std::string &address) {
    return isValidIpV6(address) ? "[" + address + "]" : address;
}

/** A name that is an IPv6 address, taken apart. `port` points into the name. */
struct IPv6ParseResult {
    bool matched;
    std::string host;
    std::string_view port;
};

inline IPv6ParseResult extractIPv6HostAndPort(const std::string &server_name) {
    const std::string_view name = server_name;
    size_t port = std::string_view::npos;
    std::string host;
    if (!name.empty() && name[0] == '[') {
        const size_t end = name.find(']');
        if (end == std::string_view::npos) return {false, "", ""};
        host = server_name.substr(1, end - 1);
        port = name.find(':', end);
    } else {
        // Without brackets only a scope tells the last colon from the others.
        const size_t scope = name.find('%');
        if (scope != std::string_view::npos) port = name.find(':', scope);
        host = server_name.substr(0, port);
    }
    if (!isValidIpV6(host)) return {false, "", ""};
    return {true, std::move(host), port == std::string_view::npos ? std::string_view() : name.substr(port + 1)};
}

namespace detail {

/** The host, and what stands behind the last colon, if there is one. */
inline std::pair<std::string, std::optional<std::string_view>> hostAndPort(const std::string &server_name) {
    IPv6ParseResult six = extractIPv6HostAndPort(server_name);
    if (six.matched) {
        if (six.port.empty()) return {std::move(six.host), std::nullopt};
        return {std::move(six.host), six.port};
    }
    const size_t colon = server_name.rfind(':');
    if (colon == std::string::npos) return {server_name, std::nullopt};
    return {server_name.substr(0, colon), std::string_view(server_name).substr(colon + 1)};
}

}  // namespace detail

/** A missing or malformed port is getDefaultHandshakePort(). */
inline std::pair<std::string, uint16_t> parseHostNameWithPort(const std::string &server_name) {
    const uint16_t otherwise = getDefaultHandshakePort();
    auto [host, port] = detail::hostAndPort(server_name);
    return {std::move(host), port ? getPortFromString(*port, otherwise) : otherwise};
}

inline bool hasExplicitPort(const std::string &server_name) {
    return detail::hostAndPort(server_name).second.has_value();
}

inline std::string getHostNameWithoutPort(const std::string &server_name) {
    return detail::hostAndPort(server_name).first;
}

inline std::string buildHostNameWithPort(const std::string &host, uint16_t port) {
    return maybeWrapIpV6(host) + ":" + std::to_string(port);
}

/** "12345" or "12345:npu_2"; the number behind the underscore goes to *device_id. */
inline uint16_t parsePortAndDevice(std::string_view suffix, uint16_t default_port, int *device_id) {
    const size_t colon = suffix.find(':');
    if (colon != std::string_view::npos) {
        const std::string_view device = suffix.substr(colon + 1);
        const size_t line = device.find('_');
        if (line != std::string_view::npos && line > 0 && line + 1 < device.size() && device_id != nullptr)
            *device_id = parseFromString<int>(device.substr(line + 1)).value_or(0);
    }
    return getPortFromString(suffix.substr(0, colon), default_port);
}

inline std::pair<std::string, uint16_t> parseHostNameWithPortAscend(const std::string &server_name, int *device_id) {
    const uint16_t otherwise = getDefaultHandshakePort();
    const auto port = [&](std::string_view suffix) {
        return suffix.empty() ? otherwise : parsePortAndDevice(suffix, otherwise, device_id);
    };
    const IPv6ParseResult six = extractIPv6HostAndPort(server_name);
    if (six.matched) return {six.host, port(six.port)};
    const size_t colon = server_name.find(':');
    if (colon == std::string::npos) return {server_name, otherwise};
    return {server_name.substr(0, colon), port(std::string_view(server_name).substr(colon + 1))};
}

}  // namespace mooncake

#endif  // TRANSFER_ENGINE_DETAIL_HOST_PORT_H

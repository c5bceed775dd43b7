/* SPDX-License-Identifier: Apache-2.0
 * The wall clock, in several units. */

#ifndef TRANSFER_ENGINE_DETAIL_CLOCK_H
#define TRANSFER_ENGINE_DETAIL_CLOCK_H

#include <cstdint>
#include <cstdio>
#include <ctime>
#include <string>

#include "error.h"

namespace mooncake {

/** Since 1970; ERR_CLOCK without a clock. */
inline int64_t getCurrentTimeInNano() {
    timespec now{};
    if (clock_gettime(CLOCK_REALTIME, &now) != 0) return ERR_CLOCK;
    return int64_t{now.tv_sec} * 1000000000 + now.tv_nsec;
}

inline int64_t getCurrentTimeInMilli() {
    return getCurrentTimeInNano() / 1000000;
}

/** Local time, "2026-01-31 10:20:30.123456". */
inline std::string getCurrentDateTime() {
    timespec now{};
    clock_gettime(CLOCK_REALTIME, &now);
    tm local{};
    localtime_r(&now.tv_sec, &local);
    char text[32], fraction[16];
    const size_t length = std::strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &local);
    std::snprintf(fraction, sizeof fraction, ".%06ld", (now.tv_nsec / 1000) % 1000000);
    return std::string(text, length) + fraction;
}

}  // namespace mooncake

#endif  // TRANSFER_ENGINE_DETAIL_CLOCK_H

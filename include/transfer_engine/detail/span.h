/* SPDX-License-Identifier: Apache-2.0
 * A view of a sequence: std::span for C++17. In C++20 it converts from and to std::span. */

#ifndef TRANSFER_ENGINE_DETAIL_SPAN_H
#define TRANSFER_ENGINE_DETAIL_SPAN_H

#include <cstddef>
#include <iterator>
#include <type_traits>
#include <utility>

namespace mooncake {

/** Does not own what it shows. */
template <typename T>
class Span {
  public:
    using value_type = std::remove_cv_t<T>;

    constexpr Span() = default;
    constexpr Span(T *data, size_t size) : data_(data), size_(size) {}
    template <size_t N>
    constexpr Span(T (&array)[N]) : data_(array), size_(N) {}
    /** Of a vector, an array, a std::span: what has data() and size(). */
    template <typename Container, typename = std::enable_if_t<
                                      !std::is_same_v<std::decay_t<Container>, Span> &&
                                      std::is_convertible_v<decltype(std::data(std::declval<Container &>())), T *>>>
    constexpr Span(Container &&container) : data_(std::data(container)), size_(std::size(container)) {}

    constexpr T *data() const { return data_; }
    constexpr size_t size() const { return size_; }
    constexpr bool empty() const { return size_ == 0; }
    constexpr T *begin() const { return data_; }
    constexpr T *end() const { return data_ + size_; }
    constexpr T &operator[](size_t index) const { return data_[index]; }

  private:
    T *data_ = nullptr;
    size_t size_ = 0;
};

}  // namespace mooncake

#endif  // TRANSFER_ENGINE_DETAIL_SPAN_H

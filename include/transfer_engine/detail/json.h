/* SPDX-License-Identifier: Apache-2.0
 * A reader of JSON for descriptors and NIC matrices: strict, of bounded depth, with whole 64-bit numbers. */

#ifndef TRANSFER_ENGINE_DETAIL_JSON_H
#define TRANSFER_ENGINE_DETAIL_JSON_H

#include <charconv>
#include <cstdint>
#include <cstdio>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace mooncake {
namespace detail {

struct Json {
    enum class Kind { Null, Boolean, Number, String, Array, Object };

    Kind kind = Kind::Null;
    /** A string's content, or a number or boolean as it was written. */
    std::string text;
    /** Elements of an array, or values of an object. */
    std::vector<Json> items;
    /** Names of an object's values. */
    std::vector<std::string> names;

    static std::optional<Json> parse(std::string_view text);

    bool isArray() const { return kind == Kind::Array; }
    bool isObject() const { return kind == Kind::Object; }
    bool isString() const { return kind == Kind::String; }

    /** The value called `name`, or NULL. Of several, the last. */
    const Json *find(std::string_view name) const {
        for (size_t i = names.size(); i-- > 0;)
            if (names[i] == name) return &items[i];
        return nullptr;
    }

    std::string string(std::string_view name) const {
        const Json *member = find(name);
        return member != nullptr && member->isString() ? member->text : std::string();
    }

    template <typename T>
    T number(std::string_view name, T otherwise = 0) const {
        const Json *member = find(name);
        return member == nullptr ? otherwise : member->as(otherwise);
    }

    /** The number, or `otherwise` if it is none or does not fit. */
    template <typename T>
    T as(T otherwise) const {
        T value = otherwise;
        const char *end = text.data() + text.size();
        if (kind != Kind::Number) return otherwise;
        const auto [last, error] = std::from_chars(text.data(), end, value);
        return error == std::errc() && last == end ? value : otherwise;
    }
};

/** Writes a string with its quotation marks. */
inline std::string quoted(std::string_view text) {
    std::string out = "\"";
    for (const char c : text) {
        if (c == '"' || c == '\\') {
            out += '\\';
            out += c;
        } else if (static_cast<unsigned char>(c) < 0x20) {
            char escape[8];
            std::snprintf(escape, sizeof escape, "\\u%04x", static_cast<unsigned>(c));
            out += escape;
        } else {
            out += c;
        }
    }
    return out += '"';
}

class JsonReader {
  public:
    explicit JsonReader(std::string_view text) : rest_(text) {}

    std::optional<Json> document() {
        Json value;
        if (!this->value(value, 0)) return std::nullopt;
        blanks();
        if (!rest_.empty()) return std::nullopt;
        return value;
    }

  private:
    /** The engine's own limit: a descriptor has five levels, but members that the engine passes on may have more. A level
     * takes up to 250 bytes of the stack (measured without optimisation). */
    static constexpr int kDepth = 128;

    void blanks() {
        while (!rest_.empty() && (rest_[0] == ' ' || rest_[0] == '\t' || rest_[0] == '\n' || rest_[0] == '\r')) rest_.remove_prefix(1);
    }
    bool take(char c) {
        if (rest_.empty() || rest_[0] != c) return false;
        rest_.remove_prefix(1);
        return true;
    }
    bool next(char c) {
        blanks();
        return take(c);
    }
    bool word(Json &out, std::string_view word, Json::Kind kind) {
        if (rest_.substr(0, word.size()) != word) return false;
        rest_.remove_prefix(word.size());
        out.kind = kind;
        out.text = word;
        return true;
    }

    bool value(Json &out, int depth) {
        blanks();
        if (rest_.empty() || depth > kDepth) return false;
        switch (rest_[0]) {
            case '{': return object(out, depth);
            case '[': return array(out, depth);
            case '"': out.kind = Json::Kind::String; return string(out.text);
            case 'n': return word(out, "null", Json::Kind::Null);
            case 't': return word(out, "true", Json::Kind::Boolean);
            case 'f': return word(out, "false", Json::Kind::Boolean);
            default: return number(out);
        }
    }

    bool object(Json &out, int depth) {
        out.kind = Json::Kind::Object;
        take('{');
        if (next('}')) return true;
        do {
            blanks();
            out.names.emplace_back();
            out.items.emplace_back();
            if (!string(out.names.back()) || !next(':') || !value(out.items.back(), depth + 1)) return false;
        } while (next(','));
        return next('}');
    }

    bool array(Json &out, int depth) {
        out.kind = Json::Kind::Array;
        take('[');
        if (next(']')) return true;
        do {
            out.items.emplace_back();
            if (!value(out.items.back(), depth + 1)) return false;
        } while (next(','));
        return next(']');
    }

    bool digits() {
        const size_t before = rest_.size();
        while (!rest_.empty() && rest_[0] >= '0' && rest_[0] <= '9') rest_.remove_prefix(1);
        return rest_.size() < before;
    }

    bool number(Json &out) {
        const std::string_view start = rest_;
        take('-');
        if (!take('0') && !digits()) return false;
        if (take('.') && !digits()) return false;
        if (take('e') || take('E')) {
            if (!take('+')) take('-');
            if (!digits()) return false;
        }
        out.kind = Json::Kind::Number;
        out.text = start.substr(0, start.size() - rest_.size());
        return true;
    }

    bool string(std::string &out) {
        if (!take('"')) return false;
        while (!rest_.empty()) {
            const char c = rest_[0];
            rest_.remove_prefix(1);
            if (c == '"') return true;
            if (static_cast<unsigned char>(c) < 0x20) return false;
            if (c != '\\')
                out += c;
            else if (!escape(out))
                return false;
        }
        return false;
    }

    bool escape(std::string &out) {
        static constexpr std::string_view kShort = "\"\\/bfnrt", kMeant = "\"\\/\b\f\n\r\t";
        if (rest_.empty()) return false;
        const char c = rest_[0];
        rest_.remove_prefix(1);
        if (c != 'u') {
            const size_t place = kShort.find(c);
            if (place == std::string_view::npos) return false;
            out += kMeant[place];
            return true;
        }
        uint32_t unit = 0, low = 0;
        if (!hexadecimal(unit)) return false;
        if (unit >= 0xdc00 && unit < 0xe000) return false;
        if (unit >= 0xd800 && unit < 0xdc00) {
            if (!take('\\') || !take('u') || !hexadecimal(low) || low < 0xdc00 || low >= 0xe000) return false;
            unit = 0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
        }
        utf8(out, unit);
        return true;
    }

    bool hexadecimal(uint32_t &unit) {
        const std::string_view four = rest_.substr(0, 4);
        const auto [last, error] = std::from_chars(four.data(), four.data() + four.size(), unit, 16);
        if (four.size() < 4 || error != std::errc() || last != four.data() + 4) return false;
        rest_.remove_prefix(4);
        return true;
    }

    static void utf8(std::string &out, uint32_t point) {
        const auto byte = [&out](uint32_t value) { out += static_cast<char>(value); };
        if (point < 0x80) return byte(point);
        if (point < 0x800) {
            byte(0xc0 | (point >> 6));
        } else {
            if (point < 0x10000) {
                byte(0xe0 | (point >> 12));
            } else {
                byte(0xf0 | (point >> 18));
                byte(0x80 | ((point >> 12) & 0x3f));
            }
            byte(0x80 | ((point >> 6) & 0x3f));
        }
        byte(0x80 | (point & 0x3f));
    }

    std::string_view rest_;
};

inline std::optional<Json> Json::parse(std::string_view text) { return JsonReader(text).document(); }

}  // namespace detail
}  // namespace mooncake

#endif  // TRANSFER_ENGINE_DETAIL_JSON_H

/* SPDX-License-Identifier: Apache-2.0
 * Which NICs serve which memory location: discovered, or read from a NIC priority matrix in JSON. */

#ifndef TOPOLOGY_H
#define TOPOLOGY_H

#include <algorithm>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "common.h"
#include "memory_location.h"
#include "transfer_engine/detail/error.h"
#include "transfer_engine/detail/json.h"
#ifdef MTE_WITH_JSONCPP
#include <json/json.h>
#endif

namespace mooncake {

struct TopologyEntry {
    std::string name;
    std::vector<std::string> preferred_hca;
    std::vector<std::string> avail_hca;

    bool operator==(const TopologyEntry &other) const {
        return name == other.name && preferred_hca == other.preferred_hca && avail_hca == other.avail_hca;
    }
    bool operator!=(const TopologyEntry &other) const { return !(*this == other); }

#ifdef MTE_WITH_JSONCPP
    Json::Value toJson() const {
        Json::Value both(Json::arrayValue);
        for (const auto *list : {&preferred_hca, &avail_hca}) {
            Json::Value names(Json::arrayValue);
            for (const std::string &nic : *list) names.append(nic);
            both.append(names);
        }
        return both;
    }
#endif
};

/** By location. */
using TopologyMatrix = std::unordered_map<std::string, TopologyEntry>;

/** Any mixture of threads may use it. NICs have the numbers of getHcaList(), which disableDevice() keeps. */
class Topology {
  public:
    Topology() = default;
    Topology(const Topology &other) { *this = other; }
    Topology &operator=(const Topology &other) {
        if (this == &other) return *this;
        std::unique_lock<std::mutex> guard(other.mutex_);
        const bool chosen = other.chosen_;
        std::shared_ptr<const Content> content = other.known_.back();
        guard.unlock();
        publish(std::move(content), chosen);
        return *this;
    }

    /** No location has a NIC. */
    bool empty() const {
        const auto now = content();
        return std::all_of(now->matrix.begin(), now->matrix.end(), [](const auto &place) {
            return place.second.preferred_hca.empty() && place.second.avail_hca.empty();
        });
    }

    void clear() { publish(std::make_shared<const Content>(), true); }

    int discover() { return discover({}); }

    /** Looks for NICs, as the engine does; `filter` lists the only ones that count. 0 also if there are none. */
    int discover(const std::vector<std::string> &filter) {
        std::string names, text;
        for (const std::string &nic : filter) {
            if (!nic.empty()) names.append(names.empty() ? "" : ",").append(nic);
        }
        if (names.find('\0') != std::string::npos) return detail::refused(ERR_INVALID_ARGUMENT, "a NIC's name has a NUL inside");
        const int code = detail::readText(text, [&](char *buffer, size_t *length) {
            return mte_discover_topology(names.empty() ? nullptr : names.c_str(), buffer, length);
        });
        return code < 0 ? detail::result(code) : parse(text);
    }

    /** Reads {"cpu:0": [[preferred NICs], [others]], …}. 0, or ERR_MALFORMED_JSON and everything stays as it was. */
    int parse(const std::string &topology_json) {
        const auto value = detail::Json::parse(topology_json);
        if (!value || !read(*value, true))
            return detail::refused(ERR_MALFORMED_JSON, "this is no NIC priority matrix: " + topology_json.substr(0, 200));
        return 0;
    }

    /** Takes a NIC out of all lists; the others keep their numbers. 0. */
    int disableDevice(const std::string &device_name) {
        const auto take_out = [&](std::vector<std::string> &list) {
            list.erase(std::remove(list.begin(), list.end(), device_name), list.end());
        };
        const std::lock_guard<std::mutex> guard(mutex_);
        auto changed = std::make_shared<Content>(*known_.back());
        for (auto &place : changed->matrix) {
            take_out(place.second.preferred_hca);
            take_out(place.second.avail_hca);
        }
        put(std::move(changed));
        chosen_ = true;
        return 0;
    }

    /** As parse reads it, the locations in alphabetical order. */
    std::string toString() const {
        const auto list = [](const std::vector<std::string> &names) {
            std::string text = "[";
            for (const std::string &name : names) text.append(text.size() == 1 ? "" : ",").append(detail::quoted(name));
            return text + "]";
        };
        std::string text = "{";
        const auto now = content();
        const std::map<std::string, TopologyEntry> sorted(now->matrix.begin(), now->matrix.end());
        for (const auto &[location, entry] : sorted) {
            text.append(text.size() == 1 ? "" : ",").append(detail::quoted(location)).append(":[");
            text.append(list(entry.preferred_hca)).append(",").append(list(entry.avail_hca)).append("]");
        }
        return text + "}";
    }

#ifdef MTE_WITH_JSONCPP
    Json::Value toJson() const {
        Json::Value root(Json::objectValue);
        const auto now = content();
        for (const auto &[location, entry] : now->matrix) root[location] = entry.toJson();
        return root;
    }
#endif

    bool operator==(const Topology &other) const { return *content() == *other.content(); }
    bool operator!=(const Topology &other) const { return !(*this == other); }

    /** The number of a NIC for a location: any preferred one at first (retry_count 0), then each in its turn.
     * ERR_DEVICE_NOT_FOUND if the location has none. */
    int selectDevice(const std::string storage_type, int retry_count = 0) {
        const auto [preferred, others] = content()->numbers(storage_type);
        if (preferred.empty() && others.empty()) return ERR_DEVICE_NOT_FOUND;
        if (retry_count <= 0) {
            const auto &first = preferred.empty() ? others : preferred;
            return first[anyOf(first.size())];
        }
        const size_t turn = static_cast<size_t>(retry_count - 1) % (preferred.size() + others.size());
        return turn < preferred.size() ? preferred[turn] : others[turn - preferred.size()];
    }

    /** The NIC called `hint`, if the location has it. */
    int selectDevice(const std::string storage_type, std::string_view hint, int retry_count = 0) {
        const auto now = content();
        const auto [preferred, others] = now->numbers(storage_type);
        const int hinted = now->numberOf(hint);
        for (const auto *list : {&preferred, &others})
            if (hinted >= 0 && std::find(list->begin(), list->end(), hinted) != list->end()) return hinted;
        return selectDevice(storage_type, retry_count);
    }

    /** Among those that MC_NIC_PEER_AFFINITY pairs with the local NIC, where it is switched on and for device memory. */
    int selectDeviceByLocalHca(const std::string storage_type, std::string_view local_hca, int retry_count = 0) {
        const GlobalConfig &config = globalConfig();
        const auto pairs = config.nic_peer_affinity.find(std::string(local_hca));
        const auto now = content();
        const auto place = now->matrix.find(storage_type);
        std::vector<int> candidates;
        if (config.enable_hca_peer_affinity && pairs != config.nic_peer_affinity.end() && place != now->matrix.end() &&
            storage_type.compare(0, 5, "cuda:") == 0) {
            const auto &preferred = place->second.preferred_hca;
            for (const std::string &peer : pairs->second)
                if (std::find(preferred.begin(), preferred.end(), peer) != preferred.end()) candidates.push_back(now->numberOf(peer));
        }
        if (candidates.empty()) return selectDevice(storage_type, retry_count);
        if (retry_count <= 0) return candidates[anyOf(candidates.size())];
        return candidates[static_cast<size_t>(retry_count - 1) % candidates.size()];
    }

    TopologyMatrix getMatrix() const { return content()->matrix; }
    /** The list of now: it lives as long as this object, and does not change with the topology. */
    const std::vector<std::string> &getHcaList() const { return content()->hca_list; }

  private:
    friend class TransferEngineState;
    friend class TransferMetadata;

    /** Never changed once it is published. */
    struct Content {
        TopologyMatrix matrix;
        std::vector<std::string> hca_list;

        bool operator==(const Content &other) const { return matrix == other.matrix && hca_list == other.hca_list; }

        int numberOf(std::string_view nic) const {
            const auto found = std::find(hca_list.begin(), hca_list.end(), nic);
            return found == hca_list.end() ? -1 : static_cast<int>(found - hca_list.begin());
        }

        /** The numbers of a location's NICs; "*" has every NIC that is in some list. */
        std::pair<std::vector<int>, std::vector<int>> numbers(const std::string &location) const {
            std::pair<std::vector<int>, std::vector<int>> found;
            const auto add = [this](std::vector<int> &to, const std::vector<std::string> &list) {
                for (const std::string &nic : list) to.push_back(numberOf(nic));
            };
            const auto place = matrix.find(location);
            if (place != matrix.end()) {
                add(found.first, place->second.preferred_hca);
                add(found.second, place->second.avail_hca);
            } else if (location == kWildcardLocation) {
                for (const auto &each : matrix) {
                    add(found.first, each.second.preferred_hca);
                    add(found.first, each.second.avail_hca);
                }
                std::sort(found.first.begin(), found.first.end());
                found.first.erase(std::unique(found.first.begin(), found.first.end()), found.first.end());
            }
            return found;
        }
    };

    std::shared_ptr<const Content> content() const {
        const std::lock_guard<std::mutex> guard(mutex_);
        return known_.back();
    }

    /** Whether the program has made it what it is, and not the engine. */
    bool chosen() const {
        const std::lock_guard<std::mutex> guard(mutex_);
        return chosen_;
    }

    void publish(std::shared_ptr<const Content> content, bool chosen) {
        const std::lock_guard<std::mutex> guard(mutex_);
        put(std::move(content));
        chosen_ = chosen;
    }

    /** With the lock. */
    void put(std::shared_ptr<const Content> content) {
        const auto same = std::find_if(known_.begin(), known_.end(), [&content](const auto &known) { return *known == *content; });
        if (same == known_.end()) known_.push_back(std::move(content));
        else std::rotate(same, same + 1, known_.end());
    }

    /** Takes over what the engine says. */
    void follow(const std::string &text) {
        const auto value = detail::Json::parse(text);
        std::shared_ptr<const Content> said = value ? decode(*value) : nullptr;
        if (said == nullptr) return;
        const std::lock_guard<std::mutex> guard(mutex_);
        put(std::move(said));
    }

    bool read(const detail::Json &value, bool chosen) {
        std::shared_ptr<const Content> content = decode(value);
        if (content == nullptr) return false;
        publish(std::move(content), chosen);
        return true;
    }

    /** NULL if it is no matrix. */
    static std::shared_ptr<const Content> decode(const detail::Json &value) {
        if (!value.isObject()) return nullptr;
        // In alphabetical order, as others number the NICs.
        std::map<std::string, const detail::Json *> sorted;
        for (size_t i = 0; i < value.names.size(); ++i) sorted[value.names[i]] = &value.items[i];
        auto content = std::make_shared<Content>();
        for (const auto &[location, lists] : sorted) {
            TopologyEntry entry{location, {}, {}};
            if (!lists->isArray() || lists->items.size() != 2) return nullptr;
            if (!names(lists->items[0], entry.preferred_hca) || !names(lists->items[1], entry.avail_hca)) return nullptr;
            content->matrix[location] = std::move(entry);
        }
        for (const auto &place : content->matrix)
            for (const auto *list : {&place.second.preferred_hca, &place.second.avail_hca})
                for (const std::string &nic : *list)
                    if (content->numberOf(nic) < 0) content->hca_list.push_back(nic);
        return content;
    }

    static bool names(const detail::Json &value, std::vector<std::string> &list) {
        for (const detail::Json &item : value.items) {
            if (!item.isString()) return false;
            list.push_back(item.text);
        }
        return value.isArray();
    }

    static bool roundRobin() {
        const char *turns = std::getenv("MC_PATH_ROUNDROBIN");
        return turns != nullptr && (std::string_view(turns) == "1" || std::string_view(turns) == "true");
    }

    size_t anyOf(size_t count) const {
        thread_local uint32_t turn = 0;
        return (round_robin_ ? turn++ : SimpleRandom::Get().next()) % count;
    }

    const bool round_robin_ = roundRobin();
    /** Guards what follows. */
    mutable std::mutex mutex_;
    /** What it has been, each once, the present last. The others are kept for whoever has their list of NICs. */
    std::vector<std::shared_ptr<const Content>> known_{std::make_shared<const Content>()};
    bool chosen_ = false;
};

}  // namespace mooncake

#endif  // TOPOLOGY_H

/* SPDX-License-Identifier: Apache-2.0
 * What a TransferEngine consists of: its C engine, topology, metadata and transports, which outlive a move. */

#ifndef TRANSFER_ENGINE_DETAIL_STATE_H
#define TRANSFER_ENGINE_DETAIL_STATE_H

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "show_links.h"
#include "transfer_engine/detail/handle.h"
#include "transport/transport.h"

namespace mooncake {

struct AutoDiscoverConfig {
    bool enabled = false;
    std::string protocol;
};

class TransferEngineState {
  public:
    TransferEngineState()
        : handle(std::make_shared<detail::Handle>()), topology(std::make_shared<Topology>()), metadata(new TransferMetadata(handle)) {}

    int init(const std::string &store, const std::string &name, const std::string &protocol) {
        if (initialised) return detail::refused(ERR_INVALID_ARGUMENT, "the engine was initialised before");
        const std::string devices = joined(filter), transports = protocol.empty() ? discovered() : protocol;
        for (const std::string *text : {&store, &name, &transports, &devices})
            if (!detail::isText(*text)) return detail::noText();
        const transfer_engine_t engine = mte_create_engine(store.c_str(), name.c_str(), transports.c_str(), devices.c_str());
        if (engine == nullptr) {
            const int code = mte_last_error(nullptr, 0);
            return detail::result(code < 0 ? code : ERR_INVALID_ARGUMENT);
        }
        handle->open(engine);
        initialised = true;
        if (graceful) ::enableGracefulShutdown(engine);
        locate();
        follow();
        return 0;
    }

    Transport *install(const std::string &proto, void **args) {
        const transfer_engine_t engine = handle->get();
        if (!detail::isText(proto)) return detail::noText(), nullptr;
        if (engine == nullptr) return detail::refused(ERR_INVALID_ARGUMENT, detail::kNotInitialised), nullptr;
        const bool given = args != nullptr && args[0] != nullptr;
        std::string matrix;
        void *chosen[2] = {nullptr, nullptr};
        // NICs mean nothing to TCP.
        if (!given && topology->chosen() && proto != "tcp") {
            matrix = topology->toString();
            chosen[0] = matrix.data();
        }
        const transport_t installed = ::installTransport(engine, proto.c_str(), chosen[0] != nullptr ? chosen : args);
        if (installed == nullptr) return detail::result(mte_last_error(nullptr, 0)), nullptr;
        if (given) topology->follow(static_cast<const char *>(args[0]));
        follow();
        return transport(proto);
    }

    Transport *transport(const std::string &proto) {
        const transfer_engine_t engine = handle->get();
        if (!detail::isText(proto)) return detail::noText(), nullptr;
        if (engine == nullptr) return detail::refused(ERR_INVALID_ARGUMENT, detail::kNotInitialised), nullptr;
        if (mte_transport(engine, proto.c_str()) == nullptr) return detail::result(mte_last_error(nullptr, 0)), nullptr;
        const std::lock_guard<std::mutex> guard(mutex_);
        std::unique_ptr<Transport> &known = transports_[proto];
        if (known == nullptr) known.reset(new Transport(proto, handle, metadata));
        return known.get();
    }

    std::string showLinks(bool json) const {
        const transfer_engine_t engine = handle->get();
        std::string text;
        if (engine == nullptr) return json ? detail::linksAsJson(*topology) : detail::linksAsText(*topology);
        detail::result(detail::growText(text, [&](char *buffer, size_t size) { return ::showLinks(engine, buffer, size, json ? 1 : 0); }));
        return text;
    }

    void enableGracefulShutdown() {
        graceful = true;
        if (const transfer_engine_t engine = handle->get()) return ::enableGracefulShutdown(engine);
        // The handlers are the process's and stay; the C API installs them for an engine, so one lends itself.
        if (const transfer_engine_t engine = mte_create_engine(P2PHANDSHAKE, "127.0.0.1", nullptr, nullptr)) {
            ::enableGracefulShutdown(engine);
            destroyTransferEngine(engine);
        }
    }

    std::shared_ptr<detail::Handle> handle;
    std::shared_ptr<Topology> topology;
    std::shared_ptr<TransferMetadata> metadata;
    AutoDiscoverConfig discovery;
    std::vector<std::string> filter;
    bool initialised = false;
    bool graceful = false;

  private:
    /** A program that names RDMA gets TCP where no NIC works, as without a name. */
    std::string discovered() const {
        if (!discovery.enabled) return "";
        return discovery.protocol.empty() || discovery.protocol == "rdma" ? "auto" : discovery.protocol;
    }

    static std::string joined(const std::vector<std::string> &names) {
        std::string text;
        for (const std::string &name : names)
            if (!name.empty()) text.append(text.empty() ? "" : ",").append(name);
        return text;
    }

    /** The topology becomes the engine's, unless the program has chosen one. */
    void follow() {
        std::string text;
        if (topology->chosen()) return;
        const int code = detail::readText(text, [this](char *buffer, size_t *length) { return mte_local_topology(handle->get(), buffer, length); });
        if (code == 0) topology->follow(text);
    }

    void locate() {
        std::string text;
        const int code = detail::growText(text, [this](char *buffer, size_t size) { return getLocalIpAndPort(handle->get(), buffer, size); });
        if (code < 0) return;
        auto [host, port] = parseHostNameWithPort(text);
        metadata->local_rpc_meta_ = {std::move(host), port, -1};
    }

    /** Guards transports_. */
    std::mutex mutex_;
    std::map<std::string, std::unique_ptr<Transport>> transports_;
};

}  // namespace mooncake

#endif  // TRANSFER_ENGINE_DETAIL_STATE_H

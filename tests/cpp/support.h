/* Engines for the tests. MTE_TEST_STORE names the metadata store (none: P2PHANDSHAKE), MTE_TEST_PROTOCOL the transport ("tcp"),
 * so the same tests run over each. MTE_TEST_MATRIX is a NIC priority matrix for RDMA. */

#ifndef SUPPORT_H
#define SUPPORT_H

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "transfer_engine.h"

inline std::string environment(const char *name, const char *otherwise) {
    const char *value = std::getenv(name);
    return value == nullptr ? otherwise : value;
}
inline std::string store() { return environment("MTE_TEST_STORE", P2PHANDSHAKE); }
inline std::string protocol() { return environment("MTE_TEST_PROTOCOL", "tcp"); }

/** The first NIC of the matrix. */
inline std::string firstNic() {
    const std::string matrix = environment("MTE_TEST_MATRIX", ""), before = "[[\"";
    const size_t start = matrix.find(before) + before.size();
    return matrix.substr(start, matrix.find('"', start) - start);
}

/** A name that no other engine of the run has, if the store keeps names. */
inline std::string freshName() {
    static std::atomic<int> count{0};
    if (store() == P2PHANDSHAKE) return "127.0.0.1";
    return "cpp-" + std::to_string(getpid()) + "-" + std::to_string(count++);
}

/** An engine with a transport and memory of which byte i is i * factor. */
class Node {
  public:
    explicit Node(uint8_t factor = 1, size_t size = 1 << 20) : name(freshName()), memory(size) {
        for (size_t i = 0; i < size; ++i) memory[i] = static_cast<uint8_t>(i * factor);
        EXPECT_EQ(engine.init(store(), name), 0) << mooncake::lastError();
        const std::string matrix = environment("MTE_TEST_MATRIX", "");
        if (!matrix.empty()) {
            EXPECT_EQ(engine.getLocalTopology()->parse(matrix), 0);
        }
        EXPECT_NE(engine.installTransport(protocol(), nullptr), nullptr) << mooncake::lastError();
        EXPECT_EQ(engine.registerLocalMemory(memory.data(), size, "cpu:0"), 0) << mooncake::lastError();
        if (store() == P2PHANDSHAKE) name = engine.getLocalIpAndPort();
    }

    uint64_t address(size_t offset = 0) const { return reinterpret_cast<uint64_t>(memory.data() + offset); }

    /** The name that peers open. */
    std::string name;
    std::vector<uint8_t> memory;
    mooncake::TransferEngine engine;
};

inline mooncake::TransferRequest request(mooncake::TransferRequest::OpCode opcode, void *source, mooncake::SegmentID target, uint64_t offset,
                                         size_t length) {
    mooncake::TransferRequest made;
    made.opcode = opcode;
    made.source = source;
    made.target_id = target;
    made.target_offset = offset;
    made.length = length;
    return made;
}

/** Polls as programs do, until the task has ended. */
inline mooncake::TransferStatus finished(mooncake::TransferEngine &engine, mooncake::BatchID batch, size_t task) {
    mooncake::TransferStatus status;
    do {
        const mooncake::Status asked = engine.getTransferStatus(batch, task, status);
        if (!asked.ok()) {
            ADD_FAILURE() << asked;
            break;
        }
    } while (status.s == mooncake::TransferStatusEnum::WAITING || status.s == mooncake::TransferStatusEnum::PENDING);
    return status;
}

/** Expects a failure with this code and a text. */
inline void expectFailure(const mooncake::Status &status, mooncake::Status::Code code) {
    EXPECT_EQ(status.code(), code) << status;
    EXPECT_FALSE(status.message().empty());
}

#endif  // SUPPORT_H

/* The other engine in a process of its own: this program, started with --serve. */

#include <csignal>
#include <cstdio>
#include <sys/wait.h>

#include "support.h"

using namespace mooncake;

namespace {

/** Starts the other process and knows what it printed. */
class Server {
  public:
    Server() {
        int input[2], output[2];
        EXPECT_EQ(pipe(input), 0);
        EXPECT_EQ(pipe(output), 0);
        pid_ = fork();
        if (pid_ == 0) {
            dup2(input[0], 0);
            dup2(output[1], 1);
            for (const int fd : {input[0], input[1], output[0], output[1]}) ::close(fd);
            execl("/proc/self/exe", "tests", "--serve", static_cast<char *>(nullptr));
            _exit(127);
        }
        ::close(input[0]);
        ::close(output[1]);
        input_ = input[1];
        output_ = fdopen(output[0], "r");
        char line[512] = "", text[512] = "";
        unsigned long long number = 0;
        EXPECT_NE(std::fgets(line, sizeof line, output_), nullptr);
        EXPECT_EQ(std::sscanf(line, "%511s %llu", text, &number), 2) << line;
        name = text;
        address = number;
    }
    Server(const Server &) = delete;
    Server &operator=(const Server &) = delete;

    /** Ends it, and returns the first 64 bytes of its memory in hexadecimal. */
    std::string end() {
        ::close(input_);
        char line[512] = "";
        EXPECT_NE(std::fgets(line, sizeof line, output_), nullptr);
        std::fclose(output_);
        int status = -1;
        EXPECT_EQ(waitpid(pid_, &status, 0), pid_);
        EXPECT_EQ(status, 0);
        return line;
    }

    void kill() {
        ::kill(pid_, SIGKILL);
        int status = 0;
        EXPECT_EQ(waitpid(pid_, &status, 0), pid_);
        ::close(input_);
        std::fclose(output_);
    }

    std::string name;
    uint64_t address = 0;

  private:
    pid_t pid_ = -1;
    int input_ = -1;
    std::FILE *output_ = nullptr;
};

}  // namespace

TEST(Processes, MoveBytesBetweenThem) {
    Server server;
    Node node(7);
    const ScopedSegment peer(node.engine, server.name);
    ASSERT_NE(peer.id(), static_cast<SegmentHandle>(-1)) << lastError();
    const auto desc = node.engine.getMetadata()->getSegmentDescByID(peer.id());
    ASSERT_NE(desc, nullptr);
    EXPECT_EQ(desc->buffers.at(0).addr, server.address);
    EXPECT_EQ(node.engine.probePeerAliveByID(peer.id()), PeerLiveness::Alive);
    ScopedBatch batch(node.engine, 2);
    ASSERT_TRUE(node.engine.submitTransfer(batch.id(), {request(TransferRequest::READ, &node.memory[4096], peer.id(), server.address + 100, 1000),
                                                        request(TransferRequest::WRITE, node.memory.data(), peer.id(), server.address, 64)}).ok());
    const Status ended = batch.wait();
    ASSERT_TRUE(ended.ok()) << ended;
    for (size_t i = 0; i < 1000; ++i) ASSERT_EQ(node.memory[4096 + i], static_cast<uint8_t>((100 + i) * 3));
    std::string expected;
    for (size_t i = 0; i < 64; ++i) {
        char byte[3];
        std::snprintf(byte, sizeof byte, "%02x", static_cast<unsigned>(static_cast<uint8_t>(i * 7)));
        expected += byte;
    }
    EXPECT_EQ(server.end(), expected);
}

TEST(Processes, ThatDieFailTransfersOnly) {
    Server server;
    Node node;
    const ScopedSegment peer(node.engine, server.name);
    ASSERT_NE(peer.id(), static_cast<SegmentHandle>(-1)) << lastError();
    server.kill();
    EXPECT_EQ(node.engine.probePeerAliveByID(peer.id()), PeerLiveness::Unreachable);
    const ScopedBatch batch(node.engine, 1);
    const Status submitted = node.engine.submitTransfer(batch.id(), {request(TransferRequest::READ, node.memory.data(), peer.id(), server.address, 64)});
    const Status ended = submitted.ok() ? batch.wait() : submitted;
    EXPECT_FALSE(ended.ok());
    EXPECT_FALSE(ended.message().empty());
    const ScopedSegment own(node.engine, node.name);
    const ScopedBatch next(node.engine, 1);
    ASSERT_TRUE(node.engine.submitTransfer(next.id(), {request(TransferRequest::READ, node.memory.data(), own.id(), node.address(64), 64)}).ok());
    EXPECT_TRUE(next.wait().ok());
}

TEST(Processes, EndGracefullyWhenAsked) {
    for (const bool early : {true, false}) {
        const pid_t child = fork();
        if (child == 0) {
            TransferEngine engine;
            if (early) engine.enableGracefulShutdown();
            if (engine.init(store(), freshName()) != 0) _exit(1);
            if (!early) engine.enableGracefulShutdown();
            raise(SIGTERM);
            for (;;) pause();
        }
        int status = 0;
        ASSERT_EQ(waitpid(child, &status, 0), child);
        ASSERT_TRUE(WIFEXITED(status)) << status;
        EXPECT_EQ(WEXITSTATUS(status), 128 + SIGTERM);
    }
}

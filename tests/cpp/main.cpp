/* Runs the tests, or with --serve an engine in a process of its own: it prints its name, its memory's address, and, when
 * its standard input ends, the first 64 bytes of its memory. */

#include <cstdio>
#include <cstring>

#include "support.h"

static int serve() {
    Node node(3);
    std::printf("%s %llu\n", node.name.c_str(), static_cast<unsigned long long>(node.address()));
    std::fflush(stdout);
    while (std::getchar() != EOF) {
    }
    for (size_t i = 0; i < 64; ++i) std::printf("%02x", node.memory[i]);
    std::fflush(stdout);
    return ::testing::Test::HasFailure() ? 1 : 0;
}

int main(int argc, char **argv) {
    ::testing::InitGoogleTest(&argc, argv);
    if (argc > 1 && std::strcmp(argv[1], "--serve") == 0) return serve();
    return RUN_ALL_TESTS();
}

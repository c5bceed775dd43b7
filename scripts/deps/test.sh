# Sourced by deps.sh: what only `make test` and the benchmarks need.

starts() { "$@" >/dev/null; }
loads() { python3 -c 'import ctypes, sys; [ctypes.CDLL(name) for name in sys.argv[1:]]' "$@"; }

try_cxx() { compiles cpp g++ <<<'#include <string>
int main() { return std::string("x").size() - 1; }' && "$work/try"; }
need cxx "g++" - "a test that compiles the header as C++"

try_clangxx() { compiles cpp clang++ -std=c++20 <<<'#include <span>
int main() { return static_cast<int>(std::span<int>().size()); }' && "$work/try"; }
need clangxx "clang" - "the tests of the C++ classes, with a second compiler"

try_gtest() {
    printf '#include <gtest/gtest.h>\nTEST(A, B) { EXPECT_TRUE(true); }\nint main(int c, char **v) { testing::InitGoogleTest(&c, v); return RUN_ALL_TESTS(); }\n' >"$work/try.cpp"
    g++ -std=c++17 -o "$work/try" "$work/try.cpp" -lgtest -lpthread && "$work/try"
}
need gtest "libgtest-dev" cxx "the tests of the C++ classes"

try_asan() { compiles c gcc -fsanitize=address <<<'int main(void) { return 0; }' && "$work/try"; }
need asan "gcc" cc "the C tests under the address sanitizer"

try_python() { scripts/venv.sh --check; }
need python "python3 python3-venv" - "upstream's wheel, the peer of the interoperation tests"

# What the programs of upstream's wheel link to and the wheel does not bring.
try_libnuma() { loads libnuma.so.1; }
try_libcurl() { loads libcurl.so.4; }
try_libibverbs() { loads libibverbs.so.1 librdmacm.so.1; }
need libnuma libnuma1 python "upstream's wheel"
need libcurl libcurl4 python "upstream's wheel"
need libibverbs "libibverbs1 librdmacm1" python "upstream's wheel"

try_valgrind() { try_cc && valgrind -q --error-exitcode=1 "$work/try"; }
need valgrind valgrind cc "the test for leaks"

try_etcd() { starts etcd --version; }
try_redis() { starts redis-server --version; }
try_prometheus() { starts prometheus --version && starts promtool --version; }
# As root it has no sandbox; the page it is given here is empty.
try_chromium() { timeout 60 chromium --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --user-data-dir="$work/chromium" --dump-dom about:blank; }
try_openssl() { openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=try -keyout "$work/key" -out "$work/certificate"; }
try_systemd() { starts systemd-analyze --version; }
need etcd etcd-server - "the stores' tests"
need redis redis-server - "the stores' tests"
need prometheus prometheus - "the test of metrics"
need chromium chromium - "the test of the status pages"
. scripts/deps/release.sh
need systemd systemd - "the test of the systemd unit"
need openssl openssl - "the stores' tests (TLS)"

# The guest that the RDMA tests run in, with the devices that it is given there.
try_qemu() {
    echo quit | timeout 60 qemu-system-x86_64 -accel tcg -m 64 -nodefaults -no-user-config -display none -nic none -S -monitor stdio \
        -virtfs local,path="$work",mount_tag=try,security_model=none,readonly=on -device virtio-rng-pci
}
try_busybox() {
    busybox true || return 1
    ! ldd "$(command -v busybox)" >/dev/null 2>&1 || { echo "busybox needs shared libraries, which the guest's first process does not have"; return 1; }
}
try_kmod() { starts depmod --version && starts modprobe --version; }
try_cpio() { starts cpio --version; }
try_ip() { starts ip -V; }
try_iptables() { starts iptables --version; }
try_ps() { starts ps; }
# They say their version and end with 1.
try_perftest() {
    local tool said
    for tool in ib_write_bw ib_read_bw; do
        said=$("$tool" --version 2>&1) || true
        [[ $said == Version* ]] || { echo "$said"; return 1; }
    done
}
# Rxe's user-space driver is a plug-in of libibverbs, found by this file.
try_rxe() {
    [ -e /etc/libibverbs.d/rxe.driver ] || { echo "/etc/libibverbs.d/rxe.driver is missing"; return 1; }
    local driver
    for driver in /usr/lib/*/libibverbs/librxe-rdmav*.so /usr/lib*/libibverbs/librxe-rdmav*.so; do [ ! -e "$driver" ] || { loads "$driver"; return; }; done
    echo "librxe-rdmav*.so is missing"
    return 1
}
need qemu qemu-system-x86 - "the RDMA tests (their guest)"
need busybox busybox-static - "the RDMA tests (their guest)"
need kmod kmod - "the RDMA tests (their guest)"
need cpio cpio - "the RDMA tests (their guest)"
need ip iproute2 - "the RDMA tests, and those of TCP over several NICs"
need iptables iptables - "the RDMA tests"
need ps procps - "the RDMA tests"
need perftest perftest - "the RDMA tests and benchmarks"
need rxe ibverbs-providers python "the RDMA tests (soft-RoCE)"

try_rustfmt() { cargo fmt --version && cargo clippy --version; }
fix_rustfmt() { rustup component add rustfmt clippy; }
need rustfmt "" cargo "the test of formatting and lints"

# Programs of other languages that link the library.
try_cmake() { cmake --version; }
try_go() {
    printf 'package main\n// #include <stdlib.h>\nimport "C"\nfunc main() { C.free(nil) }\n' >"$work/try.go"
    GO111MODULE=off CGO_ENABLED=1 GOFLAGS='' GOCACHE="$work/go-cache" go build -o "$work/try" "$work/try.go"
}
need cmake "cmake make" cc "a test that links as a CMake project"
need go golang-go cc "a test that links as a Go program"

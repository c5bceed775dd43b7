# Sourced by deps.sh: what only `make fuzz` needs.

try_fuzz_cxx() { compiles cpp c++ <<<'#include <string>
int main() { return std::string("x").size() - 1; }' && "$work/try"; }
need fuzz_cxx "g++" - "libFuzzer, which is compiled from its source"

try_cargo_fuzz() { cargo fuzz --version; }
fix_cargo_fuzz() {
    say "installing cargo-fuzz with cargo, below ${CARGO_HOME:-$HOME/.cargo}"
    CARGO_TARGET_DIR="$work/cargo-fuzz" cargo install --quiet --locked cargo-fuzz --version 0.13.2
}
need cargo_fuzz "" "cargo cc" "building and running the fuzz targets"

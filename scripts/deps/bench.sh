# Sourced by deps.sh: what only `make bench` and `make bench-instr` need.

try_callgrind() {
    printf '#include <valgrind/callgrind.h>\nint main(void) { CALLGRIND_TOGGLE_COLLECT; return 0; }\n' >"$work/try.c"
    cc -o "$work/try" "$work/try.c" && valgrind -q --tool=callgrind --callgrind-out-file="$work/callgrind" "$work/try"
}
need callgrind valgrind cc "counting instructions"

try_simulated_nic() { compiles c cc <<<'#include <infiniband/verbs.h>
int main(void) { return 0; }'; }
need simulated_nic libibverbs-dev cc "the simulated NIC of tests/simverbs"

try_bench_python() { python3 -c 'import json, statistics, tempfile'; }
need bench_python python3 - "the scripts that measure"

# The C++ classes on real verbs, as gcc builds their tests (tests/cpp; clang's run over simulated NICs, in less than a minute). Two NICs.
NICS=2 LIMIT=600

classes() { # PROGRAM
    MTE_TEST_PROTOCOL=$TE_PROTOCOL MTE_TEST_MATRIX='{"cpu:0":[["rxe0","rxe1"],[]]}' "$BIN/$1" --gtest_brief=1 || fail "$1 fails"
}

case_gcc() { classes cpp-gcc; }

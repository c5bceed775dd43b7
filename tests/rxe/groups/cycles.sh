# Hundreds of times connected, failed and connected again: nothing may be left behind, on either side. CYCLES says how many.
NICS=2 LIMIT=1800

case_remote_access_errors_and_restarts() {
    "$BIN/cycles" --protocol="$TE_PROTOCOL" --count="$CYCLES" --restart_every=$((CYCLES / 10)) --port=$FIXED_PORT ||
        fail "cycles fails"
}

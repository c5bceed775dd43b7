# A thousand times connected, failed and connected again: nothing may be left behind, on either side.
NICS=2 LIMIT=1800

case_remote_access_errors_and_restarts() {
    "$BIN/cycles" --protocol="$TE_PROTOCOL" --count=1000 --restart_every=100 --port=$FIXED_PORT ||
        fail "cycles fails"
}

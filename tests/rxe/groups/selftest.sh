# The harness itself: what its faults do to verbs, without our library. Not part of `make test`.
NICS=4 LIMIT=20
CASES=(nothing all_pairs link_down healed nic_removed healed_again fails command_fails stuck)

pingpong() { # FROM TO
    ibv_rc_pingpong -d "rxe$2" -g 1 -n 200 >/dev/null 2>&1 &
    local server=$!
    nap 1
    timeout 8 ibv_rc_pingpong -d "rxe$1" -g 1 -n 200 127.0.0.1
    local status=$?
    kill $server 2>/dev/null || true
    return $status
}

case_all_pairs() {
    mkfifo "$work/nap"
    pingpong 0 1 && pingpong 1 2 && pingpong 3 0 && pingpong 2 2
}

case_link_down() {
    mkfifo "$work/nap"
    link_down 1
    if pingpong 0 1; then fail "traffic over a link that is down"; fi
}
case_healed() { mkfifo "$work/nap"; ip addr; pingpong 0 1; }
case_nic_removed() {
    mkfifo "$work/nap"
    remove_nic 2
    address_gone 3
    drop_forwarded 0
    lose 1 5
    if pingpong 0 1; then fail "traffic through a dropping fabric"; fi
}
case_healed_again() { mkfifo "$work/nap"; rdma link; pingpong 0 2; pingpong 2 3; }
case_stuck() { sleep 100; }
case_nothing() { true; }
case_fails() { fail "it should"; }
case_command_fails() { ls /nonexistent; }

# Faults while bytes move. Two NICs on each side (rxe0, rxe1 to rxe2, rxe3): no request fails while one pair is left.
# One NIC on each side (rxe0 to rxe2): every task ends within its deadline, and transfers go on once the fault is gone.
NICS=4 LIMIT=360
CASES=(two_nics_carry local_link_down cable_cut local_nic_removed remote_nic_removed local_gid_moves no_completion_on_one_nic
    received_packets_dropped packets_lost_on_one_nic only_link_down only_gid_moves peer_killed_and_restarted peer_stopped
    everything_dropped no_completion_at_all packets_lost packets_garbled conformance_over_two_nics)
# What mirrors one of those.
[ -z "${MTE_TEST_FULL:-}" ] || CASES+=(remote_link_down remote_gid_moves forwarded_packets_dropped)

DEADLINE_SECONDS=10 # of a task with one NIC; its end may take a little longer in an emulated machine
RETURN_SECONDS=5    # until a link that came back carries traffic

two_and_two() {
    start_passive target rxe2,rxe3
    start_mover mover rxe0,rxe1 "$SEGMENT"
    await mover ok 128 30
    expect_answer mover reset ok
}

one_and_one() {
    export MC_SLICE_TIMEOUT=$DEADLINE_SECONDS
    start_passive target rxe2 --port=$FIXED_PORT
    start_mover mover rxe0 "$SEGMENT"
    await mover ok 64 30
    expect_answer mover reset ok
}

end_both() {
    stop mover stop
    stop target quit
}

# A fault on NIC I of four, and back: FAULT I, then UNDO I.
survives_on_the_other() { # I FAULT UNDO
    two_and_two
    "$2" "$1"
    await mover ok 320 30
    "$3" "$1"
    await_traffic "$1" $RETURN_SECONDS
    await mover ok 128 20
    expect_clean mover
    end_both
}

case_local_link_down() { survives_on_the_other 0 link_down link_up; }
case_remote_link_down() { survives_on_the_other 2 link_down link_up; }
case_cable_cut() { survives_on_the_other 1 cable_down cable_up; }
case_local_gid_moves() { survives_on_the_other 0 address_gone address_back; }
case_remote_gid_moves() { survives_on_the_other 3 address_gone address_back; }
case_no_completion_on_one_nic() { survives_on_the_other 0 drop_sent drop_nothing; }
case_received_packets_dropped() { survives_on_the_other 2 drop_received drop_nothing; }
case_forwarded_packets_dropped() { survives_on_the_other 0 drop_forwarded drop_nothing; }

five_percent() { lose "$1" 5; }
case_packets_lost_on_one_nic() { survives_on_the_other 2 five_percent lose_nothing; }

nic_vanishes() { # I
    two_and_two
    remove_nic "$1"
    await mover ok 320 30
    expect_clean mover
    end_both
}
case_local_nic_removed() { nic_vanishes 0; }
case_remote_nic_removed() { nic_vanishes 3; }

case_two_nics_carry() {
    local i before=() share
    two_and_two
    for i in 0 1 2 3; do wire_bytes $i; before[i]=$WIRE; done
    await mover ok 800 60
    for i in 0 1 2 3; do wire_bytes $i; echo "nic$i: $((share[i] = (WIRE - before[i]) >> 10)) KiB"; done
    ask mover loads
    echo "loads: $REPLY"
    # 50 MiB in all; an even share is half of it.
    for i in 0 1 2 3; do ((share[i] > 8 << 10)) || fail "nic$i carries only ${share[i]} KiB of 50 MiB"; done
    [[ $REPLY =~ rxe0\ [0-9]+\ ([0-9]+)\;\ rxe1\ [0-9]+\ ([0-9]+)\; ]] || fail "getNicLoadStats says '$REPLY'"
    ((BASH_REMATCH[1] > 1000000 && BASH_REMATCH[2] > 1000000)) || fail "getNicLoadStats knows no bandwidth: '$REPLY'"
    ask mover links
    [[ $REPLY == *rxe0*rxe1* ]] || fail "showLinks says '$REPLY'"
    expect_clean mover
    end_both
}

# The last failure names the peer, the NIC and a code; $1 is a pattern for the rest.
expect_why() { # PATTERN
    ask mover why
    echo "why: $REPLY"
    [[ $REPLY == *" peer=$SEGMENT"[\ @]* ]] || fail "the peer is not named: $REPLY"
    [[ $REPLY == *rxe0* ]] || fail "the NIC is not named: $REPLY"
    [[ $REPLY =~ ^code=-[0-9]+\ class=[1-9] ]] || fail "no code or class: $REPLY"
    # shellcheck disable=SC2053 # a pattern
    [[ $REPLY == $1 ]] || fail "'$1' is not told: $REPLY"
}

# Nothing took longer than its deadline, no wrong byte was read, and from now on everything succeeds again.
recovers() {
    read_status mover
    echo "during the fault: $STATUS"
    ((status[wrong] == 0)) || fail "${status[wrong]} batches read back wrong bytes"
    ((status[slowest_ms] <= DEADLINE_SECONDS * 1500)) || fail "a batch took ${status[slowest_ms]} ms"
    PATIENCE=1 await mover ok 16 $((RETURN_SECONDS + 5))
    expect_answer mover reset ok
    await mover ok 64 30
    expect_clean mover
}

fails_until_repaired() { # FAULT UNDO PATTERN
    one_and_one
    $1
    await mover failed 16 40
    expect_why "$3"
    $2
    recovers
    end_both
}

# What was under way fails, what comes then is refused. A refusal has no fields but code and text.
case_only_link_down() {
    one_and_one
    link_down 0
    await mover refused 16 40
    ask mover why
    echo "why: $REPLY"
    [[ $REPLY == "code=-6 "*"'$SEGMENT'"*rxe0*Down* ]] || fail "the peer, the NIC or its state is not told: $REPLY"
    link_up 0
    recovers
    end_both
}
case_only_gid_moves() { fails_until_repaired "address_gone 2" "address_back 2" "*"; }
case_everything_dropped() { fails_until_repaired "drop_forwarded 0" "drop_nothing" "*"; }
case_no_completion_at_all() { fails_until_repaired "drop_sent 0" "drop_nothing" "*class=4 *"; }

case_peer_killed_and_restarted() {
    local name
    one_and_one
    name=$SEGMENT
    end_by target KILL
    await mover failed 16 40
    expect_why "*"
    start_passive target rxe2 --port=$FIXED_PORT
    [ "$SEGMENT" = "$name" ] || fail "the target is called $SEGMENT after its restart"
    recovers
    end_both
}

# One-sided transfers do not need the peer's processor; connecting does.
case_peer_stopped() {
    one_and_one
    signal target STOP
    await mover ok 64 30
    expect_clean mover
    link_down 2
    await mover failed 16 40
    link_up 2
    await mover failed 16 40
    expect_why "*"
    signal target CONT
    recovers
    end_both
}

case_packets_lost() {
    one_and_one
    lose 2 5
    await mover ok 96 80
    expect_clean mover
    end_both
}

case_packets_garbled() {
    one_and_one
    broken
    ip netns exec fabric tc qdisc replace dev sw2 root netem delay 1ms reorder 25% duplicate 2% corrupt 2%
    await mover ok 64 100
    lose_nothing 2
    recovers
    end_both
}

case_conformance_over_two_nics() {
    local case
    for case in sizes batches back_pressure threads_share_an_engine; do
        "$BIN/conform" --protocol="$TE_PROTOCOL" --device_name=rxe0,rxe1 --peer_device_name=rxe2,rxe3 $case >"$work/conform" ||
            { cat "$work/conform"; fail "conform $case fails"; }
    done
}

# The released upstream on the other end, in either role, with one and two NICs on each side, bytes verified.
NICS=4 LIMIT=360
CASES=(our_one_nic_to_upstream our_two_nics_to_upstream our_two_nics_to_upstreams_one upstreams_one_nic_to_us
    upstreams_two_nics_to_us upstream_python_to_us us_to_upstream_python upstream_target_killed_and_restarted
    upstream_refuses_other_queue_pair_count we_accept_other_queue_pair_count)

upstream_bench=$(compgen -G "$top/target/venv/lib/python3*/site-packages/mooncake/transfer_engine_bench" | head -n 1)
# pip drops the execute bit, and the target folder is read-only for some hosts.
upstream() { # MODE DEVICES [FLAG...]
    local mode=$1 devices=$2
    shift 2
    [ -x "$upstream_bench" ] || chmod +x "$upstream_bench"
    exec "$upstream_bench" --mode="$mode" --protocol=rdma --device_name="$devices" --metadata_server=P2PHANDSHAKE \
        --local_server_name=127.0.0.1 --buffer_size=33554432 "$@"
}

start_upstream_target() { # DEVICES
    local tries line
    launch target upstream target "$1"
    SEGMENT=
    for ((tries = 0; tries < 600; tries++)); do
        line=$(grep -o 'P2P handshake, listening on [^ ]*' "$work/target.log") && break
        kill -0 "${pid_of[target]}" || { cat "$work/target.log"; fail "upstream's target has ended"; }
        nap
    done
    [ -n "$line" ] || fail "upstream's target does not announce itself"
    SEGMENT=${line##* }
}

# Whatever we write there is read back and compared.
ours_to_upstream() { # OUR-DEVICES UPSTREAM-DEVICES
    start_upstream_target "$2"
    start_mover mover "$1" "$SEGMENT"
    await mover ok 320 60
    expect_clean mover
    stop mover stop
    signal target TERM
}
case_our_one_nic_to_upstream() { ours_to_upstream rxe0 rxe2; }
case_our_two_nics_to_upstream() { ours_to_upstream rxe0,rxe1 rxe2,rxe3; }
case_our_two_nics_to_upstreams_one() { ours_to_upstream rxe0,rxe1 rxe2; }

run_upstream_initiator() { # DEVICES OPERATION
    (upstream initiator "$1" --segment_id="$SEGMENT" --operation="$2" --threads=2 --batch_size=16 --block_size=65536 \
        --duration=3) >"$work/initiator" 2>&1 || { tail -n 40 "$work/initiator"; fail "upstream's initiator fails"; }
    grep 'Test completed' "$work/initiator" || { tail -n 40 "$work/initiator"; fail "upstream's initiator reports nothing"; }
    if grep -q 'batch count 0,' "$work/initiator"; then fail "upstream's initiator moved nothing"; fi
}

# Its bench writes 2 x 16 x 64 KiB of a buffer that is all zero in a new process.
upstream_to_ours() { # UPSTREAM-DEVICES OUR-DEVICES
    start_passive target "$2"
    expect_answer target "set 0 0 16777216 17" ok
    run_upstream_initiator "$1" read
    expect_answer target "is 0 0 16777216 17" yes
    run_upstream_initiator "$1" write
    expect_answer target "is 0 0 2097152 0" yes
    expect_answer target "is 0 2097152 14680064 17" yes
    stop target quit
}
case_upstreams_one_nic_to_us() { upstream_to_ours rxe0 rxe2; }
case_upstreams_two_nics_to_us() { upstream_to_ours rxe0,rxe1 rxe2,rxe3; }

# Chosen bytes in both directions and both roles. Busy threads starve the emulated NICs: retransmissions are sometimes taken for
# invalid requests, and the READ at which a queue pair fails may end with success although nothing of it has come, whoever asked for
# it (plain_reads.c shows that without either library). Hence one thread, less at a time where upstream is the initiator, whose queue
# pairs fail more often, and several attempts after these two.
python() { # INITIATOR TARGET [NAME=VALUE...]
    local attempt initiator=$1 target=$2
    shift 2
    for attempt in 1 2 3; do
        if (cd "$top/tests/interop" && env MC_WORKERS_PER_CTX=1 TE_PROTOCOL=rdma TE_INITIATOR_DEVICES=rxe0,rxe1 \
            TE_TARGET_DEVICES=rxe2,rxe3 PYTHONDONTWRITEBYTECODE=1 "$@" \
            "$top/target/venv/bin/python" transfer.py "$initiator" "$target") >"$work/python" 2>&1; then return 0; fi
        cat "$work/python"
        grep -qE 'remote invalid request error|"nothing_has_come": true' "$work/python" || break
    done
    fail "transfer.py $initiator $target fails"
}
case_upstream_python_to_us() { python upstream ours TE_LARGEST=2000000; }
case_us_to_upstream_python() { python ours upstream; }

case_upstream_target_killed_and_restarted() {
    local name
    export MC_SLICE_TIMEOUT=10
    MC_MIN_RPC_PORT=$FIXED_PORT MC_MAX_RPC_PORT=$FIXED_PORT start_upstream_target rxe2
    name=$SEGMENT
    start_mover mover rxe0 "$SEGMENT"
    await mover ok 64 30
    end_by target KILL
    rm "$work/target.log"
    await mover failed 16 40
    ask mover why
    echo "why: $REPLY"
    MC_MIN_RPC_PORT=$FIXED_PORT MC_MAX_RPC_PORT=$FIXED_PORT start_upstream_target rxe2
    [ "$SEGMENT" = "$name" ] || fail "the target is called $SEGMENT after its restart"
    # Its buffer lies elsewhere now: the old addresses are refused, a new look finds it.
    await mover refused 16 20
    stop mover stop
    start_mover mover rxe0 "$SEGMENT"
    await mover ok 64 30
    expect_clean mover
}

case_upstream_refuses_other_queue_pair_count() {
    export MC_SLICE_TIMEOUT=10
    start_upstream_target rxe2
    MC_NUM_QP_PER_EP=3 start_mover mover rxe0 "$SEGMENT"
    await mover failed 16 30
    ask mover why
    [[ $REPLY == code=-104* ]] || fail "the refusal is told as: $REPLY"
}

case_we_accept_other_queue_pair_count() {
    start_passive target rxe2
    expect_answer target "set 0 0 16777216 17" ok
    MC_NUM_QP_PER_EP=3 run_upstream_initiator rxe0 write
    expect_answer target "is 0 0 2097152 0" yes
    stop target quit
}

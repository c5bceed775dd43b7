# Sourced by suite.sh: what cases are written with.
#
# `start NAME COMMAND...` runs a program that obeys lines on its standard input and waits for its first line; `ask NAME LINE`
# sends one and waits for the answer. Both leave the line in REPLY. Programs end with their case.

# Waits are for hangs, not for speed: a guest's processors are emulated, and the host may have more to do. Times that are
# themselves the case's subject (RETURN_SECONDS, DEADLINE_SECONDS) are not stretched.
PATIENCE=3
ANSWER_SECONDS=90
declare -gA pid_of in_of out_of

fail() {
    echo "failed because $*"
    exit 1
}

# Waits without a process of its own; only paces retries.
nap() { read -r -t "${1:-0.05}" <>"$work/nap" || true; }
now_ms() { echo $((${EPOCHREALTIME/[.,]/} / 1000)); }

hear() { # NAME
    local tries line=
    for ((tries = 0; tries < ANSWER_SECONDS * 2; tries++)); do
        # Out of time, `read` leaves the part of a line that has come so far.
        if IFS= read -r -t 0.5 -u "${out_of[$1]}" REPLY; then
            REPLY=$line$REPLY
            return 0
        fi
        line+=$REPLY
        kill -0 "${pid_of[$1]}" 2>/dev/null || { tail -n 20 "$work/$1.log"; fail "$1 has ended"; }
    done
    tail -n 20 "$work/$1.log"
    fail "$1 does not answer within $ANSWER_SECONDS s"
}

launch() { # NAME COMMAND...: as start, without waiting for a line
    local name=$1 in out
    shift
    [ -p "$work/nap" ] || mkfifo "$work/nap"
    rm -f "$work/$name".{in,out}
    mkfifo "$work/$name".{in,out}
    # Open for both directions: neither side waits for the other.
    exec {in}<>"$work/$name.in" {out}<>"$work/$name.out"
    in_of[$name]=$in out_of[$name]=$out
    "$@" <"$work/$name.in" >"$work/$name.out" 2>>"$work/$name.log" &
    pid_of[$name]=$!
}

start() { # NAME COMMAND...
    launch "$@"
    hear "$1"
    echo "$1: $REPLY"
}

ask() { # NAME LINE
    echo "$2" >&"${in_of[$1]}"
    hear "$1"
}

expect_answer() { # NAME LINE ANSWER
    ask "$1" "$2"
    [ "$REPLY" = "$3" ] || fail "$1 answers '$2' with '$REPLY' instead of '$3'"
}

signal() { # NAME SIGNAL
    kill "-$2" "${pid_of[$1]}"
}

# Ends a program by a signal and forgets it.
end_by() { # NAME SIGNAL
    signal "$1" "$2"
    wait "${pid_of[$1]}" || true
    unset "pid_of[$1]"
}

# Asks a program to end; its exit status must be 0.
stop() { # NAME LINE
    local status=0
    ask "$1" "$2"
    wait "${pid_of[$1]}" || status=$?
    unset "pid_of[$1]"
    [ "$status" = 0 ] || { tail -n 20 "$work/$1.log"; fail "the exit status of $1 is $status"; }
}

stop_all() {
    local name
    for name in "${!pid_of[@]}"; do kill -9 "${pid_of[$name]}" 2>/dev/null || true; done
}

# ---- passive peers and movers ----

# Port of a target that is to come back under the same name.
FIXED_PORT=15900

start_passive() { # NAME DEVICES [FLAG...]
    local name=$1 devices=$2
    shift 2
    start "$name" "$BIN/passive" --protocol="$TE_PROTOCOL" --device_name="$devices" "$@"
    SEGMENT=${REPLY#LISTENING }
    [ "$SEGMENT" != "$REPLY" ] || fail "$name says '$REPLY'"
}

start_mover() { # NAME DEVICES SEGMENT [FLAG...]
    local name=$1 devices=$2 segment=$3
    shift 3
    start "$name" "$BIN/mover" --protocol="$TE_PROTOCOL" --device_name="$devices" --segment="$segment" "$@"
    [[ $REPLY == MOVING* ]] || fail "$name says '$REPLY'"
}

# Fills the associative array `status` from a mover, and STATUS with its line.
read_status() { # NAME
    local pair
    ask "$1" status
    declare -gA status=()
    STATUS=$REPLY
    for pair in $REPLY; do status[${pair%%=*}]=${pair#*=}; done
}

# Waits until a mover's counter has grown by AMOUNT since its last reset or the last await; it takes less than SECONDS.
await() { # NAME COUNTER AMOUNT SECONDS
    local end=$(($(now_ms) + $4 * PATIENCE * 1000)) base
    read_status "$1"
    base=${status[$2]}
    while ((${status[$2]} - base < $3)); do
        (($(now_ms) < end)) || { ask "$1" why; echo "$1: $REPLY"; ask "$1" links; echo "$1: $REPLY"
            fail "within $(($4 * PATIENCE)) s only $((${status[$2]} - base)) of $3 more requests became $2 ($STATUS)"; }
        nap
        read_status "$1"
    done
}

# All that was counted since the last reset.
expect_clean() { # NAME
    read_status "$1"
    echo "$1: $STATUS"
    if ((status[failed] || status[refused])); then ask "$1" why; echo "$1: $REPLY"; fi
    ((status[wrong] == 0)) || fail "${status[wrong]} batches of $1 read back wrong bytes"
    ((status[failed] == 0)) || fail "${status[failed]} requests of $1 FAILED, and ${status[ok]} were COMPLETED"
    ((status[refused] == 0)) || fail "${status[refused]} requests of $1 were refused"
    ((status[ok] > 0)) || fail "$1 moved nothing"
}

# Bytes that went over NIC I so far, both directions.
wire_bytes() { # I
    local sent received
    read -r sent <"/sys/class/net/nic$1/statistics/tx_bytes"
    read -r received <"/sys/class/net/nic$1/statistics/rx_bytes"
    WIRE=$((sent + received))
}

# Waits until NIC I carries at least 1 MiB more than now.
await_traffic() { # I SECONDS
    local start end base
    start=$(now_ms) end=$((start + $2 * 1000))
    wire_bytes "$1"
    base=$WIRE
    while ((WIRE - base < 1 << 20)); do
        (($(now_ms) < end)) || fail "nic$1 carried only $((WIRE - base)) bytes within $2 s"
        nap
        wire_bytes "$1"
    done
    echo "nic$1 carries traffic after $(($(now_ms) - start)) ms"
}

#!/usr/bin/env bash
# Throughput over RDMA in the guest: this library, the released upstream and perftest's ib_*_bw in turn.
#
#   bench.sh [ROUNDS]     on the host: boots the guest and prints the table (3 rounds, about 10 minutes)
#
# Two processes on the NICs rxe0 and rxe1 (2 x 2: rxe0, rxe1 to rxe2, rxe3), one thread, batches of 16; ib_*_bw with one queue
# pair of its usual depth. Medians over the rounds. CPU is what the guest's processors did between start and end of the
# initiator, its start included. Emulated processors and NICs: the ratios mean something, the figures do not.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
SECONDS_EACH=5 BUFFER=67108864

if [ "${1:-}" != --in-guest ]; then
    out=$top/target/rxe/out/bench
    rm -rf "$out" && mkdir -p "$out"
    cd "$top" && bash tests/rxe/guest.sh -n 4 -t $((200 + ${1:-3} * 220)) -o "$out" -- \
        env LD_LIBRARY_PATH="$top/target/release" bash "$here/bench.sh" --in-guest "${1:-3}" >/dev/null 2>"$out/err" ||
        { echo "bench.sh: the guest ended with $?:"; cat "$out/err"; exit 1; }
    cat "$out/table"
    exit 0
fi

ROUNDS=$2
work=$(mktemp -d)
mkfifo "$work/nap"
nap() { read -r -t "$1" <>"$work/nap" || true; }
upstream=$(echo "$top"/target/venv/lib/python3*/site-packages/mooncake/transfer_engine_bench)
ours=$top/c_examples/bench

# Ticks (10 ms) that the processors worked so far.
busy() { awk '/^cpu /{print $2 + $3 + $4 + $7 + $8}' /proc/stat; }

# KEY MB_PER_SECOND TICKS BYTES: one result.
note() { echo "$*" >>"$work/results"; echo "$*" >&2; }

target=
start_target() { # PROGRAM DEVICES: sets SEGMENT
    : >"$work/target"
    "$1" --mode=target --metadata_server=P2PHANDSHAKE --local_server_name=127.0.0.1 --protocol=rdma --device_name="$2" \
        --buffer_size=$BUFFER >"$work/target" 2>&1 &
    target=$! SEGMENT=
    for _ in {1..300}; do
        SEGMENT=$(grep -oiE 'listening on 127.0.0.1:[0-9]+|LISTENING 127.0.0.1:[0-9]+' "$work/target" | grep -oE '127.0.0.1:[0-9]+' | head -n 1)
        [ -z "$SEGMENT" ] || break
        nap 0.1
    done
    # Upstream listens before its buffer is registered.
    nap 1
}

engine() { # KEY PROGRAM TARGET_DEVICES DEVICES OPERATION SIZE [FLAG...]
    local key=$1 program=$2 devices=$4 operation=$5 size=$6 before count rate
    start_target "$program" "$3"
    shift 6
    before=$(busy)
    timeout 60 "$program" --mode=initiator --metadata_server=P2PHANDSHAKE --local_server_name=127.0.0.1 --protocol=rdma \
        --device_name="$devices" --segment_id="$SEGMENT" --buffer_size=$BUFFER --duration=$SECONDS_EACH --report_unit=MB \
        --batch_size=16 --threads=1 --operation="$operation" --block_size="$size" "$@" >"$work/initiator" 2>&1
    read -r count rate < <(sed -nE 's/.*batch count ([0-9]+), throughput ([0-9.]+) MB\/s.*/\1 \2/p' "$work/initiator")
    note "$key" "${rate:-0}" $(($(busy) - before)) $((${count:-0} * 16 * size))
    kill $target && wait $target
}

perftest() { # KEY TOOL SIZE
    local count=$((200000000 / $3)) before mib
    ((count <= 12000)) || count=12000
    "$2" -d rxe1 -s "$3" -n $count -q 1 >/dev/null 2>&1 &
    target=$!
    nap 1
    before=$(busy)
    mib=$("$2" -d rxe0 -s "$3" -n $count -q 1 10.77.1.1 2>/dev/null | awk '$1 ~ /^[0-9]+$/ && NF >= 5 {print $4; exit}')
    note "$1" "$(awk -v mib="${mib:-0}" 'BEGIN {print mib * 1.048576}')" $(($(busy) - before)) $((count * $3))
    wait $target
}

median() { sort -n | awk '{v[NR] = $1} END {if (NR % 2) print v[(NR + 1) / 2]; else print (v[NR / 2] + v[NR / 2 + 1]) / 2}'; }

# "MB/s, CPU-s per GB" of a key.
cell() {
    local rate cpu
    rate=$(awk -v key="$1" '$1 == key {print $2}' "$work/results" | median)
    cpu=$(awk -v key="$1" '$1 == key && $4 > 0 {print $3 * 1e7 / $4}' "$work/results" | median)
    printf '%.1f, %.1f' "$rate" "${cpu:-0}"
}

for ((round = 0; round < ROUNDS; round++)); do
    for size in 4096 65536 1048576; do
        for operation in write read; do
            engine "ours-$operation-$size" "$ours" rxe1 rxe0 $operation $size
            perftest "perftest-$operation-$size" ib_${operation}_bw $size
            engine "upstream-$operation-$size" "$upstream" rxe1 rxe0 $operation $size
        done
    done
    engine ours-write-two "$ours" rxe2,rxe3 rxe0,rxe1 write 65536
    engine ours-write-sleeping "$ours" rxe1 rxe0 write 65536 --wait=sleep
    engine upstream-write-two "$upstream" rxe2,rxe3 rxe0,rxe1 write 65536
done
{
    echo "MB/s, CPU-seconds per GB; medians of $ROUNDS"
    echo
    echo "| | this library | upstream | ib_*_bw | of ib_*_bw |"
    echo "|---|---|---|---|---|"
    for size in 4096 65536 1048576; do
        for operation in write read; do
            key=$operation-$size
            share=$(awk -v a="$(cell "ours-$key")" -v b="$(cell "perftest-$key")" 'BEGIN {printf "%.0f %%", 100 * a / b}')
            echo "| $operation $((size / 1024)) KiB | $(cell "ours-$key") | $(cell "upstream-$key") | $(cell "perftest-$key") | $share |"
        done
    done
    echo "| write 64 KiB, 2 x 2 NICs | $(cell ours-write-two) | $(cell upstream-write-two) | | |"
    echo "| write 64 KiB, sleeping between polls | $(cell ours-write-sleeping) | | | |"
    echo
    echo "Every run: key, MB/s, ticks, bytes"
    sed 's/^/    /' "$work/results"
} >/out/table

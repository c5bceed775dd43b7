#!/usr/bin/env bash
# The demo: two processes on this host. The target registers memory and announces itself; the initiator moves data to and from it.
#
#     demo.sh [FLAG OF THE TARGET... -- FLAG OF THE INITIATOR...]
set -euo pipefail
cd "$(dirname "$0")/.."
limit=60 # seconds; a hang is a failure, not a wait

target_flags=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do target_flags+=("$1"); shift; done
[ $# -eq 0 ] || shift
prefixed() { while IFS= read -r line; do printf '[%s] %s\n' "$1" "$line"; done; }

exec {output}< <(exec timeout "$limit" c_examples/target "${target_flags[@]}" 2>&1)
target=$!
trap 'kill "$target" 2>/dev/null || true' EXIT

segment=
while [ -z "$segment" ] && IFS= read -r -t "$limit" -u "$output" line; do
    printf '[target] %s\n' "$line"
    case $line in "LISTENING "*) segment=${line#LISTENING } ;; esac
done
if [ -z "$segment" ]; then
    echo "demo: the target ended, or said nothing for $limit s, before its LISTENING line" >&2
    exit 1
fi
prefixed target <&"$output" &
printer=$!

initiator_status=0
timeout "$limit" c_examples/initiator "$@" "$segment" 2>&1 | prefixed initiator || initiator_status=$?

# The target ends by itself once the initiator has told it so; after a failure nobody will.
[ "$initiator_status" = 0 ] || kill "$target" 2>/dev/null || true
target_status=0
wait "$target" || target_status=$?
wait "$printer"

echo "demo: initiator exit status $initiator_status, target exit status $target_status"
[ "$initiator_status" = 0 ] && [ "$target_status" = 0 ]

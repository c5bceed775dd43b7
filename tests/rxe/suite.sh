#!/usr/bin/env bash
# Runs one group of RDMA cases. It is started by guest.sh, in a guest whose devices and network it may break.
#
#   suite.sh GROUP [CASE...]     runs all cases of groups/GROUP.sh, or the named ones
#   suite.sh --list GROUP        prints the names of the cases; needs no guest
#
# A group file sets NICS (devices that it needs), LIMIT (seconds for one case), optionally CASES (their order), and defines
# each case as a function case_<name>, which fails by `fail WHY` or by any command that fails.
# Prints "ok NAME" or "FAILED NAME: WHY" for each case, and the log of those that failed. Logs stay in /out.
# TE_PROTOCOL=tcp and BIN serve to try the programs on another transport and from another folder.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
export BIN=${BIN:-$top/target/rxe/bin} TE_PROTOCOL=${TE_PROTOCOL:-rdma}

load() { # GROUP
    [ -f "$here/groups/$1.sh" ] || { echo "suite.sh: no group $1" >&2; exit 2; }
    LIMIT=60 CASES=()
    . "$here/guest/nics.sh"
    . "$here/lib.sh"
    . "$here/groups/$1.sh"
    [ ${#CASES[@]} -gt 0 ] || mapfile -t CASES < <(declare -F | sed -n 's/^declare -f case_//p')
}

# What the processes of a case that is stuck are doing.
describe() { # SESSION
    local pid
    echo "--- out of time after $LIMIT s; its processes:"
    for pid in $(ps -o pid= -s "$1"); do
        ps -o pid=,args= -p "$pid"
        ps -L -o tid=,stat=,wchan:24=,comm= -p "$pid"
        # Attaching to a process that waits in the kernel would not return.
        if command -v gdb >/dev/null && ! ps -L -o stat= -p "$pid" | grep -q D &&
            [ "$(readlink "/proc/$pid/exe")" != "$(readlink -f "$BASH")" ]; then
            timeout -s KILL 60 gdb -p "$pid" -batch -ex 'thread apply all bt 14' 2>/dev/null | grep -E '^(Thread|#)'
        fi
    done
}

end_session() { # SESSION
    local left tries
    for ((tries = 0; tries < 100; tries++)); do
        left=$(ps -o pid= -s "$1")
        [ -n "$left" ] || return 0
        kill -9 $left 2>/dev/null
        read -r -t 0.1 <>"$pause"
    done
    echo "processes that cannot be ended: $left"
}

run_case() { # GROUP NAME
    local log=/out/$2.log session status started=$SECONDS
    setsid bash -c '"$@"; echo $? >"$0"' "$finished" bash "$here/suite.sh" --one "$1" "$2" >"$log" 2>&1 </dev/null &
    session=$!
    if ! read -r -t "$LIMIT" status <>"$finished"; then
        describe "$session" >>"$log"
        status=stuck
    fi
    echo "--- took $((SECONDS - started)) s" >>"$log"
    { end_session "$session" && heal; } >>"$log" 2>&1 || status="$status, and the network could not be repaired"
    if [ "$status" = 0 ]; then
        echo "ok $2 ($((SECONDS - started)) s)"
    else
        failures=$((failures + 1))
        echo "FAILED $2: $(sed -n 's/^failed because //p; s/^failed at //p' "$log" | tail -n 1) [$status]"
        tail -n 60 "$log" | sed 's/^/    | /'
    fi
}

case $1 in
--list)
    load "$2"
    printf '%s\n' "${CASES[@]}"
    ;;
--nics)
    load "$2"
    echo "$NICS"
    ;;
--one)
    load "$2"
    set -eE
    trap 'echo "failed at line $LINENO of ${BASH_SOURCE[0]##*/}: $BASH_COMMAND"' ERR
    work=$(mktemp -d)
    "case_$3"
    stop_all
    ;;
*)
    load "$1"
    group=$1 failures=0
    shift
    work=$(mktemp -d) finished=$work/finished pause=$work/pause
    mkfifo "$finished" "$pause"
    for name in "${@:-${CASES[@]}}"; do run_case "$group" "$name"; done
    echo "$group: $failures failed"
    [ "$failures" = 0 ]
    ;;
esac

# The transport's promises to its callers: every case of conform.c and calls.c. Two NICs, one on each side.
NICS=2 LIMIT=450

program() { # PROGRAM CASE [FLAG...]
    local name=$1 case=$2
    shift 2
    "$BIN/$name" --protocol="$TE_PROTOCOL" "$@" "$case" || fail "$name $case fails"
}

for name in conform calls; do
    for case in $("$BIN/$name" --list); do
        eval "case_$case() { program $name $case; }"
        CASES+=("$case")
    done
done

# Both sides on one device: packets never leave it.
for case in sizes batches threads_share_an_engine remote_region_gone; do
    [[ $case = remote* ]] && name=calls || name=conform
    eval "case_one_device_$case() { program $name $case --peer_device_name=rxe0; }"
    CASES+=("one_device_$case")
done

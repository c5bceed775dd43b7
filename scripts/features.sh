#!/usr/bin/env bash
# Builds the library and its program without each default feature, and without all of them, warnings denied.
#
#   features.sh FLAGS OF CARGO...
set -euo pipefail
cd "$(dirname "$0")/.."
features=($(sed -n 's/^default = \[\(.*\)\]/\1/p' Cargo.toml | tr -d '",'))
[ ${#features[@]} -gt 0 ] || { echo "features.sh: Cargo.toml has no line of default features" >&2; exit 1; }

check() { # FEATURES
    echo "cargo clippy --no-default-features --features '$1'"
    cargo clippy "${flags[@]}" --lib --bins --no-default-features --features "$1" -- -D warnings
}

flags=("$@")
check ''
for without in "${features[@]}"; do
    rest=()
    for feature in "${features[@]}"; do [ "$feature" = "$without" ] || rest+=("$feature"); done
    check "${rest[*]}"
done

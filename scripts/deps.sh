#!/usr/bin/env bash
# Installs what this machine lacks (apt, rustup, PyPI). Says nothing when nothing is missing.
#
#   deps.sh         what `make build` and `make demo` need
#   deps.sh test    also what only `make test` and the benchmarks beside upstream need
#   deps.sh bench   also what only the benchmarks need
#   deps.sh docs    what `make docs` needs, and nothing else
#   deps.sh wheel   also what only `make wheel` needs
#   deps.sh fuzz    also what only `make fuzz` needs
#   deps.sh release also what only `make abi` and `make dist` need
#
# Every need is tried: compiled, linked, loaded or started, because the neighbour of a missing file proves nothing. What
# fails is named with its error, the reason it is needed and its Debian package; after the installation it is tried again.
# Exit status 1: something still does not work, or cannot be installed without root.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=${CARGO_HOME:-$HOME/.cargo}/bin:$PATH:/usr/sbin:/sbin
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
. scripts/deps/engine.sh
case "${1:-}" in
docs) . scripts/deps/docs.sh ;;
*) . scripts/deps/build.sh ;;
esac
case "${1:-}" in test | wheel | bench | fuzz | release) . "scripts/deps/$1.sh" ;; esac
satisfy

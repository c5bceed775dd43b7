#!/usr/bin/env bash
# Builds the wheels with a given library and program, and installs them in target/python-tests/venv, where the tests run.
#
#   prepare.sh LIBRARY MTE
#
# Idempotent, and safe to run several times at once: tests/python.rs calls it for each test file.
set -euo pipefail
cd "$(dirname "$0")/../.."
tests=target/python-tests
tools=target/pyvenv
mkdir -p "$tests"
exec 9>"$tests/lock"
flock 9

# What the tests themselves write while they run beside each other must not count.
made=$(find python/mooncake-te* python/hatch_build.py scripts/wheel.sh Cargo.toml "$1" "$2" "$tools"/.build "$tools"/.test \
    -type f -not -path '*/__pycache__/*' -printf '%p %s %T@\n' | sort | sha256sum)
[ "$(cat "$tests/made" 2>/dev/null)" != "$made" ] || exit 0
rm -rf "$tests/made" "$tests/venv" "$tests/wheels"
scripts/wheel.sh "$1" "$2" "$tests/wheels" >/dev/null
"$tools/bin/python" -m venv --without-pip "$tests/venv"
"$tools/bin/python" -m pip --python "$tests/venv/bin/python" --disable-pip-version-check --quiet install --no-index --find-links "$tests/wheels" mooncake-te-compat
# The tests' tools are not installed again: their folder comes after the wheels'. A plain folder, so nothing of ours is taken from there.
site=$(echo "$PWD/$tests"/venv/lib/python3*/site-packages)
echo "$PWD/$tools"/lib/python3*/site-packages >"$site/zz_tools.pth"
echo "$made" >"$tests/made"

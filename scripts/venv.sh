#!/usr/bin/env bash
# Makes target/venv with the released upstream wheel: the interoperation tests and the benchmark need a real peer.
# Idempotent: the stamp carries the version and is written last, so an interrupted run starts over.
set -euo pipefail
cd "$(dirname "$0")/.."
version=0.3.13.post1
venv=target/venv
# The stores tests run the metadata server of the wheel, which needs this.
aiohttp=3.13.2
stamp=$venv/.upstream-$version-aiohttp-$aiohttp

# The wheel is built for CPython 3.10 to 3.13 only, and Debian splits ensurepip (which venv needs) off python3.
find_python() {
    local p
    for p in python3 python3.13 python3.12 python3.11 python3.10; do
        if "$p" -c 'import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
            echo "$p"
            return
        fi
    done
    echo "venv.sh: no Python 3.10 to 3.13 with venv support found: run 'make test-deps' (it installs python3-venv)" >&2
    return 1
}

case "${1:-}" in
--check) find_python >/dev/null ; exit ;; # for deps.sh
esac

[ -e "$stamp" ] && "$venv/bin/python" -c '' 2>/dev/null && exit 0
python=$(find_python)
mkdir -p target
"$python" -m venv --clear "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check "aiohttp==$aiohttp"
# --no-deps: what the wheel asks for (requests, …) serves its store, not the transfer engine. Last, or pip misses that.
"$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps "mooncake-transfer-engine-non-cuda==$version"
"$venv/bin/python" -c 'from mooncake.engine import TransferEngine' # fails here, with the missing library's name, rather than in a test
touch "$stamp"

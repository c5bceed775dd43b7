#!/usr/bin/env bash
# Asks cargo-deny about the dependencies, known vulnerabilities included, where it is installed and their list can be had;
# what works without it is tests/dependencies.rs.
set -euo pipefail
cd "$(dirname "$0")/.."
skip() { echo "SKIP known vulnerabilities of dependencies: $*"; exit 0; }

cargo deny --version >/dev/null 2>&1 || skip "cargo-deny is not installed"
cargo deny --locked check bans licenses sources
cargo deny --locked fetch db >/dev/null 2>&1 || skip "their list cannot be fetched"
cargo deny --locked check --disable-fetch advisories

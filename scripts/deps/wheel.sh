# Sourced by deps.sh: what only `make wheel` needs.

try_pip() { scripts/pyvenv.sh --check; }
need pip "python3 python3-venv" - "building the Python wheels"

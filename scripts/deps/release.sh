# Sourced by deps.sh: what only releases need (`make abi`, `make dist`), and their test.

try_abigail() { abidw --version >/dev/null && abidiff --version >/dev/null; }
need abigail abigail-tools cc "the comparison of the C interface with the last release"

try_tomllib() { python3 -c 'import tomllib'; }
need tomllib python3 - "the list of what is shipped (Python 3.11 or later)"

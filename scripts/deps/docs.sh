# Sourced by deps.sh: what `make docs` needs.

try_docs_python() { scripts/docs/build.sh --check; }
need docs_python "python3 python3-venv" - "MkDocs, which PyPI brings"

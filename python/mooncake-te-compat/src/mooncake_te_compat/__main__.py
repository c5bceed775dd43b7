"""`python -m mooncake_te_compat`: prints which mooncake.engine is imported here."""

import importlib

from ._finder import NAME, _same


def main() -> None:
    module = importlib.import_module(NAME)
    ours = _same(module.__file__)
    print(f"{NAME} is {'mooncake-te-compat' if ours else 'upstream'}'s: {module.__file__}")


if __name__ == "__main__":
    main()

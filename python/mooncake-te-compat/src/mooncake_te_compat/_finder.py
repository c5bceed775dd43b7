"""Looks on when `mooncake.engine` is imported: warns if there are two of them, and chooses if the environment says so.

It finds nothing by itself otherwise: `mooncake/engine.py` is an ordinary file in a folder without __init__.py. Upstream's files
have other names (engine.so, __init__.py), so neither package ever overwrites the other's, and removing one leaves the other
whole. Where both are there, Python prefers upstream's: a folder with __init__.py wins, and in one folder, .so wins over .py.
"""

from __future__ import annotations

import os
import sys

# Only for type checkers: this file is imported at every start of the interpreter.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

NAME = "mooncake.engine"
SWITCH = "MOONCAKE_ENGINE"
OURS, UPSTREAMS = "mooncake-te", "upstream"
OWN_FILE = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "mooncake", "engine.py")


class Finder:
    """On sys.meta_path before the others, for one name."""

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """None: the import goes on as if this finder were not there."""
        if name != NAME:
            return None
        return choose(path)


def choose(path: Sequence[str] | None) -> ModuleSpec | None:
    from importlib.machinery import PathFinder
    from importlib.util import spec_from_file_location

    found = PathFinder.find_spec(NAME, path)
    wanted = os.environ.get(SWITCH, "")
    theirs = found is not None and not _same(found.origin)
    if wanted not in ("", OURS, UPSTREAMS):
        warn(f"{SWITCH}={wanted} means nothing; {OURS} and {UPSTREAMS} do")
    if wanted == UPSTREAMS and not theirs:
        raise ImportError(f"{SWITCH}={UPSTREAMS}, but upstream's {NAME} is not installed; unset it to use mooncake-te-compat's", name=NAME)
    if wanted == OURS:
        return spec_from_file_location(NAME, OWN_FILE)
    if theirs and wanted != UPSTREAMS and found is not None:
        warn(
            f"two packages provide {NAME}. Upstream's is used: {found.origin}. mooncake-te-compat's is not. "
            f"Uninstall one of them, or set {SWITCH}={OURS} or {SWITCH}={UPSTREAMS} before the import."
        )
    return None


def _same(origin: str | None) -> bool:
    return origin is not None and os.path.realpath(origin) == os.path.realpath(OWN_FILE)


def warn(text: str) -> None:
    import warnings

    # The place of the import is behind several frames of the import system, which warnings does not count.
    warnings.warn(text, RuntimeWarning, stacklevel=2 if sys.version_info < (3, 12) else 3)

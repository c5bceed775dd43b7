"""The console script `mte`: becomes the program of that name inside the wheel."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def main() -> None:
    program = Path(__file__).with_name("bin") / "mte"
    if not program.exists():
        sys.exit(f"mte: {program} is missing: this wheel was built without it")
    if not os.access(program, os.X_OK):  # some installers drop the bit
        try:
            program.chmod(program.stat().st_mode | 0o555)
        except OSError as error:
            sys.exit(f"mte: {program} may not be executed, and that cannot be changed: {error}")
    os.execv(program, [str(program), *sys.argv[1:]])

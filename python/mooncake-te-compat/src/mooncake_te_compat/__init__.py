"""`mooncake.engine` over mooncake_te, and what happens where upstream's package is installed as well.

Upstream's is used then, with a warning; MOONCAKE_ENGINE=mooncake-te chooses this one, MOONCAKE_ENGINE=upstream silences the
warning. `python -m mooncake_te_compat` says which one it is. This file is run at every start of the interpreter (by the
.pth file beside it), so it imports next to nothing.
"""

import sys

from ._finder import Finder

if not any(isinstance(finder, Finder) for finder in sys.meta_path):
    sys.meta_path.insert(0, Finder())

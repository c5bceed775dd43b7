"""Called by MkDocs while it builds: the pages of functions take their bodies from headers and sources."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "scripts", "docs"))
import page as generated  # noqa: E402


def on_page_markdown(markdown, page, **_):
    return generated.fill(page.file.src_uri, markdown)

"""Called by MkDocs while it builds: the page of C functions takes its body from the headers, so that it cannot go stale."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "scripts"))
import docs_api  # noqa: E402


def on_page_markdown(markdown, page, **_):
    return docs_api.fill(markdown) if page.file.src_uri == docs_api.PAGE else markdown

"""What the generators of pages share: text that is safe in Markdown, tables, links to headings."""

import os
import re

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def read(*path):
    with open(os.path.join(TOP, *path), encoding="utf-8") as file:
        return file.read()


def words(comment):
    """The text of a C comment without its stars, paragraphs kept."""
    lines = [re.sub(r"^\s*\* ?", "", line).rstrip() for line in comment.strip().splitlines()]
    return "\n".join(lines).strip()


def flat(text):
    return " ".join(text.split())


def escaped(text, known=()):
    """`text` as Markdown: what a parser would take for its own is escaped, and names that have a heading are links."""
    parts = text.split("`")
    for i in range(0, len(parts), 2):
        part = re.sub(r"([\\*<>\[\]|#]|(?<!\w)_|_(?!\w))", r"\\\1", parts[i])
        parts[i] = re.sub(r"\w[\w\\]*\w", lambda name: linked(name[0], known), part)
    for i in range(1, len(parts), 2):
        parts[i] = linked(parts[i], known) if parts[i] in known else code(parts[i])
    return "".join(parts)


def code(text):
    return f"`{text}`".replace("|", "\\|")


def linked(name, known):
    plain = name.replace("\\", "")
    return f"[`{plain}`](#{plain.lower()})" if plain in known else name


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return lines + ["| " + " | ".join(row) + " |" for row in rows] + [""]

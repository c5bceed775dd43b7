"""The C++ classes by member, from the headers in include/: declarations without bodies, with the comments before them."""

import re
import textwrap

from marks import code, escaped, flat, read, table, words

# Header, and the classes of it that programs use.
CLASSES = [
    ("transfer_engine.h", ["TransferEngine"]),
    ("transfer_engine/scoped.h", ["ScopedBatch", "ScopedRegistration", "ScopedSharedMemory", "ScopedSegment"]),
    ("transfer_engine/detail/scatter.h", ["ScatterTransferRange", "ScatterTransferOperation"]),
    ("transport/transport.h", ["Transport"]),
    ("transfer_metadata.h", ["TransferMetadata"]),
    ("topology.h", ["Topology"]),
    ("common/base/status.h", ["Status"]),
]
TOKEN = re.compile(r"/\*\*(?P<doc>.*?)\*/|/\*.*?\*/|//[^\n]*|^\s*#[^\n]*|\"(?:\\.|[^\"\\])*\"|(?P<mark>[{};:()])|[^{};:()\"/#\n]+|.", re.S | re.M)
# Members that every class has, that only the headers use among themselves, or that there are one of for each code.
UNINTERESTING = re.compile(
    r"= (delete|default)|^~|^virtual ~|\boperator\b|^friend\b|^using\b|^static constexpr\b|&&other\)|shared_ptr<(detail::)?Handle>"
    r"|^\[\[nodiscard\]\] bool Is|^static Status \w+\(std::string_view text\)"
)
TYPE = re.compile(r"^(struct|enum|class)\b")


def body_end(text, at):
    """The place behind the brace that closes the one before `at`."""
    depth = 1
    for token in TOKEN.finditer(text, at):
        depth += {"{": 1, "}": -1}.get(token["mark"], 0)
        if depth == 0:
            return token.end()
    raise SystemExit("a brace is not closed")


def signature(declaration):
    """A declaration on one line, without what follows a constructor's parentheses."""
    one = flat(declaration)
    return re.split(r"(?<=[)\w]) : (?=\w+[({])", one)[0].replace("virtual ", "")


def dedented(source):
    return textwrap.dedent("    " + source).rstrip()


def members(text, at):
    """(declaration, comment, whole text if it is a type) of what is public in the class whose brace is before `at`."""
    found, declaration, doc, hidden, depth = [], "", "", False, 0
    end = body_end(text, at)
    while at < end - 1:
        token = TOKEN.match(text, at)
        at = token.end()
        mark = token["mark"]
        if token["doc"] is not None:
            doc = words(token["doc"])
        elif token[0].startswith(("/*", "//")) or token[0].lstrip().startswith("#"):
            continue
        elif mark == ":" and declaration.strip() in ("public", "private", "protected"):
            hidden, declaration = declaration.strip() != "public", ""
        elif depth == 0 and mark in (";", "{"):
            begin = at
            if mark == "{":
                at = body_end(text, at)
            kept = signature(declaration)
            whole = dedented(declaration.lstrip() + text[begin - 1 : at] + ";") if TYPE.match(kept) else ""
            # Behind a type's or an initialiser's brace the declaration goes on to the semicolon.
            if kept and not hidden and not UNINTERESTING.search(kept):
                found.append((kept, doc, whole))
            declaration, doc = "", ""
        else:
            depth += {"(": 1, ")": -1}.get(mark, 0)
            declaration += token[0]
    return found


def render():
    lines = []
    for header, names in CLASSES:
        text = read("include", header)
        for name in names:
            head = re.search(r"(?:/\*\*(?P<doc>(?:(?!\*/).)*)\*/\s*)?^(?:class|struct) " + name + r"\b[^;{]*\{", text, re.S | re.M)
            if head is None:
                raise SystemExit(f"include/{header} has no class {name}")
            lines += [f"### {name}", "", f"In `{header}`. {escaped(words(head['doc'] or ''))}".rstrip(), ""]
            found = members(text, head.end())
            for _, doc, whole in found:
                if whole:
                    lines += ([escaped(doc), ""] if doc else []) + ["```cpp", whole, "```", ""]
            lines += table(("member", "what it does"), [(code(declaration), flat(escaped(doc))) for declaration, doc, whole in found if not whole])
    return "\n".join(lines)

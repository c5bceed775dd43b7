"""The Python API: classes and methods of mooncake_te, and the methods of mooncake.engine, from their sources."""

import ast
import glob
import os

from marks import TOP, code, escaped, flat, read, table

NATIVE = os.path.join("python", "mooncake-te", "src", "mooncake_te")
COMPATIBLE = os.path.join("python", "mooncake-te-compat", "src", "mooncake_te_compat")


def public(name):
    return not name.startswith("_") or name == "__init__"


def doc(node):
    return flat(escaped(ast.get_docstring(node) or ""))


def signature(function, name=None):
    arguments = ast.unparse(function.args).removeprefix("self, ").removeprefix("self")
    kinds = {ast.unparse(kind) for kind in function.decorator_list}
    if "property" in kinds:
        arguments = None
    returned = f" -> {ast.unparse(function.returns)}" if function.returns and name is None and ast.unparse(function.returns) != "None" else ""
    return code(f"{name or function.name}" + (f"({arguments})" if arguments is not None else "") + returned)


def methods(node):
    return [item for item in node.body if isinstance(item, ast.FunctionDef) and public(item.name)]


def fields(node):
    return [item for item in node.body if isinstance(item, ast.AnnAssign) or isinstance(item, ast.Assign)]


def is_exception(node):
    return node.name.endswith("Error")


def described(node):
    lines = [f"#### {node.name}", "", doc(node), ""]
    rows = [(signature(function), doc(function)) for function in methods(node) if function.name != "__init__"]
    constructor = [(signature(function, node.name), "") for function in methods(node) if function.name == "__init__" and node.name == "Engine"]
    data = [code(ast.unparse(item)) for item in fields(node) if not ast.unparse(item).startswith("_")]
    if data:
        lines += ["Members: " + ", ".join(data) + ".", ""]
    return lines + (table(("member", "what it does"), constructor + rows) if rows else [])


def exceptions(nodes):
    rows = [(code(node.name), ", ".join(code(ast.unparse(base)) for base in node.bases), doc(node)) for node in nodes]
    return ["#### Exceptions", ""] + table(("exception", "is a", "when"), rows)


def definitions(folder):
    """Classes and functions of a package, by name."""
    nodes = {}
    for path in sorted(glob.glob(os.path.join(TOP, folder, "*.py"))):
        for node in ast.parse(read(path)).body:
            if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
                nodes.setdefault(node.name, node)
    return nodes


def native():
    """In the order of importance; what __init__.py imports from a module is looked up there."""
    chosen = {}
    for statement in ast.parse(read(NATIVE, "__init__.py")).body:
        if isinstance(statement, ast.ImportFrom) and statement.level == 1:
            module = {node.name: node for node in ast.parse(read(NATIVE, statement.module + ".py")).body if hasattr(node, "name")}
            chosen.update({alias.name: module[alias.name] for alias in statement.names if alias.name in module and alias.asname is None})
    order = sorted(chosen.values(), key=lambda node: (not isinstance(node, ast.ClassDef), node.name != "Engine", node.name != "Segment", node.name != "Batch", node.name))
    lines = ["### mooncake_te", ""]
    for node in filter(lambda node: not is_exception(node), order):
        lines += described(node) if isinstance(node, ast.ClassDef) else [f"#### {node.name}", "", signature(node), "", doc(node), ""]
    return lines + exceptions(sorted(filter(is_exception, order), key=lambda node: (node.name != "TransferEngineError", node.name)))


def with_bases(name, nodes):
    """A class and, after it, those of the same package that it is made of."""
    if name not in nodes:
        return []
    return [nodes[name]] + [node for base in nodes[name].bases for node in with_bases(ast.unparse(base), nodes)]


def compatible():
    lines = ["### mooncake.engine", "", "The methods of `TransferEngine`, with Mooncake's names, arguments and results:", ""]
    found = {}
    for node in with_bases("TransferEngine", definitions(COMPATIBLE)):
        for function in methods(node):
            if function.name != "__init__":
                found.setdefault(function.name, function)
    return lines + table(("method", "what it does"), [(signature(function), doc(function)) for function in found.values()])


def render():
    return "\n".join(native() + compatible())

"""The Python API: classes and methods of mooncake_te from its source, and the methods of mooncake.engine from its stub."""

import ast
import glob
import os

from markdown import TOP, code, escaped, flat, read, table

NATIVE = os.path.join("python", "mooncake-te", "src", "mooncake_te")
STUB = os.path.join("python", "mooncake-te-compat", "src", "mooncake-stubs", "engine.pyi")


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


def described(node):
    lines = [f"#### {node.name}", "", doc(node), ""]
    bases = [ast.unparse(base) for base in node.bases if ast.unparse(base) not in ("NamedTuple", "enum.IntEnum")]
    if bases:
        lines[2:2] = ["A " + ", ".join(code(base) for base in bases) + ".", ""]
    rows = [(code(ast.unparse(item)), "") for item in fields(node) if not ast.unparse(item).startswith("_")]
    for function in methods(node):
        if function.name == "__init__":
            rows.insert(0, (signature(function, node.name), "")) if node.name == "Engine" else None
        else:
            rows.append((signature(function), doc(function)))
    is_exception = "Error" in node.name and node.name != "TransferEngineError"
    return lines + (table(("member", "what it does"), rows) if rows and not is_exception else [])


def native():
    nodes = {}
    for path in sorted(glob.glob(os.path.join(TOP, NATIVE, "*.py"))):
        for node in ast.parse(read(path)).body:
            if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
                nodes.setdefault(node.name, node)
    exported = next(ast.literal_eval(node.value) for node in ast.parse(read(NATIVE, "__init__.py")).body if ast.unparse(node).startswith("__all__"))
    order = sorted(exported, key=lambda name: (name.endswith("Error") or name == "ErrorClass", name != "Engine", name != "Segment", name != "Batch", name))
    lines = ["### mooncake_te", ""]
    for node in (nodes[name] for name in order if name in nodes):
        lines += described(node) if isinstance(node, ast.ClassDef) else [f"#### {node.name}", "", signature(node), "", doc(node), ""]
    return lines


def compatible():
    lines = ["### mooncake.engine", "", "The methods of `TransferEngine`, with Mooncake's names, arguments and results:", ""]
    engine = next(node for node in ast.parse(read(STUB)).body if isinstance(node, ast.ClassDef) and node.name == "TransferEngine")
    return lines + table(("method",), [(signature(function),) for function in methods(engine) if function.name != "__init__"])


def render():
    return "\n".join(native() + compatible())

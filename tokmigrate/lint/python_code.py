"""What the code of a Python migration asks of the world around it, seen in its syntax; nothing is run."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from tokmigrate.lint.file import Place

_READING = frozenset({"open", "read_text", "read_bytes", "readlines", "iterdir", "glob", "rglob", "listdir", "scandir"})
_WORLD = frozenset({"random", "secrets", "uuid", "time", "socket", "subprocess", "urllib", "http", "requests", "httpx"})
_ASKING = frozenset({"environ", "getenv", "now", "today", "utcnow", "urandom", "system", "popen", "gethostname"})
_ORDERING = frozenset({"list", "tuple", "enumerate", "iter", "zip", "map", "join", "dict"})


@dataclass(frozen=True)
class Spot:
    """A piece of code.

    Args:
        place: Where it is.
        what: It, or the name in it that matters.
        texts: The texts in it.
    """

    place: Place
    what: str
    texts: frozenset[str] = frozenset()


def outside_reads(source: str) -> Iterator[Spot]:
    """Yield each call that reads a file or a directory."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and _last_name(node.func) in _READING:
            texts = frozenset(
                part.value for part in ast.walk(node) if isinstance(part, ast.Constant) and isinstance(part.value, str)
            )
            yield Spot(_place(node), f"`{ast.unparse(node.func)}`", texts)


def world_reads(source: str) -> Iterator[Spot]:
    """Yield each use of something that is not the same at another time or on another machine."""
    module = ast.parse(source)
    names = dict(_names_of_the_world(module))
    for node in ast.walk(module):
        if isinstance(node, ast.Attribute) and (node.attr in _ASKING or _first_name(node) in names):
            if not isinstance(node.value, ast.Attribute) or node.attr in _ASKING:
                yield Spot(_place(node), f"`{ast.unparse(node)}`")
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {*names, "input"}:
            yield Spot(_place(node), f"`{node.func.id}`")


def set_orders(source: str) -> Iterator[Spot]:
    """Yield each piece of code that takes the members of a set one after the other."""
    module = ast.parse(source)
    sets = {
        target.id
        for node in ast.walk(module)
        if isinstance(node, ast.Assign) and _is_set(node.value, frozenset())
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(module):
        if isinstance(node, ast.Call) and _last_name(node.func) in _ORDERING:
            used: list[ast.expr] = node.args
        elif isinstance(node, ast.For | ast.comprehension):
            used = [node.iter]
        elif isinstance(node, ast.Starred):
            used = [node.value]
        else:
            continue
        for part in used:
            if _is_set(part, frozenset(sets)):
                yield Spot(_place(part), f"`{ast.unparse(part)}`")


def imported_modules(source: str) -> Iterator[Spot]:
    """Yield each import of a module that comes neither with Python nor with tokmigrate."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = ["." * node.level + (node.module or "")]
        else:
            continue
        for name in names:
            top = name.split(".")[0]
            if top not in sys.stdlib_module_names and top != "tokmigrate":
                yield Spot(_place(node), f"'{name}'")


def _names_of_the_world(module: ast.Module) -> Iterator[tuple[str, str]]:
    """Yield the names under which a file knows modules of the world, and what it takes out of them."""
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] in _WORLD or alias.name == "numpy.random":
                    yield alias.asname or alias.name.split(".")[0], alias.name
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                if node.module.split(".")[0] in _WORLD or (node.module == "os" and alias.name in _ASKING):
                    yield alias.asname or alias.name, f"{node.module}.{alias.name}"


def _is_set(node: ast.expr, names: frozenset[str]) -> bool:
    if isinstance(node, ast.BinOp):
        return _is_set(node.left, names) or _is_set(node.right, names)
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id in {"set", "frozenset"}
    return isinstance(node, ast.Set | ast.SetComp) or (isinstance(node, ast.Name) and node.id in names)


def _last_name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _first_name(node: ast.expr) -> str:
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def _place(node: ast.expr | ast.stmt) -> Place:
    return Place(node.lineno, node.col_offset + 1)

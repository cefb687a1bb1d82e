"""What the code of a Python migration asks of the world around it, seen in its syntax; nothing is run."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tokmigrate.lint.subjects import Location

_READING = frozenset({"open", "read_text", "read_bytes", "readlines", "iterdir", "glob", "rglob", "listdir", "scandir"})
_WORLD = frozenset({"random", "secrets", "uuid", "time", "socket", "subprocess", "urllib", "http", "requests", "httpx"})
_ASKING = frozenset(
    {"argv", "cpu_count", "cwd", "environ", "getcwd", "getenv", "gethostname", "getpid", "home", "now", "platform"}
    | {"popen", "random", "system", "today", "uname", "urandom", "utcnow"}
)
_BUILT_IN = frozenset({"hash", "id", "input"})
_ORDERING = frozenset({"list", "tuple", "enumerate", "iter", "zip", "map", "join", "dict"})


@dataclass(frozen=True)
class CodeUse:
    """A piece of code, what of it matters, and the texts in it and in what its names stand for."""

    location: Location
    what: str
    texts: frozenset[str] = frozenset()


def outside_reads(source: str) -> Iterator[CodeUse]:
    """Yield each call that reads a file or a directory."""
    module = ast.parse(source)
    meanings = _meanings(module)
    for node in ast.walk(module):
        if isinstance(node, ast.Call) and _last_name(node.func) in _READING:
            yield CodeUse(_location(node), f"`{ast.unparse(node.func)}`", frozenset(_texts(node, meanings, set())))


def world_reads(source: str) -> Iterator[CodeUse]:
    """Yield each use of something that is not the same at another time or on another machine."""
    module = ast.parse(source)
    yield from _world_uses(module, frozenset(_names_of_the_world(module)))


def set_orders(source: str) -> Iterator[CodeUse]:
    """Yield each piece of code that takes the members of a set one after the other."""
    module = ast.parse(source)
    meanings = _meanings(module).items()
    sets = frozenset(name for name, values in meanings if all(_is_set(value, frozenset()) for value in values))
    for node in ast.walk(module):
        used: list[ast.expr] = []
        match node:
            case ast.Call(func=func, args=args) if _last_name(func) in _ORDERING:
                used = args
            case ast.For(iter=part) | ast.comprehension(iter=part) | ast.Starred(value=part):
                used = [part]
        yield from (CodeUse(_location(part), f"`{ast.unparse(part)}`") for part in used if _is_set(part, sets))


def find_imports(source: str) -> Iterator[CodeUse]:
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
                yield CodeUse(_location(node), f"'{name}'")


def _world_uses(node: ast.AST, names: frozenset[str]) -> Iterator[CodeUse]:
    """Yield names of the world, each with all that is taken out of it."""
    if isinstance(node, ast.Attribute) and (node.attr in _ASKING or _first_name(node) in names):
        yield CodeUse(_location(node), f"`{ast.unparse(node)}`")
        return
    if isinstance(node, ast.Name) and node.id in names and isinstance(node.ctx, ast.Load):
        yield CodeUse(_location(node), f"`{node.id}`")
    if isinstance(node, ast.Call) and _last_name(node.func) in _BUILT_IN and isinstance(node.func, ast.Name):
        yield CodeUse(_location(node), f"`{node.func.id}`")
    for inner in ast.iter_child_nodes(node):
        yield from _world_uses(inner, names)


def _names_of_the_world(module: ast.Module) -> Iterator[str]:
    """Yield the names under which a file knows modules of the world, and what it takes out of them."""
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] in _WORLD:
                    yield alias.asname or alias.name.split(".")[0]
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                if node.module.split(".")[0] in _WORLD or alias.name in _ASKING:
                    yield alias.asname or alias.name


def _meanings(module: ast.Module) -> dict[str, list[ast.expr]]:
    """Return what each name of a file may stand for: what is assigned to it, or what it goes through."""
    found: dict[str, list[ast.expr]] = {}
    for node in ast.walk(module):
        targets: list[ast.expr] = []
        value: ast.expr | None = None
        if isinstance(node, ast.Assign):
            targets, value = node.targets, node.value
        elif isinstance(node, ast.AnnAssign | ast.NamedExpr | ast.AugAssign):
            targets, value = [node.target], node.value
        elif isinstance(node, ast.For | ast.comprehension):
            # A member of a set is none itself.
            targets, value = [node.target], ast.Tuple([node.iter], ast.Load())
        elif isinstance(node, ast.withitem) and node.optional_vars is not None:
            targets, value = [node.optional_vars], node.context_expr
        for target in targets:
            if isinstance(target, ast.Name) and value is not None:
                found.setdefault(target.id, []).append(value)
    return found


def _texts(node: ast.AST, meanings: Mapping[str, list[ast.expr]], seen: set[str]) -> Iterator[str]:
    for part in ast.walk(node):
        if isinstance(part, ast.Constant) and isinstance(part.value, str):
            yield part.value
        elif isinstance(part, ast.Name) and part.id not in seen:
            seen.add(part.id)
            for value in meanings.get(part.id, []):
                yield from _texts(value, meanings, seen)


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


def _location(node: ast.expr | ast.stmt) -> Location:
    return Location(node.lineno, node.col_offset + 1)

"""An operation is complete in its own file: nothing outside `operations` and autogenerate names a type of operation."""

from __future__ import annotations

import ast
from pathlib import Path

from workspaces import REPOSITORY


def operation_types(root: Path) -> tuple[set[str], set[str]]:
    """Return the classes below Operation, and the names that migrations have for them."""
    classes: dict[str, ast.ClassDef] = {}
    for path in (root / "tokmigrate" / "operations").glob("*.py"):
        tree = ast.parse(path.read_text("utf-8"))
        classes |= {node.name: node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    found = {"Operation"}
    while more := {name for name, node in classes.items() if found & set(map(_name, node.bases))} - found:
        found |= more
    found = {name for name in found if name != "Operation" and not name.startswith("_")}
    fields = [node for name in found for node in classes[name].body if isinstance(node, ast.AnnAssign)]
    values = (node.value for node in fields if _name(node.target) == "name")
    return found, {str(value.value) for value in values if isinstance(value, ast.Constant)}


def operations_named_outside(root: Path) -> list[str]:
    """Return `file:line name` for each place that names an operation type, but for operations/ and what writes them."""
    classes, names = operation_types(root)
    found = []
    for path in sorted((root / "tokmigrate").rglob("*.py")):
        place = path.relative_to(root / "tokmigrate").as_posix()
        # Autogenerate and learning write migrations.
        if place.startswith(("operations/", "revision/derivation.py", "revision/learned_rows.py", "commands/learn_")):
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            name = _name(node)
            if name in names if isinstance(node, ast.Constant) else name in classes:
                found.append(f"{place}:{getattr(node, 'lineno', 1)} {name}")
    return found


def _name(node: ast.AST) -> str | None:
    match node:
        case ast.alias():
            return node.name
        case ast.Name():
            return node.id
        case ast.Attribute():
            return node.attr
        case ast.Constant():
            return node.value if isinstance(node.value, str) else None
    return None


def test_no_other_package_names_an_operation_type() -> None:
    assert operations_named_outside(REPOSITORY) == []


def test_every_way_to_name_one_is_found(tmp_path: Path) -> None:
    package = tmp_path / "tokmigrate"
    (package / "operations").mkdir(parents=True)
    (package / "operations" / "all.py").write_text(
        "class SetPart(Operation): pass\n"
        "class AddTokens(Operation): name: ClassVar[str] = 'add_tokens'\n"
        "class SetInit(SetPart): name: ClassVar[str] = 'set_init'\n"
    )
    (package / "lint.py").write_text(
        '''"""add_tokens: only a whole text counts."""
from tokmigrate.operations.add_tokens import AddTokens
isinstance(x, AddTokens | operations.SetPart)
x.name == "add_tokens" or x.name in ("set_init",)
'''
    )
    names = [place.partition(" ")[2] for place in operations_named_outside(tmp_path)]
    assert sorted(names) == ["AddTokens", "AddTokens", "SetPart", "add_tokens", "set_init"]

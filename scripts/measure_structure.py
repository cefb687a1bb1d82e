"""Print figures of the package's structure: files, lines, shared names, and how many files a command enters.

Run `python scripts/measure_structure.py [ROOT]`; ROOT is a checkout, by default this one.
"""

from __future__ import annotations

import ast
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
COMMANDS = (["current"], ["history"], ["status"], ["plan"], ["upgrade"], ["check"], ["downgrade", "base"])
"""The commands that are profiled, in this order, in one copy of the demo workspace."""

# Runs one command and writes which files of the package had a function called, from all threads of the process.
_PROFILED = """
import json, os, runpy, sys, threading
seen = set()
def enter(frame, event, argument):
    if event == "call" and frame.f_code.co_name != "<module>":
        seen.add(frame.f_code.co_filename)
pid = os.getpid()
sys.argv = ["tokmigrate", *json.loads(sys.argv[1])]
import tokmigrate
package = os.path.dirname(tokmigrate.__file__)
threading.setprofile(enter)
sys.setprofile(enter)
try:
    runpy.run_module("tokmigrate.cli.app", run_name="__main__")
finally:
    sys.setprofile(None)
    if os.getpid() == pid:
        with open(os.environ["ENTERED"], "w") as file:
            file.write(json.dumps(sorted(path for path in seen if path.startswith(package))))
"""


def package_files(root: Path) -> dict[Path, int]:
    """Return the lines of each Python file of the package under `root` that has more than five."""
    counted = {path: len(path.read_text("utf-8").splitlines()) for path in sorted((root / "tokmigrate").rglob("*.py"))}
    return {path: lines for path, lines in counted.items() if lines > 5}


def sharing_a_name(files: dict[Path, int]) -> tuple[int, int]:
    """Return how many files share their base name with another, and how many such names there are."""
    names = Counter(path.name for path in files if path.name != "__init__.py")
    shared = [count for count in names.values() if count > 1]
    return sum(shared), len(shared)


def local_imports(folder: Path) -> int:
    """Return how many import statements below `folder` stand in a function."""
    return sum(
        isinstance(node, ast.Import | ast.ImportFrom)
        for path in folder.rglob("*.py")
        for function in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(function, ast.FunctionDef)
        for node in ast.walk(function)
    )


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


def entered(root: Path) -> Iterator[tuple[str, int]]:
    """Return how many files of the package each command enters, in a copy of the demo workspace."""
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch) / "workspace"
        place.mkdir()
        for name in ("tokmigrate.yaml", "migrations", "models"):
            copy = shutil.copytree if (root / name).is_dir() else shutil.copy2
            copy(root / name, place / name)
        listed = Path(scratch) / "entered.json"
        environment = {**os.environ, "PYTHONPATH": str(root), "ENTERED": str(listed), "HF_HUB_OFFLINE": "1"}
        for words in COMMANDS:
            line = [sys.executable, "-c", _PROFILED, json.dumps(words)]
            subprocess.run(line, cwd=place, env=environment, check=False, capture_output=True)
            yield " ".join(words), len(json.loads(listed.read_text("utf-8")))
            listed.unlink()


def main() -> None:
    root = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else HERE
    files = package_files(root)
    shared, names = sharing_a_name(files)
    sizes = sorted(files.values())
    print(f"files with more than 5 lines      {len(files)}")
    print(f"lines                             {sum(sizes)}")
    p90 = sizes[len(sizes) * 9 // 10]
    print(f"median / p90 / max lines a file   {statistics.median(sizes):.0f} / {p90} / {sizes[-1]}")
    print(f"files under 80 lines              {sum(size < 80 for size in sizes)}")
    print(f"files that share a base name      {shared} ({names} names)")
    outside = operations_named_outside(root)
    in_files = len({place.partition(":")[0] for place in outside})
    print(f"operation types named outside     {len(outside)} in {in_files} files")
    print(f"local imports in the CLI          {local_imports(root / 'tokmigrate' / 'cli')}")
    for words, count in entered(root):
        print(f"files entered by {words:<17}{count}")


if __name__ == "__main__":
    main()

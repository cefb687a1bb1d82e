"""Workspaces of benchmarks, and tokmigrate run in them."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

TOKMIGRATE = (sys.executable, "-m", "tokmigrate")
FAST = "verify: fast\n"


def make_workspace(directory: Path, models: Mapping[str, Path], migrations: Sequence[str], settings: str = "") -> Path:
    """Write a workspace whose migrations follow each other, one for each text of operations."""
    shutil.rmtree(directory, ignore_errors=True)
    (directory / "migrations").mkdir(parents=True)
    listed = "".join(f"  {name}: {{path: {json.dumps(str(path.resolve()))}}}\n" for name, path in models.items())
    (directory / "tokmigrate.yaml").write_text(f"format: 1\n{settings}models:\n{listed}")
    for number, operations in enumerate(migrations, 1):
        below = f"{number - 1:012x}" if number > 1 else "null"
        head = f"format: 1\nrevision: {number:012x}\ndown_revision: {below}\nmessage: Step {number}\n"
        (directory / "migrations" / f"{number:04}_step.yaml").write_text(head + operations)
    return directory


def copy_into_workspace(directory: Path, model: Path, migrations: Sequence[str] = ()) -> Path:
    """Make a workspace with a copy of a model, and return that model's directory."""
    make_workspace(directory, {"m": directory / "m"}, migrations, FAST)
    return Path(shutil.copytree(model, directory / "m"))


def run_tokmigrate(workspace: Path, *words: str) -> tuple[str, float]:
    """Run tokmigrate in a workspace, and return what it says and the CPU seconds that it takes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([*TOKMIGRATE, *words], cwd=workspace, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return done.stdout, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

"""The workspace of a lint rule's example, with all that the example needs."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Literal

from tokmigrate.commands.file_transaction import write_files
from tokmigrate.commands.upgrade import upgrade
from tokmigrate.lint.rule import Rule
from tokmigrate.revision.history import History
from tokmigrate.revision.lock_file import lock_files, lock_of
from tokmigrate.settings import Workspace, read_workspace

DEMO = Path(__file__).resolve().parent.parent / "models" / "demo"
FIRST, SECOND = "aaaa0001", "aaaa0002"

_SETTINGS = "format: 1\nverify: fast\nmodels:\n  demo: {path: models/demo}\n"
_TOOLS = "<tool>\n<result>\n"
_TEMPLATE = "{{ messages[0].content }}"


def example_workspace(root: Path, rule: Rule, example: str) -> Workspace:
    """Make the workspace in which a rule meets an example of its own: the demo model, and the example as the last file.

    Args:
        root: Where.
        rule: The rule.
        example: What it says is wrong, or right.
    """
    migrations = root / "migrations"
    migrations.mkdir(parents=True)
    shutil.copytree(DEMO, root / "models" / "demo")
    (root / "tokmigrate.yaml").write_text(_SETTINGS, "utf-8")
    (migrations / "tools.txt").write_text(_TOOLS, "utf-8")
    for name in ("chat", "ignored"):
        (migrations / f"{name}.jinja").write_text(_TEMPLATE, "utf-8")
    workspace = read_workspace(root / "tokmigrate.yaml", {})
    if rule.code == "TM308":
        config = root / "models" / "demo" / "config.json"
        held = json.loads(config.read_text("utf-8"))
        config.write_text(json.dumps({**held, "image_token_index": 1200}), "utf-8")
    if rule.code == "TM401":
        # Before it was edited it was as it should be, and was applied.
        write_migration(migrations, rule.right)
        upgrade(workspace, workspace.models["demo"])
    if rule.branch is not None:
        # The branch has it, without the comment.
        write_migration(migrations, rule.right.split("  #")[0] + "\n")
        lock_again(workspace)
        _git(root, "init", "-q", "-b", rule.branch)
        _git(root, "add", "-A")
        _git(root, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "shared")
    if rule.given:
        write_migration(migrations, rule.given)
        write_migration(migrations, example, "0002_second", language=rule.language, after=FIRST)
    else:
        write_migration(migrations, example, language=rule.language)
    if rule.code == "TM406":
        (root / ".gitignore").write_text("ignored.jinja\n", "utf-8")
        _git(root, "init", "-q")
        _git(root, "add", "-A")
    return workspace


def lock_again(workspace: Workspace) -> None:
    """Write the lock of the migrations that are there, without a word on ids."""
    write_files(workspace, lock_files(workspace, lock_of(History.read(workspace).chain(), None)))


def _git(root: Path, *words: str) -> None:
    subprocess.run(["git", *words], cwd=root, check=True)  # noqa: S607


def write_migration(
    folder: Path,
    body: str,
    name: str = "0001_first",
    *,
    language: Literal["yaml", "python"] = "yaml",
    after: str | None = None,
) -> Path:
    """Write a migration, and return its path.

    Args:
        folder: The folder of the migrations.
        body: What it says behind the fields that identify it.
        name: Its file's name without an ending.
        language: In which of the two languages `body` is.
        after: The revision before it.
    """
    revision = FIRST if after is None else SECOND
    if language == "python":
        text = f'revision = "{revision}"\ndown_revision = {json.dumps(after) if after else None}\n{body}'
    else:
        message = "" if "message:" in body else "message: What the example needs\n"
        text = f"format: 1\nrevision: {revision}\ndown_revision: {after or 'null'}\n{message}{body}"
    path = folder / f"{name}.{'py' if language == 'python' else 'yaml'}"
    path.write_text(text, "utf-8")
    return path

"""The hooks of `.pre-commit-hooks.yaml`, installed and run by pre-commit itself in a repository of a test's own.

What pre-commit clones is a repository that holds this file alone. `language: system` runs the command that is on the
path, so nothing of tokmigrate is installed by it, and nothing of it is fetched.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from lint_projects import Project, demo_project
from rule_examples import FIRST
from workspaces import REPOSITORY, environment

MANIFEST = REPOSITORY / ".pre-commit-hooks.yaml"
HOOKS = ("tokmigrate-validate", "tokmigrate-lint")

pytestmark = pytest.mark.skipif(not MANIFEST.is_file(), reason="a source distribution has no .pre-commit-hooks.yaml")

RIGHT = """\
message: Add the tools
operations:
  - add_tokens:
      init: {strategy: mean}
      tokens:
        - {content: "<tool>", special: true}
"""
WRONG = RIGHT.replace("<tool>", "<tool\\u200b>")
UNREADABLE = RIGHT.replace("add_tokens", "add_token")


@dataclass(frozen=True)
class Committed:
    """The result of a commit."""

    went_through: bool
    said: str

    def outcome(self, hook: str) -> str:
        """Return what pre-commit says of a hook: Passed, Failed or Skipped."""
        found = re.search(rf"^{hook.replace('-', ' ')}\.+(?:\(.*\))?(\w+)$", self.said, re.MULTILINE)
        assert found is not None, self.said
        return found[1]


@dataclass(frozen=True)
class Repository:
    """A repository with a workspace, in which both hooks are installed."""

    project: Project
    environment: dict[str, str]

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=self.project.root,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def lock(self) -> None:
        """Write the lock, as `validate` wants it."""
        done = self.run("tokmigrate", "lock")
        assert done.returncode == 0, done.stdout + done.stderr

    def commit(self) -> Committed:
        """Commit all that changed, as somebody with the hooks does."""
        self.project.git("add", "-A")
        done = self.run("git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "change")
        return Committed(done.returncode == 0, done.stdout + done.stderr)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    hooks = Project(tmp_path / "hooks")
    hooks.root.mkdir()
    shutil.copy(MANIFEST, hooks.root)
    hooks.git("init", "-q")
    hooks.git("add", "-A")
    hooks.git("commit", "-qm", "hooks")

    programs = tmp_path / "programs"
    programs.mkdir()
    command = programs / "tokmigrate"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m tokmigrate.cli.app "$@"\n', "utf-8")
    command.chmod(0o755)

    project = demo_project(tmp_path / "project")
    used = {
        "repo": str(hooks.root),
        "rev": hooks.git("rev-parse", "HEAD").strip(),
        "hooks": [{"id": id_} for id_ in HOOKS],
    }
    (project.root / ".pre-commit-config.yaml").write_text(json.dumps({"repos": [used]}), "utf-8")
    (project.root / ".gitignore").write_text("models/\n", "utf-8")
    project.git("init", "-q")
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    home = str(tmp_path / "pre-commit")
    made = Repository(project, {**environment(), "PATH": path, "PRE_COMMIT_HOME": home, "PRE_COMMIT_COLOR": "never"})
    done = made.run(sys.executable, "-m", "pre_commit", "install")
    assert done.returncode == 0, done.stdout + done.stderr
    return made


def test_a_right_migration_is_committed_and_a_wrong_one_is_not(repository: Repository) -> None:
    repository.project.write(WRONG)
    repository.lock()
    refused = repository.commit()
    assert not refused.went_through
    assert [refused.outcome(hook) for hook in HOOKS] == ["Passed", "Failed"]
    assert "TM105 error: '<tool>' holds U+200B ZERO WIDTH SPACE" in refused.said

    repository.project.write(RIGHT)
    repository.lock()
    done = repository.commit()
    assert done.went_through, done.said
    assert [done.outcome(hook) for hook in HOOKS] == ["Passed", "Passed"]
    assert repository.project.git("log", "--format=%s") == "change\n"


def test_migrations_that_do_not_hold_together_are_not_committed(repository: Repository) -> None:
    repository.project.write(UNREADABLE)
    unreadable = repository.commit()
    assert not unreadable.went_through
    assert unreadable.outcome("tokmigrate-validate") == "Failed"
    assert "did you mean 'add_tokens'?" in unreadable.said

    repository.project.write(RIGHT)
    repository.project.write(RIGHT.replace("<tool>", "<other>"), "0002_second", after="bbbb0009")
    orphan = repository.commit()
    assert not orphan.went_through
    assert orphan.outcome("tokmigrate-validate") == "Failed"

    repository.project.write(RIGHT.replace("<tool>", "<other>"), "0002_second", after=FIRST)
    unlocked = repository.commit()
    assert not unlocked.went_through
    assert [unlocked.outcome(hook) for hook in HOOKS] == ["Failed", "Passed"]
    assert "tokmigrate lock" in unlocked.said

    repository.lock()
    assert repository.commit().went_through


def test_a_commit_without_migrations_is_not_looked_at(repository: Repository) -> None:
    repository.project.write(RIGHT)
    repository.lock()
    assert repository.commit().went_through
    (repository.project.root / "mymigrations.py").write_text("", "utf-8")
    done = repository.commit()
    assert done.went_through
    assert [done.outcome(hook) for hook in HOOKS] == ["Skipped", "Skipped"]


def test_a_workspace_below_the_top_is_entered_first(repository: Repository) -> None:
    top = repository.project.root
    (top / "sub").mkdir()
    for name in ("tokmigrate.yaml", "migrations", "models"):
        (top / name).rename(top / "sub" / name)
    config = top / ".pre-commit-config.yaml"
    document = json.loads(config.read_text("utf-8"))
    document["repos"][0]["hooks"] = [
        {"id": hook, "entry": f"sh -c 'cd sub && {hook.replace('-', ' ')}'"} for hook in HOOKS
    ]
    config.write_text(json.dumps(document), "utf-8")
    below = Repository(Project(top / "sub"), repository.environment)
    below.project.write(WRONG)
    below.lock()
    refused = repository.commit()
    assert [refused.outcome(hook) for hook in HOOKS] == ["Passed", "Failed"]
    assert "TM105" in refused.said


def test_pre_commit_accepts_the_list_of_hooks() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pre_commit", "validate-manifest", str(MANIFEST)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    # A warning is a hook that one of the next versions will not run.
    assert done.stdout + done.stderr == ""


def test_hooks_look_at_workspaces_wherever_they_are() -> None:
    listed = yaml.safe_load(MANIFEST.read_text("utf-8"))
    assert tuple(hook["id"] for hook in listed) == HOOKS
    for hook in listed:
        for path in ("tokmigrate.yaml", "migrations/0001_a.yaml", "sub/tokmigrate.yaml", "sub/migrations/a.py"):
            assert re.search(hook["files"], path)
        for path in ("README.md", "src/tokmigrate.yaml.orig", "mymigrations.py"):
            assert not re.search(hook["files"], path)

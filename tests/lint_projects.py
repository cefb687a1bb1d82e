"""Workspaces of a test's own for `tokmigrate lint`."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from rule_examples import write_migration
from workspaces import DEMO, environment, run_here

from tokmigrate.commands.lint import Linted, lint
from tokmigrate.lint.linter import Selection
from tokmigrate.settings import Workspace, read_workspace

ALL = Selection()


@dataclass(frozen=True)
class Project:
    """A workspace, perhaps in a Git repository."""

    root: Path

    @property
    def workspace(self) -> Workspace:
        return read_workspace(self.root / "tokmigrate.yaml", {})

    def write(self, body: str, name: str = "0001_first", *, language: str = "yaml", after: str | None = None) -> Path:
        """Write a migration: the head of its file, and `body`."""
        return write_migration(self.root / "migrations", body, name, language=language, after=after)

    def lint(self, selection: Selection = ALL, git_base: str | None = None) -> Linted:
        """Return what rules find on all models that are here."""
        workspace = self.workspace
        return lint(workspace, workspace.select([]), selection, git_base)

    def codes(self, selection: Selection = ALL) -> list[str]:
        """Return the codes of what is found."""
        return [finding.rule.code for finding in self.lint(selection).findings]

    def git(self, *words: str) -> str:
        """Run Git here, and return what it prints."""
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *words]
        return subprocess.run(
            command, cwd=self.root, capture_output=True, text=True, timeout=60, check=True, env=environment()
        ).stdout

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run `tokmigrate lint` here, in this process."""
        return run_here(self.root, "lint", *words)


def empty_project(root: Path) -> Project:
    """Make a workspace without a model."""
    (root / "migrations").mkdir(parents=True)
    (root / "tokmigrate.yaml").write_text("format: 1\nverify: fast\n", "utf-8")
    return Project(root)


def demo_project(root: Path) -> Project:
    """Make a workspace with the demo model and no migration."""
    project = empty_project(root)
    shutil.copytree(DEMO, root / "models" / "demo")
    settings = "format: 1\nverify: fast\nmodels:\n  demo: {path: models/demo}\n"
    (root / "tokmigrate.yaml").write_text(settings, "utf-8")
    return project

"""What keeps a tree from being released; the steps behind it are run by CI: `python scripts/release.py --dry-run`."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import release
from workspaces import REPOSITORY

import tokmigrate

CHANGELOG = "# Changelog\n\n## Unreleased\n\n## 1.2.3 (2026-11-30)\n"


def git(root: Path, *words: str) -> None:
    name = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    subprocess.run(["git", *name, *words], cwd=root, capture_output=True, check=True)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "tokmigrate").mkdir()
    (tmp_path / "tokmigrate" / "__init__.py").write_text('"""Doc."""\n\n__version__ = "1.2.3"\n', "utf-8")
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG, "utf-8")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "Release 1.2.3")
    return tmp_path


def test_a_clean_tree_with_its_version_can_be_released(tree: Path) -> None:
    assert list(release.find_problems(tree)) == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (CHANGELOG.replace("1.2.3", "1.2.4"), "no `## 1.2.3 (YYYY-MM-DD)`"),
        (CHANGELOG.replace(" (2026-11-30)", ""), "no `## 1.2.3 (YYYY-MM-DD)`"),
        (CHANGELOG.partition("## 1")[0], "no `## 1.2.3 (YYYY-MM-DD)`"),
        (CHANGELOG.replace("## Unreleased\n\n", ""), "does not begin with `## Unreleased`"),
    ],
)
def test_a_changelog_that_does_not_fit(tree: Path, text: str, problem: str) -> None:
    (tree / "CHANGELOG.md").write_text(text, "utf-8")
    git(tree, "commit", "-qam", "Edit")
    (found,) = release.find_problems(tree)
    assert problem in found


def test_a_tree_that_is_not_clean(tree: Path) -> None:
    (tree / "more.txt").touch()
    (found,) = release.find_problems(tree)
    assert found == "the tree is not clean:\n?? more.txt"


def test_the_version_is_read_without_an_import() -> None:
    assert release.read_version(REPOSITORY) == tokmigrate.__version__

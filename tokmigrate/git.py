"""Ask Git about the files of a workspace. Git may be missing, fail or hang; nothing is changed in the repository."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tokmigrate.errors import UsageError


@dataclass(frozen=True)
class GitAnswer:
    """What Git printed, None where it failed, and then its error message in English."""

    output: str | None
    failure: str = ""


@dataclass(frozen=True)
class LineAuthor:
    """Who added a line, in which commit, with the first line of its message."""

    commit: str
    author: str
    when: datetime
    summary: str


def ask_git(folder: Path, *words: str, timeout_s: float = 20.0) -> GitAnswer:
    """Run a Git command in a folder and return its answer."""
    git = shutil.which("git")
    if git is None:
        return GitAnswer(None, "git is not installed")
    # The messages are matched, so they have to be English; and a command that reads takes no locks.
    environment = {**os.environ, "LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0"}
    try:
        done = subprocess.run(
            [git, "-C", str(folder), *words],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=timeout_s,
            check=False,
            env=environment,
        )
    except (OSError, subprocess.SubprocessError):
        return GitAnswer(None, "git does not answer")
    if done.returncode:
        return GitAnswer(None, done.stderr.decode("utf-8", "replace").strip().removeprefix("fatal: "))
    return GitAnswer(done.stdout.decode("utf-8", "surrogateescape"))


def read_line_author(path: Path, line: int) -> LineAuthor | str:
    """Return who wrote a line of a file, counted from 1; or why that is not known."""
    answer = ask_git(path.parent, "blame", "--porcelain", "-L", f"{line},{line}", "--", path.name)
    if answer.output is None:
        if "not a git repository" in answer.failure:
            return "not in a Git repository"
        is_new = "no such path" in answer.failure or "no such ref" in answer.failure
        return "not committed to Git yet" if is_new else answer.failure
    first, *lines = answer.output.encode("utf-8", "surrogateescape").decode("utf-8", "replace").split("\n")
    commit = first.split(" ")[0]
    if not commit.strip("0"):
        return "not committed to Git yet"
    fields = dict(line.split(" ", 1) for line in lines if " " in line and not line.startswith("\t"))
    when = datetime.fromtimestamp(int(fields["author-time"]), UTC)
    return LineAuthor(commit, fields.get("author", ""), when, fields.get("summary", ""))


def find_repository(folder: Path) -> Path | None:
    """Return the top of the Git repository that `folder` is in, or None."""
    return next((each for each in (folder, *folder.parents) if (each / ".git").exists()), None)


def files_changed_since(folder: Path, base: str) -> frozenset[Path]:
    """Return the files that differ from where the current branch left `base`, committed or not, new ones too.

    Raises UsageError where there is no repository, or no such revision, or the two have nothing in common.
    """
    top, common = _find_fork(folder, base)
    names = _read_output(top, "diff", "--name-only", "--no-renames", "-z", common, "--")
    names += _read_output(top, "ls-files", "--others", "--exclude-standard", "-z")
    return frozenset((top / name).resolve() for name in names.split("\0") if name)


def read_text_at_fork(file: Path, base: str) -> str | None:
    """Return what a file was where the current branch left `base`, None where it was not there; raises UsageError."""
    _, common = _find_fork(file.parent, base)
    return _read_version(file, common) or None


def _find_fork(folder: Path, base: str) -> tuple[Path, str]:
    """Return the top of the repository, and the commit at which the current branch left `base`."""
    top = find_repository(folder)
    if top is None:
        raise UsageError("there is no Git repository here", where=str(folder), hint="leave out --git-base")
    if shutil.which("git") is None:
        raise UsageError("there is no program `git`", hint="install it, or leave out --git-base")
    commit = _read_output(top, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{base}^{{commit}}").strip()
    if not commit:
        raise UsageError(f"Git knows no revision '{base}'", where=str(top), hint=f"fetch it: git fetch origin {base}")
    common = _read_output(top, "merge-base", commit, "HEAD").strip()
    if not common:
        hint = "fetch the whole history; in a GitHub workflow: actions/checkout with `fetch-depth: 0`"
        raise UsageError(f"'{base}' and HEAD have no common commit here", where=str(top), hint=hint)
    return top, common


def read_merge_sides(file: Path) -> tuple[str, ...]:
    """Return a file as both sides of the merge in progress have it; as HEAD has it where no merge is in progress."""
    sides = [_read_version(file, place) for place in (":2", ":3")]
    return tuple(filter(None, sides if all(sides) else [_read_version(file, "HEAD")]))


def list_uncommitted_files(folder: Path, files: Iterable[Path]) -> tuple[Path, ...]:
    """Return those of `files` that HEAD does not have as they are; none where there is no Git repository."""
    words = ("status", "--porcelain", "--ignored", "--untracked-files=all", "--")
    return tuple(path for path in files if _read_output(folder, *words, str(path)))


def list_tracked_files(folder: Path, files: Iterable[Path]) -> frozenset[Path]:
    """Return those of `files` that are tracked; all of them where there is no Git."""
    wanted = frozenset(files)
    top = find_repository(folder)
    if top is None or shutil.which("git") is None:
        return wanted
    inside = [str(path) for path in wanted if path.resolve().is_relative_to(top.resolve())]
    names = _read_output(top, "ls-files", "-z", "--", *inside) if inside else ""
    listed = {(top / name).resolve() for name in names.split("\0") if name}
    return frozenset(path for path in wanted if path.resolve() in listed)


def list_published_files(directory: Path) -> frozenset[str] | None:
    """Return the names of the files that the upstream branch has in a directory; None where that is not known.

    During a `git rebase` that is the commit that the rebase is onto; else the upstream of the current branch, as it was
    fetched last.
    """
    places = [ask_git(directory, "rev-parse", "--git-path", name).output for name in ("rebase-merge", "rebase-apply")]
    rebasing = any(place is not None and (directory / place.strip()).exists() for place in places)
    listed = ask_git(directory, "ls-tree", "--name-only", "-z", "HEAD" if rebasing else "@{upstream}", ".").output
    return None if listed is None else frozenset(Path(name).name for name in listed.split("\0") if name)


def _read_version(file: Path, place: str) -> str:
    """Return a file as a commit or a side of a merge has it, nothing where it does not."""
    real = file.resolve()
    return _read_output(real.parent, "show", f"{place}:./{real.name}")


def _read_output(folder: Path, *words: str) -> str:
    """Return what Git prints, nothing where it fails."""
    return ask_git(folder, *words, timeout_s=60.0).output or ""

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

_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class GitAnswer:
    """The answer of Git.

    Args:
        text: What it printed.
        failure: Its error message, in English; None where it succeeded.
    """

    text: str
    failure: str | None = None

    @property
    def output(self) -> str | None:
        """What it printed, None where it failed."""
        return self.text if self.failure is None else None


@dataclass(frozen=True)
class LineAuthor:
    """Who wrote a line.

    Args:
        commit: The commit that added it.
        author: The author's name.
        mail: The author's address.
        when: When the author wrote it.
        summary: The first line of the commit message.
    """

    commit: str
    author: str
    mail: str
    when: datetime
    summary: str


def ask_git(folder: Path, *words: str, timeout_s: float = 20.0) -> GitAnswer:
    """Run a Git command and return its answer.

    Args:
        folder: The folder to run it in.
        words: The command and its arguments.
        timeout_s: How many seconds to wait for it.
    """
    git = shutil.which("git")
    if git is None:
        return GitAnswer("", "git is not installed")
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
        return GitAnswer("", "git does not answer")
    message = done.stderr.decode("utf-8", "replace").strip().removeprefix("fatal: ")
    return GitAnswer(done.stdout.decode("utf-8", "surrogateescape"), message if done.returncode else None)


def read_line_author(path: Path, line: int) -> LineAuthor | str:
    """Return who wrote a line of a file, counted from 1; or why that is not known."""
    answer = ask_git(path.parent, "blame", "--porcelain", "-L", f"{line},{line}", "--", path.name)
    if answer.failure is not None:
        if "not a git repository" in answer.failure:
            return "not in a Git repository"
        is_new = "no such path" in answer.failure or "no such ref" in answer.failure
        return "not committed to Git yet" if is_new else answer.failure
    first, *lines = answer.text.encode("utf-8", "surrogateescape").decode("utf-8", "replace").split("\n")
    commit = first.split(" ")[0]
    if not commit.strip("0"):
        return "not committed to Git yet"
    fields = dict(line.split(" ", 1) for line in lines if " " in line and not line.startswith("\t"))
    when = datetime.fromtimestamp(int(fields["author-time"]), UTC)
    author, mail = fields.get("author", ""), fields.get("author-mail", "").strip("<>")
    return LineAuthor(commit, author, mail, when, fields.get("summary", ""))


def find_repository(folder: Path) -> Path | None:
    """Return the top of the Git repository that `folder` is in, or None."""
    return next((each for each in (folder, *folder.parents) if (each / ".git").exists()), None)


def files_changed_since(folder: Path, base: str) -> frozenset[Path]:
    """Return the files that differ from where the current branch left `base`, committed or not, new ones too.

    Args:
        folder: A folder of the repository.
        base: A branch, tag or commit.

    Raises:
        UsageError: There is no repository, or no such revision, or the two have nothing in common.
    """
    top, common = _fork(folder, base)
    names = _output(top, "diff", "--name-only", "--no-renames", "-z", common, "--")
    names += _output(top, "ls-files", "--others", "--exclude-standard", "-z")
    return frozenset((top / name).resolve() for name in names.split("\0") if name)


def read_text_at_fork(file: Path, base: str) -> str | None:
    """Return what a file was where the current branch left `base`, None where it was not there.

    Args:
        file: The file, which need not be there now.
        base: A branch, tag or commit.

    Raises:
        UsageError: There is no repository, or no such revision, or the two have nothing in common.
    """
    top, common = _fork(file.parent, base)
    name = file.resolve().relative_to(top.resolve()).as_posix()
    return _output(top, "show", f"{common}:{name}") or None


def _fork(folder: Path, base: str) -> tuple[Path, str]:
    """Return the top of the repository, and the commit at which the current branch left `base`."""
    top = find_repository(folder)
    if top is None:
        raise UsageError("there is no Git repository here", where=str(folder), hint="leave out --git-base")
    commit = _output(top, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{base}^{{commit}}").strip()
    if not commit:
        raise UsageError(f"Git knows no revision '{base}'", where=str(top), hint=f"fetch it: git fetch origin {base}")
    common = _output(top, "merge-base", commit, "HEAD").strip()
    if not common:
        hint = "fetch the whole history; in a GitHub workflow: actions/checkout with `fetch-depth: 0`"
        raise UsageError(f"'{base}' and HEAD have no common commit here", where=str(top), hint=hint)
    return top, common


def read_merge_sides(file: Path) -> tuple[str, ...]:
    """Return a file as both sides of the merge in progress have it; as HEAD has it where no merge is in progress.

    Args:
        file: The file, as it may have been left by hand.
    """
    top = find_repository(file.parent)
    if top is None or not has_git():
        return ()
    name = file.resolve().relative_to(top.resolve()).as_posix()
    sides = [_output(top, "show", f"{place}:{name}") for place in (":2", ":3")]
    return tuple(filter(None, sides if all(sides) else [_output(top, "show", f"HEAD:{name}")]))


def list_uncommitted_files(folder: Path, files: Iterable[Path]) -> tuple[Path, ...]:
    """Return those of `files` that HEAD does not have as they are; none where there is no Git repository."""
    top = find_repository(folder)
    if top is None or not has_git():
        return ()
    return tuple(
        path
        for path in files
        if _output(top, "status", "--porcelain", "--ignored", "--untracked-files=all", "--", str(path))
    )


def list_tracked_files(folder: Path, files: Iterable[Path]) -> frozenset[Path]:
    """Return those of `files` that are tracked; all of them where there is no Git."""
    wanted = tuple(files)
    top = find_repository(folder)
    if top is None or not has_git() or not wanted:
        return frozenset(wanted)
    inside = [path for path in wanted if path.resolve().is_relative_to(top.resolve())]
    names = _output(top, "ls-files", "-z", "--", *map(str, inside)) if inside else ""
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


def has_git() -> bool:
    """Return whether there is a program `git`."""
    return shutil.which("git") is not None


def _output(top: Path, *words: str) -> str:
    """Return what Git prints, nothing where it fails."""
    if not has_git():
        raise UsageError("there is no program `git`", hint="install it, or leave out --git-base")
    return ask_git(top, *words, timeout_s=_TIMEOUT_S).output or ""

"""What Git knows of a workspace's files; nothing is changed in it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tokmigrate.errors import UsageError
from tokmigrate.git import ask_git, git_is_here

_PATIENCE_S = 60.0


def repository(folder: Path) -> Path | None:
    """Return the top of the Git repository that `folder` is in, or None."""
    return next((each for each in (folder, *folder.parents) if (each / ".git").exists()), None)


def changed_since(folder: Path, base: str) -> frozenset[Path]:
    """Return the files that differ from where the current branch left `base`, committed or not, new ones too.

    Args:
        folder: A folder of the repository.
        base: A branch, tag or commit.

    Raises:
        UsageError: There is no repository, or no such revision, or the two have nothing in common.
    """
    top, common = _fork(folder, base)
    told = _asked(top, "diff", "--name-only", "--no-renames", "-z", common, "--")
    told += _asked(top, "ls-files", "--others", "--exclude-standard", "-z")
    return frozenset((top / name).resolve() for name in told.split("\0") if name)


def text_at_fork(file: Path, base: str) -> str | None:
    """Return what a file was where the current branch left `base`, None where it was not there.

    Args:
        file: The file, which need not be there now.
        base: A branch, tag or commit.

    Raises:
        UsageError: There is no repository, or no such revision, or the two have nothing in common.
    """
    top, common = _fork(file.parent, base)
    name = file.resolve().relative_to(top.resolve()).as_posix()
    return _asked(top, "show", f"{common}:{name}") or None


def _fork(folder: Path, base: str) -> tuple[Path, str]:
    """Return the top of the repository, and the commit at which the current branch left `base`."""
    top = repository(folder)
    if top is None:
        raise UsageError("there is no Git repository here", where=str(folder), hint="leave out --git-base")
    commit = _asked(top, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{base}^{{commit}}").strip()
    if not commit:
        raise UsageError(f"Git knows no revision '{base}'", where=str(top), hint=f"fetch it: git fetch origin {base}")
    common = _asked(top, "merge-base", commit, "HEAD").strip()
    if not common:
        hint = "fetch the whole history; in a GitHub workflow: actions/checkout with `fetch-depth: 0`"
        raise UsageError(f"'{base}' and HEAD have no common commit here", where=str(top), hint=hint)
    return top, common


def sides_of(file: Path) -> tuple[str, ...]:
    """Return what the two sides of a merge under way have in a file; what HEAD has where none is under way.

    Args:
        file: The file, as it may have been left by hand.
    """
    top = repository(file.parent)
    if top is None or not git_is_here():
        return ()
    name = file.resolve().relative_to(top.resolve()).as_posix()
    sides = [_asked(top, "show", f"{place}:{name}") for place in (":2", ":3")]
    return tuple(filter(None, sides if all(sides) else [_asked(top, "show", f"HEAD:{name}")]))


def uncommitted(folder: Path, files: Iterable[Path]) -> tuple[Path, ...]:
    """Return those of `files` that HEAD does not have as they are; none where there is no Git repository."""
    top = repository(folder)
    if top is None or not git_is_here():
        return ()
    return tuple(
        path
        for path in files
        if _asked(top, "status", "--porcelain", "--ignored", "--untracked-files=all", "--", str(path))
    )


def kept(folder: Path, files: Iterable[Path]) -> frozenset[Path]:
    """Return those of `files` that are committed, or will be with the next commit; all where there is no Git."""
    wanted = tuple(files)
    top = repository(folder)
    if top is None or not git_is_here() or not wanted:
        return frozenset(wanted)
    inside = [path for path in wanted if path.resolve().is_relative_to(top.resolve())]
    told = _asked(top, "ls-files", "-z", "--", *map(str, inside)) if inside else ""
    listed = {(top / name).resolve() for name in told.split("\0") if name}
    return frozenset(path for path in wanted if path.resolve() in listed)


def published_files(directory: Path) -> frozenset[str] | None:
    """Return the names of the files that the upstream branch has in a directory; None where nobody knows.

    In the middle of a `git rebase` that is the commit that one's own are put on; else the branch that the current
    one follows, as it was fetched last.
    """
    places = [ask_git(directory, "rev-parse", "--git-path", name).worked for name in ("rebase-merge", "rebase-apply")]
    rebasing = any(place is not None and (directory / place.strip()).exists() for place in places)
    listed = ask_git(directory, "ls-tree", "--name-only", "-z", "HEAD" if rebasing else "@{upstream}", ".").worked
    return None if listed is None else frozenset(Path(name).name for name in listed.split("\0") if name)


def _asked(top: Path, *words: str) -> str:
    """Return what Git prints, nothing where it fails."""
    if not git_is_here():
        raise UsageError("there is no program `git`", hint="install it, or leave out --git-base")
    return ask_git(top, *words, patience_s=_PATIENCE_S).worked or ""

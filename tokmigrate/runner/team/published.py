"""Which migration files the others have already, as Git knows it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

_PATIENCE = 5.0


def published_files(directory: Path) -> frozenset[str] | None:
    """Return the names of the files that the upstream branch has in a directory; None where nobody knows.

    In the middle of a `git rebase` that is the commit that one's own are put on; else the branch that the current
    one follows, as it was fetched last.
    """
    places = [_git(directory, "rev-parse", "--git-path", name) for name in ("rebase-merge", "rebase-apply")]
    rebasing = any(place is not None and (directory / place.strip()).exists() for place in places)
    listed = _git(directory, "ls-tree", "--name-only", "-z", "HEAD" if rebasing else "@{upstream}", ".")
    return None if listed is None else frozenset(Path(name).name for name in listed.split("\0") if name)


def _git(directory: Path, *arguments: str) -> str | None:
    """Return what Git says, None where it fails or there is none."""
    git = shutil.which("git")
    if git is None:
        return None
    try:
        done = subprocess.run(
            [git, "-C", str(directory), *arguments],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=_PATIENCE,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout if done.returncode == 0 else None

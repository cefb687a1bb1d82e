"""Asking Git, which may not be here, may fail, and may not answer."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Answer:
    """What Git answered.

    Args:
        text: What it printed.
        failure: What it says went wrong, in English; None where it worked.
    """

    text: str
    failure: str | None = None

    @property
    def worked(self) -> str | None:
        """What it printed, None where it failed."""
        return self.text if self.failure is None else None


def git_is_here() -> bool:
    """Return whether there is a program `git`."""
    return shutil.which("git") is not None


def ask_git(folder: Path, *words: str, patience_s: float = 20.0) -> Answer:
    """Return what Git answers; nothing is changed by it that it is not told to change.

    Args:
        folder: The folder that it is asked in.
        words: The command and its arguments.
        patience_s: How many seconds to wait for it.
    """
    git = shutil.which("git")
    if git is None:
        return Answer("", "git is not installed")
    # What it says is matched, so it has to be English; and whoever looks takes no locks.
    environment = {**os.environ, "LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0"}
    try:
        done = subprocess.run(
            [git, "-C", str(folder), *words],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=patience_s,
            check=False,
            env=environment,
        )
    except (OSError, subprocess.SubprocessError):
        return Answer("", "git does not answer")
    said = done.stderr.decode("utf-8", "replace").strip().removeprefix("fatal: ")
    return Answer(done.stdout.decode("utf-8", "surrogateescape"), said if done.returncode else None)

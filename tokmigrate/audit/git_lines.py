"""Who wrote a line, as Git has it."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

_PATIENCE_S = 20.0


@dataclass(frozen=True)
class Written:
    """Who wrote a line.

    Args:
        commit: The commit that it came with.
        author: The author's name.
        mail: The author's address.
        when: When the author wrote it.
        summary: The first line of the commit's message.
    """

    commit: str
    author: str
    mail: str
    when: datetime
    summary: str


def written_by(path: Path, line: int) -> Written | str:
    """Return who wrote a line of a file, or why that is not known.

    Args:
        path: The file.
        line: The line, from 1.
    """
    git = shutil.which("git")
    if git is None:
        return "git is not installed"
    # Messages are matched: they have to be English.
    environment = {**os.environ, "LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0"}
    command = [git, "-C", str(path.parent), "blame", "--porcelain", "-L", f"{line},{line}", "--", path.name]
    try:
        done = subprocess.run(
            command, capture_output=True, stdin=subprocess.DEVNULL, timeout=_PATIENCE_S, check=False, env=environment
        )
    except (OSError, subprocess.SubprocessError):
        return "git does not answer"
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace")
        if "not a git repository" in said:
            return "not in a Git repository"
        if "no such path" in said or "no such ref" in said:
            return "not committed to Git yet"
        return said.strip().removeprefix("fatal: ")
    return _parsed(done.stdout.decode("utf-8", "replace"))


def _parsed(text: str) -> Written | str:
    first, *lines = text.split("\n")
    commit = first.split(" ")[0]
    if not commit.strip("0"):
        return "not committed to Git yet"
    fields = dict(line.split(" ", 1) for line in lines if " " in line and not line.startswith("\t"))
    return Written(
        commit,
        fields.get("author", ""),
        fields.get("author-mail", "").strip("<>"),
        datetime.fromtimestamp(int(fields["author-time"]), UTC),
        fields.get("summary", ""),
    )

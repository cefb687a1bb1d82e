"""Who wrote a line, as Git has it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tokmigrate.git import ask_git


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
    answer = ask_git(path.parent, "blame", "--porcelain", "-L", f"{line},{line}", "--", path.name)
    if answer.failure is None:
        return _parsed(answer.text.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))
    if "not a git repository" in answer.failure:
        return "not in a Git repository"
    if "no such path" in answer.failure or "no such ref" in answer.failure:
        return "not committed to Git yet"
    return answer.failure


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

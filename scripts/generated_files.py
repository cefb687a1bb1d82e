"""Files that a script generates: which are out of date, and how they are written."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def find_stale(texts: Mapping[str, str], patterns: Iterable[str] = (), root: Path = ROOT) -> list[str]:
    """Return the paths of files that are not as they should be, those of what is gone among them.

    Args:
        texts: What should be there, by its path in the repository.
        patterns: What matches these paths and is not in `texts` is gone.
        root: The folder of the repository.
    """
    made = {path.relative_to(root).as_posix() for pattern in patterns for path in root.glob(pattern)}
    held = {name: (root / name).read_text("utf-8") for name in {*texts, *made} if (root / name).is_file()}
    return sorted(name for name in {*texts, *held} if texts.get(name) != held.get(name))


def write_files(texts: Mapping[str, str], patterns: Iterable[str] = (), root: Path = ROOT) -> None:
    """Write what is out of date, and remove what is gone; arguments are those of `find_stale`."""
    for name in find_stale(texts, patterns, root):
        if name in texts:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(texts[name], "utf-8")
        else:
            (root / name).unlink()


def main(texts: Mapping[str, str], patterns: Iterable[str] = ()) -> None:
    """Write the files, or with --check exit with 1 where one is out of date."""
    if "--check" not in sys.argv[1:]:
        write_files(texts, patterns)
        return
    stale = find_stale(texts, patterns)
    sys.exit(f"out of date: {', '.join(stale)}: run python {sys.argv[0]}" if stale else 0)

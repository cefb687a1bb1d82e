"""Where the page on a model goes, and how it gets there."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from tokmigrate.errors import UsageError
from tokmigrate.files import storage_errors
from tokmigrate.settings import ModelEntry, Workspace

REPORTS = Path(".tokmigrate") / "reports"


def page_paths(workspace: Workspace, entries: Sequence[ModelEntry], output: Path | None) -> dict[str, Path]:
    """Return the file of the page on each model, by its name.

    Args:
        workspace: The workspace.
        entries: The models.
        output: A directory, or for one model a file; None for the workspace's own place.

    Raises:
        UsageError: One file for several models, or one name of a file for two of them.
    """
    if output is not None and output.suffix == ".html" and not output.is_dir():
        if len(entries) > 1:
            raise UsageError(
                f"one file for {len(entries)} models", where=str(output), hint="name a directory, or one --model"
            )
        return {entry.name: output for entry in entries}
    directory = workspace.root / REPORTS if output is None else output
    paths = {entry.name: directory / f"report-{_file_name(entry.name)}.html" for entry in entries}
    names = [path.name.casefold() for path in paths.values()]
    for entry, name in zip(entries, names, strict=True):
        if names.count(name) > 1:
            raise UsageError("two models would have one page", where=entry.name, hint="name a file, and one --model")
    return paths


def write_page(path: Path, text: str) -> None:
    """Write a page; what was there stays until the new one is whole.

    Raises:
        StorageError: It cannot be written.
    """
    with storage_errors("write the page", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{path.name}.unfinished")
        unfinished.write_text(text, "utf-8")
        unfinished.replace(path)


def _file_name(model: str) -> str:
    """Return a model's name without what a path would take for more than a name."""
    return re.sub(r"[^\w.-]+", "-", model).strip("-.") or "model"

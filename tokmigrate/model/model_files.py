"""Which file a name of a model directory means: symbolic links are followed inside the directory, and never out of it.

A link that stays inside is kept as it is, and the file that it leads to is the one that is read and replaced.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from tokmigrate.errors import ModelError, StorageError
from tokmigrate.files import entries, exists, has_directory, has_file, storage_errors

_MOST_LINKS = 40


def real_name(directory: Path, name: str) -> str:
    """Return the name of the file that `name` leads to, which need not exist, with no link on the way to it.

    Both are paths relative to the directory, with `/` between their parts.

    Raises:
        ModelError: A link points outside the directory, is absolute, or leads round in a circle.
        StorageError: The directory is a snapshot of the Hugging Face cache.
    """
    waiting = list(PurePosixPath(name).parts)
    reached: list[str] = []
    links = 0
    while waiting:
        part = waiting.pop(0)
        if part == os.pardir:
            if not reached:
                raise _leads_out(directory, name)
            reached.pop()
            continue
        leads_to = read_link(directory.joinpath(*reached, part))
        if leads_to is None:
            reached.append(part)
            continue
        links += 1
        if links > _MOST_LINKS:
            raise ModelError(
                f"{name} is a circular link",
                where=str(directory),
                hint="remove the link, and put the file itself there",
            )
        target = PurePosixPath(leads_to)
        if target.is_absolute():
            raise _leads_out(directory, name)
        waiting = [*target.parts, *waiting]
    return str(PurePosixPath(*reached))


def real_path(directory: Path, name: str) -> Path:
    """Return the path of the file that a name leads to; errors are those of `real_name`."""
    return directory / real_name(directory, name)


def entry_name(directory: Path, name: str) -> str:
    """Return the name of a file or link with no link among the directories that it lies in."""
    path = PurePosixPath(name)
    if path.parent == PurePosixPath():
        return name
    return str(PurePosixPath(real_name(directory, str(path.parent))) / path.name)


def read_link(path: Path) -> str | None:
    """Return what a symbolic link holds, None where there is no link."""
    with storage_errors("read the symbolic link", path):
        return os.readlink(path) if path.is_symlink() else None  # noqa: PTH115 - `a/.` stays as it is written


def check_files(directory: Path, names: Iterable[str]) -> None:
    """Raise an error where something else than files lies in a directory, or a link is in the way of a change.

    Migrations may write the files of those names, which need not be there.

    Raises:
        ModelError: A file cannot be replaced through its link.
        StorageError: A pipe, a socket or a device is there: a library that reads it would wait for ever.
    """
    for path in entries(directory):
        if exists(path) and not has_file(path) and not has_directory(path):
            raise StorageError(
                "is a pipe, a socket or a device, which no model has",
                where=str(path),
                hint="move it out of the model directory",
            )
    first: dict[str, str] = {}
    for name in names:
        real = real_name(directory, name)
        if real != name and not has_file(directory / real):
            raise ModelError(
                f"{name} is a dangling link", where=str(directory), hint="remove the link, or put the file itself there"
            )
        other = first.setdefault(real, name)
        if other != name:
            raise ModelError(
                f"{name} and {other} are one file, by a link, and a migration may have to change them apart",
                where=str(directory),
                hint="put a copy of the file in the place of the link",
            )


def _leads_out(directory: Path, name: str) -> ModelError | StorageError:
    target, home = (directory / name).resolve(), directory.resolve()
    # In the cache a snapshot's files are links to ../../blobs/DIGEST: a change there would reach other snapshots.
    if target.parent.name == "blobs" and target.parent.parent in home.parents:
        return StorageError(
            "a Hugging Face cache snapshot is refused in place: its files are links into a shared store",
            where=str(directory),
            hint="copy it with `cp -rL` and work on the copy",
        )
    if home in target.parents:
        return ModelError(
            f"{name} is a link that is absolute, or points outside the model's directory and back, to {target}",
            where=str(directory),
            hint="make it a link relative to its directory, or replace it with the file",
        )
    return ModelError(
        f"{name} is a link that points outside the model's directory, to {target}",
        where=str(directory),
        hint="put the file itself there; `cp -rL` makes a copy of the directory without links",
    )

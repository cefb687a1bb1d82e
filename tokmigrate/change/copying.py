"""A directory with the unchanged files of another: sub-directories, links, modes and times as they were."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from tokmigrate.change.facts import carry_facts
from tokmigrate.change.ranges import copy_range
from tokmigrate.change.sharing import Sharing, share_file
from tokmigrate.errors import StorageError
from tokmigrate.files import exists, has_directory, storage_errors

# Building a candidate takes both: whole files that stay, and the bytes that stay of the others.
__all__ = ["copy_range", "seal_tree", "share_tree"]


def share_tree(source_dir: Path, target_dir: Path, except_names: Collection[str] = ()) -> dict[PurePosixPath, Sharing]:
    """Make `target_dir` hold what `source_dir` holds, without `except_names`, and return how each file came.

    Symbolic links stay links. Directories get their modes and times last; files that are written afterwards
    change the times again, and `seal_tree` sets them once more.

    Args:
        source_dir: The directory whose files are shared.
        target_dir: A directory that is empty or still to be made.
        except_names: Paths relative to `source_dir` with `/` between their parts; a directory goes as a whole.

    Raises:
        StorageError: A pipe, socket or device is among the files; a relative link points outside
            `source_dir`; no space, or no permission.
    """
    shared: dict[PurePosixPath, Sharing] = {}
    with storage_errors("make the directory", target_dir):
        target_dir.mkdir(exist_ok=True)
    _share_entries(source_dir, target_dir, PurePosixPath(), frozenset(except_names), shared)
    seal_tree(source_dir, target_dir)
    return shared


def seal_tree(source_dir: Path, target_dir: Path) -> None:
    """Give `target_dir` and each directory in it the mode, owner and times that it has in `source_dir`.

    Raises:
        StorageError: They cannot be set.
    """
    with storage_errors("list the directory", target_dir):
        inner = sorted(entry.name for entry in target_dir.iterdir() if _is_directory(entry))
    for name in inner:
        if _is_directory(source_dir / name):
            seal_tree(source_dir / name, target_dir / name)
    carry_facts(source_dir, target_dir)


def _share_entries(
    source: Path,
    target: Path,
    within: PurePosixPath,
    except_names: frozenset[str],
    shared: dict[PurePosixPath, Sharing],
) -> None:
    with storage_errors("list the directory", source):
        entries = sorted(source.iterdir())
    for entry in entries:
        name = within / entry.name
        if str(name) in except_names:
            continue
        with storage_errors("look at the file", entry):
            mode = entry.lstat().st_mode
        if stat.S_ISDIR(mode):
            with storage_errors("make the directory", target / entry.name):
                (target / entry.name).mkdir(mode=0o700)
            _share_entries(entry, target / entry.name, name, except_names, shared)
        elif stat.S_ISLNK(mode):
            _copy_link(entry, target / entry.name, name)
            shared[name] = Sharing.COPY
        elif stat.S_ISREG(mode):
            shared[name] = share_file(entry, target / entry.name)
        else:
            raise StorageError(
                "is a pipe, a socket or a device, which no model has",
                where=str(entry),
                hint="move it out of the model directory",
            )


def _copy_link(source: Path, target: Path, name: PurePosixPath) -> None:
    with storage_errors("copy the symbolic link", source):
        leads_to = source.readlink()
        outside = os.path.normpath(name.parent / leads_to).split(os.sep, 1)[0] == os.pardir
        if not leads_to.is_absolute() and outside and exists(source):
            raise StorageError(
                "is a relative link that points outside the model directory, so it breaks beside it",
                where=str(source),
                hint="make the link absolute, or put the file itself in its place",
            )
        target.symlink_to(leads_to)
    carry_facts(source, target)


def _is_directory(path: Path) -> bool:
    return has_directory(path) and not path.is_symlink()

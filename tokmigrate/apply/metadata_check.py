"""Is what a file has besides its bytes kept: mode, owner, extended attributes? Asked before a change, and of the stage.

A directory that is swapped in is a new one, and so is each file that is written or copied; they belong to the user that
makes them unless the system lets them be given away.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from tokmigrate.apply.candidate import Change
from tokmigrate.apply.file_metadata import FileMetadata, read_metadata, write_metadata
from tokmigrate.apply.workarea import remove_tree
from tokmigrate.errors import StorageError
from tokmigrate.files import entries, exists, kind_of, storage_errors
from tokmigrate.formatting import format_list
from tokmigrate.model.model_files import entry_name, real_name


def refuse_losses(source: Path, names: Collection[str]) -> None:
    """Raise StorageError where a change of a directory would lose owner, mode or attributes; it is tried beside it.

    The change recreates the files with these names and all directories. Nothing is left of what was tried.
    """
    written = [(name, source / name) for name in sorted({real_name(source, name) for name in names})]
    files = [each for each in written if exists(each[1])] + [each for each in _tree(source) if _is_directory(each[1])]
    found = [(name, path, read_metadata(path)) for name, path in files]
    special = [each for each in found if _is_special(each[2])]
    parent = Path(os.path.realpath(source)).parent
    # Where nothing may be written the change is refused for that.
    if not special or not os.access(parent, os.W_OK | os.X_OK):
        return
    tried: dict[tuple[bool, FileMetadata], list[str]] = {}
    lost: list[str] = []
    with storage_errors("try what may be set on new files", parent), TemporaryDirectory(dir=parent) as folder:
        for name, path, metadata in special:
            kind = _is_directory(path), replace(metadata, mtime_ns=0)
            if kind not in tried:
                tried[kind] = _try(Path(folder, "trial"), *kind)
            if tried[kind]:
                lost.append(f"{name} ({', '.join(tried[kind])})")
    if lost:
        raise cannot_be_kept(source, lost)


def find_lost_metadata(change: Change) -> list[str]:
    """Return what of the metadata of a staged directory is not as it should be, a line for each file or directory."""
    stage, source, candidate = change.area.stage, change.snapshot.directory, change.candidate
    # What written files are given, by the names of the files behind links, and what links are given.
    given = {real_name(stage, name): metadata for name, metadata in candidate.metadata.items()}
    given |= {entry_name(stage, name): link.metadata for name, link in candidate.links.items()}
    lost: list[str] = []
    for name, path in _tree(stage):
        wanted = given.get(name)
        if wanted is None and os.path.lexists(source / name) and kind_of(source / name) == kind_of(path):
            wanted = read_metadata(source / name)
        differences = wanted.differences(read_metadata(path)) if wanted else []
        if differences:
            lost.append(f"{name} ({', '.join(differences)})")
    return lost


def cannot_be_kept(directory: Path, lost: list[str]) -> StorageError:
    """Return the refusal of a change that would lose metadata."""
    message = f"owner, mode or attributes cannot be kept: {format_list(lost)}"
    hint = "run the command as the owner of the files, or as root; `--no-owner` continues without them"
    return StorageError(message, where=str(directory), hint=hint)


def _is_special(metadata: FileMetadata) -> bool:
    own = (os.geteuid(), os.getegid())
    return (metadata.uid, metadata.gid) != own or bool(metadata.attributes) or metadata.mode > 0o777


def _tree(directory: Path, within: str = "") -> Iterator[tuple[str, Path]]:
    """Yield a directory and all that it holds, by name; links are not followed."""
    yield within or ".", directory
    for path in entries(directory):
        name = f"{within}/{path.name}" if within else path.name
        if _is_directory(path):
            yield from _tree(path, name)
        else:
            yield name, path


def _is_directory(path: Path) -> bool:
    return kind_of(path) == stat.S_IFDIR


def _try(place: Path, is_directory: bool, metadata: FileMetadata) -> list[str]:
    """Return what cannot be set on a new file or directory."""
    place.mkdir(mode=0o700) if is_directory else place.touch(mode=0o600)
    try:
        write_metadata(place, metadata)
        return metadata.differences(read_metadata(place))
    finally:
        remove_tree(place)

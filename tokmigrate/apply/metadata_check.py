"""Is what a file has besides its bytes kept: mode, owner, extended attributes? Asked before a change, and of the stage.

A directory that is swapped in is a new one, and so is each file that is written or copied; they belong to the user that
makes them unless the system lets them be given away.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from tokmigrate.apply.candidate import Candidate
from tokmigrate.apply.file_metadata import FileMetadata, read_metadata, write_metadata
from tokmigrate.apply.workarea import remove_tree
from tokmigrate.errors import StorageError
from tokmigrate.files import entries, exists, storage_errors
from tokmigrate.formatting import format_list
from tokmigrate.model.model_files import entry_name, real_name


@dataclass(frozen=True)
class NewFile:
    """A file or directory that a change recreates, by its name in the directory of the model."""

    name: str
    is_directory: bool
    metadata: FileMetadata


def special_files(source: Path, names: Collection[str], given: Mapping[str, FileMetadata]) -> list[NewFile]:
    """Return the recreated files whose owner must differ from the default of new files; `given` is for written ones."""
    return [file for file in _new(source, names, given) if _is_special(file.metadata)]


def not_kept(place: Path, files: Sequence[NewFile]) -> list[str]:
    """Return what of the metadata of new files cannot be set, a line for each file; it is found by trying it."""
    tried: dict[tuple[bool, FileMetadata], list[str]] = {}
    lost: list[str] = []
    for file in files:
        kind = file.is_directory, replace(file.metadata, mtime_ns=0)
        if kind not in tried:
            tried[kind] = _try(place, file)
        if tried[kind]:
            lost.append(f"{file.name} ({', '.join(tried[kind])})")
    return lost


def refuse_losses(source: Path, names: Collection[str]) -> None:
    """Raise StorageError where a change of a directory would lose owner, mode or attributes; nothing is left there."""
    files = special_files(source, names, {})
    parent = Path(os.path.realpath(source)).parent
    # Where nothing may be written the change is refused for that.
    if files and os.access(parent, os.W_OK | os.X_OK):
        with storage_errors("try what may be set on new files", parent), TemporaryDirectory(dir=parent) as folder:
            lost = not_kept(Path(folder, "trial"), files)
        if lost:
            raise cannot_be_kept(source, lost)


def find_lost_metadata(stage: Path, source: Path, candidate: Candidate) -> list[str]:
    """Return what of the metadata of a staged directory is not as it should be, a line for each file or directory."""
    # What written files are given, by the names of the files behind links, and what links are given.
    given = {real_name(stage, name): metadata for name, metadata in candidate.metadata.items()}
    given |= {entry_name(stage, name): link.metadata for name, link in candidate.links.items()}
    lost: list[str] = []
    for name, path in _tree(stage):
        wanted = given.get(name)
        if wanted is None and os.path.lexists(source / name) and _kind(source / name) == _kind(path):
            wanted = read_metadata(source / name)
        differences = wanted.differences(read_metadata(path)) if wanted else []
        if differences:
            lost.append(f"{name} ({', '.join(differences)})")
    return lost


def cannot_be_kept(directory: Path, lost: list[str]) -> StorageError:
    """Return the refusal of a change that would lose metadata."""
    return StorageError(
        f"owner, mode or attributes cannot be kept: {format_list(lost)}",
        where=str(directory),
        hint="run the command as the owner of the files, or as root; `--no-owner` continues without them",
    )


def _new(source: Path, names: Collection[str], given: Mapping[str, FileMetadata]) -> Iterator[NewFile]:
    behind = {real_name(source, name): metadata for name, metadata in given.items()}
    for name in sorted({real_name(source, name) for name in names}):
        if name in behind:
            yield NewFile(name, False, behind[name])
        elif exists(source / name):
            yield NewFile(name, False, read_metadata(source / name))
    for name, path in _tree(source):
        if _kind(path) == stat.S_IFDIR:
            yield NewFile(name, True, read_metadata(path))


def _is_special(metadata: FileMetadata) -> bool:
    own = (os.geteuid(), os.getegid())
    return (metadata.uid, metadata.gid) != own or bool(metadata.attributes) or metadata.mode > 0o777


def _tree(directory: Path, within: str = "") -> Iterator[tuple[str, Path]]:
    """Yield a directory and all that it holds, by name; links are not followed."""
    yield within or ".", directory
    for path in entries(directory):
        name = f"{within}/{path.name}" if within else path.name
        if _kind(path) == stat.S_IFDIR:
            yield from _tree(path, name)
        else:
            yield name, path


def _kind(path: Path) -> int:
    with storage_errors("look at the file", path):
        return stat.S_IFMT(path.lstat().st_mode)


def _try(place: Path, file: NewFile) -> list[str]:
    with storage_errors("try what may be set on new files", place):
        place.mkdir(mode=0o700) if file.is_directory else place.touch(mode=0o600)
    try:
        write_metadata(place, file.metadata)
        return file.metadata.differences(read_metadata(place))
    finally:
        remove_tree(place)

"""Is what a file has besides its bytes kept: mode, owner, extended attributes? Asked before a change, and of the stage.

A directory that is exchanged is a new one, and so is each file that is written or copied; they belong to whoever makes
them unless the system lets them be given away.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from tokmigrate.change.candidate import Candidate
from tokmigrate.change.facts import FileFacts, file_facts, set_facts
from tokmigrate.change.workarea import WorkArea
from tokmigrate.errors import StorageError
from tokmigrate.files import entries, exists, storage_errors
from tokmigrate.model.model_files import entry_name, real_name

_NAMED = 4


def not_kept(area: WorkArea, source: Path, candidate: Candidate) -> list[str]:
    """Return what of the metadata of new files and directories cannot be set here, found by trying it beside the model.

    Args:
        area: The work area of the directory, whose lock the caller holds.
        source: The directory as it is.
        candidate: What it shall be.

    Returns:
        A line for each file or directory: its name and what is lost.
    """
    tried: dict[tuple[bool, FileFacts], list[str]] = {}
    lost: list[str] = []
    for name, is_directory, facts in _new(source, candidate):
        kind = is_directory, facts.at(0)
        if kind not in tried:
            tried[kind] = _try(area, is_directory, facts)
        if tried[kind]:
            lost.append(f"{name} ({', '.join(tried[kind])})")
    return lost


def lost_in(stage: Path, source: Path, candidate: Candidate) -> list[str]:
    """Return what of the metadata of a staged directory is not as it should be, a line for each file or directory.

    Args:
        stage: The staged directory, its stamp and its own times included.
        source: The directory as it is.
        candidate: What it shall be.
    """
    given = _given(stage, candidate)
    lost: list[str] = []
    for name, path in _tree(stage):
        wanted = given.get(name)
        if wanted is None and os.path.lexists(source / name) and _kind(source / name) == _kind(path):
            wanted = file_facts(source / name)
        differences = wanted.differences(file_facts(path)) if wanted else []
        if differences:
            lost.append(f"{name} ({', '.join(differences)})")
    return lost


def cannot_be_kept(directory: Path, lost: list[str]) -> StorageError:
    """Return the refusal of a change that would lose metadata."""
    return StorageError(
        f"owner, mode or attributes cannot be kept: {named(lost)}",
        where=str(directory),
        hint="run the command as the owner of the files, or as root; `--no-owner` goes on without them",
    )


def named(lost: list[str]) -> str:
    """Return the first of the files whose metadata is lost, and how many more there are."""
    return ", ".join(lost[:_NAMED]) + (f" and {len(lost) - _NAMED} more" if len(lost) > _NAMED else "")


def _given(directory: Path, candidate: Candidate) -> Mapping[str, FileFacts]:
    """Return what written files are given, by the names of the files behind links, and what links are given."""
    behind = {real_name(directory, name): facts for name, facts in candidate.facts.items()}
    return behind | {entry_name(directory, name): link.facts for name, link in candidate.links.items()}


def _new(source: Path, candidate: Candidate) -> Iterator[tuple[str, bool, FileFacts]]:
    """Yield the files that are written and the directories, each with whether it is one and what it shall have."""
    given = _given(source, candidate)
    written = {real_name(source, name) for name, data in candidate.files.items() if data is not None}
    for name in sorted(written | {real_name(source, name) for name in candidate.shards}):
        if name in given:
            yield name, False, given[name]
        elif exists(source / name):
            yield name, False, file_facts(source / name)
    for name, path in _tree(source):
        if _kind(path) == stat.S_IFDIR:
            yield name, True, file_facts(path)


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


def _try(area: WorkArea, is_directory: bool, facts: FileFacts) -> list[str]:
    """Return what cannot be set on a new file or directory."""
    # Where the stage will be: a recovery removes it as well.
    area.remove_stage()
    with storage_errors("try what may be set on new files", area.stage):
        area.stage.mkdir(mode=0o700) if is_directory else area.stage.touch(mode=0o600)
    try:
        set_facts(area.stage, facts)
        return facts.differences(file_facts(area.stage))
    finally:
        area.remove_stage()

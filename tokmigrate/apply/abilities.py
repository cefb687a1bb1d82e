"""What the filesystem beside a model can do, tried with temporary files in the work area."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from tokmigrate.apply.atomic_swap import SwapUnsupportedError, swap
from tokmigrate.apply.clone import link_file, share_range
from tokmigrate.apply.file_metadata import read_metadata, write_metadata
from tokmigrate.apply.metadata_check import refuse_losses
from tokmigrate.apply.publish import free_bytes
from tokmigrate.apply.temporary_folder import open_temporary_folder
from tokmigrate.apply.workarea import WorkArea
from tokmigrate.errors import StorageError
from tokmigrate.files import WAYS_ROUND, entries, storage_errors

_LENGTH = 1 << 20
"""The bytes of the file that is tried: whole blocks of every filesystem, and too many to lie in an inode."""


@dataclass(frozen=True)
class Abilities:
    """What a filesystem can do; each that is missing has a slower way, or one that takes more space."""

    swap: bool
    reflink: bool
    hard_links: bool
    attributes: bool
    free_bytes: int


def try_abilities(model: Path) -> Abilities:
    """Return what can be done beside a model directory, which itself is not touched.

    Raises StorageError where a change of the model would be refused: the work area cannot be written, or files would
    lose owner, mode or attributes.
    """
    area = WorkArea(model)
    with open_temporary_folder(area.model) as folder:
        if folder.parent != area.root:
            # The folder is elsewhere since there can be no work area: this says why.
            area.create()
            raise StorageError("the work area may not be written", where=str(area.root), hint=WAYS_ROUND)
        refuse_losses(area.model, [path.name for path in entries(area.model)])
        with storage_errors("try what the filesystem can do", folder):
            return Abilities(
                swap=_can_swap(folder),
                reflink=_can_reflink(folder),
                hard_links=_can_link(folder),
                attributes=_can_keep_attributes(folder),
                free_bytes=free_bytes(folder),
            )


def _can_swap(folder: Path) -> bool:
    first, second = folder / "first", folder / "second"
    first.mkdir()
    second.mkdir()
    try:
        swap(first, second)
    except SwapUnsupportedError:
        return False
    return True


def _can_reflink(folder: Path) -> bool:
    source = folder / "source"
    source.write_bytes(os.urandom(_LENGTH))
    with source.open("rb") as reader, (folder / "target").open("xb") as writer:
        return share_range(reader.fileno(), 0, writer.fileno(), 0, _LENGTH)


def _can_link(folder: Path) -> bool:
    return link_file(folder / "source", folder / "link")


def _can_keep_attributes(folder: Path) -> bool:
    path = folder / "attributes"
    path.touch()
    wanted = replace(read_metadata(path), attributes=(("user.tokmigrate", b"1".hex()),))
    write_metadata(path, wanted)
    return read_metadata(path).attributes == wanted.attributes

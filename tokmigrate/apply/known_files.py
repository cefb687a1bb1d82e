"""Digests of shards that are on record, so that what is known is not read again: as Git's index knows files.

A record is a hint. It says what a shard held when tokmigrate last read or wrote the whole of it, and is believed while
the filesystem says the same of the file; what is copied from it is still digested, and of what is shared with it the
digest may be on record. Commands that prove what a model holds do not ask it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from tokmigrate.files import storage_errors
from tokmigrate.model.snapshot import Snapshot

_FINE_NS, _COARSE_NS = 100_000_000, 2_000_000_000
"""How much older than its record a change must be, so that a later one has another time: a few ticks of the kernel's
clock, or of that of a filesystem with whole seconds."""


def find_known(snapshot: Snapshot, recorded: Mapping[str, str]) -> dict[str, str]:
    """Return the digests of the shards of a model that are as they were when they were recorded, by file."""
    found: dict[str, str] = {}
    for shard in snapshot.weights.shards:
        identity, _, digest = recorded.get(shard.file, "").rpartition(" ")
        if identity == _format_identity(shard.size, *shard.identity):
            found[shard.file] = digest
    return found


def find_known_tensors(
    snapshot: Snapshot, known: Mapping[str, str], shards: Mapping[str, str], tensors: Mapping[str, str]
) -> dict[str, str]:
    """Return the digests of the tensors in shards that are known, as far as they have no vocabulary axis.

    Args:
        known: The digests of the shards that are known, by file.
        shards: Digests of shards at some time, by file.
        tensors: The digests of their tensors at that time.
    """
    names = {
        entry.name
        for shard in snapshot.weights.shards
        if shard.file in known and known[shard.file] == shards.get(shard.file)
        for entry in shard.header.entries
    }
    names -= {tensor.name for tensor in snapshot.tensors}
    return {name: tensors[name] for name in names & tensors.keys()}


def describe_files(directory: Path, digests: Mapping[str, str]) -> dict[str, str]:
    """Return what is recorded of the files of a model, by name; nothing of one that was changed only just now."""
    found: dict[str, str] = {}
    for name, digest in digests.items():
        with storage_errors("look at the file", directory / name):
            status = (directory / name).stat()
        times = (status.st_mtime_ns, status.st_ctime_ns)
        is_coarse = all(each % 1_000_000 == 0 for each in times)
        if time.time_ns() - max(times) > (_COARSE_NS if is_coarse else _FINE_NS):
            found[name] = f"{_format_identity(status.st_size, status.st_dev, status.st_ino, *times)} {digest}"
    return found


def _format_identity(*parts: int) -> str:
    return ":".join(map(str, parts))

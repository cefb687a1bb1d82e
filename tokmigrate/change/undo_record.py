"""What a migration leaves behind so that it can be taken back: the files and rows that it changes, before and after."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tokmigrate.change.candidate import ShardImage
from tokmigrate.change.facts import FileFacts
from tokmigrate.errors import UndoError
from tokmigrate.model.formats.safetensors_header import parse_header
from tokmigrate.vocabulary.recipes import Stored
from tokmigrate.vocabulary.rows import Fresh, Kept, RowEdit, joined

FORMAT = 1


class Objects(Protocol):
    """Where undo data is kept."""

    def put(self, data: bytes) -> str:
        """Keep bytes and return their digest."""
        ...

    def get(self, digest: str) -> bytes:
        """Return the bytes of a digest."""
        ...


@dataclass(frozen=True)
class Undo:
    """One migration, seen from behind.

    Args:
        files: The bytes of each file that it changes before, None where there was none.
        left: The bytes of each of them afterwards, the stamp's among them.
        facts: Mode, owner and times of those files and of the shards before.
        edit: The rows after the migration in terms of those before it.
        saved: For each tensor the rows that the edit loses, joined, in rising order.
        shards: Header and digest of each shard before.
        left_shards: The digest of each shard afterwards.
        left_tensors: The digest of each tensor in them afterwards, by its name.
        adapters: The undo record of each adapter that went along, by the adapter's lineage.
    """

    files: Mapping[str, bytes | None]
    left: Mapping[str, bytes | None]
    facts: Mapping[str, FileFacts]
    edit: RowEdit
    saved: Mapping[str, bytes]
    shards: Mapping[str, ShardImage]
    left_shards: Mapping[str, str]
    left_tensors: Mapping[str, str]
    adapters: Mapping[str, str] = field(default_factory=dict)


def keep(undo: Undo, objects: Objects) -> str:
    """Store an undo record and return its digest."""
    record = {
        "format": FORMAT,
        "files": _stored(undo.files, objects),
        "left": _stored(undo.left, objects),
        "facts": {name: facts.to_json() for name, facts in sorted(undo.facts.items())},
        "old_rows": undo.edit.old_rows,
        "pieces": [[piece.start, piece.stop] if isinstance(piece, Kept) else None for piece in undo.edit.pieces],
        "saved": {name: objects.put(data) for name, data in sorted(undo.saved.items())},
        "shards": {
            name: {"header": objects.put(image.header.raw), "size": image.header.file_size, "digest": image.digest}
            for name, image in sorted(undo.shards.items())
        },
        "left_shards": dict(sorted(undo.left_shards.items())),
        "left_tensors": dict(sorted(undo.left_tensors.items())),
        "adapters": dict(sorted(undo.adapters.items())),
    }
    return objects.put(json.dumps(record, sort_keys=True).encode())


def undo_of(digest: str, objects: Objects) -> Undo:
    """Return a stored undo record; the fresh rows of its edit are not looked at.

    Raises:
        UndoError: It is missing, damaged or of a newer format.
    """
    record = _record(objects.get(digest), digest)
    return Undo(
        files=_loaded(record["files"], objects),
        left=_loaded(record["left"], objects),
        facts={name: FileFacts.from_json(held) for name, held in record["facts"].items()},
        edit=RowEdit(
            record["old_rows"],
            joined(Kept(*piece) if piece else Fresh(Stored(digest, -1)) for piece in record["pieces"]),
        ),
        saved={name: objects.get(data) for name, data in record["saved"].items()},
        shards={
            name: ShardImage(parse_header(objects.get(image["header"]), image["size"], name), image["digest"])
            for name, image in record["shards"].items()
        },
        left_shards=record["left_shards"],
        left_tensors=record["left_tensors"],
        adapters=record["adapters"],
    )


@dataclass(frozen=True)
class Left:
    """What a migration left.

    Args:
        files: The bytes of each file that it changed, None for one that it removed.
        shards: The digest of each shard.
        tensors: The digest of each tensor in them.
    """

    files: Mapping[str, bytes | None]
    shards: Mapping[str, str]
    tensors: Mapping[str, str]


def left_of(digest: str, objects: Objects) -> Left:
    """Return what the migration of an undo record left, without reading what was before it.

    Raises:
        UndoError: The record, or a file of it, is missing, damaged or of a newer format.
    """
    record = _record(objects.get(digest), digest)
    return Left(_loaded(record["left"], objects), record["left_shards"], record["left_tensors"])


def objects_of(digest: str, objects: Objects) -> Iterator[str]:
    """Yield the digests of all objects that an undo record needs, its own first; an object may come twice.

    Raises:
        UndoError: A record is missing, damaged or of a newer format.
    """
    yield digest
    record = _record(objects.get(digest), digest)
    yield from (held for files in (record["files"], record["left"]) for held in files.values() if held is not None)
    yield from record["saved"].values()
    yield from (image["header"] for image in record["shards"].values())
    for adapter in record["adapters"].values():
        yield from objects_of(adapter, objects)


def adapter_records(records: Sequence[str], objects: Objects) -> tuple[Mapping[str, str], ...]:
    """Return for each of a model's undo records those of the adapters that went along, by the adapter's lineage."""
    return tuple(_record(objects.get(digest), digest)["adapters"] for digest in records)


def _stored(files: Mapping[str, bytes | None], objects: Objects) -> dict[str, str | None]:
    return {name: None if data is None else objects.put(data) for name, data in sorted(files.items())}


def _loaded(files: Mapping[str, str | None], objects: Objects) -> dict[str, bytes | None]:
    return {name: None if digest is None else objects.get(digest) for name, digest in files.items()}


def _record(data: bytes, digest: str) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(data)
    if record.get("format") != FORMAT:
        raise UndoError("an undo record of an unknown format", where=digest, hint="use the tokmigrate that wrote it")
    return record

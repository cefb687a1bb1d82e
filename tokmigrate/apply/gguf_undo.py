"""What undoing a migration of a GGUF needs: its head, the rows that it loses, and digests of before and after."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict

from tokmigrate.apply.file_metadata import FileMetadata
from tokmigrate.apply.kept_objects import NewObjects, Objects
from tokmigrate.errors import UndoError
from tokmigrate.formats import GGUF_UNDO_RECORD, check_version


@dataclass(frozen=True)
class GgufUndo:
    """What undoing one migration of a GGUF needs.

    Args:
        head: The bytes of its head before.
        size: The bytes of the file before.
        before: The digest of its contents before, as `shard_digest` makes it.
        after: That of its contents afterwards.
        lost: For each tensor the rows that the migration loses, joined in rising order and kept: their digest.
    """

    head: bytes = field(repr=False)
    size: int
    before: str
    after: str
    lost: Mapping[str, str]
    metadata: FileMetadata


class _Record(BaseModel):
    """A record as it is stored; `head` and the lost rows are digests of objects."""

    model_config = ConfigDict(strict=True, frozen=True)

    format: int
    head: str
    size: int
    digest_before: str
    digest_after: str
    lost_rows: dict[str, str]
    metadata: FileMetadata


def keep_gguf_undo(undo: GgufUndo, objects: NewObjects) -> str:
    """Store a record and return its digest."""
    record = {
        "format": GGUF_UNDO_RECORD.version,
        "head": objects.put(undo.head),
        "size": undo.size,
        "digest_before": undo.before,
        "digest_after": undo.after,
        "lost_rows": dict(undo.lost),
        "metadata": undo.metadata.to_json(),
    }
    return objects.put(json.dumps(record, sort_keys=True).encode())


def read_gguf_undo(digest: str, objects: Objects) -> GgufUndo:
    """Return a stored record; raises UndoError where it is missing, damaged or of a newer format."""
    record = _read_record(digest, objects)
    for rows in record.lost_rows.values():
        objects.require(rows)
    before, after = record.digest_before, record.digest_after
    return GgufUndo(objects.get(record.head), record.size, before, after, record.lost_rows, record.metadata)


def list_gguf_objects(digest: str, objects: Objects) -> Iterator[str]:
    """Yield the digests of all objects that a record needs, its own first; errors are those of `read_gguf_undo`."""
    yield digest
    record = _read_record(digest, objects)
    yield record.head
    yield from record.lost_rows.values()


def _read_record(digest: str, objects: Objects) -> _Record:
    data = objects.get(digest)
    try:
        check_version(GGUF_UNDO_RECORD, json.loads(data)["format"], digest, UndoError)
        return _Record.model_validate_json(data, strict=True)
    except (ValueError, TypeError, KeyError) as error:
        raise UndoError(
            "the undo record of a GGUF is damaged", where=digest, hint="restore .tokmigrate from a backup"
        ) from error

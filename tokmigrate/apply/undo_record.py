"""Undo records: the files and rows that a migration changes, before and after, so that it can be undone."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pydantic import BaseModel, ConfigDict

from tokmigrate.apply.candidate import ShardImage
from tokmigrate.apply.file_metadata import FileMetadata, LinkMetadata
from tokmigrate.apply.gguf_undo import list_gguf_objects
from tokmigrate.apply.kept_objects import NewObjects, Objects, StoredBytes
from tokmigrate.apply.new_rows import InitRows, StoredInitRows
from tokmigrate.errors import UndoError, WeightsError
from tokmigrate.formats import UNDO_RECORD, check_version
from tokmigrate.model.formats.dtype import FLOATING, ITEM_BITS, from_float64, to_float64
from tokmigrate.model.formats.safetensors_header import parse_header
from tokmigrate.model.snapshot import Snapshot
from tokmigrate.model.weights.vocabulary_tensor import VocabularyTensor
from tokmigrate.vocabulary.row_edit import CopiedRows, NewRow, Recipe, RestoredRow, RowEdit, Side, join_pieces

_NAMES_IN_1 = {
    "files": "files_before",
    "left": "files_after",
    "facts": "metadata",
    "pieces": "rows",
    "saved": "lost_rows",
    "shards": "shards_before",
    "left_shards": "shards_after",
    "left_tensors": "tensors_after",
}
"""The names of fields in records of format 1, which are read under those of today."""


class StoredFiles(Mapping[str, bytes | None]):
    """Files of an undo record, of which each is read when it is asked for; `digests` says what they hold."""

    def __init__(self, digests: Mapping[str, str | None], objects: Objects) -> None:
        self.digests = digests
        self._objects = objects

    def __getitem__(self, name: str) -> bytes | None:
        digest = self.digests[name]
        return None if digest is None else self._objects.get(digest)

    def __iter__(self) -> Iterator[str]:
        return iter(self.digests)

    def __len__(self) -> int:
        return len(self.digests)


@dataclass(frozen=True)
class Undo:
    """What undoing one migration needs.

    Args:
        files: The bytes of each file that it changes before, None where there was none.
        left: The bytes of each of them afterwards, the stamp's among them.
        metadata: Mode, owner and times of those files and of the shards before.
        edit: The rows after the migration in terms of those before it.
        saved: For each tensor what `read_lost_rows` gives, joined and kept: its digest.
        shards: Header and digest of each shard before.
        left_shards: The digest of each shard afterwards.
        left_tensors: The digest of each tensor in them afterwards, by its name.
        adapters: The undo record of each adapter that went along, by the adapter's lineage.
        copies: That of each GGUF, by its lineage.
        links: The symbolic links before among the names of those files and shards.
        init_rows: What `keep_init_rows` returned for each side; nothing in records of older versions.
    """

    files: Mapping[str, bytes | None]
    left: Mapping[str, bytes | None]
    metadata: Mapping[str, FileMetadata]
    edit: RowEdit
    saved: Mapping[str, str]
    shards: Mapping[str, ShardImage]
    left_shards: Mapping[str, str]
    left_tensors: Mapping[str, str]
    adapters: Mapping[str, str] = field(default_factory=dict)
    links: Mapping[str, LinkMetadata] = field(default_factory=dict)
    init_rows: Mapping[Side, StoredInitRows] = field(default_factory=dict)
    copies: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def dtypes(self) -> Mapping[str, str]:
        """The dtype of each tensor in those shards before, by its name."""
        return {entry.name: entry.dtype for image in self.shards.values() for entry in image.header.entries}


class _Shard(BaseModel):
    """A shard before, as a record holds it."""

    header: str
    size: int
    digest: str


class _Record(BaseModel):
    """An undo record as it is stored; texts are digests of objects."""

    model_config = ConfigDict(strict=True, frozen=True)

    format: int
    files_before: dict[str, str | None]
    files_after: dict[str, str | None]
    metadata: dict[str, FileMetadata]
    old_rows: int
    rows: list[tuple[int, int] | None]
    lost_rows: dict[str, str]
    shards_before: dict[str, _Shard]
    shards_after: dict[str, str]
    tensors_after: dict[str, str]
    adapters: dict[str, str]
    links: dict[str, LinkMetadata] = {}
    init_rows: dict[Side, StoredInitRows] = {}
    copies: dict[str, str] = {}


def keep(undo: Undo, objects: NewObjects) -> str:
    """Store an undo record and return its digest."""
    record = {
        "format": UNDO_RECORD.version,
        "files_before": _store(undo.files, objects),
        "files_after": _store(undo.left, objects),
        "metadata": {name: metadata.to_json() for name, metadata in undo.metadata.items()},
        "old_rows": undo.edit.old_rows,
        "rows": [[piece.start, piece.stop] if isinstance(piece, CopiedRows) else None for piece in undo.edit.pieces],
        "lost_rows": dict(undo.saved),
        "shards_before": {
            name: {"header": objects.put(image.header.raw), "size": image.header.file_size, "digest": image.digest}
            for name, image in sorted(undo.shards.items())
        },
        "shards_after": dict(undo.left_shards),
        "tensors_after": dict(undo.left_tensors),
        "adapters": dict(undo.adapters),
        **({"links": {name: link.to_json() for name, link in undo.links.items()}} if undo.links else {}),
        **({"copies": dict(undo.copies)} if undo.copies else {}),
        "init_rows": {side: rows.model_dump() for side, rows in undo.init_rows.items()},
    }
    return objects.put(json.dumps(record, sort_keys=True).encode())


def read_undo_record(digest: str, objects: Objects) -> Undo:
    """Return a stored undo record; the new rows of its edit are left out. The rows that it lost are not read.

    Raises:
        UndoError: It is missing, damaged or of a newer format.
    """
    record = _record(objects.get(digest), digest)
    try:
        pieces = join_pieces(CopiedRows(*piece) if piece else NewRow(RestoredRow(digest, -1)) for piece in record.rows)
        edit = RowEdit(record.old_rows, pieces)
        shards = {
            name: ShardImage(parse_header(objects.get(image.header), image.size, name), image.digest)
            for name, image in record.shards_before.items()
        }
    except (ValueError, WeightsError) as error:
        raise _damaged_error(digest) from error
    for rows in record.lost_rows.values():
        objects.require(rows)
    return Undo(
        files=StoredFiles(record.files_before, objects),
        left=StoredFiles(record.files_after, objects),
        metadata=record.metadata,
        edit=edit,
        saved=record.lost_rows,
        shards=shards,
        left_shards=record.shards_after,
        left_tensors=record.tensors_after,
        adapters=record.adapters,
        links=record.links,
        copies=record.copies,
    )


@dataclass(frozen=True)
class Left:
    """What a migration left: the bytes of files, None for a removed one, and digests of shards and their tensors."""

    files: StoredFiles
    shards: Mapping[str, str]
    tensors: Mapping[str, str]


def read_left(digest: str, objects: Objects) -> Left:
    """Return what the migration of an undo record left; a file is read when it is asked for.

    Raises:
        UndoError: The record is missing, damaged or of a newer format; or a file is, when it is read.
    """
    record = _record(objects.get(digest), digest)
    return Left(StoredFiles(record.files_after, objects), record.shards_after, record.tensors_after)


def list_objects(digest: str, objects: Objects) -> Iterator[str]:
    """Yield the digests of all objects that an undo record needs, its own first; an object may come twice.

    Raises:
        UndoError: A record is missing, damaged or of a newer format.
    """
    yield digest
    record = _record(objects.get(digest), digest)
    yield from (
        held for files in (record.files_before, record.files_after) for held in files.values() if held is not None
    )
    yield from record.lost_rows.values()
    yield from (image.header for image in record.shards_before.values())
    for adapter in record.adapters.values():
        yield from list_objects(adapter, objects)
    for copy in record.copies.values():
        yield from list_gguf_objects(copy, objects)


def read_adapter_records(records: Sequence[str], objects: Objects) -> tuple[Mapping[str, str], ...]:
    """Return for each of a model's undo records those of the adapters that went along, by the adapter's lineage."""
    return tuple(_record(objects.get(digest), digest).adapters for digest in records)


def read_copy_records(records: Sequence[str], objects: Objects) -> dict[str, Mapping[str, str]]:
    """Return by each of a model's undo records those of the GGUFs that went along, by their lineage."""
    return {digest: _record(objects.get(digest), digest).copies for digest in records}


def read_init_rows(digest: str, objects: Objects) -> Mapping[Side, InitRows]:
    """Return the new rows of an undo record by their side; none where the record, or what it names, is not here."""
    try:
        held = _record(objects.get(digest), digest).init_rows
        return {side: InitRows.open(rows, objects) for side, rows in held.items()}
    except UndoError:
        return {}


def _store(files: Mapping[str, bytes | None], objects: NewObjects) -> dict[str, str | None]:
    return {name: None if data is None else objects.put(data) for name, data in sorted(files.items())}


def _record(data: bytes, digest: str) -> _Record:
    try:
        held = json.loads(data)
        check_version(UNDO_RECORD, held["format"], digest, UndoError)
        if held["format"] == 1:
            data = json.dumps(_rename_keys(held)).encode()
        # From the text, since in a parsed value every array would have to be a tuple.
        return _Record.model_validate_json(data, strict=True)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _damaged_error(digest) from error


def _rename_keys(held: dict[str, Any]) -> dict[str, Any]:
    """Return a record of format 1 under the names of today."""
    record = {_NAMES_IN_1.get(name, name): value for name, value in held.items()}
    links = {
        name: {_NAMES_IN_1.get(key, key): value for key, value in link.items()}
        for name, link in record.get("links", {}).items()
    }
    return {**record, "links": links}


def _damaged_error(digest: str) -> UndoError:
    return UndoError(
        "the undo record is damaged",
        where=digest,
        hint="restore the workspace's .tokmigrate from a backup; or restore the model from one",
    )


@dataclass(frozen=True)
class StoredRows:
    """The rows of undo records, by the digests of these; an object is opened when the first of its rows is read."""

    snapshot: Snapshot
    undone: Mapping[str, Undo]
    objects: Objects
    _opened: dict[str, StoredBytes] = field(default_factory=dict, init=False)

    def _open(self, digest: str) -> StoredBytes:
        if digest not in self._opened:
            self._opened[digest] = self.objects.open(digest)
        return self._opened[digest]

    @cached_property
    def _tensors(self) -> Mapping[str, VocabularyTensor]:
        return self.snapshot.tensors_by_name

    def row(self, name: str, recipe: Recipe) -> bytes:
        """Return a row of a tensor, rounded once where the tensor has another dtype than it had.

        Raises:
            UndoError: No record holds it, its object is damaged, or it cannot be given in the dtype of today.
        """
        tensor = self._tensors[name]
        undo = self.undone.get(recipe.record) if isinstance(recipe, RestoredRow) else None
        held, dtype = b"", tensor.dtype
        if isinstance(recipe, RestoredRow) and undo is not None and name in undo.saved:
            dtype = undo.dtypes[name]
            size = tensor.row_bytes * ITEM_BITS[dtype] // ITEM_BITS[tensor.dtype]
            held = self._open(undo.saved[name]).read(recipe.slot * size, size)
        if not held:
            raise UndoError("the undo data holds no row of it", where=name, hint="restore the model from a backup")
        if dtype == tensor.dtype:
            return held
        if not {dtype, tensor.dtype} <= FLOATING:
            raise UndoError(
                f"the rows on record are {dtype}, those of the model {tensor.dtype}",
                where=name,
                hint=f"save the model as {dtype} again, or downgrade the model as it was",
            )
        return from_float64(to_float64(held, dtype), tensor.dtype)

"""The way back, derived from the difference of two states: no operation needs an inverse of its own.

An undo record holds, for one migration, the files before it, the rows that it drops or overwrites, and the
headers and digests of the shards before it. Records compose: going back over many is one pass.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tokmigrate.change.candidate import Candidate, ShardImage
from tokmigrate.change.facts import FileFacts
from tokmigrate.errors import UndoError
from tokmigrate.model.safetensors_header import Header, parse_header
from tokmigrate.model.snapshot import Snapshot
from tokmigrate.model.tokenizer import FILE as TOKENIZER
from tokmigrate.model.tokenizer import Tokenizer
from tokmigrate.vocabulary.recipes import Stored
from tokmigrate.vocabulary.rows import Fresh, Kept, Recipe, RowEdit, joined
from tokmigrate.vocabulary.tokens import expand
from tokmigrate.vocabulary.windows import Window

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
class Before:
    """What was there before one migration.

    Args:
        files: The bytes of each file that it changes, None where there was none.
        facts: Mode, owner and times of those files and of the shards.
        edit: The rows after the migration in terms of those before it.
        saved: For each tensor the rows that the edit loses, joined, in rising order.
        shards: Header and digest of each shard.
        adapters: The undo record of each adapter that went along, by the adapter's lineage.
    """

    files: Mapping[str, bytes | None]
    facts: Mapping[str, FileFacts]
    edit: RowEdit
    saved: Mapping[str, bytes]
    shards: Mapping[str, ShardImage]
    adapters: Mapping[str, str] = field(default_factory=dict)


def keep(before: Before, objects: Objects) -> str:
    """Store an undo record and return its digest."""
    record = {
        "format": FORMAT,
        "files": {name: None if data is None else objects.put(data) for name, data in sorted(before.files.items())},
        "facts": {name: facts.to_json() for name, facts in sorted(before.facts.items())},
        "old_rows": before.edit.old_rows,
        "pieces": [[piece.start, piece.stop] if isinstance(piece, Kept) else None for piece in before.edit.pieces],
        "saved": {name: objects.put(data) for name, data in sorted(before.saved.items())},
        "shards": {
            name: {"header": objects.put(image.header.raw), "size": image.header.file_size, "digest": image.digest}
            for name, image in sorted(before.shards.items())
        },
        "adapters": dict(sorted(before.adapters.items())),
    }
    return objects.put(json.dumps(record, sort_keys=True).encode())


def inverse(edit: RowEdit, record: str) -> RowEdit:
    """Return the edit back: kept rows go where they were, lost ones come from `record`.

    Args:
        edit: What a migration did; its recipes are not looked at.
        record: The digest of the undo record.
    """
    pieces: list[tuple[int, Kept | Fresh]] = []
    seen = 0
    for row, piece in sorted(edit.kept(), key=lambda run: run[1].start):
        start = max(piece.start, seen)
        if start < piece.stop:
            pieces.append((start, Kept(row + start - piece.start, row + len(piece))))
            seen = piece.stop
    pieces += [(row, Fresh(Stored(record, slot))) for slot, row in enumerate(expand(edit.lost()))]
    pieces.sort(key=lambda placed: placed[0])
    return RowEdit(edit.new_rows, joined(piece for _, piece in pieces))


def way_back(snapshot: Snapshot, records: Sequence[str], objects: Objects) -> Candidate:
    """Return the candidate that undoes migrations.

    Args:
        snapshot: The model as it is.
        records: Their undo records, the latest migration's first.
        objects: Where the records are.

    Raises:
        UndoError: A record is missing, damaged or of a newer format.
    """
    files: dict[str, bytes | None] = {}
    facts: dict[str, FileFacts] = {}
    shards: dict[str, ShardImage] = {}
    saved: dict[tuple[str, str], bytes] = {}
    edit = RowEdit.identity(snapshot.state.rows)
    for digest in records:
        record = _record(objects.get(digest), digest)
        files |= {name: None if data is None else objects.get(data) for name, data in record["files"].items()}
        facts |= {name: FileFacts.from_json(held) for name, held in record["facts"].items()}
        for name, image in record["shards"].items():
            shards[name] = ShardImage(_header(objects.get(image["header"]), image["size"], name), image["digest"])
        for name, data in record["saved"].items():
            saved[digest, name] = objects.get(data)
        forward = RowEdit(
            record["old_rows"],
            joined(Kept(*piece) if piece else Fresh(Stored(digest, -1)) for piece in record["pieces"]),
        )
        if forward.new_rows != edit.new_rows:
            raise UndoError("the undo record does not fit the model", where=digest, hint="restore the model")
        edit = edit.then(inverse(forward, digest))
    text = files.get(TOKENIZER) or snapshot.texts.get(TOKENIZER)
    # An adapter need not have a tokenizer.
    tokens = Tokenizer(json.loads(text)).ids if text is not None else {}
    return Candidate(files, facts, shards, edit, _from(saved, snapshot), tokens)


def adapter_records(records: Sequence[str], objects: Objects) -> tuple[Mapping[str, str], ...]:
    """Return for each of a model's undo records those of the adapters that went along, by the adapter's lineage."""
    return tuple(_record(objects.get(digest), digest)["adapters"] for digest in records)


def saved_rows(edit: RowEdit, window: Window, read: Callable[[int], bytes]) -> bytes:
    """Return the rows of a tensor that `edit` loses, joined.

    Args:
        edit: What happens to the rows of all ids; the ids that the tensor has no rows for are the last ones.
        window: Which ids it has rows for.
        read: Gives the bytes of a row before it.
    """
    return b"".join(read(row) for row in expand(window.clipped(edit.lost(), edit.old_rows)))


def _from(saved: Mapping[tuple[str, str], bytes], snapshot: Snapshot) -> Callable[[str, Recipe], bytes]:
    sizes = {tensor.name: tensor.row_bytes for tensor in snapshot.tensors}

    def row(tensor: str, recipe: Recipe) -> bytes:
        if not isinstance(recipe, Stored):
            raise UndoError("an undo record names a row that it does not hold")
        size = sizes[tensor]
        return saved[recipe.record, tensor][recipe.slot * size : (recipe.slot + 1) * size]

    return row


def _record(data: bytes, digest: str) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(data)
    if record.get("format") != FORMAT:
        raise UndoError("an undo record of an unknown format", where=digest, hint="use the tokmigrate that wrote it")
    return record


def _header(raw: bytes, size: int, where: str) -> Header:
    return parse_header(raw, size, where)

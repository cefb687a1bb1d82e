"""Build a downgrade from the difference of two states: no operation needs an inverse of its own.

Records of undone migrations compose: going back over many is one pass. Where nothing was touched since, every byte is
restored. If the model was trained or rewritten, the undo is semantic: `apply.semantic_undo`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tokmigrate.apply.candidate import Candidate, Documents, ShardImage
from tokmigrate.apply.digests import read_shard_digest
from tokmigrate.apply.file_metadata import FileMetadata, LinkMetadata
from tokmigrate.apply.semantic_undo import documents_before, shards_before, stamp_before
from tokmigrate.apply.undo_record import Objects, StoredRows, Undo, read_undo_record
from tokmigrate.errors import UndoError
from tokmigrate.model.documents.stamp import FILE as STAMP
from tokmigrate.model.formats.json_text import parse
from tokmigrate.model.snapshot import Snapshot
from tokmigrate.model.tokenizer.tokenizer_json import FILE as TOKENIZER
from tokmigrate.model.tokenizer.tokenizer_json import Tokenizer
from tokmigrate.vocabulary.ids import expand
from tokmigrate.vocabulary.recipes import RestoredRow
from tokmigrate.vocabulary.row_edit import CopiedRows, NewRow, RowEdit, join_pieces
from tokmigrate.vocabulary.windows import Window


@dataclass(frozen=True)
class DowngradeCandidate:
    """A downgrade, ready to be published.

    Args:
        candidate: The new contents of the directory.
        semantic_undo: The files that were trained or rewritten since, sorted; without any, every byte comes back.
    """

    candidate: Candidate
    semantic_undo: tuple[str, ...]


def inverse(edit: RowEdit, record: str) -> RowEdit:
    """Return the edit back: kept rows go where they were, lost ones come from `record`.

    Args:
        edit: What a migration did; its recipes are not looked at.
        record: The digest of the undo record.
    """
    pieces: list[tuple[int, CopiedRows | NewRow]] = []
    seen = 0
    for row, piece in sorted(edit.copied_rows(), key=lambda run: run[1].start):
        start = max(piece.start, seen)
        if start < piece.stop:
            pieces.append((start, CopiedRows(row + start - piece.start, row + len(piece))))
            seen = piece.stop
    pieces += [(row, NewRow(RestoredRow(record, slot))) for slot, row in enumerate(expand(edit.lost()))]
    pieces.sort(key=lambda placed: placed[0])
    return RowEdit(edit.new_rows, join_pieces(piece for _, piece in pieces))


def build_downgrade(snapshot: Snapshot, records: Sequence[str], objects: Objects) -> DowngradeCandidate:
    """Return the candidate that undoes migrations.

    Args:
        snapshot: The model as it is.
        records: Their undo records, the latest migration's first.
        objects: Where the records are.

    Raises:
        UndoError: A record is missing, damaged or of a newer format.
        DriftError: What a migration changed was changed again.
    """
    undone, edit = _read_undone(snapshot, records, objects)
    metadata: dict[str, FileMetadata] = {}
    links: dict[str, LinkMetadata] = {}
    images: dict[str, ShardImage] = {}
    for undo in undone:
        metadata |= undo.metadata
        links |= undo.links
        images |= undo.shards
    files, rewritten = documents_before(snapshot, undone, edit)
    stored = StoredRows(snapshot, dict(zip(records, undone, strict=True)))
    trained = _find_changed_shards(snapshot, undone)
    if trained:
        images = shards_before(snapshot, edit, stored)
    files[STAMP] = next((undo.files[STAMP] for undo in reversed(undone)), None)
    if rewritten or trained:
        files[STAMP] = stamp_before(files[STAMP], files, images, snapshot)
        metadata = {name: held for name, held in metadata.items() if name not in rewritten}
        links = {name: held for name, held in links.items() if name not in rewritten}
    tokens = _tokens(snapshot, files)
    return DowngradeCandidate(
        Candidate(files, metadata, images, edit, stored.row, tokens, links), tuple(sorted({*rewritten, *trained}))
    )


def restore_documents(snapshot: Snapshot, records: Sequence[str], objects: Objects) -> Documents:
    """Return the small files that `build_downgrade` would give, for which no weights are read.

    Args:
        snapshot: The model as it is.
        records: The undo records of the migrations, the latest one's first.
        objects: Where the records are.

    Raises:
        UndoError: A record is missing, damaged or of a newer format.
        DriftError: What a migration changed was changed again.
    """
    undone, edit = _read_undone(snapshot, records, objects)
    files, _ = documents_before(snapshot, undone, edit)
    return Documents(files, edit.new_rows, _tokens(snapshot, files))


def _read_undone(snapshot: Snapshot, records: Sequence[str], objects: Objects) -> tuple[list[Undo], RowEdit]:
    """Return undo records, and the rows before their migrations in terms of the rows as they are."""
    undone = [read_undo_record(digest, objects) for digest in records]
    edit = RowEdit.identity(snapshot.state.rows)
    for digest, undo in zip(records, undone, strict=True):
        if undo.edit.new_rows != edit.new_rows:
            raise UndoError("the undo record does not fit the model", where=digest, hint="restore the model")
        edit = edit.then(inverse(undo.edit, digest))
    return undone, edit


def _tokens(snapshot: Snapshot, files: Mapping[str, bytes | None]) -> Mapping[str, int]:
    # An adapter need not have a tokenizer.
    text = files.get(TOKENIZER) or snapshot.texts.get(TOKENIZER)
    return Tokenizer(parse(text.decode("utf-8"), TOKENIZER)).ids if text is not None else {}


def collect_lost_rows(edit: RowEdit, window: Window, read: Callable[[int], bytes]) -> bytes:
    """Return the rows of a tensor that `edit` loses, joined.

    Args:
        edit: What happens to the rows of all ids; the ids that the tensor has no rows for are the last ones.
        window: Which ids it has rows for.
        read: Gives the bytes of a row before it.
    """
    return b"".join(read(row) for row in expand(window.clipped(edit.lost(), edit.old_rows)))


def _find_changed_shards(snapshot: Snapshot, undone: Sequence[Undo]) -> frozenset[str]:
    """Return the shards that are not, or were not on the way, what the migrations left."""
    if not any(undo.shards for undo in undone):
        return frozenset()
    tensors = {tensor.name: tensor for tensor in snapshot.tensors}
    found: Mapping[str, str] = {
        name: read_shard_digest(snapshot.directory / name, tensors, snapshot.state.rows)
        for name in snapshot.vocabulary_shards
    }
    for undo in undone:
        if undo.shards:
            other = {name for name in {*found, *undo.left_shards} if found.get(name) != undo.left_shards.get(name)}
            if other:
                return frozenset(other & set(snapshot.vocabulary_shards)) or frozenset(snapshot.vocabulary_shards)
            found = {name: image.digest for name, image in undo.shards.items()}
    return frozenset()

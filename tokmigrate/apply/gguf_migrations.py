"""The upgrade of a GGUF, whose new rows are those of its model, rounded, and its downgrade from what upgrades left."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

from tokmigrate.apply.build_downgrade import read_lost_rows
from tokmigrate.apply.digests import edit_tables
from tokmigrate.apply.file_metadata import read_metadata
from tokmigrate.apply.gguf_change import GgufChange, GgufCompletion
from tokmigrate.apply.gguf_undo import GgufUndo, keep_gguf_undo, read_gguf_undo
from tokmigrate.apply.kept_objects import NewObjects, Objects
from tokmigrate.apply.new_rows import RowBytes, read_edited
from tokmigrate.errors import UndoError
from tokmigrate.model.formats.dtype import to_float64
from tokmigrate.model.formats.gguf import Head
from tokmigrate.model.formats.gguf_reading import parse_head
from tokmigrate.model.gguf_copy import GgufCopy
from tokmigrate.model.gguf_rows import encode_row
from tokmigrate.model.gguf_vocabulary import AGAIN
from tokmigrate.model.weights.tensor_rows import shard_digest
from tokmigrate.plan.plan import CopyPlan
from tokmigrate.vocabulary.row_edit import WHOLE, Recipe, RestoredRow, RowEdit

_CONVERT = AGAIN.replace("migration", "downgrade")


class GgufUpgrade:
    """The upgrade of a GGUF, which goes along with that of its model.

    Args:
        edit: The rows at the end in terms of those on disk.
    """

    def __init__(self, plan: CopyPlan, edit: RowEdit) -> None:
        self.copy = plan.copy
        self.change = GgufChange(plan.copy, plan.heads[-1], edit, self._complete)
        self._heads = (plan.copy.head, *plan.heads)
        self._made: Mapping[str, Mapping[Recipe, bytes]] = {}
        self._tables: Mapping[str, bytes] = {}
        self._digest = ""

    def make_rows(self, made: RowBytes) -> None:
        """Compute its new rows from those of its model, which are read as they are stored there."""
        found: dict[str, dict[Recipe, bytes]] = {}
        for tensor in self.copy.tensors:
            rows = made.get(tensor.of.name, {})
            encoded = {raw: encode_row(to_float64(raw, tensor.of.dtype), tensor.kind) for raw in {*rows.values()}}
            found[tensor.name] = {recipe: encoded[raw] for recipe, raw in rows.items()}
        self._made = found
        self._tables = self.change.contents.tables
        self._digest = self._digest_of(self._heads[0])

    def keep_undo(self, number: int, before: RowEdit, step: RowEdit, own: RowEdit, objects: NewObjects) -> str:
        """Keep what undoing a migration needs, and return the digest of the record; called for each in their order.

        Args:
            before: The rows before it in terms of those on disk.
            step: Those after it in terms of those before it.
            own: The same, with the recipes in terms of the rows on disk.
        """
        digest, head = self._digest, self._heads[number]
        lost: dict[str, str] = {}
        if not step.is_identity:
            tensors = self.copy.rows_of(step.old_rows)
            for name in tensors:
                with self.copy.open_rows(name) as rows:
                    read = read_edited(rows, self._made[name], before)
                    lost[name] = objects.put_parts(read_lost_rows(step, WHOLE, rows.geometry.row_bytes, read))
            self._tables = edit_tables(self._tables, own, tensors, self._new_row)
        self._digest = self._digest_of(self._heads[number + 1])
        metadata = read_metadata(self.copy.path)
        return keep_gguf_undo(GgufUndo(head.raw, head.file_size, digest, self._digest, lost, metadata), objects)

    def _complete(self) -> GgufCompletion:
        return GgufCompletion(self._new_row, None, self._digest)

    def _new_row(self, tensor: str, recipe: Recipe) -> bytes:
        return self._made[tensor][recipe]

    def _digest_of(self, head: Head) -> str:
        return shard_digest(self.copy.layout(head), self._tables, self.change.contents.fixed)


def read_gguf_records(
    copy: GgufCopy, records: Mapping[str, Mapping[str, str]], objects: Objects
) -> Mapping[str, GgufUndo]:
    """Return what undoes migrations of a GGUF, by the undo records of its model.

    Args:
        records: By each undo record of the model, the latest migration's first, those of its GGUFs by their lineage.

    Raises:
        UndoError: A migration was applied without it, or a record is damaged.
    """
    if any(copy.lineage not in held for held in records.values()):
        message = "the GGUF did not follow a migration that the downgrade undoes, and has no undo data for it"
        raise UndoError(message, where=str(copy.path), hint=_CONVERT)
    undone = {record: read_gguf_undo(held[copy.lineage], objects) for record, held in records.items()}
    for later, earlier in pairwise(undone.values()):
        if later.before != earlier.after:
            message = "the GGUF was made again between two migrations that the downgrade undoes"
            raise UndoError(message, where=str(copy.path), hint=_CONVERT)
    return undone


def build_gguf_downgrade(copy: GgufCopy, edit: RowEdit, undone: Mapping[str, GgufUndo], objects: Objects) -> GgufChange:
    """Return the change that undoes migrations of a GGUF.

    Args:
        edit: The rows afterwards in terms of those on disk, whose lost rows the model's undo records name.
        undone: What `read_gguf_records` returns.
    """
    latest_first = list(undone.values())
    last, first = latest_first[0], latest_first[-1]
    head = parse_head(first.head, first.size, str(copy.path))
    sizes = copy.row_bytes
    opened = {digest: objects.open(digest) for undo in latest_first for digest in undo.lost.values()}

    def row(tensor: str, recipe: Recipe) -> bytes:
        if not isinstance(recipe, RestoredRow):
            raise UndoError("the undo data holds no row of it", where=tensor, hint="restore the GGUF from a backup")
        size = sizes[tensor]
        return opened[undone[recipe.record].lost[tensor]].read(recipe.slot * size, size)

    completion = GgufCompletion(row, last.after, first.before, first.metadata)
    return GgufChange(copy, head, edit, lambda: completion)

"""The upgrade of a GGUF: its new rows are those of its model, rounded, and each migration keeps an undo record."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack

from tokmigrate.apply.digests import edit_tables
from tokmigrate.apply.file_metadata import read_metadata
from tokmigrate.apply.gguf_change import GgufChange, GgufCompletion
from tokmigrate.apply.gguf_undo import GgufUndo, keep_gguf_undo
from tokmigrate.apply.kept_objects import NewObjects
from tokmigrate.apply.new_rows import RowBytes, read_edited
from tokmigrate.model.formats.dtype import to_float64
from tokmigrate.model.formats.gguf import Head
from tokmigrate.model.gguf_rows import encode_row
from tokmigrate.model.weights.tensor_rows import TensorRows, shard_digest
from tokmigrate.plan.copies import CopyPlan
from tokmigrate.vocabulary.row_edit import Recipe, RowEdit


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
        lost: dict[str, bytes] = {}
        if not step.is_identity:
            tensors = self.copy.rows_of(step.old_rows)
            with ExitStack() as stack:
                for name in tensors:
                    rows = stack.enter_context(self._open(name))
                    read = read_edited(rows, self._made[name], before)
                    lost[name] = b"".join(read(*run) for run in step.find_lost_rows())
            self._tables = edit_tables(self._tables, own, tensors, self._made)
        self._digest = self._digest_of(self._heads[number + 1])
        metadata = read_metadata(self.copy.path)
        return keep_gguf_undo(GgufUndo(head.raw, head.file_size, digest, self._digest, lost, metadata), objects)

    def _complete(self) -> GgufCompletion:
        return GgufCompletion(lambda tensor, recipe: self._made[tensor][recipe], None, self._digest)

    def _digest_of(self, head: Head) -> str:
        return shard_digest(self.copy.layout(head), self._tables, self.change.contents.fixed)

    def _open(self, tensor: str) -> TensorRows:
        header = self.copy.header
        geometry = self.copy.rows_of(self.change.edit.old_rows)[tensor].geometry
        return TensorRows(self.copy.path, header.data_start + header.entry(tensor).begin, geometry, "U8")

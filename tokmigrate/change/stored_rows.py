"""Rows that undo records hold, as the model's tensors keep numbers now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tokmigrate.change.undo_record import Undo
from tokmigrate.errors import UndoError
from tokmigrate.model.formats.dtype import FLOATING, ITEM_BITS, from_float64, to_float64
from tokmigrate.model.snapshot import Snapshot
from tokmigrate.vocabulary.recipes import Stored
from tokmigrate.vocabulary.rows import Recipe


@dataclass(frozen=True)
class StoredRows:
    """The rows of undo records.

    Args:
        snapshot: The model as it is.
        undone: The undo records by their digests.
    """

    snapshot: Snapshot
    undone: Mapping[str, Undo]

    def row(self, name: str, recipe: Recipe) -> bytes:
        """Return a row of a tensor, rounded once where the tensor has another dtype than it had.

        Raises:
            UndoError: No record holds it, or it cannot be given in the dtype of today.
        """
        tensor = next(tensor for tensor in self.snapshot.tensors if tensor.name == name)
        undo = self.undone.get(recipe.record) if isinstance(recipe, Stored) else None
        if not isinstance(recipe, Stored) or undo is None or name not in undo.saved:
            raise UndoError("the undo data holds no row of it", where=name, hint="restore the model from a backup")
        dtype = _dtype(undo, name)
        size = tensor.row_bytes * ITEM_BITS[dtype] // ITEM_BITS[tensor.dtype]
        held = undo.saved[name][recipe.slot * size : (recipe.slot + 1) * size]
        if dtype == tensor.dtype:
            return held
        if not {dtype, tensor.dtype} <= FLOATING:
            raise UndoError(
                f"the rows on record are {dtype}, those of the model {tensor.dtype}",
                where=name,
                hint=f"save the model as {dtype} again, or go back on the model as it was",
            )
        return from_float64(to_float64(held, dtype), tensor.dtype)


def _dtype(undo: Undo, name: str) -> str:
    return next(entry.dtype for image in undo.shards.values() for entry in image.header.entries if entry.name == name)

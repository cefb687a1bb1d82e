"""The downgrade of a GGUF, from the undo records that its upgrades left."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

from tokmigrate.apply.gguf_change import GgufChange, GgufCompletion
from tokmigrate.apply.gguf_undo import GgufUndo, read_gguf_undo
from tokmigrate.apply.kept_objects import Objects
from tokmigrate.errors import UndoError
from tokmigrate.model.formats.gguf_reading import parse_head
from tokmigrate.model.gguf_copy import GgufCopy
from tokmigrate.model.gguf_vocabulary import AGAIN
from tokmigrate.vocabulary.row_edit import Recipe, RestoredRow, RowEdit

_CONVERT = AGAIN.replace("migration", "downgrade")


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


def build_gguf_downgrade(copy: GgufCopy, edit: RowEdit, undone: Mapping[str, GgufUndo]) -> GgufChange:
    """Return the change that undoes migrations of a GGUF.

    Args:
        edit: The rows afterwards in terms of those on disk, whose lost rows the model's undo records name.
        undone: What `read_gguf_records` returns.
    """
    latest_first = list(undone.values())
    last, first = latest_first[0], latest_first[-1]
    head = parse_head(first.head, first.size, str(copy.path))
    sizes = copy.row_bytes

    def row(tensor: str, recipe: Recipe) -> bytes:
        if not isinstance(recipe, RestoredRow):
            raise UndoError("the undo data holds no row of it", where=tensor, hint="restore the GGUF from a backup")
        size = sizes[tensor]
        return undone[recipe.record].lost[tensor][recipe.slot * size : (recipe.slot + 1) * size]

    completion = GgufCompletion(row, last.after, first.before, first.metadata)
    return GgufChange(copy, head, edit, lambda: completion)

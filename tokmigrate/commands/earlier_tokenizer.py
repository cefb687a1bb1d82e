"""The tokenizer that a model had before its new tokens, and where the rows of that tokenizer's ids are now."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from tokmigrate.apply.build_downgrade import restore_documents
from tokmigrate.audit.run_status import read_snapshot
from tokmigrate.commands.records import find_undo_records
from tokmigrate.errors import UsageError
from tokmigrate.formatting import format_list
from tokmigrate.model.tokenizer.tokenizer_json import Tokenizer
from tokmigrate.settings import ModelEntry, Workspace
from tokmigrate.state.objects import ObjectStore


@dataclass(frozen=True)
class EarlierTokenizer:
    """A tokenizer that a model had.

    Args:
        revision: The revision that it is of, None for `base`.
        rows: The row of the model as it is now that each id of then has, where it still has one.
    """

    revision: str | None
    tokenizer: Tokenizer
    rows: Mapping[int, int]


def find_earlier_tokenizer(workspace: Workspace, entry: ModelEntry, tokens: Collection[str]) -> EarlierTokenizer:
    """Return the latest tokenizer that a model had with as few of the tokens as any.

    Raises:
        UsageError: All had all of them.
        UndoError: The undo data is missing here.
    """
    snapshot = read_snapshot(entry)
    objects, records = ObjectStore(workspace.objects), list[str]()
    found: EarlierTokenizer | None = None
    left = len(tokens)
    revisions = [None, *snapshot.revisions]
    while left and len(revisions) > 1:
        records += find_undo_records(workspace, entry, snapshot, (str(revisions.pop()),))
        documents = restore_documents(snapshot, records, objects)
        there = sum(token in documents.ids for token in tokens)
        if documents.tokenizer and there < left:
            origins = ((number, documents.edit.row(number)) for number in documents.ids.values())
            rows = {number: row for number, row in origins if isinstance(row, int)}
            found, left = EarlierTokenizer(revisions[-1], documents.tokenizer, rows), there
    if found is None:
        message = f"the model never had a tokenizer without {format_list(sorted(tokens), 3)}"
        raise UsageError(message, where=entry.name, hint="train their rows instead: `tokmigrate train`")
    return found

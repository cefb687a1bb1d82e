"""A tokenizer without weights, as operations see a model."""

from __future__ import annotations

from tokmigrate.model.documents.peculiarities import fixed_size
from tokmigrate.model.documents.state import CONFIG, ModelState, Traits
from tokmigrate.model.meaning.stated import Documents, stated_rows
from tokmigrate.model.tokenizer.tokenizer_json import FILE, Tokenizer
from tokmigrate.vocabulary.rows import RowEdit
from tokmigrate.vocabulary.tokens import runs


def bare_state(documents: Documents, room: int) -> ModelState:
    """Return the state of a model of which only the documents are known.

    Args:
        documents: Its parsed files by name; tokenizer.json has to be there.
        room: The rows that it has where config.json does not say how many.

    Raises:
        OutOfStepError: The ids written down are not those that loading gives.
    """
    config = documents.get(CONFIG) or {}
    ids = Tokenizer(documents[FILE]).checked().texts
    rows = max(next(iter(stated_rows(documents).values()), room), max(ids, default=-1) + 1)
    return ModelState(
        documents={CONFIG: {}, **documents},
        touched=frozenset(),
        edit=RowEdit.identity(rows),
        lineage=RowEdit.identity(rows),
        baseline_tokens=runs(sorted(ids)),
        reshaped=False,
        init=None,
        traits=Traits(str(config.get("model_type", "")), tied=True, fixed_size=fixed_size(config)),
    )

"""Rows for new tokens: spare ones first, then rows at the end."""

from __future__ import annotations

from collections.abc import Mapping

from tokmigrate.errors import OperationError
from tokmigrate.initialise import InitSpec
from tokmigrate.model.roles import with_vocab_size
from tokmigrate.model.state import ModelState
from tokmigrate.operations.base import Context
from tokmigrate.vocabulary.recipes import Begun
from tokmigrate.vocabulary.rows import Fresh, Kept, RowEdit, joined

MEAN = InitSpec.model_validate({"strategy": "mean"})
"""How a row starts where nothing else is said: the mean has a bound on what it does to old text."""


class TokenLookup:
    """What an init strategy may ask of the tokenizer as it was before the operation."""

    def __init__(self, state: ModelState) -> None:
        self._tokenizer = state.tokenizer

    def id_of(self, token: str) -> int | None:
        """Return the id of `token`, or None."""
        return self._tokenizer.ids.get(token)

    def pieces(self, text: str) -> tuple[int, ...]:
        """Return the ids that the tokenizer cuts `text` into."""
        return self._tokenizer.pieces(text)

    def known(self) -> list[str]:
        """Return every token."""
        return list(self._tokenizer.ids)


def chosen_init(state: ModelState, context: Context, *nearest_first: InitSpec | None) -> InitSpec:
    """Return the first strategy given, of the token, the operation, the file, `set_init`; else the mean."""
    for spec in (*nearest_first, context.init):
        if spec is not None:
            return spec
    return MEAN if state.init is None else InitSpec.model_validate(state.init)


def begun(state: ModelState, context: Context, label: str, spec: InitSpec) -> Begun:
    """Return the recipe for the row of the token `label`, read off the state before it."""
    lookup = TokenLookup(state)
    if not state.population:
        raise OperationError("no row of the baseline vocabulary is left to start a new one from")
    return Begun(
        revision=context.revision,
        label=label,
        input=spec.start("input", lookup, label, context.data()),
        output=spec.start("output", lookup, label, context.data()),
        population=state.population,
    )


def with_begun_rows(state: ModelState, recipes: Mapping[int, Begun]) -> ModelState:
    """Return the state with each row of `recipes` made, and config.json in step.

    Args:
        state: The state before.
        recipes: By row; rows past the end must follow it without a hole.
    """
    before = state.rows
    pieces: list[Kept | Fresh] = []
    position = 0
    for row in sorted(recipes):
        if row > max(before, position):
            raise OperationError(
                f"row {row} would leave a hole behind row {max(before, position) - 1}",
                hint=f"add rows first: resize_vocab: {{rows: {row}}}",
            )
        pieces += [Kept(position, min(row, before))] if position < min(row, before) else []
        pieces.append(Fresh(recipes[row]))
        position = row + 1
    if position < before:
        pieces.append(Kept(position, before))
    return with_vocab_size(state.with_rows(RowEdit(before, joined(pieces))), before)

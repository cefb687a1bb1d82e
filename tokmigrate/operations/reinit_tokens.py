"""The operation `reinit_tokens`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

from pydantic import Field

from tokmigrate.errors import OperationError
from tokmigrate.formatting import format_quoted
from tokmigrate.init import InitSpec
from tokmigrate.model.documents.state import ModelState
from tokmigrate.operations.operation import (
    Context,
    Footprint,
    Operation,
    Risk,
    TokenChanges,
    TokenList,
    init_reads,
    name_tokens,
)
from tokmigrate.operations.row_changes import choose_init, init_recipe, with_new_rows
from tokmigrate.operations.token_checks import id_of
from tokmigrate.vocabulary.ids import expand, runs


class ReinitTokens(Operation):
    """Initialise the rows of tokens again; text and ids stay.

    From then on such a row is one that a migration made: no mean is taken over it. The strategy reads the rows as
    they are before the operation, and its statistics leave out the rows that are initialised again.
    """

    name: ClassVar[str] = "reinit_tokens"
    shorthand: ClassVar[str | None] = "tokens"

    tokens: TokenList = Field(description="The tokens; a text alone is one.")
    init: InitSpec | None = Field(default=None, description="How the rows are initialised.")

    def apply(self, state: ModelState, context: Context) -> ModelState:
        return with_reinitialised_rows(state, context, {id_of(state, token): token for token in self.tokens}, self.init)

    def risk(self, before: ModelState, after: ModelState) -> Risk:  # noqa: ARG002
        ordinary = [token for token in self.tokens if token not in before.tokenizer.added]
        if ordinary:
            return Risk.breaking(f"ordinary text is made of {format_quoted(ordinary)}, which the model forgets")
        return Risk.caution(f"what the model learnt of {format_quoted(self.tokens)} is gone")

    def token_changes(self) -> TokenChanges:
        return TokenChanges(reinitialised=self.tokens)

    def footprint(self) -> Footprint:
        return Footprint.of(name_tokens(self.tokens), init_reads(self.init))


def with_reinitialised_rows(
    state: ModelState, context: Context, labels: Mapping[int, str], init: InitSpec | None
) -> ModelState:
    """Return the state in which the rows of `labels`, each with its token's text, are initialised again."""
    spec = choose_init(state, context, init)
    population = runs(row for row in expand(state.population) if row not in labels)
    if not population:
        raise OperationError("no row of the baseline vocabulary is left to initialise a new one from")
    recipes = {
        row: replace(init_recipe(state, context, label, spec), population=population) for row, label in labels.items()
    }
    return with_new_rows(state, context, recipes)

"""The operation `reinit_tokens`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

from pydantic import Field

from tokmigrate.errors import OperationError
from tokmigrate.initialise import InitSpec
from tokmigrate.model.documents.state import ModelState
from tokmigrate.operations.base import Context, Operation, Risk, RiskLevel
from tokmigrate.operations.begun_rows import begun, chosen_init, with_begun_rows
from tokmigrate.operations.known_tokens import id_of
from tokmigrate.operations.token_list import TokenList, quoted
from tokmigrate.vocabulary.tokens import expand, runs


class ReinitTokens(Operation):
    """Begin the rows of tokens anew; text and ids stay.

    From then on such a row is one that a migration made: no mean is taken over it. The strategy reads the rows as
    they are before the operation, and its statistics leave out the rows that begin anew.
    """

    name: ClassVar[str] = "reinit_tokens"
    shorthand: ClassVar[str | None] = "tokens"

    tokens: TokenList = Field(description="The tokens; a text alone is one.")
    init: InitSpec | None = Field(default=None, description="How the rows start.")

    def apply(self, state: ModelState, context: Context) -> ModelState:
        """Return the state with the rows begun anew."""
        return with_rows_begun_anew(state, context, {id_of(state, token): token for token in self.tokens}, self.init)

    def risk(self, before: ModelState, after: ModelState) -> Risk:  # noqa: ARG002
        """Say whose meaning is lost."""
        ordinary = [token for token in self.tokens if token not in before.tokenizer.added]
        if ordinary:
            return Risk(RiskLevel.BREAKING, f"ordinary text is made of {quoted(ordinary)}, which the model forgets")
        return Risk(RiskLevel.CAUTION, f"what the model learnt of {quoted(self.tokens)} is gone")

    def references(self) -> tuple[str, ...]:
        """Return the files that the strategy reads."""
        return self.init.references() if self.init else ()


def with_rows_begun_anew(
    state: ModelState, context: Context, labels: Mapping[int, str], init: InitSpec | None
) -> ModelState:
    """Return the state in which rows that are there start anew.

    Args:
        state: The state before.
        context: What the migration says.
        labels: The text of the token of each row.
        init: What the operation says of how they start.
    """
    spec = chosen_init(state, context, init)
    population = runs(row for row in expand(state.population) if row not in labels)
    if not population:
        raise OperationError("no row of the baseline vocabulary is left to start a new one from")
    recipes = {row: replace(begun(state, context, label, spec), population=population) for row, label in labels.items()}
    return with_begun_rows(state, context, recipes)

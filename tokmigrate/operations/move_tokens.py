"""The operation `move_tokens`."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from tokmigrate.errors import OperationError
from tokmigrate.model.documents.architecture_quirks import ordered_tail
from tokmigrate.model.documents.state import ModelState
from tokmigrate.model.references.references import with_renumbered
from tokmigrate.operations.operation import ALL_IDS, Context, Footprint, Risk, TokenChanges
from tokmigrate.operations.row_changes import check_ids_may_change
from tokmigrate.operations.token_checks import id_of
from tokmigrate.operations.token_lists import MAP_DESCRIPTION, TokenMapOperation
from tokmigrate.vocabulary.ids import Renumbering
from tokmigrate.vocabulary.row_edit import RowEdit


class MoveTokens(TokenMapOperation):
    """Give tokens other ids; their rows, and every file that names their ids, go with them.

    A token goes to a row without token, or to one whose token is moved as well: two tokens swap by naming both.
    Text is tokenized as before.
    """

    name: ClassVar[str] = "move_tokens"

    tokens: dict[str, Annotated[int, Field(ge=0)]] = Field(
        default={}, min_length=1, description="The new id of each token, by its text."
    )
    tokens_file: str | None = Field(default=None, min_length=1, description=MAP_DESCRIPTION)

    def apply(self, state: ModelState, context: Context) -> ModelState:  # noqa: ARG002
        renumbering = Renumbering.swap(self._moves(state))
        if renumbering.is_identity:
            return state
        check_ids_may_change(state, renumbering)
        moved = with_renumbered(state, renumbering)
        source = {new: old for old, new in renumbering.moves.items() if new is not None}
        rows = state.rows
        return moved.with_rows(RowEdit.of(rows, (source.get(row, row) for row in range(rows))))

    def risk(self, before: ModelState, after: ModelState) -> Risk:
        if before.tokenizer.ids == after.tokenizer.ids:
            return Risk.safe("every token is there already")
        tail = ordered_tail(before)
        if tail is not None and not tail.is_kept(Renumbering.swap(self._moves(before))):
            reason = tail.describe(before.traits.model_type)
            return Risk.breaking(f"{reason}, and tokens change places with timestamps")
        return Risk.breaking("ids kept elsewhere, as in tokenized data, will refer to other tokens")

    def token_changes(self) -> TokenChanges:
        return TokenChanges(moved=self.tokens)

    def footprint(self) -> Footprint:
        # Any change of ids concerns them.
        ids = (f"id {new}" for new in self.tokens.values())
        return Footprint.of((*Footprint.name_tokens(self.tokens), *ids), [ALL_IDS])

    def _moves(self, state: ModelState) -> dict[int, int]:
        moves: dict[int, int] = {}
        taken: dict[int, str] = {}
        sources = {id_of(state, token) for token in self.tokens}
        for token, number in self.tokens.items():
            if number >= state.rows:
                raise OperationError(
                    f"there is no row {number} for '{token}': the model has {state.rows}",
                    hint=f"add rows first: resize_vocab: {{rows: {number + 1}}}",
                )
            if number in taken:
                raise OperationError(
                    f"'{taken[number]}' and '{token}' cannot both have id {number}", hint="give one another id"
                )
            if number in state.tokenizer.texts and number not in sources:
                raise OperationError(
                    f"id {number} belongs to '{state.tokenizer.texts[number]}'",
                    hint="move that token as well, or choose a row without token",
                )
            taken[number] = token
            moves[state.tokenizer.ids[token]] = number
        return moves

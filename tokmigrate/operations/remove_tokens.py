"""The operation `remove_tokens`."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from tokmigrate.errors import OperationError
from tokmigrate.formatting import format_count, format_quoted
from tokmigrate.init import InitSpec
from tokmigrate.model.documents.architecture_quirks import ordered_tail
from tokmigrate.model.documents.config_fields import with_sizes
from tokmigrate.model.documents.state import ModelState
from tokmigrate.model.references.references import with_references, with_renumbered
from tokmigrate.model.references.token_texts import with_placeholders, without_mentions
from tokmigrate.operations.operation import (
    ALL_IDS,
    AsTuple,
    Context,
    Footprint,
    Operation,
    Risk,
    TokenChanges,
    name_tokens,
)
from tokmigrate.operations.row_changes import (
    check_ids_may_change,
    check_size_may_change,
    choose_init,
    init_recipe,
    with_new_rows,
)
from tokmigrate.operations.token_checks import check_not_in_use, id_of, unreachable_tokens
from tokmigrate.vocabulary.ids import Renumbering, tombstone
from tokmigrate.vocabulary.row_edit import CopiedRows, NewRow, RowEdit, join_pieces


class RemoveTokens(Operation):
    """Take tokens out of the vocabulary, with the merges that make or use them.

    With `ids: tombstone` every other id stays, and a placeholder holds the place. With `ids: compact` higher ids
    move down, with their rows and every place that names them. A token that the chat template, the post-processor,
    padding or a special role uses is not removed. Where a removal leaves other tokens that no text produces any more,
    it is refused and names them, or takes them along.
    """

    name: ClassVar[str] = "remove_tokens"
    keeps_reachable: ClassVar[bool] = True

    tokens: Annotated[tuple[str, ...], AsTuple] = Field(min_length=1, description="The texts of the tokens.")
    ids: Literal["tombstone", "compact"] = Field(description="What happens to the ids.")
    acknowledge: Literal["breaking"] = Field(description="Acknowledges that data tokenized before no longer matches.")
    with_: Literal["unreachable"] | None = Field(
        default=None,
        alias="with",
        description="`unreachable`: also remove the tokens that text could produce and cannot produce without these.",
    )
    shrink: bool = Field(
        default=False, description="With `compact`: remove as many rows, instead of keeping them as spare rows."
    )
    init: InitSpec | None = Field(
        default=None,
        description="How the rows of placeholders, or spare rows, are initialised; by default they stay.",
    )

    def apply(self, state: ModelState, context: Context) -> ModelState:
        if self.shrink and self.ids == "tombstone":
            raise OperationError("with placeholders no row can go", hint="use `ids: compact`, or leave out `shrink`")
        gone = self.tokens
        while True:
            numbers = frozenset(id_of(state, token) for token in gone)
            check_not_in_use(state, frozenset(gone))
            bare = without_mentions(state, frozenset(gone))
            if self.ids == "compact":
                after = self._compact(bare, context, numbers)
            else:
                after = self._with_placeholders(bare, context, gone)
            lost = unreachable_tokens(state, after)
            if not lost:
                return after
            if self.with_ is None:
                others = format_count(len(lost), "other token")
                raise OperationError(
                    f"without {format_quoted(gone)} no text produces {others} any more: {format_quoted(lost, 20)}",
                    hint="add `with: unreachable` to remove them as well, or keep what they are made of",
                )
            gone = (*gone, *lost)

    def risk(self, before: ModelState, after: ModelState) -> Risk:
        if self.ids == "compact":
            reason = "higher ids move down; tokenized data will refer to other tokens"
        else:
            reason = f"text with {format_quoted(self.tokens)} is tokenized differently"
        named = {*self.tokens}
        lost = [token for token in before.tokenizer.ids if token not in after.tokenizer.ids and token not in named]
        if lost:
            reason += f"; also removes {len(lost)} that no text produces without them: {format_quoted(lost)}"
        return Risk.breaking(reason)

    def token_changes(self) -> TokenChanges:
        return TokenChanges(removed=self.tokens)

    def footprint(self) -> Footprint:
        return Footprint.of((*name_tokens(self.tokens), *([ALL_IDS] if self.ids == "compact" else [])))

    def _with_placeholders(self, state: ModelState, context: Context, tokens: tuple[str, ...]) -> ModelState:
        ids = {token: state.tokenizer.ids[token] for token in tokens}
        names = {token: tombstone(number) for token, number in ids.items()}
        taken = next((name for name in names.values() if name in state.tokenizer.ids), None)
        if taken is not None:
            raise OperationError(f"the placeholder '{taken}' exists already", hint="it holds its place as it is")
        recipes = {}
        if self.init is not None:
            recipes = {number: init_recipe(state, context, names[token], self.init) for token, number in ids.items()}
        state = with_references(state, Renumbering(dict.fromkeys(ids.values())))
        return with_new_rows(with_placeholders(state, names), context, recipes)

    def _compact(self, state: ModelState, context: Context, gone: frozenset[int]) -> ModelState:
        size = state.vocab_size
        if max(gone) >= size:
            raise OperationError(f"id {max(gone)} is none of those that are predicted", hint="use `ids: tombstone`")
        renumbering = Renumbering.close_gaps(gone, state.rows if self.shrink else size)
        check_ids_may_change(state, renumbering, len(gone) if self.shrink else 0)
        tail = ordered_tail(state)
        if tail is not None and not tail.is_kept(renumbering):
            raise OperationError(
                f"a {state.traits.model_type} model takes each id from {tail.start} on for a timestamp by its order",
                hint="use `ids: tombstone`",
            )
        edges = [-1, *sorted(gone), size]
        pieces: list[CopiedRows | NewRow] = [CopiedRows(before + 1, after) for before, after in pairwise(edges)]
        if self.shrink:
            check_size_may_change(state)
        else:
            spec = choose_init(state, context, self.init)
            pieces += [NewRow(init_recipe(state, context, f"row {row}", spec)) for row in range(size - len(gone), size)]
        pieces.append(CopiedRows(size, state.rows))
        moved = with_renumbered(state, renumbering)
        return with_sizes(moved.with_rows(RowEdit(state.rows, join_pieces(pieces))), state)

"""The operation `remove_tokens`."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import ClassVar, Literal

from pydantic import Field

from tokmigrate.errors import OperationError
from tokmigrate.formatting import format_count, format_quoted
from tokmigrate.init import InitSpec
from tokmigrate.model.documents.architecture_quirks import ordered_tail
from tokmigrate.model.documents.config_fields import with_sizes
from tokmigrate.model.documents.state import ModelState
from tokmigrate.model.references.references import with_references, with_renumbered
from tokmigrate.model.references.token_texts import with_placeholders, without_mentions
from tokmigrate.operations.operation import ALL_IDS, Context, Footprint, Risk, TokenChanges
from tokmigrate.operations.row_changes import (
    check_ids_may_change,
    check_size_may_change,
    choose_init,
    init_recipe,
    with_new_rows,
)
from tokmigrate.operations.token_checks import check_not_in_use, id_of, unreachable_tokens
from tokmigrate.operations.token_closure import MergeTrees, required_tokens
from tokmigrate.operations.token_lists import FILE_DESCRIPTION, TokenListOperation
from tokmigrate.vocabulary.ids import Renumbering, tombstone
from tokmigrate.vocabulary.row_edit import CopiedRows, NewRow, RowEdit, join_pieces


class RemoveTokens(TokenListOperation):
    """Take tokens out of the vocabulary, with the merges that make or use them.

    Either the tokens that go are listed, or with `keep_tokens` or `keep_file` those that stay. With `closure: keep` the
    parts that a kept token is merged from stay too, and so do letters, bytes, added tokens and all that files name.
    Text that consists of kept tokens is tokenized as before.

    With `ids: tombstone` every other id stays, and a placeholder holds the place. With `ids: compact` higher ids
    move down, with their rows and every place that names them. A token that the chat template, the post-processor,
    padding or a special role uses is not removed. Where a removal leaves other tokens that no text produces any more,
    it is refused and names them, or takes them along.
    """

    name: ClassVar[str] = "remove_tokens"
    keeps_reachable: ClassVar[bool] = True

    lists: ClassVar[Mapping[str, str]] = {"tokens": "tokens_file", "keep_tokens": "keep_file"}

    tokens: tuple[str, ...] = Field(default=(), min_length=1, description="The texts of the tokens.")
    tokens_file: str | None = Field(default=None, min_length=1, description=FILE_DESCRIPTION)
    keep_tokens: tuple[str, ...] = Field(
        default=(), min_length=1, description="The tokens that stay; all others are removed."
    )
    keep_file: str | None = Field(default=None, min_length=1, description=f"The tokens that stay. {FILE_DESCRIPTION}")
    closure: Literal["keep"] | None = Field(
        default=None, description="`keep`: also keep what the kept tokens need; without it a missing part is an error."
    )
    ids: Literal["tombstone", "compact"] = Field(description="What happens to the ids.")
    acknowledge: Literal["breaking"] = Field(description="Acknowledges that data tokenized before no longer matches.")
    with_: Literal["unreachable"] | None = Field(
        default=None,
        alias="with",
        description="`unreachable`: also remove the tokens that text could produce and cannot produce without these.",
    )
    shrink: bool | Literal["exact"] = Field(
        default=False,
        description="With `compact`: remove as many rows, instead of keeping them as spare rows; `exact` also removes "
        "the rows that were spare before.",
    )
    init: InitSpec | None = Field(
        default=None,
        description="How the rows of placeholders, or spare rows, are initialised; by default they stay.",
    )

    def apply(self, state: ModelState, context: Context) -> ModelState:
        if self.shrink and self.ids == "tombstone":
            raise OperationError("with placeholders no row can go", hint="use `ids: compact`, or leave out `shrink`")
        gone = self.list_removed(state)
        if not gone:
            return state
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
                hint = "add `with: unreachable` to remove them as well, or keep what they are made of"
                raise OperationError(
                    f"without {format_quoted(gone)} no text produces {others} any more: {format_quoted(lost, 20)}",
                    hint="add `closure: keep`, which keeps what they are made of" if self.keep_tokens else hint,
                )
            gone = (*gone, *lost)

    def risk(self, before: ModelState, after: ModelState) -> Risk:
        gone = [token for token in before.tokenizer.ids if token not in after.tokenizer.ids]
        # Without `with` it removes what is listed and nothing else.
        named = self.tokens or (self.list_removed(before) if self.with_ else gone)
        listed = frozenset(named)
        if self.ids == "compact":
            reason = "higher ids move down; tokenized data will refer to other tokens"
        else:
            reason = f"text with {format_quoted(named)} is tokenized differently"
        lost = [token for token in gone if token not in listed] if self.with_ else []
        if lost:
            reason += f"; also removes {len(lost)} that no text produces without them: {format_quoted(lost)}"
        return Risk.breaking(reason)

    def list_removed(self, state: ModelState) -> tuple[str, ...]:
        """Return the tokens that it names, or those that it does not name as kept, in the order of their ids."""
        if not self.keep_tokens:
            return self.tokens
        known = state.tokenizer.ids
        keep = {token for token in self.keep_tokens if id_of(state, token) is not None}
        if self.closure == "keep":
            keep |= MergeTrees(state.tokenizer).find_parts(keep) | required_tokens(state).keys()
        return tuple(sorted(known.keys() - keep, key=known.__getitem__))

    def describe(self) -> str:
        if not self.keep_tokens:
            return super().describe()
        return f"{self.name}: all but {format_count(len(self.keep_tokens), 'token')}"

    def token_changes(self) -> TokenChanges | None:
        return TokenChanges(removed=self.tokens) if self.tokens else None

    def footprint(self) -> Footprint | None:
        if not self.tokens:
            return None
        return Footprint.of((*Footprint.name_tokens(self.tokens), *([ALL_IDS] if self.ids == "compact" else [])))

    def _with_placeholders(self, state: ModelState, context: Context, tokens: tuple[str, ...]) -> ModelState:
        ids = {token: state.tokenizer.ids[token] for token in tokens}
        names = {token: tombstone(number) for token, number in ids.items()}
        taken = next((name for name in names.values() if name in state.tokenizer.ids), None)
        if taken is not None:
            raise OperationError(
                f"the placeholder '{taken}' exists already",
                hint="if the list has it, leave it out: it is a placeholder already; else rename it first",
            )
        recipes = {}
        if self.init is not None:
            recipes = {number: init_recipe(state, context, names[token], self.init) for token, number in ids.items()}
        state = with_references(state, Renumbering(dict.fromkeys(ids.values())))
        return with_new_rows(with_placeholders(state, names), context, recipes)

    def _compact(self, state: ModelState, context: Context, gone: frozenset[int]) -> ModelState:
        size = state.vocab_size
        if self.shrink == "exact":
            gone |= set(range(size)).difference(state.tokenizer.texts)
        if max(gone) >= size:
            raise OperationError(f"id {max(gone)} is none of those that are predicted", hint="use `ids: tombstone`")
        renumbering = Renumbering.close_gaps(gone, state.rows if self.shrink else size)
        check_ids_may_change(state, renumbering, len(gone) if self.shrink else 0)
        tail = ordered_tail(state)
        if tail is not None and not tail.is_kept(renumbering):
            raise OperationError(tail.describe(state.traits.model_type), hint="use `ids: tombstone`")
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

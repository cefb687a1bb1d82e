"""The operation `add_tokens`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field

from tokmigrate.errors import OperationError
from tokmigrate.formatting import format_quoted
from tokmigrate.init import InitSpec
from tokmigrate.model.documents.architecture_quirks import ordered_tail, place_of_languages, tail_move, with_languages
from tokmigrate.model.documents.roles import with_added_tokens, with_listed_specials
from tokmigrate.model.documents.state import Made, ModelState
from tokmigrate.model.references.references import with_inserted_tokens
from tokmigrate.model.tokenizer.tokenizer_json import FLAGS
from tokmigrate.operations.operation import Context, Footprint, NewToken, Risk, RiskLevel, TokenChanges
from tokmigrate.operations.row_changes import (
    check_ids_may_change,
    choose_init,
    init_recipe,
    with_inserted_rows,
    with_new_rows,
)
from tokmigrate.operations.token_lists import FILE_DESCRIPTION, TokenListOperation, read_tokens
from tokmigrate.vocabulary.ids import Renumbering

ListedToken = Annotated[
    NewToken,
    BeforeValidator(
        lambda value: {"content": value} if isinstance(value, str) else value, json_schema_input_type=NewToken | str
    ),
]
"""A token; a text alone is one without flags."""


class AddTokens(TokenListOperation):
    """Add tokens at the end of the vocabulary, each with a row of its own.

    New ids go into spare rows first; the matrices grow only when no row is spare. The row is initialised as `init`
    of the token says, else `init` here, else that of the file, else what `set_init` left, else the mean.

    Where the last ids mean something by their order, as Whisper's timestamps do, new tokens stand before them: those
    ids move up as one block, with their rows and every field that names them.
    """

    name: ClassVar[str] = "add_tokens"
    shorthand: ClassVar[str | None] = "tokens"

    tokens: tuple[ListedToken, ...] = Field(
        default=(),
        min_length=1,
        description="The tokens, in the order of their ids; a text alone is a token without flags.",
    )
    tokens_file: str | None = Field(default=None, min_length=1, description=FILE_DESCRIPTION)
    existing: Literal["refuse", "reuse"] = Field(
        default="refuse",
        description="What happens with a token that the tokenizer has already; `reuse` keeps its id, row and flags.",
    )
    init: InitSpec | None = Field(default=None, description="How the rows are initialised.")

    def apply(self, state: ModelState, context: Context) -> ModelState:
        tokens = self.tokens
        if self.existing == "reuse":
            _check_reused(state, tokens)
            tokens = tuple(token for token in tokens if token.content not in state.tokenizer.ids)
        return with_new_tokens(state, context, tokens, self.init)

    def risk(self, before: ModelState, after: ModelState) -> Risk:
        old = [token.content for token in self.tokens if token.content in before.tokenizer.ids]
        new = [token for token in self.tokens if token.content not in old]
        if not new:
            return Risk.safe(describe_existing(old))
        plain = [token.content for token in new if not token.is_special]
        if plain:
            reasons = [f"text that contains {format_quoted(plain)} will be tokenized differently"]
        else:
            reasons = ["old text is tokenized as before; the new rows are not trained yet"]
        reasons += [move] if (move := tail_move(before, after)) else []
        reasons += [describe_existing(old)] if old else []
        level = RiskLevel.CAUTION if plain or ordered_tail(before) is not None else RiskLevel.SAFE
        return Risk(level, "; ".join(reasons))

    def token_changes(self) -> TokenChanges:
        return TokenChanges(added=self.tokens, may_exist=self.existing == "reuse")

    def footprint(self) -> Footprint:
        reads = (text for token in self.tokens for text in Footprint.name_init(token.init or self.init))
        return Footprint.of(Footprint.name_tokens(token.content for token in self.tokens), reads)

    def expected(self, state: ModelState, context: Context) -> ModelState:
        return self.apply(state, context) if self.existing == "reuse" else state

    def references(self) -> tuple[str, ...]:
        specs = (token.init for token in self.tokens)
        return (*super().references(), *(path for spec in specs if spec for path in spec.references()))

    @classmethod
    def read_items(cls, file: str, data: bytes) -> tuple[NewToken, ...]:
        return tuple(NewToken(content=token) for token in read_tokens(file, data))

    @classmethod
    def format_items(cls, items: Sequence[NewToken]) -> Sequence[str] | None:
        texts = [token.content for token in items]
        return texts if all(token == NewToken(content=token.content) for token in items) else None


def with_new_tokens(
    state: ModelState, context: Context, tokens: Sequence[NewToken], init: InitSpec | None
) -> ModelState:
    """Return `state` with `tokens` added to its files and rows, in the order of their ids; languages come first.

    Raises OperationError where one exists, or is listed twice.
    """
    _check_new(state, tokens)
    languages = [token for token in tokens if token.language]
    others = [token for token in tokens if not token.language]
    if languages:
        state = _with_group(state, context, languages, init, place_of_languages(state))
        state = with_languages(state, tuple(token.content for token in languages))
    tail = ordered_tail(state)
    return _with_group(state, context, others, init, tail.start if tail else None) if others else state


def _with_group(
    state: ModelState, context: Context, tokens: Sequence[NewToken], init: InitSpec | None, start: int | None
) -> ModelState:
    """Return the state with tokens from the id `start` on and the ids that stay last behind them; None: at the end."""
    recipes = [
        init_recipe(state, context, token.content, choose_init(state, context, token.init, init)) for token in tokens
    ]
    written = [token.to_added_token() for token in tokens]
    special = [token.content for token in tokens if token.is_special]
    tail = ordered_tail(state)
    if start is None or tail is None:
        added = with_listed_specials(with_added_tokens(state, written), special)
        return with_new_rows(added, context, {added.tokenizer.ids[recipe.label]: recipe for recipe in recipes})
    shift = Renumbering({number: number + len(tokens) for number in range(start, tail.stop)})
    check_ids_may_change(state, shift, min(0, state.vocab_size - tail.stop - len(tokens)))
    added = with_listed_specials(with_inserted_tokens(state, written, start, tail.stop), special)
    return with_inserted_rows(added, recipes, start, tail.stop)


def _check_new(state: ModelState, tokens: Sequence[NewToken]) -> None:
    known = state.tokenizer.ids
    seen: set[str] = set()
    for token in tokens:
        if token.content in known:
            raise OperationError(
                f"the token '{token.content}' exists already, with id {known[token.content]}",
                hint=_explain_existing(state, known[token.content]),
            )
        if token.content in seen:
            raise OperationError(f"the token '{token.content}' is listed twice", hint="leave one of them out")
        seen.add(token.content)


def _explain_existing(state: ModelState, number: int) -> str:
    row = state.lineage.row(number) if number < state.rows else None
    if isinstance(row, Made):
        return f"{row.revision} adds it: leave it out here"
    return "if it is the model's own, add `existing: reuse` to the operation: id and row stay"


def _check_reused(state: ModelState, tokens: tuple[NewToken, ...]) -> None:
    """Raise OperationError where an existing token has another flag than the migration gives it."""
    for token in tokens:
        if token.content not in state.tokenizer.ids:
            continue
        held = state.tokenizer.token(token.content)
        for name in FLAGS:
            wanted = getattr(token, name)
            if name in token.model_fields_set and wanted is not None and wanted != getattr(held, name, False):
                flag = f"{name}: {str(wanted).lower()}"
                raise OperationError(
                    f"the token '{token.content}' exists already, without `{flag}`",
                    hint=f"leave `{name}` out, or set it: set_token_flags: {{tokens: …, {flag}}}",
                )


def describe_existing(tokens: list[str]) -> str:
    """Return what is known of tokens that are there already."""
    are, rows = ("is", "its row is") if len(tokens) == 1 else ("are", "their rows are")
    return f"{format_quoted(tokens)} {are} there already, and whether {rows} trained is not known"

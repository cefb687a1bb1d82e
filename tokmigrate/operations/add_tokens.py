"""The operation `add_tokens`."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field

from tokmigrate.errors import OperationError
from tokmigrate.initialise import InitSpec
from tokmigrate.model.documents.peculiarities import IDS_AFTER_THE_LAST
from tokmigrate.model.documents.roles import with_added_tokens
from tokmigrate.model.documents.state import ModelState
from tokmigrate.operations.base import AsTuple, Context, Fields, Operation, Risk, RiskLevel
from tokmigrate.operations.begun_rows import begun, chosen_init, with_begun_rows
from tokmigrate.vocabulary.tokens import AddedToken


class NewToken(Fields):
    """A token to add, with the flags that the tokenizers library gives an added token."""

    content: str = Field(min_length=1, description="The text of the token.")
    special: bool = Field(default=False, description="Decoding may skip it.")
    single_word: bool = Field(default=False, description="It matches only between word boundaries.")
    lstrip: bool = Field(default=False, description="It takes the white space on its left with it.")
    rstrip: bool = Field(default=False, description="It takes the white space on its right with it.")
    normalized: bool | None = Field(
        default=None, description="It is looked for in the normalised text; by default unless it is special."
    )
    init: InitSpec | None = Field(default=None, description="How its row starts.")

    def added(self) -> AddedToken:
        """Return the token as tokenizer.json holds it."""
        normalized = not self.special if self.normalized is None else self.normalized
        return AddedToken(self.content, self.special, self.single_word, self.lstrip, self.rstrip, normalized)


def _content_alone(value: Any) -> Any:
    return {"content": value} if isinstance(value, str) else value


ListedToken = Annotated[NewToken, BeforeValidator(_content_alone, json_schema_input_type=NewToken | str)]
"""A token; a text alone is one without flags."""


class AddTokens(Operation):
    """Add tokens at the end of the vocabulary, each with a row of its own.

    New ids go into spare rows first; the matrices grow only when no row is spare. The row starts as `init`
    of the token says, else `init` here, else that of the file, else what `set_init` left, else the mean.
    """

    name: ClassVar[str] = "add_tokens"
    shorthand: ClassVar[str | None] = "tokens"

    tokens: Annotated[tuple[ListedToken, ...], AsTuple] = Field(
        min_length=1,
        description="The tokens, in the order of their ids; a text alone is a token without flags.",
    )
    init: InitSpec | None = Field(default=None, description="How the rows start.")

    def apply(self, state: ModelState, context: Context) -> ModelState:
        """Return the state with the tokens added."""
        return with_new_tokens(state, context, self.tokens, self.init)

    def risk(self, before: ModelState, after: ModelState) -> Risk:  # noqa: ARG002
        """Say whether text that people write is cut otherwise."""
        if before.traits.model_type in IDS_AFTER_THE_LAST:
            reason = f"a {before.traits.model_type} model takes every id after its last token for a timestamp"
            return Risk(RiskLevel.BREAKING, reason)
        plain = [token.content for token in self.tokens if not token.special]
        if plain:
            return Risk(RiskLevel.CAUTION, f"text that contains {_quoted(plain)} is cut otherwise from now on")
        return Risk(RiskLevel.SAFE, "old text is cut as before; the new rows are not trained yet")

    def references(self) -> tuple[str, ...]:
        """Return the files that the strategies read."""
        specs = (self.init, *(token.init for token in self.tokens))
        return tuple(path for spec in specs if spec for path in spec.references())


def with_new_tokens(
    state: ModelState, context: Context, tokens: tuple[NewToken, ...], init: InitSpec | None
) -> ModelState:
    """Return `state` with `tokens` added to its files and rows; raises OperationError for one that exists."""
    known = state.tokenizer.ids
    for token in tokens:
        if token.content in known:
            raise OperationError(
                f"the token '{token.content}' exists already, with id {known[token.content]}",
                hint="leave it out; add_role_tokens takes existing tokens with `existing: reuse`",
            )
    twice = next((text for text, times in Counter(token.content for token in tokens).items() if times > 1), None)
    if twice is not None:
        raise OperationError(f"the token '{twice}' is listed twice", hint="leave one of them out")
    added = with_added_tokens(state, [token.added() for token in tokens])
    recipes = {
        added.tokenizer.ids[token.content]: begun(
            state, context, token.content, chosen_init(state, context, token.init, init)
        )
        for token in tokens
    }
    return with_begun_rows(added, context, recipes)


def _quoted(texts: list[str]) -> str:
    shown = ", ".join(f"'{text}'" for text in texts[:3])
    return shown if len(texts) <= 3 else f"{shown} and {len(texts) - 3} more"

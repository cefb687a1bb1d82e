"""The operation `set_token_flags`."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from tokmigrate.errors import OperationError
from tokmigrate.formatting import format_quoted
from tokmigrate.model.documents.roles import (
    ROLES,
    special_token,
    with_added_tokens,
    with_added_tokens_decoder,
    with_listed_specials,
    without_listed_specials,
)
from tokmigrate.model.documents.state import SPECIAL_TOKENS_MAP, TOKENIZER_CONFIG, ModelState
from tokmigrate.model.formats.json_text import replace_at
from tokmigrate.model.references.token_texts import token_entries
from tokmigrate.model.tokenizer.tokenizer_json import FILE, FLAGS
from tokmigrate.operations.operation import Context, Footprint, Risk, TokenChanges, TokenList
from tokmigrate.operations.token_checks import id_of
from tokmigrate.operations.token_lists import FILE_DESCRIPTION, TokenListOperation
from tokmigrate.vocabulary.ids import AddedToken


class SetTokenFlags(TokenListOperation):
    """Set how added tokens are found in text, and whether decoding may skip them; ids stay.

    What is not given stays as it is. A token that only the tokenizer's model has becomes an added token where
    `special` is given, and is looked for in all text from then on.
    """

    name: ClassVar[str] = "set_token_flags"

    tokens: TokenList = Field(default=(), description="The tokens; a text alone is one.")
    tokens_file: str | None = Field(default=None, min_length=1, description=FILE_DESCRIPTION)
    special: bool | None = Field(default=None, description="Decoding may skip them.")
    single_word: bool | None = Field(default=None, description="They match only between word boundaries.")
    lstrip: bool | None = Field(default=None, description="They take the white space on their left with them.")
    rstrip: bool | None = Field(default=None, description="They take the white space on their right with them.")
    normalized: bool | None = Field(default=None, description="They are looked for in the normalised text.")

    def apply(self, state: ModelState, context: Context) -> ModelState:  # noqa: ARG002
        flags = {name: value for name in FLAGS if (value := getattr(self, name)) is not None}
        if not flags:
            raise OperationError("set_token_flags gives no flag", hint="give one of " + ", ".join(FLAGS))
        for token in self.tokens:
            number = id_of(state, token)
            if self.special is False:
                _check_not_made_special(state, token)
            if token not in state.tokenizer.added:
                state = _make_added(state, token, flags)
            state = _with_flags(state, token, number, flags)
        state = with_added_tokens_decoder(state)
        if self.special:
            return with_listed_specials(state, self.tokens)
        return state if self.special is None else without_listed_specials(state, self.tokens)

    def risk(self, before: ModelState, after: ModelState) -> Risk:
        old, new = before.tokenizer.added, after.tokenizer.added
        changed = [token for token in self.tokens if old.get(token) != new[token]]
        if not changed:
            return Risk.safe("the tokens have these flags")
        new_ones = [token for token in changed if token not in old]
        if new_ones:
            return Risk.caution(f"{format_quoted(new_ones)} will be looked for in all text")
        if all(getattr(self, name) is None for name in FLAGS if name != "special"):
            return Risk.caution(f"decoding shows or skips {format_quoted(changed)} differently than before")
        return Risk.caution(f"text around {format_quoted(changed)} may be tokenized differently than in training")

    def token_changes(self) -> TokenChanges:
        return TokenChanges(flagged=self.tokens)

    def footprint(self) -> Footprint:
        return Footprint.of(Footprint.name_tokens(self.tokens))


def _check_not_made_special(state: ModelState, token: str) -> None:
    # transformers makes the tokens of all roles special when it loads them.
    roles = [f"the {role} token" for role in ROLES if special_token(state, role) == token]
    if roles:
        raise OperationError(
            f"'{token}' is {' and '.join(roles)}: transformers makes it special again",
            hint="give the role to another token first, with set_special_tokens",
        )


def _make_added(state: ModelState, token: str, flags: dict[str, bool]) -> ModelState:
    if "special" not in flags:
        raise OperationError(
            f"'{token}' is a token of the tokenizer's model, which has no flags",
            hint="give `special: true` or `special: false` to make it an added token, looked for in all text",
        )
    return with_added_tokens(state, (AddedToken(token, **{"normalized": not flags["special"], **flags}),))


def _with_flags(state: ModelState, token: str, number: int, flags: dict[str, bool]) -> ModelState:
    document = state.documents[FILE]
    for position, entry in enumerate(document["added_tokens"]):
        if entry["content"] == token:
            document = replace_at(document, ("added_tokens", position), {**entry, **flags})
    state = state.with_document(FILE, document)
    for name in (TOKENIZER_CONFIG, SPECIAL_TOKENS_MAP):
        for path, entry in list(token_entries(state.documents.get(name) or {})):
            if isinstance(entry, dict) and entry["content"] == token:
                whole = path == ("added_tokens_decoder", str(number))
                kept = {flag: value for flag, value in flags.items() if whole or flag in entry}
                state = state.with_value(name, path, {**entry, **kept})
    return state

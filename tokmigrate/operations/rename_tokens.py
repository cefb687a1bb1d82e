"""The operation `rename_tokens`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import Field

from tokmigrate.errors import OperationError
from tokmigrate.formatting import format_list, format_quoted
from tokmigrate.init import InitSpec
from tokmigrate.model.documents.chat_template import find_in_templates, texts_in, with_tokens_in_templates
from tokmigrate.model.documents.state import ModelState
from tokmigrate.model.formats.json_text import Json
from tokmigrate.model.references.token_texts import with_renamed_tokens
from tokmigrate.model.tokenizer.tokenizer_json import BYTE, FILE, Merge, continuing_prefix, merges_of, product
from tokmigrate.operations.operation import CHAT_TEMPLATE, Context, Footprint, Risk, TokenChanges
from tokmigrate.operations.row_operations import with_reinitialised_rows
from tokmigrate.operations.token_checks import id_of
from tokmigrate.operations.token_lists import MAP_DESCRIPTION, TokenMapOperation


class RenameTokens(TokenMapOperation):
    """Give tokens another text, in every file that names them; ids stay, and rows too unless `init` is given.

    This is how a reserved slot gets a use. A token of the tokenizer's model that is no added token can be found in
    text only if the model can make its new text; `set_token_flags: {tokens: …, special: true}` makes it an
    added one. Tokens that merges are made of cannot be renamed.
    """

    name: ClassVar[str] = "rename_tokens"

    tokens: dict[str, Annotated[str, Field(min_length=1)]] = Field(
        default={},
        min_length=1,
        description="The new text of each token, as `{old: new}`; no new one may be a token yet.",
    )
    tokens_file: str | None = Field(default=None, min_length=1, description=MAP_DESCRIPTION)
    init: InitSpec | None = Field(default=None, description="How the rows are initialised again; by default they stay.")
    in_template: bool = Field(
        default=False, description="Also replace the texts in the chat templates and the response template."
    )

    def apply(self, state: ModelState, context: Context) -> ModelState:
        self._check(state)
        before = state
        if self.in_template:
            state = with_tokens_in_templates(state, self.tokens)
        state = with_renamed_tokens(state, self.tokens)
        if self.init is None:
            return state
        # A strategy that reads the text reads the new one, tokenized as before the renaming.
        labels = {before.tokenizer.ids[old]: new for old, new in self.tokens.items()}
        result = with_reinitialised_rows(before, context, labels, self.init)
        for name in state.touched:
            result = result.with_document(name, state.documents[name])
        return result

    def _check(self, state: ModelState) -> None:
        model = state.documents[FILE]["model"]
        seen: dict[str, str] = {}
        for old, new in self.tokens.items():
            number = id_of(state, old)
            if new in state.tokenizer.ids:
                raise OperationError(
                    f"'{old}' cannot become '{new}': that token exists already, with id {state.tokenizer.ids[new]}",
                    hint="choose a text that is not a token yet",
                )
            if new in seen:
                raise OperationError(
                    f"'{seen[new]}' and '{old}' cannot both become '{new}'", hint="give one another text"
                )
            seen[new] = old
            if model.get("byte_fallback") and BYTE.fullmatch(old) and old in state.tokenizer.vocabulary:
                message = f"'{old}' (id {number}) represents a byte, which the library finds by that text"
                raise OperationError(message, hint="leave it out: add a token with add_tokens instead")
        merges = find_merges(model)
        token = next((old for old in self.tokens if old in merges), None)
        if token is not None:
            left, right = merges[token]
            raise OperationError(
                f"'{token}' cannot be renamed: the merge of '{left}' and '{right}' is made of its text",
                hint="rename only tokens that no merge takes or makes, such as added ones",
            )

    def risk(self, before: ModelState, after: ModelState) -> Risk:
        left = find_in_templates(after, self.tokens)
        if left:
            kind = next(iter(left.values())).kind
            return Risk.breaking(f"{kind} still names {format_quoted(tuple(left))}, which is not a token now")
        for part in ("normalizer", "pre_tokenizer", "decoder"):
            held = {text for _, text in texts_in(after.documents[FILE].get(part))}
            named = [token for token in self.tokens if token in held and token in before.tokenizer.added]
            if named:
                return Risk.breaking(f"the {part} still names {format_quoted(named)}, which is not a token now")
        shown = format_list([f"'{old}' is '{new}' now" for old, new in self.tokens.items()], separator="; ")
        ordinary = [old for old in self.tokens if old not in before.tokenizer.added]
        if ordinary:
            return Risk.caution(f"{shown}; text that {format_quoted(ordinary)} stood in is tokenized differently")
        row = "its row is initialised again" if self.init else "its row keeps its trained values"
        return Risk.caution(f"{shown}; {row}")

    def token_changes(self) -> TokenChanges:
        return TokenChanges(renamed=self.tokens, reinitialised=tuple(self.tokens.values()) if self.init else ())

    def footprint(self) -> Footprint:
        texts = Footprint.name_tokens((*self.tokens, *self.tokens.values()))
        writes = (*texts, *([CHAT_TEMPLATE] if self.in_template else []))
        return Footprint.of(writes, Footprint.name_init(self.init) if self.init else ())


def find_merges(model: Mapping[str, Json]) -> Mapping[str, Merge]:
    """Return each text that a merge of the `model` of tokenizer.json takes or makes, with one that does."""
    prefix = continuing_prefix(model)
    return {text: merge for merge in merges_of(model) for text in (*merge, product(merge, prefix))}

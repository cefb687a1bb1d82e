"""What a migration asks of the model before it (`preconditions:`) and after it (`verify:`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from tokmigrate.model.documents.state import ModelState
from tokmigrate.operations.operation import Item


class _Condition(Item):
    def as_written(self) -> dict[str, Any]:
        fields = self.model_dump(mode="json")
        return {self.name: fields[self.shorthand] if self.shorthand else fields}


class TokenAbsent(_Condition):
    """No token has this text yet."""

    name = "token_absent"
    shorthand = "token"

    token: str = Field(min_length=1, description="The text of the token.")

    def find_fault(self, state: ModelState) -> str | None:
        """Return why it does not hold in a state, None where it does."""
        number = state.tokenizer.ids.get(self.token)
        return None if number is None else f"the token '{self.token}' is there, with id {number}"


class TokenPresent(_Condition):
    """A token has this text."""

    name = "token_present"
    shorthand = "token"

    token: str = Field(min_length=1, description="The text of the token.")

    def find_fault(self, state: ModelState) -> str | None:
        return None if self.token in state.tokenizer.ids else f"there is no token '{self.token}'"


class ModelType(_Condition):
    """The model's config.json says that it is of this type."""

    name = "model_type"
    shorthand = "model_type"

    model_type: str = Field(min_length=1, description="The `model_type` of config.json.")

    def find_fault(self, state: ModelState) -> str | None:
        found = state.traits.model_type
        return None if found == self.model_type else f"the model is of type '{found}', not '{self.model_type}'"


class SingleToken(_Condition):
    """The text is encoded as exactly one token, the one that has this text."""

    name = "single_token"
    shorthand = "text"

    text: str = Field(min_length=1, description="The text to encode, without the tokens put around a text.")

    def find_fault(self, tokens: tuple[str, ...]) -> str | None:
        """Return why it does not hold for the tokens that its text is encoded as, None where it does."""
        return _tokens_fault(self.text, tokens, (self.text,))


class Encodes(_Condition):
    """The text is encoded as exactly these tokens."""

    name = "encodes"

    text: str = Field(description="The text to encode, without the tokens put around a text.")
    tokens: tuple[str, ...] = Field(description="The tokens as the vocabulary writes them.")

    def find_fault(self, tokens: tuple[str, ...]) -> str | None:
        return _tokens_fault(self.text, tokens, self.tokens)


def _tokens_fault(text: str, tokens: tuple[str, ...], wanted: tuple[str, ...]) -> str | None:
    return None if tokens == wanted else f"'{text}' is tokenized as {list(tokens)}, not as {list(wanted)}"


Precondition = TokenAbsent | TokenPresent | ModelType
Check = SingleToken | Encodes

PRECONDITIONS: Mapping[str, type[Precondition]] = {kind.name: kind for kind in (TokenAbsent, TokenPresent, ModelType)}
CHECKS: Mapping[str, type[Check]] = {kind.name: kind for kind in (SingleToken, Encodes)}

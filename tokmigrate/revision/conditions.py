"""What a migration asks of the model before it (`preconditions:`) and after it (`verify:`)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field


class _Condition(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ClassVar[str]
    shorthand: ClassVar[str | None] = None

    def as_written(self) -> dict[str, Any]:
        """Return the item of a list that a file has for it."""
        fields = self.model_dump(mode="json")
        return {self.name: fields[self.shorthand] if self.shorthand else fields}


class TokenAbsent(_Condition):
    """No token has this text yet."""

    name = "token_absent"
    shorthand = "token"

    token: str = Field(min_length=1, description="The text of the token.")


class TokenPresent(_Condition):
    """A token has this text."""

    name = "token_present"
    shorthand = "token"

    token: str = Field(min_length=1, description="The text of the token.")


class ModelType(_Condition):
    """The model's config.json says that it is of this type."""

    name = "model_type"
    shorthand = "model_type"

    model_type: str = Field(min_length=1, description="The `model_type` of config.json.")


class SingleToken(_Condition):
    """The text is encoded as exactly one token, the one that has this text."""

    name = "single_token"
    shorthand = "text"

    text: str = Field(min_length=1, description="The text to encode, without the tokens put around a text.")


class Encodes(_Condition):
    """The text is encoded as exactly these tokens."""

    name = "encodes"

    text: str = Field(description="The text to encode, without the tokens put around a text.")
    tokens: tuple[str, ...] = Field(description="The tokens as the vocabulary writes them.")


Precondition = TokenAbsent | TokenPresent | ModelType
Check = SingleToken | Encodes

PRECONDITIONS: Mapping[str, type[Precondition]] = MappingProxyType(
    {kind.name: kind for kind in (TokenAbsent, TokenPresent, ModelType)}
)
CHECKS: Mapping[str, type[Check]] = MappingProxyType({kind.name: kind for kind in (SingleToken, Encodes)})

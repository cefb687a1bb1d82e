"""The strategy `average`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Discriminator, Field, GetPydanticSchema, Tag, field_validator
from pydantic_core import core_schema

from tokmigrate.init.strategies.base import Lookup, RowStrategy, source_of, tree_sum
from tokmigrate.vocabulary.recipes import Matrix, Request, Side, Statistics

Pairs = tuple[tuple[str, float], ...]


def _weights_schema(_source: Any, handler: Any) -> core_schema.CoreSchema:
    # Sorted, since a mapping's order means nothing and the order of a sum does.
    return core_schema.no_info_after_validator_function(
        lambda weights: tuple(sorted(weights.items())),
        handler.generate_schema(dict[str, Annotated[float, Field(allow_inf_nan=False)]]),
        serialization=core_schema.plain_serializer_function_ser_schema(dict),
    )


def _form(value: Any) -> str:
    paired = isinstance(value, tuple) and bool(value) and not isinstance(value[0], str)
    return "weights" if paired or isinstance(value, Mapping) else "texts"


Tokens = Annotated[
    Annotated[tuple[str, ...], Tag("texts")] | Annotated[Pairs, GetPydanticSchema(_weights_schema), Tag("weights")],
    Discriminator(_form),
]


class Average(RowStrategy):
    """The weighted average Σ w_i E_i of the rows of named tokens, with Σ w_i = 1.

    For a token whose meaning lies between known ones. Weights are divided by their sum, so `{yes: 2, no: 1}`
    is two thirds and one third; a plain list of tokens weighs them alike. A negative weight moves away from
    a token.
    """

    is_sum: ClassVar[bool] = True

    strategy: Literal["average"]
    tokens: Tokens = Field(
        description="The tokens to average, as the vocabulary before this migration writes them: a list, or a"
        " mapping from each to its weight."
    )

    @field_validator("tokens")
    @classmethod
    def _weighable(cls, tokens: tuple[str, ...] | Pairs) -> tuple[str, ...] | Pairs:
        if not tokens:
            raise ValueError("an average needs at least one token")
        texts = [text for text, _ in _pairs(tokens)]
        twice = sorted({text for text in texts if texts.count(text) > 1})
        if twice:
            raise ValueError(f"the token '{twice[0]}' is named twice; give it a weight instead")
        try:
            shares = _shares(tokens)
        except (OverflowError, ZeroDivisionError):
            shares = (math.inf,)
        if not all(math.isfinite(share) for share in shares):
            raise ValueError("the weights add up to zero, or too nearly so to divide by their sum")
        return tokens

    def unscaled_rows(self, side: Side, requests: Sequence[Request], statistics: Statistics) -> Matrix:  # noqa: ARG002
        """Return the average for each request, `(requests, hidden)`."""
        column = np.array(_shares(self.tokens))[:, np.newaxis]
        return np.stack([tree_sum(request.sources * column, 0) for request in requests])

    def sources(self, side: Side, lookup: Lookup, token: str) -> tuple[int, ...]:  # noqa: ARG002
        """Return the row of each named token; raises OperationError where there is none."""
        return tuple(source_of(lookup, text, wanted_by=token) for text, _ in _pairs(self.tokens))


def _pairs(tokens: tuple[str, ...] | Pairs) -> Pairs:
    return tuple((item, 1.0) if isinstance(item, str) else item for item in tokens)


def _shares(tokens: tuple[str, ...] | Pairs) -> tuple[float, ...]:
    weights = [weight for _, weight in _pairs(tokens)]
    total = math.fsum(weights)
    return tuple(weight / total for weight in weights)

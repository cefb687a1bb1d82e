"""The strategies that come with the package and compute rows of others."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Discriminator, Field, GetPydanticSchema, Tag, field_validator
from pydantic_core import core_schema

from tokmigrate.errors import OperationError
from tokmigrate.init.row_strategy import WORD_START, Lookup, Request, RowStrategy, source_of
from tokmigrate.init.statistics import RowStatistics, tree_sum
from tokmigrate.model.formats.dtype import Matrix
from tokmigrate.vocabulary.row_edit import Side


class Mean(RowStrategy):
    """The mean of the baseline's rows, (1/|T|) Σ E_i.

    The safe choice for any new token, and the one taken where a migration says nothing. While no new token
    is in the context, n rows of it change the model's next-token distribution by
    KL(p‖p') ≤ log(1 + n/|T|) nats, for a head without bias or one whose bias starts at its mean too
    (Jensen's inequality). New tokens have the same values at first; only training makes them different.
    Source: Hewitt, "Initializing New Word Embeddings for Pretrained Language Models" (2021).
    """

    is_sum: ClassVar[bool] = True
    needs_mean: ClassVar[bool] = True

    strategy: Literal["mean"]

    def unscaled_rows(self, side: Side, requests: Sequence[Request], statistics: RowStatistics) -> Matrix:  # noqa: ARG002
        return np.broadcast_to(statistics.mean, (len(requests), statistics.width))


class Zeros(RowStrategy):
    """A row of zeros.

    For padding rows. On the output side it gives the token the logit 0, which wins the softmax wherever all
    other logits are negative: `mean` has a bound there, a row of zeros has none. On the input side it may not
    be trainable: a text that begins with the token stays zero through a model with RMSNorm, and the
    gradient overflows (measured with SmolLM2). Train rows that begin otherwise, as `normal` does.
    """

    strategy: Literal["zeros"]

    def unscaled_rows(self, side: Side, requests: Sequence[Request], statistics: RowStatistics) -> Matrix:  # noqa: ARG002
        return np.broadcast_to(np.zeros(statistics.width), (len(requests), statistics.width))


class Normal(RowStrategy):
    """Independent draws from N(mean, std²), each number of the row for itself.

    What most models start their training with (`initializer_range`, 0.02). It knows nothing of the trained
    rows, so it suits vocabularies that are trained for long; otherwise prefer `mean` or `mean_cov`.
    A bias is one such draw too.
    """

    strategy: Literal["normal"]
    std: float = Field(default=0.02, ge=0.0, description="The standard deviation.")
    mean: float = Field(default=0.0, description="The mean of every number, not the mean row.")

    def unscaled_rows(self, side: Side, requests: Sequence[Request], statistics: RowStatistics) -> Matrix:  # noqa: ARG002
        draws = np.stack([request.noise(statistics.width) for request in requests])
        made: Matrix = draws * self.std + self.mean
        return made


class Copy(RowStrategy):
    """The row of another token.

    For a token that takes over another one's part, such as `<|im_end|>` that of `</s>`. Until training tells
    the two apart, the model gives both the same probability: p / (1 + p) where the other one had p.
    """

    is_sum: ClassVar[bool] = True

    strategy: Literal["copy"]
    token: str = Field(description="The token to copy, as the vocabulary before this migration writes it.")

    def unscaled_rows(self, side: Side, requests: Sequence[Request], statistics: RowStatistics) -> Matrix:  # noqa: ARG002
        return np.stack([request.sources[0] for request in requests])

    def sources(self, side: Side, lookup: Lookup, token: str) -> tuple[int, ...]:  # noqa: ARG002
        return (source_of(lookup, self.token, wanted_by=token),)


class MeanCov(RowStrategy):
    """A draw from N(μ, scale · Σ), with the mean μ and the covariance Σ of the baseline's rows.

    For new tokens that must differ at once. The draw is
    μ + sqrt(scale / (|T| - 1)) Σ_i z_i (E_i - μ) with independent z_i ~ N(0, 1), which has exactly that
    distribution and needs no matrix of the covariance; all rows cost one pass over the embeddings. A
    `scale` of 1 is what mergekit draws with, 1e-9 what transformers does. The bound of `mean` holds
    approximately while `scale` is small. A bias is drawn in the same way, independently of its row.
    Source: Hewitt (2021); `resize_token_embeddings(mean_resizing=True)` of transformers.
    """

    needs_mean: ClassVar[bool] = True

    strategy: Literal["mean_cov"]
    scale: float = Field(
        default=1e-9,
        ge=0.0,
        description="What the covariance is multiplied by: 1e-9 as in transformers, 1 as in mergekit.",
    )

    def unscaled_rows(self, side: Side, requests: Sequence[Request], statistics: RowStatistics) -> Matrix:  # noqa: ARG002
        """Return a draw for each request, `(requests, hidden)`; raises OperationError where the baseline has no two."""
        made: Matrix = statistics.mean + _draw(requests, statistics, self.scale)
        return made

    def additions(self, side: Side, requests: Sequence[Request], statistics: RowStatistics) -> Matrix:  # noqa: ARG002
        """Return the mean of the factor's rows for each request, `(requests, rank)`: the draw is the matrix's own."""
        return np.broadcast_to(statistics.mean, (len(requests), statistics.width))


def _draw(requests: Sequence[Request], statistics: RowStatistics, scale: float) -> Matrix:
    """Return a draw from N(0, scale · Σ) for each request, `(requests, hidden)`."""
    count = statistics.count
    if count < 2:
        raise OperationError(
            f"a covariance needs two rows of the baseline vocabulary, {count} left", hint="use `mean` or `copy`"
        )
    draws = statistics.weighted_sums([request.noise for request in requests])
    factor = np.sqrt(np.float64(scale) / np.float64(count - 1))
    scaled: Matrix = factor * draws
    return scaled


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

    def unscaled_rows(self, side: Side, requests: Sequence[Request], statistics: RowStatistics) -> Matrix:  # noqa: ARG002
        return np.stack([request.sum_sources(np.array(_shares(self.tokens))) for request in requests])

    def sources(self, side: Side, lookup: Lookup, token: str) -> tuple[int, ...]:  # noqa: ARG002
        return tuple(source_of(lookup, text, wanted_by=token) for text, _ in _pairs(self.tokens))


def _pairs(tokens: tuple[str, ...] | Pairs) -> Pairs:
    return tuple((item, 1.0) if isinstance(item, str) else item for item in tokens)


def _shares(tokens: tuple[str, ...] | Pairs) -> tuple[float, ...]:
    weights = [weight for _, weight in _pairs(tokens)]
    total = math.fsum(weights)
    return tuple(weight / total for weight in weights)


class Weighted(RowStrategy):
    """The sum Σ w_i E_i of the rows of named tokens, with weights as they are given.

    For coefficients that were computed elsewhere, such as those with which a sparse approximation writes a row in terms
    of others. Unlike those of `average` the weights are not divided by their sum, so the row can be longer or shorter
    than the rows that it is made of. `tokmigrate learn transplant` writes such coefficients for whole vocabularies.
    """

    is_sum: ClassVar[bool] = True

    strategy: Literal["weighted"]
    tokens: Annotated[Pairs, GetPydanticSchema(_weights_schema)] = Field(
        min_length=1, description="The weight of each token, as the vocabulary before this migration writes it."
    )

    def unscaled_rows(self, side: Side, requests: Sequence[Request], statistics: RowStatistics) -> Matrix:  # noqa: ARG002
        return np.stack([request.sum_sources(np.array([weight for _, weight in self.tokens])) for request in requests])

    def sources(self, side: Side, lookup: Lookup, token: str) -> tuple[int, ...]:  # noqa: ARG002
        return tuple(source_of(lookup, text, wanted_by=token) for text, _ in self.tokens)


Output = Literal["mean", "first_piece"]
_OUTPUT = (
    "`mean` weighs all pieces alike. `first_piece` weighs them by what each side does: the output side predicts"
    " what begins the text, so its weights halve from the first piece on; the input side has just read its end,"
    " so there they halve from the last piece back."
)


class _FromPieces(RowStrategy):
    is_sum: ClassVar[bool] = True

    output: Output = Field(default="mean", description=_OUTPUT)

    def unscaled_rows(self, side: Side, requests: Sequence[Request], statistics: RowStatistics) -> Matrix:  # noqa: ARG002
        """Return the weighted mean of each request's pieces, `(requests, hidden)`."""
        made = []
        for request in requests:
            weights = self._weights(side, len(request.sources))
            made.append(request.sum_sources(weights) / tree_sum(weights, 0))
        return np.stack(made)

    def _weights(self, side: Side, pieces: int) -> Matrix:
        if self.output == "mean":
            return np.ones(pieces)
        # Powers of two, so every weight is exact; past 2⁻¹⁰⁷⁴ it is zero.
        halving = np.ldexp(1.0, -np.arange(pieces))
        return halving if side == "output" else halving[::-1]


class FromOwnPieces(_FromPieces):
    """Reads the rows of the pieces that the token's own text was cut into before the migration."""

    def sources(self, side: Side, lookup: Lookup, token: str) -> tuple[int, ...]:  # noqa: ARG002
        """Return the rows of the pieces of `token`.

        Raises:
            OperationError: There is no piece, or the token itself is the only one.
        """
        marks = (mark for mark in (*WORD_START, "##") if token.startswith(mark))
        plain = token.removeprefix(next(marks, ""))
        pieces = lookup.pieces(token) or lookup.pieces(plain)
        if not pieces:
            raise OperationError(
                f"the text of '{token}' gives no pieces before this migration",
                where=token,
                hint="describe it with `description`, or use `mean`",
            )
        if pieces == (lookup.ids.get(token),):
            raise OperationError(
                f"'{token}' was a token of its own before this migration, so its text has no other pieces",
                where=token,
                hint="describe it with `description`, or use `mean`",
            )
        return pieces


class Subtokens(FromOwnPieces):
    """The mean of the rows of the pieces that the token's own text was cut into before the migration.

    For words that the tokenizer split into pieces: the new row is the mean of the rows that the model used before.
    For `<|im_start|>` and the like the pieces are punctuation without meaning; prefer `description` there.
    Where the text as it stands gives no piece, it is tried without the marks `Ġ` and `▁` of a space before
    it and `##` of a continued word.
    Source: FVT (Gee et al., "Fast Vocabulary Transfer for Language Model Compression", 2022).
    """

    strategy: Literal["subtokens"]


class Interpolate(FromOwnPieces):
    """A row between the mean of all rows and that of the token's pieces, (1 - share) · `mean` + share · `subtokens`.

    For words that the tokenizer split into pieces, where other text must not suffer. While no new token is in the
    context, n such rows change the model's next-token distribution by
    KL(p‖p') ≤ log(1 + (1 - share) n/|T| + share · q) nats, where q is what the model gives to the pieces of each new
    token on average, summed over the new tokens (Jensen's inequality, with `output: mean`). A `share` of 0 is `mean`,
    1 is `subtokens`; pieces are found as there.
    """

    needs_mean: ClassVar[bool] = True

    strategy: Literal["interpolate"]
    share: float = Field(default=0.75, ge=0.0, le=1.0, description="How much of the row comes from the pieces.")

    def unscaled_rows(self, side: Side, requests: Sequence[Request], statistics: RowStatistics) -> Matrix:
        """Return the row between the two for each request, `(requests, hidden)`."""
        pieces = super().unscaled_rows(side, requests, statistics)
        made: Matrix = statistics.mean * (1.0 - self.share) + pieces * self.share
        return made


class Description(_FromPieces):
    """The mean of the rows of the pieces of a phrase that says what the token means.

    For tokens whose own text says nothing to the model, such as `<|tool|>` with `text: a call of a tool`.
    The mean is that of `subtokens`, over the phrase instead of the token's text. Tokens with the same phrase get
    the same row, and training in which they occur alike cannot tell them apart: `noise` makes their rows differ.
    """

    strategy: Literal["description"]
    text: str = Field(min_length=1, description="What the token means, in words that the model knows.")
    noise: float = Field(
        default=0.0,
        ge=0.0,
        description="Adds a draw from N(0, noise · Σ), with the covariance Σ of the baseline's rows: 1 makes rows as"
        " different as those are, 0.01 a tenth of that. A bias gets its own draw.",
    )

    def unscaled_rows(self, side: Side, requests: Sequence[Request], statistics: RowStatistics) -> Matrix:
        """Return the mean of the pieces and the noise for each request; raises OperationError as `mean_cov` does."""
        made = super().unscaled_rows(side, requests, statistics)
        return made + _draw(requests, statistics, self.noise) if self.noise else made

    def additions(self, side: Side, requests: Sequence[Request], statistics: RowStatistics) -> Matrix:
        """Return the mean of the factor's rows for each request, `(requests, rank)`: the noise is the matrix's own."""
        return super().unscaled_rows(side, requests, statistics)

    def sources(self, side: Side, lookup: Lookup, token: str) -> tuple[int, ...]:  # noqa: ARG002
        """Return the rows of the pieces of the phrase; raises OperationError where there is none."""
        pieces = lookup.pieces(self.text)
        if not pieces:
            raise OperationError(
                f"the description of '{token}', '{self.text}', gives no pieces before this migration",
                where=token,
                hint="describe it in words that the tokenizer knows",
            )
        return pieces

"""The strategies that start a row from the pieces of a text: `subtokens` and `description`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from tokmigrate.errors import OperationError
from tokmigrate.init.strategies.base import WORD_START, Lookup, RowStrategy, tree_sum
from tokmigrate.vocabulary.recipes import Matrix, Request, Side, Statistics

_CONTINUATION = "##"

Output = Literal["mean", "first_piece"]
_OUTPUT = (
    "`mean` weighs all pieces alike. `first_piece` weighs them by what each side does: the output side predicts"
    " what begins the text, so its weights halve from the first piece on; the input side has just read its end,"
    " so there they halve from the last piece back."
)


class _FromPieces(RowStrategy):
    is_sum: ClassVar[bool] = True

    output: Output = Field(default="mean", description=_OUTPUT)

    def unscaled_rows(self, side: Side, requests: Sequence[Request], statistics: Statistics) -> Matrix:  # noqa: ARG002
        """Return the weighted mean of each request's pieces, `(requests, hidden)`."""
        made = []
        for request in requests:
            weights = self._weights(side, len(request.sources))
            total = tree_sum(weights, 0)
            made.append(tree_sum(request.sources * weights[:, np.newaxis], 0) / total)
        return np.stack(made)

    def _weights(self, side: Side, pieces: int) -> Matrix:
        if self.output == "mean":
            return np.ones(pieces)
        # Powers of two, so every weight is exact; past 2⁻¹⁰⁷⁴ it is zero.
        halving = np.ldexp(1.0, -np.arange(pieces))
        return halving if side == "output" else halving[::-1]


class Subtokens(_FromPieces):
    """The mean of the rows of the pieces that the token's own text was cut into before the migration.

    For words that the tokenizer split into pieces: the new row is the mean of the rows that the model used before.
    For `<|im_start|>` and the like the pieces are punctuation without meaning; prefer `description` there.
    Where the text as it stands gives no piece, it is tried without the marks `Ġ` and `▁` of a space before
    it and `##` of a continued word.
    Source: FVT (Gee et al., "Fast Vocabulary Transfer for Language Model Compression", 2022).
    """

    strategy: Literal["subtokens"]

    def sources(self, side: Side, lookup: Lookup, token: str) -> tuple[int, ...]:  # noqa: ARG002
        """Return the rows of the pieces of `token`.

        Raises:
            OperationError: There is no piece, or the token itself is the only one.
        """
        pieces = lookup.pieces(token) or lookup.pieces(_without_marks(token))
        if not pieces:
            raise OperationError(
                f"the text of '{token}' gives no pieces before this migration",
                where=token,
                hint="describe it with `description`, or use `mean`",
            )
        if pieces == (lookup.id_of(token),):
            raise OperationError(
                f"'{token}' was a token of its own before this migration, so its text has no other pieces",
                where=token,
                hint="describe it with `description`, or use `mean`",
            )
        return pieces


class Description(_FromPieces):
    """The mean of the rows of the pieces of a phrase that says what the token means.

    For tokens whose own text says nothing to the model, such as `<|tool|>` with `text: a call of a tool`.
    The mean is that of `subtokens`, over the phrase instead of the token's text.
    """

    strategy: Literal["description"]
    text: str = Field(min_length=1, description="What the token means, in words that the model knows.")

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


def _without_marks(token: str) -> str:
    for mark in (*WORD_START, _CONTINUATION):
        if token.startswith(mark):
            return token.removeprefix(mark)
    return token

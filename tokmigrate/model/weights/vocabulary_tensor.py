"""One tensor with a row for each id."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

from tokmigrate.model.formats.dtype import FLOATING
from tokmigrate.model.weights.tensor_rows import Geometry
from tokmigrate.vocabulary.recipes import Side
from tokmigrate.vocabulary.windows import WHOLE, Window


@dataclass(frozen=True)
class VocabularyTensor:
    """A tensor with one slice for each id.

    Args:
        name: As on disk.
        file: The shard that it is in.
        axis: The axis that counts the vocabulary.
        side: Whether rows start like input or like output embeddings; tied ones start like input.
        dtype: The word of safetensors, such as `BF16`.
        shape: Its shape; `shape[axis]` is the number of its rows.
        canonical: The first of the tensors that are the same matrix as this one; its own name otherwise.
        window: Which ids it has rows for.
        noise: The name that random rows are seeded with, its own if empty.
        adds: Whether it is a low-rank factor, whose rows are added to those of another matrix.
    """

    name: str
    file: str
    axis: int
    side: Side
    dtype: str
    shape: tuple[int, ...]
    canonical: str
    window: Window = WHOLE
    noise: str = ""
    adds: bool = False

    @property
    def geometry(self) -> Geometry:
        """How its rows lie."""
        return Geometry.of(self.shape, self.dtype, self.axis)

    @property
    def row_bytes(self) -> int:
        """The bytes of one row."""
        return self.geometry.row_bytes

    @property
    def width(self) -> int:
        """The numbers in one row."""
        return prod(size for axis, size in enumerate(self.shape) if axis != self.axis)

    @property
    def is_table(self) -> bool:
        """Whether it holds integers, which no strategy can compute: a row can only be copied."""
        return self.dtype not in FLOATING

    @property
    def embeds(self) -> bool:
        """Whether it holds the input embeddings of every id."""
        is_matrix = len(self.shape) > 1
        return self.side == "input" and is_matrix and self.window.stop is None and not self.is_table and not self.adds

    def with_ids(self, ids: int) -> VocabularyTensor:
        """Return the tensor as it is where there are `ids` ids."""
        rows = self.window.rows(ids)
        return replace(self, shape=(*self.shape[: self.axis], rows, *self.shape[self.axis + 1 :]))

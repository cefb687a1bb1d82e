"""One tensor with a row for each id, and the models in which a tensor has more rows or fewer.

Those are read off transformers 5: `modeling_mllama.py` (`vocab_size + 8` input rows), `modeling_gemma3n.py`
(`vocab_size_per_layer_input`), `modeling_cpmant.py` (rows of prompts), `modeling_moshi.py` (a row that starts a text),
`modeling_kyutai_speech_to_text.py` (rows of an audio codec), `modeling_molmo2.py` (rows of images).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from types import MappingProxyType
from typing import Any

from tokmigrate.model.formats.dtype import FLOATING
from tokmigrate.model.weights.tensor_rows import Geometry
from tokmigrate.vocabulary.row_edit import WHOLE, Side, Window


@dataclass(frozen=True)
class VocabularyTensor:
    """A tensor with one slice for each id.

    Args:
        side: Whether rows are initialised like input or like output embeddings; tied ones like input.
        canonical: The first of the tensors that are the same matrix as this one; its own name otherwise.
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
        return Geometry.of(self.shape, self.dtype, self.axis)

    @property
    def row_bytes(self) -> int:
        return self.geometry.row_bytes

    @property
    def width(self) -> int:
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


INPUT_ONLY: Mapping[str, int] = MappingProxyType({"mllama": 8, "mllama_text_model": 8})
"""By model type how many ids behind `vocab_size` have an input row, and no output row."""

_HALF = re.compile(r"(?:^|\.)wte\.(?:new_)?embedding$")
_STOPPING = re.compile(r"(?:.*\.)?embed_tokens_per_layer\.weight")
_TAILED: Mapping[str, re.Pattern[str]] = MappingProxyType(
    {
        "cpmant": re.compile(r"(?:.*\.)?input_embedding\.weight"),
        "kyutai_speech_to_text": re.compile(r"(?:.*\.)?embed_tokens\.embed_tokens\.weight"),
        "molmo2": re.compile(r"(?:.*\.)?embed_tokens\.weight"),
        "moshi": re.compile(r"(?:.*\.)?(?:text_)?embed_tokens\.weight"),
    }
)


def input_only_ids(config: Mapping[str, Any]) -> int:
    """Return how many ids behind `vocab_size` have an input row only."""
    return INPUT_ONLY.get(str(config.get("model_type")), 0)


def ids_elsewhere(config: Mapping[str, Any]) -> int:
    """Return how many ids after the vocabulary have their rows in a second matrix, which is left alone."""
    if config.get("model_type") == "idefics":
        return int(config.get("additional_vocab_size") or 0)
    if config.get("model_type") == "molmo2":
        # transformers' default, which a config.json may leave out.
        return int((config.get("text_config") or {}).get("additional_vocab_size", 128))
    return 0


def is_divided_wrongly(config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], size: int) -> bool:
    """Return whether transformers divided a matrix of two vocabularies in the middle when it saved the model.

    transformers 5.23 does so with Molmo2, and joins the two whatever their lengths when it loads them.
    """
    if config.get("model_type") != "molmo2":
        return False
    halves = [shape[0] for name, shape in shapes.items() if _HALF.search(name) and shape]
    return len(halves) == 2 and sum(halves) == size + ids_elsewhere(config) and size not in halves


def window_of(config: Mapping[str, Any], name: str, rows: int, size: int, side: str) -> Window:
    """Return which ids a vocabulary tensor with so many `rows` on disk has rows for; `size` is `vocab_size`."""
    model_type = str(config.get("model_type"))
    if model_type in INPUT_ONLY and side == "output":
        return Window(short=INPUT_ONLY[model_type])
    if _STOPPING.fullmatch(name) and rows < size:
        return Window(stop=rows)
    tailed = _TAILED.get(model_type)
    if tailed and tailed.fullmatch(name) and rows > size:
        return Window(tail=rows - size)
    return WHOLE

"""Which tokens a model has hardly seen in training, as far as its rows show it.

Their rows have moved little from where they began. Source: Land and Bartolo, "Fishing for Magikarp: Automatically
Detecting Under-trained Tokens in Large Language Models" (2024).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tokmigrate.model.formats.dtype import Matrix
from tokmigrate.model.tokenizer.token_meaning import Spelling
from tokmigrate.model.tokenizer.tokenizer_json import Tokenizer
from tokmigrate.model.weights.tensor_rows import TensorRows
from tokmigrate.vocabulary.ids import runs

SHARE = 0.05
"""The share of the tokens that each test takes for under-trained."""

_NOT_IN_UTF8 = frozenset(bytes([octet]) for octet in (0xC0, 0xC1, *range(0xF5, 0x100)))


def find_undertrained(rows: TensorRows, tokenizer: Tokenizer, *, are_tied: bool) -> frozenset[int]:
    """Return the ids of tokens whose rows are among the 5 % most like those that are never trained.

    Those are the rows of ids without a token, and of bytes that no text in UTF-8 has. Where input embeddings are not
    output embeddings as well, the 5 % shortest rows are under-trained too. All rows of a file without weights are zero,
    and none of them is under-trained.

    Args:
        rows: The input embeddings.
    """
    spelling = Spelling(tokenizer)
    ids = [number for number in tokenizer.texts if number < rows.geometry.rows]
    unused = [*tokenizer.list_free(rows.geometry.rows)]
    unused += [number for number in ids if spelling.find_meaning(tokenizer.texts[number]) in _NOT_IN_UTF8]
    # Norms first: they also tell whether there are weights.
    norms = measure_norms(rows, ids)
    if not norms.any():
        return frozenset()
    is_bad = np.zeros(len(ids), bool) if are_tied else norms < np.quantile(norms, SHARE)
    if unused:
        mean = np.mean([rows.row(number) for number in unused], axis=0)
        alike = np.concatenate([block @ mean for block in rows.float_rows(runs(ids))]) / np.where(norms, norms, 1.0)
        is_bad |= alike > np.quantile(alike, 1.0 - SHARE)
    return frozenset({*unused, *(number for number, bad in zip(ids, is_bad.tolist(), strict=True) if bad)})


def measure_norms(rows: TensorRows, ids: Sequence[int]) -> Matrix:
    """Return the norm of each of these rows, `(ids,)`."""
    return np.concatenate([np.linalg.norm(block, axis=1) for block in rows.float_rows(runs(ids))])

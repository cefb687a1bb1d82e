"""Which rows of the vocabulary an adapter brings, as servers see them."""

from __future__ import annotations

from typing import Literal

from tokmigrate.model.adapter import match_tensors
from tokmigrate.model.snapshot import Snapshot

Kind = Literal["whole", "listed", "factor"]
"""A whole matrix (`modules_to_save`), rows of listed ids (`trainable_token_indices`), or a factor that is added."""

BAKE = "write its rows into the model: `tokmigrate bake`, or merge the whole adapter"
"""What to do where a program does not take such rows."""


def find_rows(adapter: Snapshot, base: Snapshot) -> dict[Kind, str]:
    """Return the kinds of rows that an adapter has for its model's vocabulary, each with one of their tensors."""
    found: dict[Kind, str] = {}
    for tensor in match_tensors(adapter.weights, base):
        # The copy of the base in an adapter with listed rows changes nothing.
        if tensor.of is not None and "base_layer" not in tensor.entry.name:
            kind: Kind = "factor" if tensor.adds else "listed" if tensor.lists else "whole"
            found.setdefault(kind, tensor.entry.name)
    return found

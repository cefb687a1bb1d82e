"""Whether encoder and decoder have one vocabulary, where the type of a model leaves it open.

A tokenizer beside the model proves nothing, nor do equal sizes: the other side's tokenizer may be elsewhere. Equal rows
do: row i is then the same token on both sides. Else the workspace has to say it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokmigrate.errors import UnexplainedTensorError
from tokmigrate.model.documents.peculiarities import side_sizes
from tokmigrate.model.weights.claims import Claim, Overrides
from tokmigrate.model.weights.tied_tensors import digest_of
from tokmigrate.model.weights.weights import Weights

_SIDES = ("encoder", "decoder")


def check_one_vocabulary(
    weights: Weights, config: Mapping[str, Any], claims: Mapping[str, Claim], overrides: Overrides, where: str
) -> None:
    """Check that an id is the same token for encoder and decoder.

    Args:
        weights: The tensors on disk.
        config: config.json, which gives both sides the same size, if any.
        claims: The vocabulary tensors.
        overrides: What the workspace says of tensors; it says that both sides follow by naming one of each.
        where: The model's directory.

    Raises:
        UnexplainedTensorError: Nothing shows it.
    """
    if side_sizes(config) is None:
        return
    embeddings = [claim for claim in claims.values() if claim.side == "input" and len(claim.entry.shape) == 2]
    sides = {side: [claim for claim in embeddings if _side(claim.entry.name) == side] for side in _SIDES}
    named = {_side(name) for name, override in overrides.items() if override is not None}
    # What is stored once is the embedding of both.
    if not all(sides.values()) or named >= set(_SIDES):
        return
    of_both = [claim for side in sides.values() for claim in side]
    if len({digest_of(weights, claim) for claim in of_both}) == 1:
        return
    settings = "".join(f'\n  "{claim.entry.name}": {{axis: {claim.axis}, side: input}}' for claim in of_both)
    raise UnexplainedTensorError(
        f"whether encoder and decoder have one vocabulary is not known: each has embeddings of its own"
        f" ({' and '.join(repr(claim.entry.name) for claim in of_both)}), with different values",
        where=where,
        hint="if the tokenizer of this directory is that of both sides, say it for this model in tokmigrate.yaml; else"
        f" take the model out of it:\nvocab_tensors:{settings}",
    )


def _side(name: str) -> str | None:
    return next((part for part in name.split(".") if part in _SIDES), None)

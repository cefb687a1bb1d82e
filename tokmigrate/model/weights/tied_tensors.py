"""Which vocabulary tensors are one matrix, and whether encoder and decoder have one vocabulary.

The config claims the first, and the bytes say it. Where the type of a model leaves the second open, a tokenizer beside
the model proves nothing, nor do equal sizes. Equal rows do: row i is then the same token on both sides. Otherwise the
workspace has to say it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from blake3 import blake3

from tokmigrate.errors import UnexplainedTensorError
from tokmigrate.files import opened
from tokmigrate.model.documents.architecture_quirks import side_sizes
from tokmigrate.model.weights.tensor_match import Claim, Entries, Overrides
from tokmigrate.model.weights.weights import Weights

_BLOCK_BYTES = 8 * 1024 * 1024
_AHEAD = re.compile(r"(?:^|\.)(?:mtp|nextn)\w*\.")


@dataclass(frozen=True)
class Ties:
    """What is tied.

    Args:
        first: For each tensor the first of those that are the same matrix, itself included.
        tied: Whether input and output embeddings are one matrix.
        notes: What a user should know.
    """

    first: Mapping[str, Claim]
    tied: bool
    notes: tuple[str, ...] = ()


def find_ties(weights: Weights, claims: Iterable[Claim], claimed: bool, stated: bool | None) -> Ties:
    """Return which vocabulary tensors are one matrix.

    Tensors are compared only where the config ties them: two that are equal by chance stay two.

    Args:
        weights: The tensors on disk.
        claims: The vocabulary tensors.
        claimed: Whether the model ties its embeddings.
        stated: What config.json says of it, None if nothing.
    """
    every = list(claims)
    claims = [claim for claim in every if not claim.copies]
    first = _same_bytes(weights, claims) if claimed else {claim.entry.name: claim for claim in claims}
    first |= _copied(weights, [claim for claim in every if claim.copies], claims, first)
    matrices = [claim for claim in claims if len(claim.entry.shape) == 2 and claim.axis == 0]
    heads = [claim for claim in matrices if claim.side == "output"]
    inputs = [claim for claim in matrices if claim.side == "input"]
    if not heads and not claimed:
        note = "no output embeddings are stored, and none are tied: taken for a model without a head"
        return Ties(first, False, (note,))
    if not heads or not inputs:
        return Ties(first, claimed)
    apart = [head for head in heads if first[head.entry.name].side != "input"]
    # T5 states false and stores its head apart, so it contradicts nothing.
    if claimed and apart and stated is not False:
        note = (
            f"the config ties input and output embeddings, but '{inputs[0].entry.name}' and"
            f" '{apart[0].entry.name}' are stored with different values: taken for two, as transformers does"
        )
        return Ties(first, False, (note,))
    return Ties(first, not apart)


def _same_bytes(weights: Weights, claims: list[Claim]) -> dict[str, Claim]:
    kinds: dict[tuple[Any, ...], list[Claim]] = {}
    for claim in sorted(claims, key=lambda claim: (claim.side != "input", claim.rank, claim.entry.name)):
        kinds.setdefault((claim.entry.shape, claim.entry.dtype, claim.axis), []).append(claim)
    first: dict[str, Claim] = {}
    for alike in kinds.values():
        by_digest: dict[str, Claim] = {}
        for claim in alike:
            # Nothing is read where there is nothing to compare it with.
            digest = digest_of(weights, claim) if len(alike) > 1 else ""
            first[claim.entry.name] = by_digest.setdefault(digest, claim)
    return first


def repeated_claims(
    weights: Weights, entries: Entries, claims: Mapping[str, Claim], settled: set[str]
) -> dict[str, Claim]:
    """Return the claims of tensors that repeat a vocabulary tensor byte for byte in a layer that predicts ahead.

    transformers does not load such layers, so that its own model cannot tell of them.

    Args:
        weights: The tensors on disk.
        entries: The same by name.
        claims: The vocabulary tensors that are known.
        settled: The tensors of which it is known already what they are.
    """
    found: dict[str, Claim] = {}
    for name, (shard, entry) in entries.items():
        if name in settled or not _AHEAD.search(name) or len(entry.shape) != 2:
            continue
        for claim in claims.values():
            copy = Claim(shard, entry, claim.axis, claim.side, copies=True)
            if _alike(copy, claim) and digest_of(weights, copy) == digest_of(weights, claim):
                found[name] = copy
                break
    return found


def _copied(weights: Weights, copies: list[Claim], claims: list[Claim], first: Mapping[str, Claim]) -> dict[str, Claim]:
    """Return for each tensor that may be a copy what it is a copy of, itself where it is none."""
    found: dict[str, Claim] = {}
    for copy in copies:
        alike = [claim for claim in claims if claim.side == copy.side and _alike(claim, copy)]
        of = next((claim for claim in alike if digest_of(weights, claim) == digest_of(weights, copy)), None)
        found[copy.entry.name] = copy if of is None else first[of.entry.name]
    return found


def _alike(one: Claim, other: Claim) -> bool:
    return (one.entry.shape, one.entry.dtype, one.axis) == (other.entry.shape, other.entry.dtype, other.axis)


def digest_of(weights: Weights, claim: Claim) -> str:
    """Return the digest of a tensor's bytes."""
    begin, end = claim.shard.extent(claim.entry)
    digest = blake3()
    with opened(weights.path(claim.shard)) as file:
        file.seek(begin)
        while begin < end and (block := file.read(min(_BLOCK_BYTES, end - begin))):
            digest.update(block)
            begin += len(block)
    return digest.hexdigest()


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

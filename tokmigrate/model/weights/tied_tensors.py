"""Which vocabulary tensors are one matrix, and whether encoder and decoder have one vocabulary.

The config matches the first, and the bytes say it. Where the type of a model leaves the second open, a tokenizer beside
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
from tokmigrate.model.weights.tensor_match import Entries, Overrides, TensorMatch
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

    first: Mapping[str, TensorMatch]
    tied: bool
    notes: tuple[str, ...] = ()


def find_ties(weights: Weights, matches: Iterable[TensorMatch], is_tied: bool, declared: bool | None) -> Ties:
    """Return which vocabulary tensors are one matrix.

    Tensors are compared only where the config ties them: two that are equal by chance stay two.

    Args:
        weights: The tensors on disk.
        matches: The vocabulary tensors.
        is_tied: Whether the model ties its embeddings.
        declared: What config.json says of it, None if nothing.
    """
    every = list(matches)
    matches = [match for match in every if not match.copies]
    first = _same_bytes(weights, matches) if is_tied else {match.entry.name: match for match in matches}
    first |= _copied(weights, [match for match in every if match.copies], matches, first)
    matrices = [match for match in matches if len(match.entry.shape) == 2 and match.axis == 0]
    heads = [match for match in matrices if match.side == "output"]
    inputs = [match for match in matrices if match.side == "input"]
    if not heads and not is_tied:
        note = "no output embeddings are stored, and none are tied: taken for a model without a head"
        return Ties(first, False, (note,))
    if not heads or not inputs:
        return Ties(first, is_tied)
    apart = [head for head in heads if first[head.entry.name].side != "input"]
    # T5 states false and stores its head apart, so it contradicts nothing.
    if is_tied and apart and declared is not False:
        note = (
            f"the config ties input and output embeddings, but '{inputs[0].entry.name}' and"
            f" '{apart[0].entry.name}' are stored with different values: taken for two, as transformers does"
        )
        return Ties(first, False, (note,))
    return Ties(first, not apart)


def _same_bytes(weights: Weights, matches: list[TensorMatch]) -> dict[str, TensorMatch]:
    kinds: dict[tuple[Any, ...], list[TensorMatch]] = {}
    for match in sorted(matches, key=lambda match: (match.side != "input", match.rank, match.entry.name)):
        kinds.setdefault((match.entry.shape, match.entry.dtype, match.axis), []).append(match)
    first: dict[str, TensorMatch] = {}
    for alike in kinds.values():
        by_digest: dict[str, TensorMatch] = {}
        for match in alike:
            # Nothing is read where there is nothing to compare it with.
            digest = digest_of(weights, match) if len(alike) > 1 else ""
            first[match.entry.name] = by_digest.setdefault(digest, match)
    return first


def match_repeated(
    weights: Weights, entries: Entries, matches: Mapping[str, TensorMatch], settled: set[str]
) -> dict[str, TensorMatch]:
    """Return the matches of tensors that repeat a vocabulary tensor byte for byte in a layer that predicts ahead.

    transformers does not load such layers, so that its own model cannot tell of them.

    Args:
        weights: The tensors on disk.
        entries: The same by name.
        matches: The vocabulary tensors that are known.
        settled: The tensors of which it is known already what they are.
    """
    found: dict[str, TensorMatch] = {}
    for name, (shard, entry) in entries.items():
        if name in settled or not _AHEAD.search(name) or len(entry.shape) != 2:
            continue
        for match in matches.values():
            copy = TensorMatch(shard, entry, match.axis, match.side, copies=True)
            if _alike(copy, match) and digest_of(weights, copy) == digest_of(weights, match):
                found[name] = copy
                break
    return found


def _copied(
    weights: Weights, copies: list[TensorMatch], matches: list[TensorMatch], first: Mapping[str, TensorMatch]
) -> dict[str, TensorMatch]:
    """Return for each tensor that may be a copy what it is a copy of, itself where it is none."""
    found: dict[str, TensorMatch] = {}
    for copy in copies:
        alike = [match for match in matches if match.side == copy.side and _alike(match, copy)]
        of = next((match for match in alike if digest_of(weights, match) == digest_of(weights, copy)), None)
        found[copy.entry.name] = copy if of is None else first[of.entry.name]
    return found


def _alike(one: TensorMatch, other: TensorMatch) -> bool:
    return (one.entry.shape, one.entry.dtype, one.axis) == (other.entry.shape, other.entry.dtype, other.axis)


def digest_of(weights: Weights, match: TensorMatch) -> str:
    """Return the digest of a tensor's bytes."""
    begin, end = match.shard.extent(match.entry)
    digest = blake3()
    with opened(weights.path(match.shard)) as file:
        file.seek(begin)
        while begin < end and (block := file.read(min(_BLOCK_BYTES, end - begin))):
            digest.update(block)
            begin += len(block)
    return digest.hexdigest()


_SIDES = ("encoder", "decoder")


def check_one_vocabulary(
    weights: Weights, config: Mapping[str, Any], matches: Mapping[str, TensorMatch], overrides: Overrides, where: str
) -> None:
    """Check that an id is the same token for encoder and decoder.

    Args:
        weights: The tensors on disk.
        config: config.json, which gives both sides the same size, if any.
        matches: The vocabulary tensors.
        overrides: What the workspace says of tensors; it says that both sides follow by naming one of each.
        where: The model's directory.

    Raises:
        UnexplainedTensorError: Nothing shows it.
    """
    if side_sizes(config) is None:
        return
    embeddings = [match for match in matches.values() if match.side == "input" and len(match.entry.shape) == 2]
    sides = {side: [match for match in embeddings if _side(match.entry.name) == side] for side in _SIDES}
    named = {_side(name) for name, override in overrides.items() if override is not None}
    # What is stored once is the embedding of both.
    if not all(sides.values()) or named >= set(_SIDES):
        return
    of_both = [match for side in sides.values() for match in side]
    if len({digest_of(weights, match) for match in of_both}) == 1:
        return
    settings = "".join(f'\n  "{match.entry.name}": {{axis: {match.axis}, side: input}}' for match in of_both)
    raise UnexplainedTensorError(
        f"whether encoder and decoder have one vocabulary is not known: each has embeddings of its own"
        f" ({' and '.join(repr(match.entry.name) for match in of_both)}), with different values",
        where=where,
        hint="if the tokenizer of this directory is that of both sides, say it for this model in tokmigrate.yaml; else"
        f" take the model out of it:\nvocab_tensors:{settings}",
    )


def _side(name: str) -> str | None:
    return next((part for part in name.split(".") if part in _SIDES), None)

"""Which tensors have a vocabulary axis, on whose word, and which of them are one matrix.

The registry, the workspace or transformers says the first. The config says that embeddings are tied, and the bytes show
it. Whether encoder and decoder have one vocabulary the type of a model may leave open: a tokenizer beside the model
proves nothing, nor do equal sizes, but equal rows do, as row i is then the same token on both sides. Otherwise the
workspace has to say it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from tokmigrate.errors import OutOfStepError, UnexplainedTensorError, UnknownNameError, suggest
from tokmigrate.model.documents.architecture_quirks import side_sizes
from tokmigrate.model.formats.safetensors_header import TensorEntry
from tokmigrate.model.weights.architectures import GENERIC, Architecture
from tokmigrate.model.weights.weights import Shard, Weights
from tokmigrate.vocabulary.row_edit import Side

Overrides = Mapping[str, tuple[int, Side] | None]
"""What the workspace says about tensors: axis and side, or None for one that has no vocabulary axis."""

Entries = Mapping[str, tuple[Shard, TensorEntry]]
"""Every tensor on disk by its name, with its shard."""


@dataclass(frozen=True)
class TensorMatch:
    """A tensor on disk that has a vocabulary axis, as the registry or a setting says.

    Args:
        rank: Its place among those that others may be tied to; the lowest comes first.
        copies: Whether it may repeat the embeddings of its side.
        expected: Whether transformers' own model has it in the same shape.
    """

    shard: Shard
    entry: TensorEntry
    axis: int
    side: Side
    rank: int = len(GENERIC)
    copies: bool = False
    expected: bool = False

    @property
    def rows(self) -> int | None:
        """Its length along the axis, None where it has no such axis."""
        return self.entry.shape[self.axis] if self.axis < len(self.entry.shape) else None

    @property
    def is_matrix(self) -> bool:
        """Whether it holds a row of several numbers for each id."""
        return len(self.entry.shape) == 2


def match_by_name(entries: Entries, architecture: Architecture | None, overrides: Overrides) -> dict[str, TensorMatch]:
    """Return the matches of the registry and of the workspace, by tensor name.

    Raises:
        UnknownNameError: The workspace names a tensor that the model does not have.
        OutOfStepError: It names an axis that the tensor does not have.
    """
    for name, override in overrides.items():
        _check_override(entries, name, override)
    matches = {}
    for name, (shard, entry) in entries.items():
        pattern = architecture.pattern(name) if architecture else None
        override = overrides.get(name)
        if override is not None:
            matches[name] = TensorMatch(shard, entry, *override)
        elif architecture and pattern and name not in overrides and pattern.mapped_by not in entries:
            rank = architecture.patterns.index(pattern)
            matches[name] = TensorMatch(shard, entry, pattern.axis, pattern.side, rank, pattern.copies)
    return matches


def _check_override(entries: Entries, name: str, override: tuple[int, Side] | None) -> None:
    if name not in entries:
        raise UnknownNameError(
            "vocab_tensors names it, but the model has no such tensor", where=name, hint=suggest(name, entries)
        )
    shape = entries[name][1].shape
    if override is not None and not 0 <= override[0] < len(shape):
        raise OutOfStepError(
            f"vocab_tensors gives it axis {override[0]}, but its shape is {list(shape)}",
            where=name,
            hint="correct the axis, or set it to ignore",
        )


def open_names(entries: Entries, settled: set[str], rows: int | None, architecture: Architecture | None) -> list[str]:
    """Return the tensors that may have a vocabulary axis, by a dimension or a name, and that are not settled.

    Args:
        settled: Those of which the registry or the workspace tells.
        architecture: What the registry knows; only without it a name alone raises the question.
    """
    return [
        name
        for name, (_, entry) in entries.items()
        if name not in settled
        and (rows in entry.shape or (architecture is None and any(pattern.matches(name) for pattern in GENERIC)))
    ]


def match_by_answer(
    answer: Mapping[str, Any], entries: Entries, settled: set[str], open_: list[str], where: str
) -> dict[str, TensorMatch]:
    """Return the matches that transformers' own model makes.

    Args:
        settled: Those of which the registry or the workspace tells.
        open_: Those that were asked about.

    Raises:
        UnexplainedTensorError: A tensor that was asked about is not explained.
    """
    explained: Mapping[str, Any] = answer.get("explained", {})
    found = {name: explained[name] for name in open_ if explained.get(name)}
    # One of another length than the rest was not asked about, and must not be passed over.
    following: Mapping[str, Any] = answer.get("following", {})
    found |= {name: following[name] for name in following if name in entries and name not in settled}
    unexplained = [name for name in open_ if name not in explained]
    reason = answer.get("unknown", "transformers' model of this type has no such tensor, or not by one name")
    if not unexplained:
        unexplained = [name for name, reply in found.items() if reply["side"] is None]
        reason = (
            "transformers' model of this type does not show whether it belongs to the input or the output embeddings"
        )
    if unexplained:
        raise _unexplained_error({name: entries[name][1].shape for name in unexplained}, found, reason, where)
    return {
        name: TensorMatch(
            *entries[name], int(reply["axis"]), reply["side"], expected=tuple(reply["shape"]) == entries[name][1].shape
        )
        for name, reply in found.items()
    }


def candidates(entries: Entries, ids: int) -> dict[str, tuple[int, ...]]:
    """Return the tensors that may have a row for each id, by name or by length, with their shapes.

    Args:
        ids: How many ids the tokenizer gives; matrices are padded, but not by much.
    """
    longest = ids + max(ids // 8, 1024)
    return {
        name: entry.shape
        for name, (_, entry) in entries.items()
        if any(pattern.resembles(name) for pattern in GENERIC)
        or (len(entry.shape) == 2 and any(ids <= length <= longest for length in entry.shape))
    }


def _unexplained_error(
    shapes: Mapping[str, tuple[int, ...]], found: Mapping[str, Any], reason: str, where: str
) -> UnexplainedTensorError:
    name, shape = next(iter(shapes.items()))
    more = f" (and {len(shapes) - 1} more)" if len(shapes) > 1 else ""
    return UnexplainedTensorError(
        f"whether axis {_guess(name, shape, found.get(name))[0]} of the tensor '{name}' {list(shape)}{more}"
        f" counts the vocabulary is not known: {reason}",
        where=where,
        hint=settings_hint(shapes, found),
    )


def settings_hint(shapes: Mapping[str, tuple[int, ...]], found: Mapping[str, Any] = MappingProxyType({})) -> str:
    """Return the lines of tokmigrate.yaml that say what tensors are, as far as their names tell."""
    settings = "".join(f"\n  {_format_setting(name, shape, found.get(name))}" for name, shape in shapes.items())
    return f"write for this model in tokmigrate.yaml:\nvocab_tensors:{settings}"


def _guess(name: str, shape: tuple[int, ...], reply: Mapping[str, Any] | None) -> tuple[int, Side | None]:
    if reply is not None:
        return int(reply["axis"]), reply["side"]
    pattern = next((pattern for pattern in GENERIC if pattern.resembles(name)), None)
    if pattern is not None and pattern.axis < len(shape):
        return pattern.axis, pattern.side
    return shape.index(max(shape)), None


def _format_setting(name: str, shape: tuple[int, ...], reply: Mapping[str, Any] | None) -> str:
    axis, side = _guess(name, shape, reply)
    if side is not None:
        return f'"{name}": {{axis: {axis}, side: {side}}}  # {list(shape)}; or: ignore'
    return f'"{name}": ignore  # {list(shape)}; or: {{axis: {axis}, side: input}}, or side: output'


_AHEAD = re.compile(r"(?:^|\.)(?:mtp|nextn)\w*\.")


@dataclass(frozen=True)
class Ties:
    """What is tied.

    Args:
        first: For each tensor the first of those that are the same matrix, itself included.
    """

    first: Mapping[str, TensorMatch]
    tied: bool
    notes: tuple[str, ...] = ()


def find_ties(weights: Weights, matches: Iterable[TensorMatch], is_tied: bool, declared: bool | None) -> Ties:
    """Return which vocabulary tensors are one matrix.

    Tensors are compared only where the config ties them: two that are equal by chance stay two.

    Args:
        declared: What config.json says about it, None if nothing.
    """
    every = list(matches)
    matches = [match for match in every if not match.copies]
    first = _same_bytes(weights, matches) if is_tied else {match.entry.name: match for match in matches}
    first |= _find_copied(weights, [match for match in every if match.copies], matches, first)
    matrices = [match for match in matches if match.is_matrix and match.axis == 0]
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
            digest = weights.digest(match.entry.name) if len(alike) > 1 else ""
            first[match.entry.name] = by_digest.setdefault(digest, match)
    return first


def match_repeated(
    weights: Weights, entries: Entries, matches: Mapping[str, TensorMatch], settled: set[str]
) -> dict[str, TensorMatch]:
    """Return the matches of tensors that repeat a vocabulary tensor byte for byte in a layer that predicts ahead.

    transformers does not load such layers, so that its own model does not report them.
    """
    found: dict[str, TensorMatch] = {}
    for name, (shard, entry) in entries.items():
        if name in settled or not _AHEAD.search(name) or len(entry.shape) != 2:
            continue
        for match in matches.values():
            copy = TensorMatch(shard, entry, match.axis, match.side, copies=True)
            if _alike(copy, match) and weights.digest(copy.entry.name) == weights.digest(match.entry.name):
                found[name] = copy
                break
    return found


def _find_copied(
    weights: Weights, copies: list[TensorMatch], matches: list[TensorMatch], first: Mapping[str, TensorMatch]
) -> dict[str, TensorMatch]:
    """Return for each tensor that may be a copy what it is a copy of, itself where it is none."""
    found: dict[str, TensorMatch] = {}
    for copy in copies:
        alike = [match for match in matches if match.side == copy.side and _alike(match, copy)]
        # Nothing is read where there is nothing to compare it with.
        digest = weights.digest(copy.entry.name) if alike else ""
        of = next((match for match in alike if weights.digest(match.entry.name) == digest), None)
        found[copy.entry.name] = copy if of is None else first[of.entry.name]
    return found


def _alike(one: TensorMatch, other: TensorMatch) -> bool:
    return (one.entry.shape, one.entry.dtype, one.axis) == (other.entry.shape, other.entry.dtype, other.axis)


_SIDES = ("encoder", "decoder")


def check_one_vocabulary(
    weights: Weights, config: Mapping[str, Any], matches: Mapping[str, TensorMatch], overrides: Overrides
) -> None:
    """Check that an id is the same token for encoder and decoder.

    Args:
        overrides: What the workspace says about tensors; it says that both sides follow by naming one of each.

    Raises:
        UnexplainedTensorError: Nothing shows it.
    """
    if side_sizes(config) is None:
        return
    embeddings = [match for match in matches.values() if match.side == "input" and match.is_matrix]
    sides = {side: [match for match in embeddings if _side(match.entry.name) == side] for side in _SIDES}
    named = {_side(name) for name, override in overrides.items() if override is not None}
    # What is stored once is the embedding of both.
    if not all(sides.values()) or named >= set(_SIDES):
        return
    of_both = [match for side in sides.values() for match in side]
    if len({weights.digest(match.entry.name) for match in of_both}) == 1:
        return
    settings = "".join(f'\n  "{match.entry.name}": {{axis: {match.axis}, side: input}}' for match in of_both)
    raise UnexplainedTensorError(
        f"whether encoder and decoder have one vocabulary is not known: each has embeddings of its own"
        f" ({' and '.join(repr(match.entry.name) for match in of_both)}), with different values",
        where=str(weights.directory),
        hint="if the tokenizer of this directory is that of both sides, say it for this model in tokmigrate.yaml; else"
        f" take the model out of it:\nvocab_tensors:{settings}",
    )


def _side(name: str) -> str | None:
    return next((part for part in name.split(".") if part in _SIDES), None)

"""Which tensors match a vocabulary axis, and on whose word: the registry's, the workspace's or transformers'."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from tokmigrate.errors import OutOfStepError, UnexplainedTensorError, UnknownNameError, nearest
from tokmigrate.model.formats.safetensors_header import TensorEntry
from tokmigrate.model.weights.architectures import GENERIC, Architecture
from tokmigrate.model.weights.weights import Shard
from tokmigrate.vocabulary.recipes import Side

Overrides = Mapping[str, tuple[int, Side] | None]
"""What the workspace says of tensors: axis and side, or None for one that has no vocabulary axis."""

Entries = Mapping[str, tuple[Shard, TensorEntry]]
"""Every tensor on disk by its name, with its shard."""


@dataclass(frozen=True)
class TensorMatch:
    """A tensor on disk that has a vocabulary axis, as somebody says.

    Args:
        shard: The file that it is in.
        entry: Its place there.
        axis: The axis that counts the vocabulary.
        side: Whether its rows start like input or like output embeddings.
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


def match_by_name(entries: Entries, architecture: Architecture | None, overrides: Overrides) -> dict[str, TensorMatch]:
    """Return the matches of the registry and of the workspace, by tensor name.

    Args:
        entries: The tensors on disk.
        architecture: What the registry knows of the model type, None if nothing.
        overrides: What the workspace says, which goes before.

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
            "vocab_tensors names it, but the model has no such tensor", where=name, hint=nearest(name, entries)
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
        entries: The tensors on disk.
        settled: Those of which the registry or the workspace tells.
        rows: The length of the vocabulary axis, None if it is not known.
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
        answer: To the question `vocabulary_axes`.
        entries: The tensors on disk.
        settled: Those of which the registry or the workspace tells.
        open_: Those that were asked about.
        where: The model's directory.

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
        unexplained = [name for name, told in found.items() if told["side"] is None]
        reason = (
            "transformers' model of this type does not tell whether it is one of the input or the output embeddings"
        )
    if unexplained:
        raise _unexplained({name: entries[name][1].shape for name in unexplained}, found, reason, where)
    return {
        name: TensorMatch(
            *entries[name],
            int(told["axis"]),
            told["side"],
            expected=tuple(told["shape"]) == entries[name][1].shape,
        )
        for name, told in found.items()
    }


def candidates(entries: Entries, ids: int) -> dict[str, tuple[int, ...]]:
    """Return the tensors that may have a row for each id, by name or by length, with their shapes.

    Args:
        entries: The tensors on disk.
        ids: How many ids the tokenizer gives; matrices are padded, but not by much.
    """
    longest = ids + max(ids // 8, 1024)
    return {
        name: entry.shape
        for name, (_, entry) in entries.items()
        if any(pattern.resembles(name) for pattern in GENERIC)
        or (len(entry.shape) == 2 and any(ids <= length <= longest for length in entry.shape))
    }


def _unexplained(
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
    """Return the lines of tokmigrate.yaml that say what tensors are, as far as their names tell.

    Args:
        shapes: The shape of each tensor, by name.
        found: What transformers tells of some of them.
    """
    settings = "".join(f"\n  {_setting(name, shape, found.get(name))}" for name, shape in shapes.items())
    return f"say it for this model in tokmigrate.yaml:\nvocab_tensors:{settings}"


def _guess(name: str, shape: tuple[int, ...], told: Mapping[str, Any] | None) -> tuple[int, Side | None]:
    if told is not None:
        return int(told["axis"]), told["side"]
    pattern = next((pattern for pattern in GENERIC if pattern.resembles(name)), None)
    if pattern is not None and pattern.axis < len(shape):
        return pattern.axis, pattern.side
    return shape.index(max(shape)), None


def _setting(name: str, shape: tuple[int, ...], told: Mapping[str, Any] | None) -> str:
    axis, side = _guess(name, shape, told)
    if side is not None:
        return f'"{name}": {{axis: {axis}, side: {side}}}  # {list(shape)}; or: ignore'
    return f'"{name}": ignore  # {list(shape)}; or: {{axis: {axis}, side: input}}, or side: output'

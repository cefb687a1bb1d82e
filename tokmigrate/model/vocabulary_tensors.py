"""Which tensors of a model have a vocabulary axis.

A name alone proves nothing, nor does a dimension: names come from the registry and must have as many rows as
the config says; what else has an axis of that length is put to transformers' own model; what stays open is
an error that names the setting that settles it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from blake3 import blake3

from tokmigrate.errors import ModelError, OutOfStepError, UnexplainedTensorError, UnknownNameError, nearest
from tokmigrate.model.architectures import ARCHITECTURES, GENERIC, Architecture
from tokmigrate.model.dtype import FLOATING
from tokmigrate.model.probe.ask import ask
from tokmigrate.model.safetensors_header import TensorEntry
from tokmigrate.model.weights import Shard, Weights
from tokmigrate.vocabulary.recipes import Side

Overrides = Mapping[str, tuple[int, Side] | None]
"""What the workspace says of tensors: axis and side, or None for one that has no vocabulary axis."""

_NESTED = (
    "text_config",
    "thinker_config",
    "decoder",
    "generator",
    "llm_config",
    "lm_config",
    "language_config",
    "text_encoder",
)
_COMPANION = re.compile(
    r"\.(?:(?:weight[._])?(?:scale|scale_inv|scales|zero_point|zeros|packed|absmax|quant_map|nested_absmax"
    r"|nested_quant_map|quant_state\..+|format)|SCB|qweight|qzeros|scales|g_idx)$"
)
_BLOCK = 8 << 20


@dataclass(frozen=True)
class VocabularyTensor:
    """A tensor with one row, or one column, for each id.

    Args:
        name: As on disk.
        file: The shard that it is in.
        axis: The axis that counts the vocabulary.
        side: Whether rows start like input or like output embeddings; tied ones start like input.
        dtype: The word of safetensors, such as `BF16`.
        shape: Its shape; `shape[axis]` is the number of rows.
        canonical: The first of the tensors that are the same matrix as this one; its own name otherwise.
    """

    name: str
    file: str
    axis: int
    side: Side
    dtype: str
    shape: tuple[int, ...]
    canonical: str


@dataclass(frozen=True)
class VocabularyTensors:
    """All vocabulary tensors of a model.

    Args:
        tensors: In the order of the shards and of their data.
        rows: The length of each one's vocabulary axis.
        tied: Whether input and output embeddings are one matrix.
        notes: What a user should know.
    """

    tensors: tuple[VocabularyTensor, ...]
    rows: int
    tied: bool
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Claim:
    shard: Shard
    entry: TensorEntry
    axis: int
    side: Side
    rank: int
    """Its place among those that could be the matrix that others are tied to."""


def find_vocabulary_tensors(
    weights: Weights, config: Mapping[str, Any], overrides: Overrides, directory: Path
) -> VocabularyTensors:
    """Find every tensor of a model that has a vocabulary axis.

    Args:
        weights: The tensors on disk.
        config: config.json.
        overrides: What the workspace's `vocab_tensors` say, by the tensor's name.
        directory: The model's directory, for transformers to look at where the registry leaves something open.

    Raises:
        OutOfStepError: A vocabulary tensor has not as many rows as the config says.
        UnexplainedTensorError: An axis has that length, and nothing explains it.
        ModelError: There is no vocabulary tensor, a quantized one, or more than one vocabulary.
        UnknownNameError: `overrides` names a tensor that the model does not have.
    """
    where = str(directory)
    _refuse_two_vocabularies(config, where)
    entries = {entry.name: (shard, entry) for shard, entry in weights.tensors()}
    architecture = ARCHITECTURES.get(str(config.get("model_type")))
    claims = _named(entries, architecture, overrides)
    size = _stated_size(config)
    rows = size[1] if size else _embedding_rows(claims)
    open_names = _open(entries, claims, overrides, rows, architecture)
    says_tied = _says_tied(config, architecture)
    if open_names:
        answer = ask("vocabulary_axes", {"directory": where, "open": open_names})
        claims |= _answered(answer, entries, claims, open_names, overrides, where)
        if architecture is None and "tied" in answer:
            says_tied = bool(answer["tied"])
        rows = rows or answer.get("vocab_size")
    if not claims or rows is None:
        raise ModelError(
            "no tensor with a vocabulary axis was found",
            where=where,
            hint="name the embeddings under vocab_tensors in tokmigrate.yaml: {NAME: {axis: 0, side: input}}",
        )
    _refuse_quantized(entries, claims, architecture)
    for claim in claims.values():
        _check_rows(claim, rows, size[0] if size else None)
    tensors, tied, notes = _with_ties(weights, claims.values(), says_tied, config)
    return VocabularyTensors(tensors, rows, tied, (*_size_notes(config, size), *notes))


def _refuse_two_vocabularies(config: Mapping[str, Any], where: str) -> None:
    sizes = {key for key in ("src_vocab_size", "tgt_vocab_size") if key in config}
    if config.get("share_encoder_decoder_embeddings") is False or len(sizes) == 2:
        raise ModelError(
            "encoder and decoder have a vocabulary each; only models with one vocabulary can be migrated",
            where=where,
        )


def _sizes(config: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, int]]:
    # The language model inside comes first: transformers builds the embeddings by its size.
    for name in _NESTED:
        if isinstance(config.get(name), Mapping):
            yield from _sizes(config[name], f"{path}{name}.")
    size = config.get("vocab_size")
    if isinstance(size, int) and not isinstance(size, bool):
        yield f"{path}vocab_size", size


def _stated_size(config: Mapping[str, Any]) -> tuple[str, int] | None:
    return next(_sizes(config), None)


def _size_notes(config: Mapping[str, Any], size: tuple[str, int] | None) -> Iterator[str]:
    if size is None:
        yield (
            "config.json states no vocab_size: transformers takes the default of the model type, which must be"
            " the rows of the embeddings; state it before changing their number"
        )
        return
    for key, other in _sizes(config):
        if other != size[1]:
            yield f"config.json says {size[0]}: {size[1]}, which the weights follow, but {key}: {other}"


def _named(
    entries: Mapping[str, tuple[Shard, TensorEntry]], architecture: Architecture | None, overrides: Overrides
) -> dict[str, _Claim]:
    for name, override in overrides.items():
        if name not in entries:
            raise UnknownNameError(
                "vocab_tensors names it, but the model has no such tensor", where=name, hint=nearest(name, entries)
            )
        shape = entries[name][1].shape
        if override is not None and not 0 <= override[0] < len(shape):
            raise OutOfStepError(
                f"vocab_tensors gives it axis {override[0]}, its shape is {list(shape)}",
                where=name,
                hint=f"an axis is a number from 0 to {len(shape) - 1}",
            )
    claims = {}
    for name, (shard, entry) in entries.items():
        pattern = architecture.pattern(name) if architecture else None
        if name in overrides:
            override = overrides[name]
            if override is not None:
                claims[name] = _Claim(shard, entry, *override, rank=len(GENERIC))
        elif architecture and pattern:
            claims[name] = _Claim(shard, entry, pattern.axis, pattern.side, rank=architecture.patterns.index(pattern))
    return claims


def _embedding_rows(claims: Mapping[str, _Claim]) -> int | None:
    inputs = (claim for claim in claims.values() if claim.side == "input" and claim.axis < len(claim.entry.shape))
    return next((claim.entry.shape[claim.axis] for claim in inputs), None)


def _open(
    entries: Mapping[str, tuple[Shard, TensorEntry]],
    claims: Mapping[str, _Claim],
    overrides: Overrides,
    rows: int | None,
    architecture: Architecture | None,
) -> list[str]:
    """Return the names that neither the registry nor the workspace settles."""
    names = []
    for name, (_, entry) in entries.items():
        if name in claims or name in overrides:
            continue
        by_name = architecture is None and any(pattern.matches(name) for pattern in GENERIC)
        if rows in entry.shape or by_name:
            names.append(name)
    return names


def _answered(
    answer: Mapping[str, Any],
    entries: Mapping[str, tuple[Shard, TensorEntry]],
    claims: Mapping[str, _Claim],
    open_names: list[str],
    overrides: Overrides,
    where: str,
) -> dict[str, _Claim]:
    """Return the claims that transformers' own model adds; raises where it leaves a name unexplained."""
    explained: Mapping[str, Any] = answer.get("explained", {})
    found = {name: explained[name] for name in open_names if explained.get(name)}
    # A vocabulary tensor of another length is open by no dimension, and must not be passed over.
    following: Mapping[str, Any] = answer.get("following", {})
    found |= {name: following[name] for name in following if name in entries}
    found = {name: axis for name, axis in found.items() if name not in claims and name not in overrides}
    unexplained = [name for name in open_names if name not in explained]
    unexplained += [name for name, axis in found.items() if axis["side"] is None]
    if unexplained:
        raise _unexplained(unexplained, entries, answer, where)
    rank = len(GENERIC)
    return {
        name: _Claim(*entries[name], axis=int(axis["axis"]), side=axis["side"], rank=rank)
        for name, axis in found.items()
    }


def _unexplained(
    names: list[str],
    entries: Mapping[str, tuple[Shard, TensorEntry]],
    answer: Mapping[str, Any],
    where: str,
) -> UnexplainedTensorError:
    first, shape = names[0], entries[names[0]][1].shape
    lines = "\n".join(f"  {_setting(name, entries[name][1].shape, answer)}" for name in names)
    reason = answer.get("unknown", "transformers' own model has no tensor of that name whose axes could be compared")
    more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
    return UnexplainedTensorError(
        f"the tensor '{first}' {list(shape)}{more} may have a vocabulary axis, {_axes(shape, first, answer)},"
        f" and nothing says so: {reason}",
        where=where,
        hint=f"say what holds, for this model in tokmigrate.yaml:\nvocab_tensors:\n{lines}",
    )


def _guess(name: str, shape: tuple[int, ...], answer: Mapping[str, Any]) -> tuple[int, Side | None]:
    pattern = next((pattern for pattern in GENERIC if pattern.matches(name)), None)
    if pattern is not None and pattern.axis < len(shape):
        return pattern.axis, pattern.side
    size = answer.get("vocab_size")
    return (shape.index(size) if size in shape else shape.index(max(shape))), None


def _axes(shape: tuple[int, ...], name: str, answer: Mapping[str, Any]) -> str:
    return f"axis {_guess(name, shape, answer)[0]}"


def _setting(name: str, shape: tuple[int, ...], answer: Mapping[str, Any]) -> str:
    axis, side = _guess(name, shape, answer)
    if side is not None:
        return f'"{name}": {{axis: {axis}, side: {side}}}  # or: ignore'
    return f'"{name}": ignore  # or: {{axis: {axis}, side: input}}, or side: output'


def _check_rows(claim: _Claim, rows: int, key: str | None) -> None:
    shape = list(claim.entry.shape)
    if claim.axis >= len(shape):
        raise OutOfStepError(f"it has no axis {claim.axis}: its shape is {shape}", where=claim.entry.name)
    if shape[claim.axis] != rows:
        said = f"config.json says {key}: {rows}" if key else f"the embeddings have {rows}"
        raise OutOfStepError(
            f"its shape {shape} has {shape[claim.axis]} rows on axis {claim.axis}, but {said}",
            where=f"{claim.shard.file}: {claim.entry.name}",
            hint="restore the file that is wrong; or, if it is no vocabulary tensor, set vocab_tensors in"
            f' tokmigrate.yaml: {{"{claim.entry.name}": ignore}}',
        )


def _refuse_quantized(
    entries: Mapping[str, tuple[Shard, TensorEntry]],
    claims: Mapping[str, _Claim],
    architecture: Architecture | None,
) -> None:
    hint = "migrate the checkpoint that it was quantized from, then quantize again"
    for name, (shard, _) in entries.items():
        stem = _COMPANION.sub("", name)
        base = f"{stem}.weight"
        if stem != name and name not in claims and (base in claims or (architecture and architecture.pattern(base))):
            raise ModelError(
                f"'{base}' is quantized ('{name}' goes with it): new rows cannot be computed in it",
                where=shard.file,
                hint=hint,
            )
    for claim in claims.values():
        if claim.entry.dtype not in FLOATING:
            raise ModelError(
                f"'{claim.entry.name}' is quantized or holds integers ({claim.entry.dtype}): new rows cannot be"
                f" computed in it, only in {', '.join(sorted(FLOATING))}",
                where=claim.shard.file,
                hint=hint,
            )


def _says_tied(config: Mapping[str, Any], architecture: Architecture | None) -> bool:
    if architecture and architecture.tied_regardless:
        return True
    stated = config.get("tie_word_embeddings")
    for name in _NESTED:
        if stated is None and isinstance(config.get(name), Mapping):
            stated = config[name].get("tie_word_embeddings")
    return stated if isinstance(stated, bool) else architecture is not None and architecture.tied


def _with_ties(
    weights: Weights, claims: Iterable[_Claim], says_tied: bool, config: Mapping[str, Any]
) -> tuple[tuple[VocabularyTensor, ...], bool, tuple[str, ...]]:
    """Return the tensors with what is the same matrix marked, whether the head is tied, and notes."""
    in_order = list(claims)
    canonical = _canonical(weights, in_order) if says_tied else {c.entry.name: c for c in in_order}
    tensors = []
    for claim in in_order:
        first = canonical[claim.entry.name]
        tensor = VocabularyTensor(
            claim.entry.name,
            claim.shard.file,
            claim.axis,
            first.side,
            claim.entry.dtype,
            claim.entry.shape,
            first.entry.name,
        )
        tensors.append(tensor)
    matrices = [claim for claim in in_order if len(claim.entry.shape) == 2 and claim.axis == 0]
    heads = [claim for claim in matrices if claim.side == "output"]
    inputs = [claim for claim in matrices if claim.side == "input"]
    if not heads or not inputs:
        if not says_tied and not heads:
            note = "no output embeddings are stored, and none are tied: taken for a model without a head"
            return tuple(tensors), False, (note,)
        tensors = [replace(t, side="input") if says_tied and len(t.shape) == 2 and t.axis == 0 else t for t in tensors]
        return tuple(tensors), says_tied, ()
    tied = all(canonical[head.entry.name].side == "input" for head in heads)
    # T5 says false of a head that it stores apart: nothing to warn of.
    if says_tied and not tied and config.get("tie_word_embeddings") is not False:
        apart = next(head for head in heads if canonical[head.entry.name].side != "input")
        note = (
            f"config.json ties input and output embeddings, but '{inputs[0].entry.name}' and '{apart.entry.name}'"
            " are stored with different values: taken for two matrices, as transformers does"
        )
        return tuple(tensors), False, (note,)
    return tuple(tensors), tied, ()


def _canonical(weights: Weights, claims: list[_Claim]) -> dict[str, _Claim]:
    """Return for each tensor the first of those with the same bytes."""
    order = sorted(claims, key=lambda claim: (claim.side != "input", claim.rank, claim.entry.name))
    kinds: dict[tuple[Any, ...], list[_Claim]] = {}
    for claim in order:
        kinds.setdefault((claim.entry.shape, claim.entry.dtype, claim.axis), []).append(claim)
    canonical: dict[str, _Claim] = {}
    for alike in kinds.values():
        firsts: dict[str, _Claim] = {}
        for claim in alike:
            # Nothing is read where there is nothing to compare it with.
            digest = _digest(weights, claim) if len(alike) > 1 else ""
            canonical[claim.entry.name] = firsts.setdefault(digest, claim)
    return canonical


def _digest(weights: Weights, claim: _Claim) -> str:
    begin, end = claim.shard.extent(claim.entry)
    digest = blake3()
    with weights.path(claim.shard).open("rb") as file:
        file.seek(begin)
        while begin < end and (block := file.read(min(_BLOCK, end - begin))):
            digest.update(block)
            begin += len(block)
    return digest.hexdigest()

"""Which tensors of a model have a vocabulary axis.

A name alone proves nothing, nor does a dimension: names come from the registry and must have as many rows as
the config says; what else has an axis of that length is put to transformers' own model; what stays open is
an error that names the setting that settles it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokmigrate.errors import ModelError, OutOfStepError
from tokmigrate.model.architectures import ARCHITECTURES, Architecture
from tokmigrate.model.claims import Claim, Entries, Overrides, answered_claims, named_claims, open_names
from tokmigrate.model.dtype import FLOATING
from tokmigrate.model.probe.ask import ask
from tokmigrate.model.tied_tensors import Ties, find_ties
from tokmigrate.model.weights import Weights
from tokmigrate.vocabulary.recipes import Side

# The language model inside another one, in the order in which transformers looks for it.
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
# What bitsandbytes, GPTQ, AWQ, FP8 and compressed-tensors store beside a quantized weight.
_COMPANION = re.compile(
    r"\.(?:(?:weight[._])?(?:scale|scale_inv|zero_point|packed|absmax|quant_map|nested_absmax|nested_quant_map"
    r"|quant_state\..+|format)|SCB|qweight|qzeros|scales|g_idx)$"
)
_REQUANTIZE = "migrate the checkpoint that it was quantized from, then quantize again"


@dataclass(frozen=True)
class VocabularyTensor:
    """A tensor with one slice for each id.

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
        VerificationError: transformers was asked, and cannot work with the model.
    """
    where = str(directory)
    _refuse_two_vocabularies(config, where)
    entries = {entry.name: (shard, entry) for shard, entry in weights.tensors()}
    architecture = ARCHITECTURES.get(str(config.get("model_type")))
    claims = named_claims(entries, architecture, overrides)
    _refuse_quantized(entries, claims, architecture)
    stated = next(_stated_sizes(config), None)
    rows = stated[1] if stated else _embedding_rows(claims)
    tied = _claims_tie(config, architecture)

    settled = {*claims, *overrides}
    if asked := open_names(entries, settled, rows, architecture):
        answer = ask("vocabulary_axes", {"directory": where, "open": asked})
        claims |= answered_claims(answer, entries, settled, asked, where)
        _refuse_quantized(entries, claims, architecture)
        rows = rows or answer.get("vocab_size")
        if architecture is None:
            tied = bool(answer.get("tied", tied))
    if not claims or rows is None:
        raise ModelError(
            "no tensor with a vocabulary axis was found",
            where=where,
            hint=f"name the embeddings in tokmigrate.yaml, perhaps: vocab_tensors: {{{_longest(entries)}}}",
        )
    for claim in claims.values():
        _check_rows(claim, rows, stated[0] if stated else None)
    in_order = [claims[name] for name in entries if name in claims]
    ties = find_ties(weights, in_order, tied, config.get("tie_word_embeddings"))
    tensors = tuple(_described(claim, ties) for claim in in_order)
    return VocabularyTensors(tensors, rows, ties.tied, (*_size_notes(config), *ties.notes))


def _longest(entries: Entries) -> str:
    """Return the setting for the matrix with the longest axis, which the embeddings often are."""
    shapes = {name: entry.shape for name, (_, entry) in entries.items() if len(entry.shape) == 2}
    name = max(shapes, key=lambda name: max(shapes[name]), default="NAME")
    axis = shapes[name].index(max(shapes[name])) if shapes else 0
    return f'"{name}": {{axis: {axis}, side: input}}'


def _described(claim: Claim, ties: Ties) -> VocabularyTensor:
    entry, first = claim.entry, ties.first[claim.entry.name]
    # A tied head may be the only one that is stored.
    is_shared_head = ties.tied and len(entry.shape) == 2 and claim.axis == 0
    side: Side = "input" if is_shared_head else first.side
    return VocabularyTensor(entry.name, claim.shard.file, claim.axis, side, entry.dtype, entry.shape, first.entry.name)


def _stated_sizes(config: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, int]]:
    for name in _NESTED:
        if isinstance(config.get(name), Mapping):
            yield from _stated_sizes(config[name], f"{path}{name}.")
    size = config.get("vocab_size")
    if isinstance(size, int):
        yield f"{path}vocab_size", size


def _size_notes(config: Mapping[str, Any]) -> Iterator[str]:
    sizes = list(_stated_sizes(config))
    if not sizes:
        yield (
            "config.json states no vocab_size, so transformers expects the rows that the model type has by"
            " default: state it before the number of rows changes"
        )
    for key, size in sizes[1:]:
        if size != sizes[0][1]:
            yield f"config.json has two sizes: {sizes[0][0]}: {sizes[0][1]}, which counts, and {key}: {size}"


def _embedding_rows(claims: Mapping[str, Claim]) -> int | None:
    inputs = (claim for claim in claims.values() if claim.side == "input" and claim.axis < len(claim.entry.shape))
    return next((claim.entry.shape[claim.axis] for claim in inputs), None)


def _claims_tie(config: Mapping[str, Any], architecture: Architecture | None) -> bool:
    if architecture and architecture.tied_regardless:
        return True
    parts = (config, *(config[name] for name in _NESTED if isinstance(config.get(name), Mapping)))
    stated = [part["tie_word_embeddings"] for part in parts if isinstance(part.get("tie_word_embeddings"), bool)]
    return bool(stated[0]) if stated else architecture is not None and architecture.tied


def _check_rows(claim: Claim, rows: int, key: str | None) -> None:
    name, shape = claim.entry.name, claim.entry.shape
    found = shape[claim.axis] if claim.axis < len(shape) else None
    if found != rows:
        has = f"no axis {claim.axis}" if found is None else f"{found} rows on axis {claim.axis}"
        says = f"config.json says {key}: {rows}" if key else f"the other embeddings have {rows}"
        raise OutOfStepError(
            f"the tensor '{name}' {list(shape)} has {has}, but {says}",
            where=claim.shard.file,
            hint="restore the file that is wrong; if this is no vocabulary tensor, say in tokmigrate.yaml"
            f' vocab_tensors: {{"{name}": ignore}}',
        )


def _refuse_two_vocabularies(config: Mapping[str, Any], where: str) -> None:
    if config.get("share_encoder_decoder_embeddings") is False or {"src_vocab_size", "tgt_vocab_size"} <= set(config):
        raise ModelError(
            "encoder and decoder have a vocabulary each; only models with one vocabulary can be migrated",
            where=where,
        )


def _refuse_quantized(entries: Entries, claims: Mapping[str, Claim], architecture: Architecture | None) -> None:
    for name, (shard, _) in entries.items():
        base = _COMPANION.sub(".weight", name)
        is_claimed = base in claims or (architecture is not None and architecture.pattern(base) is not None)
        if base != name and name not in claims and is_claimed:
            raise ModelError(
                f"'{base}' is quantized, '{name}' goes with it: a new row cannot be computed in it",
                where=shard.file,
                hint=_REQUANTIZE,
            )
    for claim in claims.values():
        if claim.entry.dtype not in FLOATING:
            raise ModelError(
                f"'{claim.entry.name}' is quantized or holds integers ({claim.entry.dtype}): a new row can be"
                f" computed only in {', '.join(sorted(FLOATING))}",
                where=claim.shard.file,
                hint=_REQUANTIZE,
            )

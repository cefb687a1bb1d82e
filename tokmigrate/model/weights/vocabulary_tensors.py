"""Which tensors of a model have a vocabulary axis.

A name alone proves nothing, nor does a dimension: names come from the registry and must have as many rows as
the config says; what else has an axis of that length is put to transformers' own model; what stays open is
an error that names the setting that resolves it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tokmigrate.errors import ModelError, OutOfStepError
from tokmigrate.model.documents.architecture_quirks import is_static, refusal
from tokmigrate.model.documents.config_fields import config_parts, read_declared_sizes
from tokmigrate.model.formats.dtype import FLOATING
from tokmigrate.model.tokenizer.tokenizer_json import Tokenizer
from tokmigrate.model.weights import tensor_match
from tokmigrate.model.weights.architectures import Architecture, architecture_of
from tokmigrate.model.weights.tensor_match import Entries, Overrides, TensorMatch, Ties
from tokmigrate.model.weights.vocabulary_tensor import VocabularyTensor, input_only_ids, is_divided_wrongly, window_of
from tokmigrate.model.weights.weights import Weights
from tokmigrate.model.worker.worker import DEFAULT_LIMITS, call_worker
from tokmigrate.settings import WorkerLimits
from tokmigrate.vocabulary.row_edit import Side, Window

# What bitsandbytes, GPTQ, AWQ, FP8 and compressed-tensors store beside a quantized weight.
_COMPANION = re.compile(
    r"\.(?:(?:weight[._])?(?:scale|scale_inv|zero_point|packed|absmax|quant_map|nested_absmax|nested_quant_map"
    r"|quant_state\..+|format)|SCB|qweight|qzeros|scales|g_idx)$"
)
_REQUANTIZE = "migrate the checkpoint that it was quantized from, then quantize again"


@dataclass(frozen=True)
class VocabularyTensors:
    """All vocabulary tensors of a model, in the order of the shards and of their data.

    Args:
        ids: For how many ids the longest of them has rows.
        short: How many of the last ids have a row in the input embeddings only.
        tied: Whether input and output embeddings are one matrix.
    """

    tensors: tuple[VocabularyTensor, ...]
    ids: int
    short: int
    tied: bool
    notes: tuple[str, ...]


def find_vocabulary_tensors(
    weights: Weights,
    config: Mapping[str, Any],
    overrides: Overrides,
    limits: WorkerLimits = DEFAULT_LIMITS,
    tokenizer: Tokenizer | None = None,
) -> VocabularyTensors:
    """Find every tensor of a model that has a vocabulary axis.

    Args:
        tokenizer: The model's, whose ids tell which tensors may be meant where nothing else does.

    Raises:
        OutOfStepError: A vocabulary tensor has not as many rows as the config says.
        UnexplainedTensorError: An axis has that length, and nothing explains it.
        ModelError: There is no vocabulary tensor, a quantized one, or more than one vocabulary.
        UnknownNameError: `overrides` names a tensor that the model does not have.
        VerificationError: transformers was asked, and cannot work with the model.
    """
    where = str(weights.directory)
    entries = {entry.name: (shard, entry) for shard, entry in weights.tensors()}
    refused = refusal(config, frozenset(entries))
    if refused is not None:
        message = f"models of type '{config.get('model_type')}' cannot be migrated: {refused.reason}"
        raise ModelError(message, where=where, hint=refused.hint)
    architecture = architecture_of(config)
    matches = tensor_match.match_by_name(entries, architecture, overrides)
    _refuse_quantized(entries, matches, architecture)
    declared = next(iter(read_declared_sizes(config)), None)
    inputs = (match.rows for match in matches.values() if match.side == "input" and match.rows is not None)
    size = declared[1] if declared else next(inputs, None)
    tied = _declares_tie(config, architecture)

    matches |= tensor_match.match_repeated(weights, entries, matches, {*matches, *overrides})
    settled = {*matches, *overrides}
    if asked := tensor_match.open_names(entries, settled, size, architecture):
        answer = call_worker("vocabulary_axes", {"directory": where, "open": asked}, limits)
        matches |= tensor_match.match_by_answer(answer, entries, settled, asked, where)
        _refuse_quantized(entries, matches, architecture)
        size = size or answer.get("vocab_size")
        if architecture is None:
            tied = bool(answer.get("tied", tied))
    if not matches or size is None:
        raise _none_found(entries, tokenizer, where)
    tensor_match.check_one_vocabulary(weights, config, matches, overrides)
    if is_divided_wrongly(config, {name: entry.shape for name, (_, entry) in entries.items()}, size):
        raise _division_error(where)
    short = input_only_ids(config)
    windows = {name: window_of(config, name, match.rows or 0, size, match.side) for name, match in matches.items()}
    for name, match in matches.items():
        _check_rows(match, windows[name].rows(size + short), declared[0] if declared else None, size)
    in_order = [matches[name] for name in entries if name in matches]
    ties = tensor_match.find_ties(weights, in_order, tied, config.get("tie_word_embeddings"))
    tensors = tuple(_describe(match, ties, windows[match.entry.name]) for match in in_order)
    notes = () if is_static(config) else (*_size_notes(config), *ties.notes)
    return VocabularyTensors(tensors, size + short, short, ties.tied, notes)


def _division_error(where: str) -> OutOfStepError:
    return OutOfStepError(
        "transformers divided the embeddings in the middle when it saved the model, so that rows of tokens are in the"
        " matrix of images ('wte.new_embedding')",
        where=where,
        hint="save it in transformers' own format, which keeps one matrix, and copy the tokenizer's files beside"
        f' it: python -c "from transformers import AutoModelForImageTextToText as M;'
        f" M.from_pretrained({where!r}, dtype='auto').save_pretrained('NEW', save_original_format=False)\"",
    )


def _none_found(entries: Entries, tokenizer: Tokenizer | None, where: str) -> ModelError:
    ids = tokenizer.highest + 1 if tokenizer else 0
    possible = tensor_match.candidates(entries, ids)
    if possible:
        message = "which tensors have a vocabulary axis is not known: neither config.json nor their names show it"
        return ModelError(message, where=where, hint=tensor_match.settings_hint(possible))
    return ModelError(
        f"no tensor has a row for each of the {ids} ids of the tokenizer",
        where=where,
        hint="give the model the tokenizer that belongs to its weights, or take it out of `models:` in tokmigrate.yaml",
    )


def _describe(match: TensorMatch, ties: Ties, window: Window) -> VocabularyTensor:
    entry, first = match.entry, ties.first[match.entry.name]
    # A tied head may be the only one that is stored.
    is_shared_head = ties.tied and len(entry.shape) == 2 and match.axis == 0
    side: Side = "input" if is_shared_head else first.side
    file, canonical = match.shard.file, first.entry.name
    return VocabularyTensor(entry.name, file, match.axis, side, entry.dtype, entry.shape, canonical, window)


def _size_notes(config: Mapping[str, Any]) -> Iterator[str]:
    sizes = read_declared_sizes(config)
    if not sizes:
        yield (
            "config.json states no vocab_size, so transformers expects the rows that the model type has by"
            " default: state it before the number of rows changes"
        )
    for key, size in sizes[1:]:
        if size != sizes[0][1]:
            yield f"config.json has two sizes: {sizes[0][0]}: {sizes[0][1]}, which counts, and {key}: {size}"


def _declares_tie(config: Mapping[str, Any], architecture: Architecture | None) -> bool:
    if architecture and architecture.tied_regardless:
        return True
    declared = [part.get("tie_word_embeddings") for _, part in config_parts(config)]
    if architecture and architecture.tied_inside:
        declared = [*declared[1:], declared[0]]
    first = next((tied for tied in declared if isinstance(tied, bool)), None)
    return first if first is not None else bool(architecture and architecture.tied)


def _check_rows(match: TensorMatch, rows: int, key: str | None, size: int) -> None:
    name, shape, found = match.entry.name, match.entry.shape, match.rows
    if found != rows and match.expected:
        raise ModelError(
            f"the tensor '{name}' {list(shape)} has {found} rows for {size} ids in transformers' own model too, and"
            " what the difference stands for is not known",
            where=match.shard.file,
            hint="take the model out of `models:` in tokmigrate.yaml: its vocabulary cannot be migrated",
        )
    if found != rows:
        has = f"no axis {match.axis}" if found is None else f"{found} rows on axis {match.axis}"
        says = f"config.json says {key}: {size}" if key else f"the other embeddings have {size}"
        raise OutOfStepError(
            f"the tensor '{name}' {list(shape)} has {has}, but {says}",
            where=match.shard.file,
            hint="restore the file that is wrong; if this is not a vocabulary tensor, write in tokmigrate.yaml"
            f' vocab_tensors: {{"{name}": ignore}}',
        )


def _refuse_quantized(entries: Entries, matches: Mapping[str, TensorMatch], architecture: Architecture | None) -> None:
    for name, (shard, _) in entries.items():
        base = _COMPANION.sub(".weight", name)
        is_claimed = base in matches or (architecture is not None and architecture.pattern(base) is not None)
        if base != name and name not in matches and is_claimed:
            raise ModelError(
                f"'{base}' is quantized, '{name}' belongs to it: a new row cannot be computed for it",
                where=shard.file,
                hint=_REQUANTIZE,
            )
    for match in matches.values():
        if match.entry.dtype not in FLOATING and not (architecture and architecture.is_table(match.entry.name)):
            raise ModelError(
                f"'{match.entry.name}' is quantized or holds integers ({match.entry.dtype}): a new row can be"
                f" computed only in {', '.join(sorted(FLOATING))}",
                where=match.shard.file,
                hint=_REQUANTIZE,
            )

"""Which tensors of an adapter go with the vocabulary of its base model.

The names are those that peft 0.21 saves (its `save_and_load.py`): the path of the module in the base model, and what
the adapter keeps of it.

    embed_tokens.weight, lm_head.weight             a whole matrix (`modules_to_save`)
    embed_tokens.base_layer.weight                  the base model's own, saved along
    embed_tokens.lora_embedding_A                   [rank, vocabulary]
    lm_head.lora_B.weight, lm_head.lora_B.bias      [vocabulary, rank], [vocabulary]
    embed_tokens.…trainable_tokens_delta            a row for each of `trainable_token_indices`
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile

from tokmigrate.errors import ModelError, OutOfStepError, UnexplainedTensorError
from tokmigrate.model.weights.architectures import Architecture
from tokmigrate.model.weights.vocabulary_tensor import VocabularyTensor
from tokmigrate.model.weights.weights import Weights


@dataclass(frozen=True)
class _Kept:
    """What an adapter keeps of a module.

    Args:
        name: A regular expression for what follows the module's path.
        of: The base model's parameter that it goes with, `weight` or `bias`.
        axis: The axis that counts the vocabulary.
        adds: Whether it is a factor that is added to the parameter.
    """

    name: str
    of: str
    axis: int = 0
    adds: bool = False


_SAVED = r"(?:base_layer\.|original_module\.|modules_to_save\.(?:\w+\.)?)?"
_KEPT = (
    _Kept(r"lora_embedding_A(?:\.\w+)?", "weight", axis=1, adds=True),
    _Kept(r"lora_B(?:\.\w+)?\.weight", "weight", adds=True),
    _Kept(r"lora_B(?:\.\w+)?\.bias", "weight", adds=True),
    _Kept(rf"{_SAVED}weight", "weight"),
    _Kept(rf"{_SAVED}bias", "bias"),
)
# Of these no axis counts the vocabulary.
_OTHERS = re.compile(r"(?:lora_embedding_B(?:\.\w+)?|lora_A(?:\.\w+)?\.weight|trainable_tokens_\w+(?:\.\w+)?)$")
_DORA = re.compile(r"(.+)\.lora_magnitude_vector(?:\.\w+)*")


@dataclass(frozen=True)
class Base:
    """What an adapter has to know of its base model.

    Args:
        tensors: The vocabulary tensors.
        ids: How many ids there are rows for.
        architecture: What is known of its type.
        tied: Whether input and output embeddings are one matrix.
        baseline: How many ids it had before its migrations.
        needed: How many ids its tokens need.
    """

    tensors: tuple[VocabularyTensor, ...]
    ids: int
    architecture: Architecture | None
    tied: bool
    baseline: int
    needed: int

    def hint_for(self, ids: int) -> str:
        """Return what to do with an adapter that has rows for another number of ids."""
        if ids == self.baseline:
            return (
                "it was trained on the model before its migrations: `tokmigrate downgrade base`, list the adapter, and"
                " upgrade both"
            )
        if ids >= self.needed:
            return (
                f"it was trained on this model after it was resized in memory to {ids} rows, which was not saved: take"
                " it out of `adapters:`, give the model its tokens and rows with a migration"
                f" (resize_vocab: {{rows: {ids}}}), upgrade, and list it again"
            )
        return f"take it out of `adapters:`: the ids of this model's tokens go up to {self.needed - 1}"

    def parameter(self, module: str, parameter: str) -> VocabularyTensor | None:
        """Return the vocabulary tensor that is a parameter of a module, by the name that peft has for the module."""
        # A file and a module may lack each other's prefixes, but not the last name.
        alike = [
            tensor
            for tensor in self.tensors
            if tensor.name.rpartition(".")[2] == parameter and tensor.name.split(".")[-2:-1] == module.split(".")[-1:]
        ]
        if alike:
            return max(alike, key=lambda tensor: _shared_end(tensor.name.split(".")[:-1], module.split(".")))
        pattern = self.architecture.pattern(f"{module}.{parameter}") if self.architecture else None
        if pattern is None or not self.tied or parameter != "weight":
            return None
        return next((tensor for tensor in self.tensors if tensor.embeds), None)


def _shared_end(one: Sequence[str], other: Sequence[str]) -> int:
    pairs = zip(reversed(one), reversed(other), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def adapter_tensors(weights: Weights, base: Base) -> tuple[VocabularyTensor, ...]:
    """Return the tensors of an adapter that have a row for each id.

    Args:
        weights: The adapter's tensors.
        base: Its base model.

    Raises:
        ModelError: Its rows depend on all others (DoRA).
        OutOfStepError: A tensor has rows for another number of ids.
        UnexplainedTensorError: An axis has that length, and nothing explains it.
    """
    return tuple(_found(weights, base))


def _found(weights: Weights, base: Base) -> Iterator[VocabularyTensor]:
    for shard, entry in weights.tensors():
        where = str(weights.path(shard))
        plain = entry.name.removeprefix("base_model.model.")
        scaled = _DORA.fullmatch(plain)
        if scaled and base.parameter(scaled[1], "weight"):
            raise ModelError(
                f"'{entry.name}' scales rows by norms over the whole vocabulary (DoRA), which another row changes",
                where=where,
                hint="merge the adapter into the model before its vocabulary is migrated",
            )
        found = _parted(plain, base)
        if found is None:
            if base.ids in entry.shape and not _OTHERS.search(plain):
                raise UnexplainedTensorError(
                    f"whether an axis of the tensor '{entry.name}' {list(entry.shape)} counts the vocabulary is not"
                    " known: it is none of those that LoRA saves",
                    where=where,
                    hint="merge the adapter into the model first, or take it out of `adapters:`",
                )
            continue
        kept, of = found
        tensor = VocabularyTensor(
            name=entry.name,
            file=shard.file,
            axis=kept.axis if kept.adds else of.axis,
            side=of.side,
            dtype=entry.dtype,
            shape=entry.shape,
            canonical=entry.name,
            window=of.window,
            noise=of.canonical,
            adds=kept.adds,
        )
        _check_rows(tensor, base, where)
        yield tensor


def _parted(plain: str, base: Base) -> tuple[_Kept, VocabularyTensor] | None:
    """Return what a tensor keeps, and of which of the base model's."""
    for kept in _KEPT:
        match = re.fullmatch(rf"(.+?)\.{kept.name}", plain)
        of = base.parameter(match[1], kept.of) if match else None
        if of is not None:
            return kept, of
    return None


def _check_rows(tensor: VocabularyTensor, base: Base, where: str) -> None:
    ids = base.ids
    rows = tensor.shape[tensor.axis] if tensor.axis < len(tensor.shape) else None
    if rows != tensor.window.rows(ids):
        raise OutOfStepError(
            f"the tensor '{tensor.name}' {list(tensor.shape)} of the adapter has not {tensor.window.rows(ids)} rows,"
            " as its base model has",
            where=where,
            hint=base.hint_for((rows or 0) - tensor.window.rows(ids) + ids),
        )

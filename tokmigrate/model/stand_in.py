"""A stand-in for a model: the same files, configuration and tensor names, with rows of a few numbers.

It is made of headers and documents alone, so that one of a model of 100 GB is made in a second. The vocabulary axis of
each tensor keeps its length, every other axis is shortened; the numbers come from a seed, the same ones for tensors
that are one matrix.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import numpy as np
from blake3 import blake3

from tokmigrate.files import read_if_present
from tokmigrate.model.documents.state import CONFIG, MODULES
from tokmigrate.model.formats.dtype import FLOATING, ITEM_BITS, from_float64
from tokmigrate.model.formats.safetensors_header import BLOCK_BYTES
from tokmigrate.model.snapshot import Snapshot
from tokmigrate.model.weights.architectures import architecture_of
from tokmigrate.model.weights.vocabulary_tensor import VocabularyTensor
from tokmigrate.settings import ModelEntry, VocabTensorSetting

NARROW = 4
"""The length that a shortened axis has; with 4 no dtype of safetensors ends within a byte."""


def make_stand_in(
    entry: ModelEntry,
    snapshot: Snapshot,
    directory: Path,
    texts: Mapping[str, bytes],
    rows: int,
    *,
    width: int | None = NARROW,
) -> ModelEntry:
    """Make a stand-in, and return it as a model of the workspace under the name of the one that it stands for.

    Args:
        entry: The model.
        snapshot: The model as it is; of its weights only the headers are looked at.
        directory: Where the stand-in is made; it must not be there yet.
        texts: The bytes of its documents by name.
        rows: The ids that have a row.
        width: How long every other axis of a vocabulary tensor is at most; None for as long as it is.
    """
    directory.mkdir(parents=True)
    for name, data in texts.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    modules = read_if_present(snapshot.directory / MODULES)
    if modules is not None:
        (directory / MODULES).write_bytes(modules)
    tensors = {tensor.name: tensor.with_ids(rows) for tensor in snapshot.tensors}
    shapes = {name: _narrowed(tensor.shape, width, tensor.axis) for name, tensor in tensors.items()}
    for shard in snapshot.weights.shards:
        header = shard.header
        narrow = {each.name: shapes.get(each.name, _narrowed(each.shape, NARROW)) for each in header.entries}
        with (directory / shard.file).open("wb") as file:
            file.write(header.reshaped(narrow, header.data_start % BLOCK_BYTES).raw)
            for each in header.by_offset:
                same = tensors[each.name].canonical if each.name in tensors else each.name
                file.write(_numbers(same, each.dtype, narrow[each.name]))
    return replace(
        entry, path=directory, adapters=(), vocab_tensors=MappingProxyType(_settings(entry, snapshot, tensors))
    )


def _narrowed(shape: tuple[int, ...], width: int | None, kept: int | None = None) -> tuple[int, ...]:
    return tuple(size if axis == kept or width is None else min(size, width) for axis, size in enumerate(shape))


def _numbers(name: str, dtype: str, shape: tuple[int, ...]) -> bytes:
    """Return the bytes of a tensor, from a seed of its name."""
    count = prod(shape)
    if dtype not in FLOATING:
        return b"\1" * (count * ITEM_BITS[dtype] // 8)
    random = np.random.default_rng(int.from_bytes(blake3(name.encode()).digest()[:8], "little"))
    return from_float64(random.standard_normal(count), dtype)


def _settings(
    entry: ModelEntry, snapshot: Snapshot, tensors: Mapping[str, VocabularyTensor]
) -> dict[str, VocabTensorSetting | Literal["ignore"]]:
    """Return what settles of each tensor whether it has a vocabulary axis, as the model's own shapes told."""
    architecture = architecture_of(snapshot.state.documents[CONFIG])
    settings: dict[str, VocabTensorSetting | Literal["ignore"]] = {}
    for _, held in snapshot.weights.tensors():
        tensor = tensors.get(held.name)
        if held.name in entry.vocab_tensors:
            settings[held.name] = entry.vocab_tensors[held.name]
        elif tensor is None:
            settings[held.name] = "ignore"
        # The registry finds its own again, and a copy is found by its bytes.
        elif not (architecture and architecture.pattern(held.name)) and tensor.canonical == tensor.name:
            settings[held.name] = VocabTensorSetting(tensor.axis, tensor.side)
    return settings

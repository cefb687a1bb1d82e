"""Dummy models: the files and tensor names of a model, with little or nothing in its weights.

One is made of a model that is here, another where the weights are not. `make_dummy` shortens every axis but that of the
vocabulary, so that one of a model of 100 GB is made in a second; the numbers come from a seed, the same ones for
tensors that are one matrix. Without weights transformers tells from the configuration what shapes they have.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from blake3 import blake3

from tokmigrate.errors import WeightsError
from tokmigrate.files import entries, has_file, read_if_present
from tokmigrate.model.documents.reading import read_documents
from tokmigrate.model.documents.stamp import FILE as STAMP
from tokmigrate.model.documents.stamp import read_stamp
from tokmigrate.model.documents.state import CONFIG, MODULES
from tokmigrate.model.formats.dtype import FLOATING, ITEM_BITS, from_float64
from tokmigrate.model.formats.safetensors_header import BLOCK_BYTES, encode_header, parse_header
from tokmigrate.model.snapshot import Snapshot
from tokmigrate.model.weights.architectures import Architecture, architecture_of
from tokmigrate.model.weights.vocabulary_tensor import VocabularyTensor
from tokmigrate.model.weights.weights import INDEX, SINGLE, WEIGHT_FILES, is_pointer
from tokmigrate.model.worker.worker import call_worker
from tokmigrate.settings import ModelEntry, VocabTensorSetting

NARROW = 4
"""The length that a shortened axis has; with 4 no dtype of safetensors ends within a byte."""


def make_dummy_model(
    entry: ModelEntry,
    snapshot: Snapshot,
    directory: Path,
    texts: Mapping[str, bytes],
    rows: int,
    *,
    width: int | None = NARROW,
) -> ModelEntry:
    """Make a dummy of a model, and return it as a model of the workspace under the same name.

    Args:
        snapshot: The model as it is; of its weights only the headers are looked at.
        texts: The bytes of its documents by name; the index is that of the model, whose shards it has.
        width: How long every other axis of a vocabulary tensor is at most; None for as long as it is.
    """
    index = {name: data for name, data in snapshot.texts.items() if name == INDEX}
    _write_documents(
        snapshot.directory, directory, {name: data for name, data in texts.items() if name != INDEX} | index
    )
    tensors = {tensor.name: tensor.with_ids(rows) for tensor in snapshot.tensors}
    shapes = {name: _narrow(tensor.shape, width, tensor.axis) for name, tensor in tensors.items()}
    for shard in snapshot.weights.shards:
        header = shard.header
        narrow = {each.name: shapes.get(each.name, _narrow(each.shape, NARROW)) for each in header.entries}
        with (directory / shard.file).open("wb") as file:
            file.write(header.reshape(narrow, header.data_start % BLOCK_BYTES).raw)
            for each in header.by_offset:
                same = tensors[each.name].canonical if each.name in tensors else each.name
                file.write(_numbers(same, each.dtype, narrow[each.name]))
    return replace(
        entry,
        path=directory,
        adapters=(),
        copies=(),
        vocab_tensors=MappingProxyType(_settings(entry, snapshot, tensors)),
    )


def _write_documents(source: Path, directory: Path, texts: Mapping[str, bytes]) -> None:
    """Write the documents of a model that is in `source` into a new directory, and copy its list of modules."""
    directory.mkdir(parents=True)
    modules = read_if_present(source / MODULES)
    for name, data in {**texts, **({} if modules is None else {MODULES: modules})}.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def _narrow(shape: tuple[int, ...], width: int | None, kept: int | None = None) -> tuple[int, ...]:
    return tuple(size if axis == kept or width is None else min(size, width) for axis, size in enumerate(shape))


def _numbers(name: str, dtype: str, shape: tuple[int, ...]) -> bytes:
    """Return the bytes of a tensor, from a seed of its name."""
    if dtype not in FLOATING:
        return b"\1" * _count_bytes(shape, dtype)
    random = np.random.default_rng(int.from_bytes(blake3(name.encode()).digest()[:8], "little"))
    return from_float64(random.standard_normal(prod(shape)), dtype)


def _settings(
    entry: ModelEntry, snapshot: Snapshot, tensors: Mapping[str, VocabularyTensor]
) -> dict[str, VocabTensorSetting | Literal["ignore"]]:
    """Return for each tensor whether it has a vocabulary axis, as the model's own shapes show."""
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
            settings[held.name] = VocabTensorSetting(axis=tensor.axis, side=tensor.side)
    return settings


_DTYPES = {"bfloat16": "BF16", "float16": "F16", "float64": "F64"}


def lacks_weights(directory: Path) -> bool:
    """Return whether a model's configuration is here, and of its weights nothing but pointers of Git LFS."""
    if not has_file(directory / CONFIG):
        return False
    return all(is_pointer(path) for path in entries(directory) if path.name.endswith(WEIGHT_FILES))


def make_dummy_without_weights(entry: ModelEntry, directory: Path) -> ModelEntry:
    """Make a dummy of a model that lacks weights in a new directory, and return it under the name of that model.

    Its vocabulary tensors have the shapes that the configuration gives them, and take no room: a file of holes. Raises
    WeightsError where these shapes are not known.
    """
    stamp = read_stamp(entry.path)
    texts, documents = read_documents(entry.path)
    architecture = architecture_of(documents[CONFIG])
    answer = call_worker("vocabulary_axes", {"directory": str(entry.path), "open": []}, entry.worker)
    tensors = dict(_entries(answer, architecture))
    if not tensors:
        raise WeightsError(
            "its weights are not here, and what shapes they have is not known: "
            f"{answer.get('unknown', 'its configuration makes no tensor that follows the vocabulary')}",
            where=str(entry.path),
            hint="fetch the weights",
        )
    if stamp is not None:
        # The digest is that of weights which are elsewhere; who compares it makes a stamp for what is here.
        held = next(iter(stamp.shards.values()), None)
        texts[STAMP] = replace(stamp, shards={SINGLE: held} if held else {}).encode()
    _write_documents(entry.path, directory, texts)
    dtype = _DTYPES.get(str(documents[CONFIG].get("dtype") or documents[CONFIG].get("torch_dtype")), "F32")
    _write_holes(directory / SINGLE, tensors, dtype, architecture, tied=bool(answer["tied"]))
    settings = {
        name: entry.vocab_tensors.get(name) or VocabTensorSetting(axis=shape_info["axis"], side=shape_info["side"])
        for name, shape_info in tensors.items()
        if name in entry.vocab_tensors or not (architecture and architecture.pattern(name))
    }
    return replace(entry, path=directory, adapters=(), copies=(), vocab_tensors=MappingProxyType(settings))


def _entries(answer: Mapping[str, Any], architecture: Architecture | None) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the tensors that follow the vocabulary, as a file has them: a tied head is not stored."""
    for name, shape_info in answer.get("following", {}).items():
        pattern = architecture.pattern(name) if architecture else None
        side: Literal["input", "output"] | None = pattern.side if pattern else shape_info["side"]
        is_head = side == "output" and len(shape_info["shape"]) == 2 and shape_info["axis"] == 0
        if side is not None and not (is_head and answer["tied"]):
            yield name, shape_info


def _write_holes(
    path: Path, tensors: Mapping[str, Mapping[str, Any]], dtype: str, architecture: Architecture | None, *, tied: bool
) -> None:
    kinds = {name: "I64" if architecture and architecture.is_table(name) else dtype for name in tensors}
    raw = encode_header(
        [(name, kinds[name], tuple(shape_info["shape"])) for name, shape_info in tensors.items()], None, 0
    )
    size = len(raw) + sum(_count_bytes(shape_info["shape"], kinds[name]) for name, shape_info in tensors.items())
    header = parse_header(raw, size, str(path))
    with path.open("wb") as file:
        file.write(raw)
        file.truncate(size)
        for each in header.entries if not tied else ():
            # Two that are not one matrix may not have the same bytes.
            file.seek(header.data_start + each.begin)
            file.write(blake3(each.name.encode()).digest()[: len(each)])


def _count_bytes(shape: Sequence[int], dtype: str) -> int:
    return prod(shape) * ITEM_BITS[dtype] // 8

"""The shards that a change writes, and their headers: which tensor is in which file, and where its bytes begin.

The index of a state says which tensor is in which file, so that its layout follows from that and the headers on disk.
A header depends on the baseline and the number of rows alone, not on the migrations between them. Its padding puts the
longest run of bytes at the same place of a block as at the baseline, so that any two states can share its blocks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from tokmigrate.errors import WeightsError
from tokmigrate.formatting import format_bytes, format_count
from tokmigrate.model.documents.architecture_quirks import is_static
from tokmigrate.model.documents.state import CONFIG, ModelState
from tokmigrate.model.formats.safetensors_header import (
    BLOCK_BYTES,
    Header,
    TensorEntry,
    encode_header,
    parse_header,
)
from tokmigrate.model.snapshot import Snapshot
from tokmigrate.model.weights.vocabulary_tensor import VocabularyTensor
from tokmigrate.model.weights.weights import INDEX, SINGLE

VOCABULARY_SHARD = "model-vocabulary-00001-of-00001.safetensors"
OTHER_SHARD = "model-00001-of-00001.safetensors"
"""The new shards: transformers removes files with such names where it saves a model again."""


@dataclass(frozen=True)
class ShardLayout:
    """The header of a shard in a state, and where its data section begins or would begin at the baseline, in bytes."""

    header: Header
    baseline_start: int


def lay_out_shards(snapshot: Snapshot, before: ModelState, after: ModelState) -> dict[str, ShardLayout]:
    """Return the shards that are written where rows change between two states, as they are in the second, by file.

    These are the shards with vocabulary tensors, and those that have other tensors than before.
    """
    files_before, files_after = _read_files(snapshot, before), _read_files(snapshot, after)
    vocabulary = {tensor.name for tensor in snapshot.tensors}
    old, new = ({files[name] for name in vocabulary} for files in (files_before, files_after))
    members: dict[str, set[str]] = {}
    for name, file in files_after.items():
        if file in new or files_before[name] in old:
            members.setdefault(file, set()).add(name)
    return {file: _lay_out(snapshot, file, members[file], after) for file in sorted(members)}


def isolate_vocabulary(snapshot: Snapshot, state: ModelState) -> ModelState:
    """Return the state with its vocabulary tensors in shards without other tensors; the same one if they are."""
    files = _read_files(snapshot, state)
    moving = _find_mixed(snapshot, files)
    if not moving:
        return state
    is_whole = INDEX not in state.documents
    weight_map = {name: VOCABULARY_SHARD if name in moving else file for name, file in files.items()}
    if is_whole:
        weight_map = {name: OTHER_SHARD if file == SINGLE else file for name, file in sorted(weight_map.items())}
    new = {"metadata": {"total_size": _count_bytes(snapshot, state.edit.old_rows)}}
    return state.with_document(INDEX, {**state.documents.get(INDEX, new), "weight_map": weight_map})


def refuse_taken_names(snapshot: Snapshot, written: Collection[str]) -> None:
    """Raise WeightsError where a file has the name of a shard that is new, or of the index of a model in one file."""
    own = snapshot.weights.files
    new = [name for name in written if name not in own]
    for name in (*new, *([INDEX] if new and snapshot.weights.index is None else ())):
        if name in snapshot.names:
            raise WeightsError(
                f"`isolate_vocab` makes a file {name}, and there is one that the model does not use",
                where=str(snapshot.directory),
                hint=f"move {name} out of the directory, or switch `isolate_vocab` off in tokmigrate.yaml",
            )


def describe_isolation(snapshot: Snapshot) -> str | None:
    """Return what it means to isolate the vocabulary tensors of a model as it is; None if there is nothing to do."""
    files = _read_files(snapshot, snapshot.state)
    moving = _find_mixed(snapshot, files)
    if not moving:
        return None
    old = {files[name] for name in moving}
    other = sum(len(entry) for shard, entry in snapshot.weights.tensors() if shard.file in old)
    other -= sum(len(snapshot.weights.tensor(name)[1]) for name in moving)
    return (
        f"`isolate_vocab` moves {format_count(len(moving), 'vocabulary tensor')} into {VOCABULARY_SHARD}; for that"
        f" {format_bytes(other)} of other tensors are written once"
    )


def find_baseline_start(snapshot: Snapshot, file: str) -> int:
    """Return where the data section of a shard on disk began at the baseline."""
    recorded = snapshot.stamp.shards.get(file) if snapshot.stamp else None
    return recorded.baseline_start if recorded else snapshot.weights.shard(file).header.data_start


def lay_out_on_disk(snapshot: Snapshot, file: str, rows: int) -> Header:
    """Return the header of a shard on disk with another number of rows."""
    return _with_rows(snapshot, snapshot.weights.shard(file).header, find_baseline_start(snapshot, file), rows)


def _read_files(snapshot: Snapshot, state: ModelState) -> Mapping[str, str]:
    """Return the file of each tensor in a state."""
    index = state.documents.get(INDEX)
    return index["weight_map"] if index else {entry.name: shard.file for shard, entry in snapshot.weights.tensors()}


def _find_mixed(snapshot: Snapshot, files: Mapping[str, str]) -> frozenset[str]:
    """Return the vocabulary tensors whose files have other tensors too."""
    # model2vec reads its embeddings from `model.safetensors` alone.
    if is_static(snapshot.state.documents[CONFIG]):
        return frozenset()
    vocabulary = {tensor.name for tensor in snapshot.tensors}
    mixed = {file for name, file in files.items() if name not in vocabulary}
    return frozenset(name for name in vocabulary if files[name] in mixed)


def _count_bytes(snapshot: Snapshot, rows: int) -> int:
    """Return the bytes of all tensors where there are `rows` rows."""
    vocabulary = snapshot.tensors_by_name
    return sum(_size_with(rows, vocabulary.get(entry.name), entry) for _, entry in snapshot.weights.tensors())


def _size_with(rows: int, tensor: VocabularyTensor | None, entry: TensorEntry) -> int:
    return len(entry) if tensor is None else tensor.row_bytes * tensor.window.rows(rows)


def _lay_out(snapshot: Snapshot, file: str, names: Collection[str], state: ModelState) -> ShardLayout:
    shard = next((each for each in snapshot.weights.shards if each.file == file), None)
    if shard is None or {entry.name for entry in shard.header.entries} != names:
        joined = _join_headers(snapshot, file, names)
        return ShardLayout(_with_rows(snapshot, joined, joined.data_start, state.rows), joined.data_start)
    header, start = shard.header, find_baseline_start(snapshot, file)
    # What is on disk may have been saved again since it was migrated.
    is_new = state.reshaped and state is not snapshot.state
    return ShardLayout(_with_rows(snapshot, header, start, state.rows) if is_new else header, start)


def _join_headers(snapshot: Snapshot, file: str, names: Collection[str]) -> Header:
    """Return the header that a shard with tensors of several shards would have at the baseline.

    Most of the bytes are at the same place of a block as at the baseline.
    """
    rows = snapshot.state.lineage.old_rows
    vocabulary = snapshot.tensors_by_name
    sources = sorted({snapshot.weights.tensor(name)[0].file for name in names})
    bytes_at: Counter[int] = Counter()
    tensors: list[tuple[str, str, tuple[int, ...]]] = []
    data_order: list[str] = []
    size = 0
    for source in sources:
        header, position = snapshot.weights.shard(source).header, find_baseline_start(snapshot, source)
        for entry in header.by_offset:
            length = _size_with(rows, vocabulary.get(entry.name), entry)
            if entry.name in names:
                bytes_at[(position - size) % BLOCK_BYTES] += length
                data_order.append(entry.name)
                size += length
            position += length
        for entry in header.entries:
            tensor = vocabulary.get(entry.name)
            if entry.name in names:
                tensors.append((entry.name, entry.dtype, tensor.with_ids(rows).shape if tensor else entry.shape))
    start = max(sorted(bytes_at), key=bytes_at.__getitem__)
    metadata = snapshot.weights.shard(sources[0]).header.metadata
    raw = encode_header(tensors, metadata, start, data_order=data_order)
    return parse_header(raw, len(raw) + size, file)


def _with_rows(snapshot: Snapshot, header: Header, baseline_start: int, rows: int) -> Header:
    """Return a header with `rows` rows in its vocabulary tensors."""
    tensors = snapshot.tensors_by_name
    before = snapshot.state.lineage.old_rows
    run, shift, best, best_shift = 0, 0, -1, 0
    for entry in header.by_offset:
        tensor = tensors.get(entry.name)
        if tensor is None:
            run += len(entry)
            continue
        old, new = tensor.window.rows(before), tensor.window.rows(rows)
        run += tensor.row_bytes * min(old, new)
        if run > best:
            best, best_shift = run, shift
        run, shift = 0, shift + tensor.row_bytes * (new - old)
    if run > best:
        best_shift = shift
    shapes = {name: tensor.with_ids(rows).shape for name, tensor in tensors.items()}
    return header.reshape(shapes, (baseline_start - best_shift) % BLOCK_BYTES)

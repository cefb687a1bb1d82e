"""The shards that a change writes, and their headers: which tensor is in which file, and where its bytes begin.

The index of a state says which tensor is in which file, so that its layout follows from that and the headers on disk.
A header depends on the baseline and the number of rows alone, not on the migrations between them. Its padding puts the
longest run of bytes at the same place of a block as at the baseline, so that any two states can share its blocks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tokmigrate.model.documents.state import ModelState
from tokmigrate.model.formats.safetensors_header import BLOCK_BYTES, Header
from tokmigrate.model.snapshot import Snapshot
from tokmigrate.model.weights.vocabulary_tensor import VocabularyTensor
from tokmigrate.model.weights.weights import INDEX


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
    written = {file for name, file in files_after.items() if file in new or files_before[name] in old}
    return {file: _lay_out(snapshot, file, after) for file in sorted(written)}


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


def _lay_out(snapshot: Snapshot, file: str, state: ModelState) -> ShardLayout:
    header, start = snapshot.weights.shard(file).header, find_baseline_start(snapshot, file)
    # What is on disk may have been saved again since it was migrated.
    is_new = state.reshaped and state is not snapshot.state
    return ShardLayout(_with_rows(snapshot, header, start, state.rows) if is_new else header, start)


def _with_rows(snapshot: Snapshot, header: Header, baseline_start: int, rows: int) -> Header:
    """Return a header with `rows` rows in its vocabulary tensors."""
    tensors = _select(snapshot, header)
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


def _select(snapshot: Snapshot, header: Header) -> Mapping[str, VocabularyTensor]:
    """Return the vocabulary tensors of a header."""
    names = {entry.name for entry in header.entries}
    return {tensor.name: tensor for tensor in snapshot.tensors if tensor.name in names}

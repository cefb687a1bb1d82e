"""The header of a shard after its vocabulary tensors got another number of rows."""

from __future__ import annotations

from tokmigrate.model.formats.safetensors_header import BLOCK_BYTES, Header
from tokmigrate.model.snapshot import Snapshot


def baseline_start(snapshot: Snapshot, file: str) -> int:
    """Return where the data section of a shard began at the baseline."""
    recorded = snapshot.stamp.shards.get(file) if snapshot.stamp else None
    if recorded:
        return recorded.baseline_start
    return _header(snapshot, file).data_start


def header_with_rows(snapshot: Snapshot, file: str, rows: int) -> Header:
    """Return the header of `file` with `rows` rows in its vocabulary tensors.

    It depends on the baseline and on `rows` alone, not on the way between them. The padding keeps the
    longest run of bytes congruent to where it was at the baseline, so that blocks can be shared.

    Args:
        snapshot: The model on disk.
        file: The shard.
        rows: The rows wanted.
    """
    header = _header(snapshot, file)
    tensors = {tensor.name: tensor for tensor in snapshot.in_shard(file)}
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
    congruent_to = (baseline_start(snapshot, file) - best_shift) % BLOCK_BYTES
    shapes = {name: tensor.with_ids(rows).shape for name, tensor in tensors.items()}
    return header.reshaped(shapes, congruent_to)


def _header(snapshot: Snapshot, file: str) -> Header:
    return snapshot.weights.shard(file).header

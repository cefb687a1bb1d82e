"""One pass over a shard on all cores: the thread that reads a block digests it, sums it and hands it to a writer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType

import numpy as np
from blake3 import blake3

from tokmigrate.apply.shard_writer import ShardWriter
from tokmigrate.init.statistics import BLOCK_ROWS, sum_blocks
from tokmigrate.model.formats.dtype import Matrix
from tokmigrate.model.formats.safetensors_header import Header, TensorEntry
from tokmigrate.model.weights.tensor_rows import BLOCK_BYTES, DIGEST_BYTES, Octets, OpenFile, TensorRows, digest_rows
from tokmigrate.model.weights.vocabulary_tensor import VocabularyTensor
from tokmigrate.parallel import run_in_order
from tokmigrate.vocabulary.ids import Run, count, cut_runs, find_gaps

CACHED_BYTES = 1 << 18
"""What is read at a time, so that it stays in the cache of a core until it is digested and written."""
_ALONE_BYTES = 16 << 20
"""A shard of fewer bytes is read by the calling thread alone."""
_DIGESTED_AT_ONCE = 1 << 16
"""A digest outweighs a bias of two bytes, so that blocks are bounded by their rows too."""
_buffers = threading.local()


@dataclass(frozen=True)
class Contents:
    """What a pass found in shards.

    Args:
        tables: For each vocabulary tensor the digests of its rows, 32 bytes each.
        fixed: The digest of each other tensor.
        means: The mean row of each tensor that it was asked for.
    """

    tables: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    fixed: Mapping[str, str] = field(default_factory=dict, repr=False)
    means: Mapping[str, Matrix] = field(default_factory=dict, repr=False)

    def join(self, other: Contents) -> Contents:
        """Return both."""
        means = {**self.means, **other.means}
        return Contents({**self.tables, **other.tables}, {**self.fixed, **other.fixed}, means)


@dataclass(frozen=True)
class _Block:
    """What one thread does at a time: its bytes, and the sums of each 1024 rows, where a mean is wanted."""

    tensor: str
    size: int
    read: Callable[[], Sequence[Matrix]]


def read_shard(
    path: Path,
    header: Header,
    tensors: Mapping[str, VocabularyTensor],
    means: Mapping[str, Sequence[Run]] | None = None,
    writers: Collection[ShardWriter] = (),
    progress: Callable[[int], None] | None = None,
    stopped: threading.Event | None = None,
    known: Mapping[str, str] = MappingProxyType({}),
) -> Contents:
    """Read each byte of a shard once.

    Args:
        tensors: The vocabulary tensors of the model by name, with the rows that they have in this file.
        means: The rows whose mean is wanted, in their order, by tensor.
        writers: Those of new shards, each of which gets the tensors that are in it.
        progress: Called by this thread with the bytes of each block that is done.
        stopped: Set by another thread where the rest is not wanted any more.
        known: The digests of tensors that are not read where the new shard has their blocks already.

    Raises:
        CancelledError: It is set.
        WeightsError: The file is missing or too short.
        StorageError: It cannot be read, or a block cannot be written.
    """
    means = means or {}
    tables: dict[str, bytearray] = {}
    fixed: dict[str, str] = {}
    sums: dict[str, Matrix] = {}
    stopped = threading.Event() if stopped is None else stopped

    def collect(block: _Block, found: Sequence[Matrix]) -> None:
        for each in found:
            sums[block.tensor] += each
        if progress is not None:
            progress(block.size)

    with ExitStack() as stack:
        file = stack.enter_context(OpenFile(path))
        blocks: list[_Block] = []
        for entry in header.by_offset:
            tensor, begin = tensors.get(entry.name), header.data_start + entry.begin
            writer = next((each for each in writers if entry.name in each), None)
            if tensor is None:
                whole: Sequence[Run] = ((0, len(entry)),)
                rest = writer.list_rest(entry.name) if writer is not None and entry.name in known else whole
                runs, digest = (rest, known[entry.name]) if count(rest) < len(entry) else (whole, None)
                work = partial(_read_fixed, file, entry, begin, fixed, writer, stopped, runs, digest)
                blocks.append(_Block(entry.name, len(entry), work))
                continue
            rows = stack.enter_context(TensorRows(path, begin, tensor.geometry, tensor.dtype))
            table = tables[entry.name] = bytearray(DIGEST_BYTES * tensor.geometry.rows)
            if entry.name in means:
                sums[entry.name] = np.zeros(rows.width)
            for runs, is_summed in _cut(rows, means.get(entry.name, ())):
                size = count(runs) * tensor.row_bytes
                read = partial(_read_rows, rows, entry.name, runs, table, writer, is_summed=is_summed)
                blocks.append(_Block(entry.name, size, read))
        is_small = header.data_size < _ALONE_BYTES
        run_in_order(lambda block: block.read(), blocks, collect, alone=is_small, stopped=stopped)
    found = {name: total / float(count(means[name])) for name, total in sums.items() if count(means[name])}
    return Contents({name: bytes(table) for name, table in tables.items()}, fixed, found)


def _cut(rows: TensorRows, summed: Sequence[Run]) -> Iterator[tuple[Sequence[Run], bool]]:
    """Yield all rows in blocks of a few megabytes; of those to be summed each has whole groups of 1024 rows."""
    size = min(max(1, BLOCK_BYTES // max(1, rows.geometry.row_bytes)), _DIGESTED_AT_ONCE)
    for runs in cut_runs(summed, max(1, size // BLOCK_ROWS) * BLOCK_ROWS):
        yield runs, True
    for runs in cut_runs(find_gaps(summed, rows.geometry.rows), size):
        yield runs, False


def _read_rows(
    rows: TensorRows, tensor: str, runs: Sequence[Run], table: bytearray, writer: ShardWriter | None, *, is_summed: bool
) -> Sequence[Matrix]:
    row_bytes = rows.geometry.row_bytes
    memory = _buffer(count(runs) * row_bytes)
    done = 0
    for group in cut_runs(runs, max(1, CACHED_BYTES // max(1, row_bytes))):
        held = rows.read_runs(group, memory[done : done + count(group) * row_bytes])
        done += held.size
        digests = digest_rows(held)
        first = 0
        for start, stop in group:
            last = first + stop - start
            part = digests[first * DIGEST_BYTES : last * DIGEST_BYTES]
            table[start * DIGEST_BYTES : stop * DIGEST_BYTES] = part
            if writer is not None:
                writer.put_rows(tensor, start, held[first:last], part)
            first = last
    return sum_blocks(memory.reshape(-1, row_bytes), rows.dtype) if is_summed and row_bytes else ()


def _read_fixed(
    file: OpenFile,
    entry: TensorEntry,
    begin: int,
    fixed: dict[str, str],
    writer: ShardWriter | None,
    stopped: threading.Event,
    runs: Sequence[Run],
    digest: str | None,
) -> Sequence[Matrix]:
    """Read the bytes `runs` of a tensor; these are all of it, unless its digest is known."""
    hasher = blake3()
    for start, stop in (run for group in cut_runs(runs, CACHED_BYTES) for run in group):
        if stopped.is_set():
            break
        data = _buffer(stop - start).data
        file.fill(data, begin + start)
        if digest is None:
            hasher.update(data)
        if writer is not None:
            writer.put_bytes(entry.name, start, data)
    fixed[entry.name] = hasher.hexdigest() if digest is None else digest
    if writer is not None:
        writer.end_tensor(entry.name, fixed[entry.name])
    return ()


def _buffer(size: int) -> Octets:
    """Return memory of this thread, which the next call gives again."""
    held: Octets | None = getattr(_buffers, "held", None)
    if held is None or len(held) < size:
        held = _buffers.held = np.empty(size, np.uint8)
    return held[:size]

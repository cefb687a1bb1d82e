"""Digests that prove what every byte of a shard is, also for states that are never written.

A shard's digest is `s1:` and BLAKE3 over the digest of its header and, in the order of the data, each
tensor's name and digest: for a vocabulary tensor that of its rows' digests, for any other that of its
bytes. The state between two migrations is thus proven without a pass over the weights of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3

from tokmigrate.apply.new_rows import RowBytes
from tokmigrate.files import opened
from tokmigrate.model.formats.safetensors_header import Header, read_header
from tokmigrate.model.snapshot import Snapshot
from tokmigrate.model.weights.tensor_rows import DIGEST_BYTES, TensorRows, plain_digest, tensor_digest
from tokmigrate.model.weights.vocabulary_tensor import VocabularyTensor
from tokmigrate.model.weights.weights import Shard
from tokmigrate.vocabulary.row_edit import CopiedRows, RowEdit

Tables = Mapping[str, bytes]
"""For each vocabulary tensor the digests of its rows, 32 bytes each."""


@dataclass(frozen=True)
class Fixed:
    """The digests of the tensors that have no vocabulary axis, in shards that have one that does."""

    digests: Mapping[str, str]


def read_tables(rows: Mapping[str, TensorRows]) -> Tables:
    """Return the digests of all rows on disk."""
    return {name: tensor.row_digests(0, tensor.geometry.rows) for name, tensor in rows.items()}


def read_fixed(snapshot: Snapshot) -> Fixed:
    """Return the digests of the other tensors beside vocabulary tensors."""
    vocabulary = {tensor.name for tensor in snapshot.tensors}
    digests: dict[str, str] = {}
    for shard in snapshot.weights.shards:
        if shard.file not in snapshot.vocabulary_shards:
            continue
        for entry in shard.header.entries:
            if entry.name not in vocabulary:
                digests[entry.name] = plain_digest(snapshot.weights.path(shard), *shard.extent(entry))
    return Fixed(digests)


def edit_tables(tables: Tables, edit: RowEdit, tensors: Mapping[str, VocabularyTensor], made: RowBytes) -> Tables:
    """Return the digests of the rows after `edit`.

    Args:
        tables: Those before it.
        edit: What happens to the rows; its recipes are those of `made`.
        tensors: The vocabulary tensors by name.
        made: The bytes of new rows.
    """
    result: dict[str, bytes] = {}
    for name, table in tables.items():
        result[name] = b"".join(
            table[piece.start * DIGEST_BYTES : piece.stop * DIGEST_BYTES]
            if isinstance(piece, CopiedRows)
            else blake3(made[name][piece.recipe]).digest()
            for piece in tensors[name].window.of(edit).pieces
        )
    return result


def shard_digest(header: Header, tables: Tables, fixed: Fixed) -> str:
    """Return the digest of a shard with that header and those tensors."""
    hasher = blake3(b"shard 1\n" + blake3(header.raw).digest())
    for entry in header.by_offset:
        found = tensor_digest(tables[entry.name]) if entry.name in tables else fixed.digests[entry.name]
        hasher.update(f"{entry.name}\n{found}\n".encode())
    return "s1:" + hasher.hexdigest()


def read_shard_digest(path: Path, tensors: Mapping[str, VocabularyTensor], ids: int) -> str:
    """Return the digest of a shard as it is on disk.

    Args:
        path: The file.
        tensors: The vocabulary tensors of the model by name.
        ids: For how many ids they have rows in this file.
    """
    header = read_header(path)
    tables: dict[str, bytes] = {}
    fixed: dict[str, str] = {}
    for entry in header.entries:
        begin, end = header.data_start + entry.begin, header.data_start + entry.end
        tensor = tensors.get(entry.name)
        if tensor is None:
            fixed[entry.name] = plain_digest(path, begin, end)
            continue
        lie = tensor.with_ids(ids).geometry
        with TensorRows(path, begin, lie, tensor.dtype) as opened:
            tables[entry.name] = opened.row_digests(0, lie.rows)
    return shard_digest(header, tables, Fixed(fixed))


def lineage(snapshot: Snapshot, shards: Mapping[str, str]) -> str:
    """Return the digest of a baseline: its documents, its vocabulary shards, a sample of every other shard.

    Args:
        snapshot: The model without stamp.
        shards: The digests of its vocabulary shards.
    """
    hasher = blake3(b"lineage 1\n")
    for name, data in sorted(snapshot.texts.items()):
        hasher.update(f"{name}\n{blake3(data).hexdigest()}\n".encode())
    for shard in snapshot.weights.shards:
        found = shards.get(shard.file) or compute_sampled_digest(snapshot.weights.path(shard), shard)
        hasher.update(f"{shard.file}\n{found}\n".encode())
    return hasher.hexdigest()


SAMPLES, SAMPLE_BYTES = 16, 4096


def compute_sampled_digest(path: Path, shard: Shard) -> str:
    """Return a digest of a shard's size, header and sixteen evenly spaced blocks: a full one would read it all."""
    hasher = blake3(f"sample 1\n{shard.size}\n".encode() + shard.header.raw)
    with opened(path) as file:
        for number in range(SAMPLES):
            file.seek(max(0, shard.size - SAMPLE_BYTES) * number // (SAMPLES - 1))
            hasher.update(file.read(SAMPLE_BYTES))
    return hasher.hexdigest()

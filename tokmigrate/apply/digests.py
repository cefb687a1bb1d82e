"""Digests that prove what every byte of a shard is, also for states that are never written.

A shard's digest is `s1:` and BLAKE3 over the digest of its header and, in the order of the data, each
tensor's name and digest: for a vocabulary tensor that of its rows' digests, for any other that of its
bytes. The state between two migrations is thus proven without a pass over the weights of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from blake3 import blake3

from tokmigrate.apply.shard_pass import Contents, read_shard
from tokmigrate.model.formats.safetensors_header import read_header
from tokmigrate.model.snapshot import Snapshot
from tokmigrate.model.weights.tensor_rows import DIGEST_BYTES, digest_samples, shard_digest
from tokmigrate.model.weights.vocabulary_tensor import VocabularyTensor
from tokmigrate.model.weights.weights import Shard
from tokmigrate.vocabulary.ids import Run
from tokmigrate.vocabulary.row_edit import CopiedRows, Recipe, RowEdit

Tables = Mapping[str, bytes]
"""For each vocabulary tensor the digests of its rows, 32 bytes each."""
_SAME = 64


def read_contents(
    snapshot: Snapshot, means: Mapping[str, Sequence[Run]] | None = None, also: Collection[str] = ()
) -> Contents:
    """Return the digests of everything in the shards that hold a vocabulary tensor, and the means of some rows.

    Args:
        also: Other shards that are read.
    """
    tensors = snapshot.tensors_by_name
    found = Contents()
    for file in sorted({*snapshot.vocabulary_shards, *also}):
        found = found.join(read_shard(snapshot.directory / file, snapshot.weights.shard(file).header, tensors, means))
    return found


def edit_tables(
    tables: Tables,
    edit: RowEdit,
    tensors: Mapping[str, VocabularyTensor],
    new_row: Callable[[str, Recipe], bytes],
) -> Tables:
    """Return the digests of the rows after `edit`; `new_row` returns the bytes of one of a tensor by its recipe."""
    result: dict[str, bytes] = {}
    # Many new rows may be the same; of rows that were stored there may be gigabytes.
    digest = lru_cache(_SAME)(lambda row: blake3(row).digest())
    for name, table in tables.items():
        result[name] = b"".join(
            table[piece.start * DIGEST_BYTES : piece.stop * DIGEST_BYTES]
            if isinstance(piece, CopiedRows)
            else digest(new_row(name, piece.recipe))
            for piece in tensors[name].window.of(edit).pieces
        )
    return result


def read_shard_digest(path: Path, tensors: Mapping[str, VocabularyTensor], ids: int) -> str:
    """Return the digest of a shard as it is on disk.

    Args:
        ids: For how many ids they have rows in this file.
    """
    header = read_header(path)
    found = read_shard(path, header, {name: tensor.with_ids(ids) for name, tensor in tensors.items()})
    return shard_digest(header, found.tables, found.fixed)


def lineage(snapshot: Snapshot, shards: Mapping[str, str]) -> str:
    """Return the digest of a baseline: its documents, its vocabulary shards, a sample of every other shard."""
    hasher = blake3(b"lineage 1\n")
    for name, data in sorted(snapshot.texts.items()):
        hasher.update(f"{name}\n{blake3(data).hexdigest()}\n".encode())
    for shard in snapshot.weights.shards:
        found = shards.get(shard.file) or compute_sampled_digest(snapshot.weights.path(shard), shard)
        hasher.update(f"{shard.file}\n{found}\n".encode())
    return hasher.hexdigest()


def compute_sampled_digest(path: Path, shard: Shard) -> str:
    """Return a digest of a shard's size, header and samples."""
    return digest_samples(path, shard.size, f"sample 1\n{shard.size}\n".encode() + shard.header.raw)

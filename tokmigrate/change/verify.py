"""Is the staged directory, byte for byte, what was planned?"""

from __future__ import annotations

import os
from pathlib import Path

from tokmigrate.change.candidate import Candidate
from tokmigrate.change.digests import read_shard_digest
from tokmigrate.errors import DriftError, VerificationError
from tokmigrate.files import read_file
from tokmigrate.model.documents.stamp import FILE as STAMP
from tokmigrate.model.snapshot import Snapshot
from tokmigrate.model.weights.weights import read_adapter_weights, read_weights


def verify_candidate(directory: Path, snapshot: Snapshot, candidate: Candidate) -> None:
    """Raise VerificationError where a staged model is not what was planned, DriftError where the model is to blame.

    Args:
        directory: The staged directory.
        snapshot: The model before.
        candidate: What the directory shall be.
    """
    _check_files(directory, snapshot, candidate)
    _check_shards(directory, snapshot, candidate)
    read_weights(directory)


def verify_adapter(directory: Path, snapshot: Snapshot, candidate: Candidate) -> None:
    """Raise VerificationError where a staged adapter is not what was planned, DriftError where itself is to blame.

    Args:
        directory: The staged directory.
        snapshot: The adapter before.
        candidate: What the directory shall be.
    """
    _check_files(directory, snapshot, candidate)
    _check_shards(directory, snapshot, candidate)
    read_adapter_weights(directory)


def _check_files(directory: Path, snapshot: Snapshot, candidate: Candidate) -> None:
    """Raise VerificationError where a small file, written or taken over, is not the one that the libraries accepted."""
    for name, data in {**snapshot.texts, **candidate.files}.items():
        path = directory / name
        if name == STAMP:
            continue
        if data is None and os.path.lexists(path):
            raise VerificationError("a file that was to go is still there", where=str(path))
        if data is not None and read_file(path) != data:
            raise VerificationError("the file has other bytes than were written", where=str(path))


def _check_shards(directory: Path, snapshot: Snapshot, candidate: Candidate) -> None:
    tensors = {tensor.name: tensor for tensor in snapshot.tensors}
    for name, image in candidate.shards.items():
        found = read_shard_digest(directory / name, tensors, candidate.edit.new_rows)
        if found != image.digest:
            _check_untouched(snapshot, name)
            raise VerificationError(
                "the bytes are not those that were planned: the model was changed meanwhile, or since it was migrated",
                where=name,
                hint="nothing was changed; look with `tokmigrate verify`",
            )


def _check_untouched(snapshot: Snapshot, shard: str) -> None:
    """Raise DriftError where the model's own shard is not the one that the stamp tells of."""
    recorded = snapshot.stamp.shards.get(shard) if snapshot.stamp else None
    tensors = {tensor.name: tensor for tensor in snapshot.tensors}
    path = snapshot.directory / shard
    if recorded and read_shard_digest(path, tensors, snapshot.state.rows) != recorded.digest:
        raise DriftError(
            "the weights were changed since they were migrated, and going back would not give what was there before",
            where=str(path),
            hint="put the file back as tokmigrate wrote it; `tokmigrate verify` lists what differs",
        )

"""Building the candidate beside the model, and verifying that it is, byte for byte, what was planned."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from tokmigrate.apply.candidate import Candidate, ShardImage
from tokmigrate.apply.clone import clone_tree, copy_range
from tokmigrate.apply.digests import read_shard_digest
from tokmigrate.apply.file_metadata import read_metadata, write_metadata
from tokmigrate.errors import DriftError, VerificationError
from tokmigrate.files import exists, open_file, read_file, storage_errors
from tokmigrate.model.documents.stamp import FILE as STAMP
from tokmigrate.model.formats.safetensors_header import Header
from tokmigrate.model.model_files import entry_name, read_link, real_name, real_path
from tokmigrate.model.snapshot import Snapshot
from tokmigrate.model.weights.vocabulary_tensor import VocabularyTensor
from tokmigrate.vocabulary.row_edit import CopiedRows, Recipe, RowEdit

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Copied:
    """Bytes of the old file from `start` up to `stop`."""

    start: int
    stop: int


@dataclass(frozen=True)
class Written:
    """New bytes."""

    data: bytes


def stage(snapshot: Snapshot, target: Path, candidate: Candidate, progress: Progress) -> None:
    """Write the candidate, all but its stamp, into the directory `target`, which must not exist.

    Args:
        snapshot: The model as it is.
        target: Where the candidate goes.
        candidate: Its new contents.
        progress: Called with the bytes as they are written.

    Raises:
        StorageError: The filesystem will not do it.
    """
    names = {*candidate.files, *candidate.shards, STAMP}
    gone = {name for name, data in candidate.files.items() if data is None}
    written = {real_name(snapshot.directory, name) for name in names - gone}
    written |= {entry_name(snapshot.directory, name) for name in gone}
    with storage_errors("staging the new model", target):
        clone_tree(snapshot.directory, target, written)
        for name, data in candidate.files.items():
            if data is not None and name != STAMP:
                write_file(snapshot.directory, target, name, data, candidate)
                progress(len(data))
        for name, image in candidate.shards.items():
            _write_shard(snapshot, target, name, image, candidate, progress)


def write_file(source: Path, target: Path, name: str, data: bytes, candidate: Candidate) -> None:
    """Write one small file with the mode and owner of the one that it replaces, or the metadata it is given back."""
    path = _free_place(target, name, candidate)
    path.write_bytes(data)
    _set_metadata(real_path(source, name), path, name, candidate)


def _free_place(target: Path, name: str, candidate: Candidate) -> Path:
    """Return where a file of the candidate goes: to the target of its link, which is created if missing."""
    entry = target / entry_name(target, name)
    with storage_errors("make room for the file", entry):
        entry.parent.mkdir(parents=True, exist_ok=True)
        link = candidate.links.get(name)
        if link is not None and read_link(entry) != link.target:
            entry.unlink(missing_ok=True)
            entry.symlink_to(link.target)
            write_metadata(entry, link.metadata)
        path = real_path(target, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        # What is there may be a second name of the model's own file, which nothing may be written into.
        path.unlink(missing_ok=True)
    return path


def _set_metadata(old: Path, new: Path, name: str, candidate: Candidate) -> None:
    if name in candidate.metadata:
        write_metadata(new, candidate.metadata[name])
    elif exists(old):
        write_metadata(new, replace(read_metadata(old), mtime_ns=new.stat().st_mtime_ns))


def _write_shard(
    snapshot: Snapshot, directory: Path, name: str, image: ShardImage, candidate: Candidate, progress: Progress
) -> None:
    path = _free_place(directory, name, candidate)
    shard = snapshot.weights.shard(name)
    tensors = {tensor.name: tensor for tensor in snapshot.in_shard(name)}
    old = real_path(snapshot.directory, name)
    source = open_file(old)
    try:
        target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            position = _put(target, image.header.raw, 0, progress)
            for part in join_parts(shard_parts(shard.header, tensors, candidate.edit, candidate.row)):
                if isinstance(part, Copied):
                    copy_range(source, part.start, target, position, part.stop - part.start, progress)
                    position += part.stop - part.start
                else:
                    position += _put(target, part.data, position, progress)
        finally:
            os.close(target)
    finally:
        os.close(source)
    _set_metadata(old, path, name, candidate)


def shard_parts(
    header: Header,
    tensors: Mapping[str, VocabularyTensor],
    edit: RowEdit,
    row: Callable[[str, Recipe], bytes],
) -> Iterator[Copied | Written]:
    """Yield the data section of the new shard in terms of the old file.

    Args:
        header: The old file's header.
        tensors: Its vocabulary tensors by name.
        edit: What happens to the rows of all ids.
        row: The bytes of a new row.
    """
    for entry in header.by_offset:
        begin = header.data_start + entry.begin
        tensor = tensors.get(entry.name)
        if tensor is None:
            yield Copied(begin, begin + len(entry))
            continue
        lie, pieces = tensor.geometry, tensor.window.of(edit).pieces
        inner = lie.inner_bytes
        for outer in range(lie.outer):
            first = begin + outer * lie.rows * inner
            for piece in pieces:
                if isinstance(piece, CopiedRows):
                    yield Copied(first + piece.start * inner, first + piece.stop * inner)
                else:
                    yield Written(row(entry.name, piece.recipe)[outer * inner : (outer + 1) * inner])


def join_parts(parts: Iterator[Copied | Written]) -> Iterator[Copied | Written]:
    """Yield `parts` with copies that continue each other made one."""
    pending: Copied | None = None
    for part in parts:
        if isinstance(part, Copied) and pending and pending.stop == part.start:
            pending = Copied(pending.start, part.stop)
            continue
        if pending:
            yield pending
        pending = part if isinstance(part, Copied) else None
        if isinstance(part, Written):
            yield part
    if pending:
        yield pending


def _put(target: int, data: bytes, position: int, progress: Progress) -> int:
    done = 0
    while done < len(data):
        done += os.pwrite(target, data[done:], position + done)
    progress(len(data))
    return len(data)


def verify_stage(directory: Path, snapshot: Snapshot, candidate: Candidate) -> None:
    """Raise VerificationError where a staged directory is not what was planned, DriftError where its source changed.

    Args:
        directory: The staged directory.
        snapshot: The model or adapter before.
        candidate: The new contents of the directory.
    """
    _check_files(directory, snapshot, candidate)
    _check_shards(directory, snapshot, candidate)


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
    """Raise DriftError where the model's own shard is not the one in the stamp."""
    recorded = snapshot.stamp.shards.get(shard) if snapshot.stamp else None
    tensors = {tensor.name: tensor for tensor in snapshot.tensors}
    path = snapshot.directory / shard
    if recorded and read_shard_digest(path, tensors, snapshot.state.rows) != recorded.digest:
        raise DriftError(
            "the weights were changed since they were migrated, and a downgrade would not restore the earlier values",
            where=str(path),
            hint="put the file back as tokmigrate wrote it; `tokmigrate verify` lists what differs",
        )

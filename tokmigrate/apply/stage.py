"""Building the candidate beside the model, and verifying that it is, byte for byte, what was planned."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event

from tokmigrate.apply.candidate import Candidate, Change, Completion
from tokmigrate.apply.clone import clone_tree
from tokmigrate.apply.digests import read_shard_digest
from tokmigrate.apply.durable import drop_cache
from tokmigrate.apply.file_metadata import read_metadata, write_metadata
from tokmigrate.apply.shard_pass import Contents, read_shard
from tokmigrate.apply.shard_writer import ShardWriter
from tokmigrate.errors import DriftError, VerificationError
from tokmigrate.files import exists, read_file, storage_errors
from tokmigrate.model.documents.stamp import FILE as STAMP
from tokmigrate.model.formats.safetensors_header import Header
from tokmigrate.model.model_files import entry_name, read_link, real_name, real_path
from tokmigrate.model.snapshot import Snapshot
from tokmigrate.model.weights.weights import read_identity


@dataclass(frozen=True)
class StagedDirectory:
    """A directory that is being built, with what was found in the shards of the model and what writes the new ones."""

    change: Change
    path: Path
    contents: Contents
    writers: Mapping[str, ShardWriter]
    sources: Mapping[str, Header]
    """The headers of the shards on disk that have a tensor of a written one, by file."""

    def complete(self, completion: Completion) -> None:
        """Write the new rows of the shards, and give these their metadata."""
        with storage_errors("stage the new model", self.path):
            for name, writer in self.writers.items():
                with writer:
                    writer.put_new_rows(completion.row)
                _set_metadata(_find_origin(self.change, name), writer.path, name, self.change.candidate)

    def verify(self, completion: Completion, *, reads_again: bool) -> None:
        """Check that it is what was planned.

        Raises:
            VerificationError: It is not.
            DriftError: Nor is the model what it was when it was migrated.
        """
        snapshot, candidate = self.change.snapshot, self.change.candidate
        _check_files(self.path, snapshot, candidate)
        tensors = snapshot.tensors_by_name
        places = _find_places(snapshot, self.sources)
        for name, writer in self.writers.items():
            is_right = writer.digest() == completion.digests[name]
            if is_right and reads_again:
                drop_cache(writer.path)
                is_right = read_shard_digest(writer.path, tensors, candidate.documents.rows) == completion.digests[name]
            if is_right:
                is_right = writer.is_in_place(places)
            if not is_right:
                for file in self.sources:
                    _check_untouched(snapshot, file)
                raise VerificationError(
                    "the bytes are not those that were planned: the model was changed since it was migrated",
                    where=name,
                    hint="nothing was changed; look with `tokmigrate verify`",
                )


def stage(change: Change, target: Path, progress: Callable[[int], None], stopped: Event) -> StagedDirectory:
    """Write the candidate, all but its stamp and its new rows, into the directory `target`, which must not exist.

    Args:
        stopped: Set by another thread where nothing more is to be written.

    Raises:
        CancelledError: It is set.
        StorageError: The filesystem will not do it.
    """
    snapshot, candidate, populations = change.snapshot, change.candidate, change.populations
    files = candidate.documents.files
    names = {*files, *candidate.headers, STAMP}
    gone = candidate.removed | {name for name, data in files.items() if data is None}
    written = {real_name(snapshot.directory, name) for name in names - gone}
    written |= {entry_name(snapshot.directory, name) for name in gone}
    tensors = snapshot.tensors_by_name
    contents = Contents()
    with storage_errors("stage the new model", target):
        clone_tree(snapshot.directory, target, written)
        for name, data in files.items():
            if data is not None:
                write_file(change, target, name, data)
                progress(len(data))
        writers = {
            name: ShardWriter(_free_place(target, name, candidate), header, tensors, candidate.documents.edit)
            for name, header in candidate.headers.items()
        }
        sources = _find_sources(snapshot, candidate)
        places = _find_places(snapshot, sources)
        with ExitStack() as stack:
            for writer in writers.values():
                stack.enter_context(writer)
                writer.start(places)
            for name, old in sources.items():
                source, identity = real_path(snapshot.directory, name), snapshot.weights.shard(name).identity
                # Looked at after its blocks were shared: what was written into it before that would show.
                known = change.known_tensors if identity == read_identity(source) else {}
                contents = contents.join(
                    read_shard(source, old, tensors, populations, writers.values(), progress, stopped, known)
                )
                if known and identity != read_identity(source):
                    raise DriftError("it was changed while it was copied", where=str(source), hint="try again")
        for name in snapshot.vocabulary_shards if change.reads_all else ():
            if name not in sources:
                source, old = real_path(snapshot.directory, name), snapshot.weights.shard(name).header
                contents = contents.join(read_shard(source, old, tensors, populations, stopped=stopped))
    return StagedDirectory(change, target, contents, writers, sources)


def _find_sources(snapshot: Snapshot, candidate: Candidate) -> dict[str, Header]:
    """Return the headers of the shards on disk that have a tensor of a written one, by file."""
    names = {entry.name for header in candidate.headers.values() for entry in header.entries}
    shards = {shard.file: shard for shard in (snapshot.weights.tensor(name)[0] for name in names)}
    return {file: shards[file].header for file in sorted(shards)}


def _find_places(snapshot: Snapshot, sources: Mapping[str, Header]) -> dict[Path, Header]:
    return {real_path(snapshot.directory, file): old for file, old in sources.items()}


def _find_origin(change: Change, name: str) -> Path:
    """Return the shard on disk that a written one replaces, or that a new one has its first tensor from."""
    snapshot = change.snapshot
    path = real_path(snapshot.directory, name)
    if exists(path):
        return path
    first, _ = snapshot.weights.tensor(change.candidate.headers[name].by_offset[0].name)
    return real_path(snapshot.directory, first.file)


def write_file(change: Change, target: Path, name: str, data: bytes) -> None:
    """Write one small file with the mode and owner of the one that it replaces, or the metadata it is given back."""
    path = _free_place(target, name, change.candidate)
    path.write_bytes(data)
    _set_metadata(real_path(change.snapshot.directory, name), path, name, change.candidate)


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


def _check_files(directory: Path, snapshot: Snapshot, candidate: Candidate) -> None:
    """Raise VerificationError where a small file, written or taken over, is not the one that the libraries accepted."""
    hint = (
        "the model is unchanged; check the disk, and that no other process writes beside the model, then run it again"
    )
    for name, data in {**snapshot.texts, **candidate.documents.files, **dict.fromkeys(candidate.removed)}.items():
        path = directory / name
        if data is None and os.path.lexists(path):
            raise VerificationError("a file that was to go is still there", where=str(path), hint=hint)
        if data is not None and read_file(path) != data:
            raise VerificationError("the file has other bytes than were written", where=str(path), hint=hint)


def _check_untouched(snapshot: Snapshot, shard: str) -> None:
    """Raise DriftError where the model's own shard is not the one in the stamp."""
    recorded = snapshot.stamp.shards.get(shard) if snapshot.stamp else None
    tensors = snapshot.tensors_by_name
    path = snapshot.directory / shard
    if recorded and read_shard_digest(path, tensors, snapshot.state.rows) != recorded.digest:
        raise DriftError(
            "the weights were changed since they were migrated, and a downgrade would not restore the earlier values",
            where=str(path),
            hint="put the file back as tokmigrate wrote it; `tokmigrate verify` lists what differs",
        )

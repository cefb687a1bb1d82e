"""Migrations are tried: up, down and up again, on a dummy model. The model is never touched."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from tokmigrate.apply.candidate import Documents
from tokmigrate.apply.digests import read_shard_digest
from tokmigrate.apply.library_check import verify_documents
from tokmigrate.commands.diff import read_recorded_state
from tokmigrate.commands.downgrade import downgrade
from tokmigrate.commands.models import open_model_or_dummy
from tokmigrate.commands.plan import checks_of, plan
from tokmigrate.commands.upgrade import upgrade
from tokmigrate.events import Thoroughness
from tokmigrate.model.documents.stamp import FILE as STAMP
from tokmigrate.model.documents.stamp import ChangedFile, ChangedShard, Stamp
from tokmigrate.model.dummy_model import NARROW, lacks_weights, make_dummy_model
from tokmigrate.model.formats.safetensors_header import read_header
from tokmigrate.model.snapshot import Snapshot, take_snapshot
from tokmigrate.model.weights.tensor_rows import digest_range
from tokmigrate.plan.progress import check_progress
from tokmigrate.revision.history import History
from tokmigrate.revision.migration import Migration
from tokmigrate.settings import ModelEntry, Workspace

Digests = Mapping[str, str]


@dataclass(frozen=True)
class Mismatch:
    """A file that came out differently: what was done last, and when it was as it had to be."""

    file: str
    after: str
    expected: str


@dataclass(frozen=True)
class RoundTrip:
    """What was tried on a dummy model; `files` were compared each time, and have `bytes` at the end.

    Args:
        adapters_left_out: The adapters of the model, which were not part of it.
        verified: What its files were loaded with, as `verify:` of the workspace says.
        made_of: Where the shapes of its weights come from: the model, or its configuration if they are missing.
    """

    model: str
    from_revision: str | None
    migrations: tuple[Migration, ...]
    files: int
    bytes: int
    mismatches: tuple[Mismatch, ...]
    adapters_left_out: tuple[Path, ...]
    verified: Thoroughness
    made_of: Literal["model", "configuration"] = "model"


def run_roundtrip(workspace: Workspace, entry: ModelEntry, *, from_base: bool = False) -> RoundTrip:
    """Try migrations on a dummy model: all up in one run, all down, up one by one, and down one by one.

    After each step the files have to be, byte for byte, those of the first time. The model's weights need not be here:
    its configuration then gives their shapes. With `from_base` every migration for the model is
    tried, and not only those that are pending. Raises TokmigrateError where one cannot be applied or undone.
    """
    made_of: Literal["model", "configuration"] = "configuration" if lacks_weights(entry.path) else "model"
    with open_model_or_dummy(entry) as here, tempfile.TemporaryDirectory(prefix="tokmigrate-") as folder:
        snapshot = plan(workspace, here).snapshot
        progress = check_progress(snapshot, History.read(workspace).chain_for(here))
        again = from_base and bool(progress.applied)
        tried = progress.chain if from_base else progress.pending
        start = progress.applied[-1].revision if progress.applied and not again else None
        done = RoundTrip(entry.name, start, tried, 0, 0, (), entry.adapters, workspace.verify, made_of)
        if not tried:
            return done
        dummy = _make_dummy(workspace, here, snapshot, Path(folder, "model"), tried, again=again)
        place = replace(
            workspace,
            state=f"sqlite:///{folder}/state.db",
            objects=Path(folder, "objects"),
            models=MappingProxyType({entry.name: dummy}),
            # The rows are too short for transformers, which loads the files once, with the shapes that the model has.
            verify="fast",
        )
        planned = plan(place, dummy, tried[-1].revision)
        shaped = replace(planned.snapshot, weights=snapshot.weights, tensors=snapshot.tensors)
        verify_documents(shaped, Documents.of_plan(planned), checks_of(planned), workspace.verify)
        mismatches = tuple(_find_mismatches(place, dummy, start, tried))
        sizes = [path.stat().st_size for path in _files(dummy.path)]
        return replace(done, mismatches=mismatches, files=len(sizes), bytes=sum(sizes))


def _make_dummy(
    workspace: Workspace,
    entry: ModelEntry,
    snapshot: Snapshot,
    directory: Path,
    tried: Sequence[Migration],
    *,
    again: bool,
) -> ModelEntry:
    texts, rows = dict(snapshot.texts), snapshot.state.rows
    if again:
        before = read_recorded_state(workspace, entry, snapshot, "base").documents
        texts = {name: data for name, data in {**texts, **before.files}.items() if data is not None}
        rows = before.rows
    # Rows that are read from a file have the width that they have; the first bytes tell safetensors.
    attached = [data for migration in tried for data in migration.attachments.values()]
    width = None if any(data[8:9] == b"{" for data in attached) else NARROW
    made = make_dummy_model(entry, snapshot, directory, texts, rows, width=width)
    if snapshot.stamp is not None and not again:
        stamp = _stamp(snapshot.stamp, snapshot, made)
        (directory / STAMP).write_bytes(stamp.encode())
    return made


def _stamp(stamp: Stamp, snapshot: Snapshot, made: ModelEntry) -> Stamp:
    """Return a model's stamp for its dummy model: with the digests of its own files."""
    # A dummy model without a stamp is read as one of a baseline, which its rows are not.
    tensors = take_snapshot(made).tensors_by_name
    shards = {}
    for name in stamp.shards:
        digest = read_shard_digest(made.path / name, tensors, snapshot.state.rows)
        shards[name] = ChangedShard(digest, read_header(made.path / name).data_start)
    files = {name: ChangedFile.of(snapshot.texts.get(name), file.layout) for name, file in stamp.files.items()}
    return replace(stamp, files=files, shards=shards)


def _find_mismatches(
    place: Workspace, entry: ModelEntry, start: str | None, tried: Sequence[Migration]
) -> Iterator[Mismatch]:
    start_digests = _digests(entry.path)
    upgrade(place, entry, tried[-1].revision)
    end = _digests(entry.path)
    downgrade(place, entry, start or "base")
    yield from _compare(start_digests, _digests(entry.path), "all down", "the start")
    reached: list[Digests] = [start_digests]
    for migration in tried:
        upgrade(place, entry, migration.revision)
        reached.append(_digests(entry.path))
    yield from _compare(end, reached[-1], "up one by one", "up in one run")
    revisions = [start, *(migration.revision for migration in tried)]
    for number in reversed(range(len(tried))):
        downgrade(place, entry, revisions[number] or "base")
        name = revisions[number] or "base"
        yield from _compare(reached[number], _digests(entry.path), f"down to {name}", f"up to {name}")


def _compare(expected: Digests, found: Digests, after: str, when: str) -> Iterator[Mismatch]:
    for name in sorted({*expected, *found}):
        if expected.get(name) != found.get(name):
            yield Mismatch(name, after, when)


def _files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file())


def _digests(directory: Path) -> Digests:
    return {str(path.relative_to(directory)): digest_range(path, 0, path.stat().st_size) for path in _files(directory)}

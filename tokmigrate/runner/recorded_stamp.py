"""The stamp that a directory shall have, where the ledger or the stamp of another directory knows its migrations."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from blake3 import blake3

from tokmigrate.audit.drift import drift_of, each_line
from tokmigrate.audit.token_history import read_init_records
from tokmigrate.audit.training import OnRecord, TokenTraining, trained_events, training_of
from tokmigrate.change.digests import read_shard_digest
from tokmigrate.change.undo_record import left_of
from tokmigrate.errors import DriftError
from tokmigrate.formatting import format_list
from tokmigrate.model.documents.stamp import FILE as STAMP
from tokmigrate.model.documents.stamp import ChangedFile, ChangedShard, Stamp, parse_stamp
from tokmigrate.model.snapshot import Snapshot
from tokmigrate.plan.upgrade import layout
from tokmigrate.runner.records import events_in_force
from tokmigrate.settings import Workspace
from tokmigrate.state.ledger import State
from tokmigrate.state.objects import ObjectStore
from tokmigrate.state.rows import AppliedRecord, TokenEvent, TokensMoved


@dataclass(frozen=True)
class RecordedStamp:
    """A stamp, and what the ledger has of the way there.

    Args:
        stamp: What the stamp shall say.
        records: The revisions that it says are applied.
        events: What the ledger of the model is to be told of its tokens.
        moved: The tensors that hold other numbers than the migrations left.
        training: What became of the tokens whose rows they began.
    """

    stamp: Stamp
    records: tuple[AppliedRecord, ...]
    events: tuple[TokenEvent | TokensMoved, ...] = ()
    moved: tuple[str, ...] = ()
    training: tuple[TokenTraining, ...] = ()


def stamp_on_record(state: State, workspace: Workspace, snapshot: Snapshot, target: str) -> RecordedStamp | None:
    """Return what the ledger knows of a directory that was at a revision and lost its stamp, None without that."""
    model = state.model_at(snapshot.directory, None)
    rows = state.applied_now(model) if model else ()
    digest = next((row.record.undo for row in rows if row.record.revision == target), None)
    objects = ObjectStore(workspace.objects)
    if digest is None or not objects.has(digest):
        return None
    left = left_of(digest, objects).files.get(STAMP)
    if left is None:
        return None
    return stamp_of_source(state, workspace, snapshot, parse_stamp(left.decode("utf-8"), STAMP), snapshot.directory)


def stamp_of_source(
    state: State, workspace: Workspace, snapshot: Snapshot, source: Stamp, directory: Path
) -> RecordedStamp:
    """Return the stamp of a model for another directory or time, with the records of the ledger.

    Args:
        state: The state.
        workspace: The workspace.
        snapshot: The directory, which has no stamp.
        source: The stamp that it shall have, but for the digests of its files.
        directory: Where the model is that the source is the stamp of; its own directory where it lost its stamp.

    Raises:
        DriftError: The directory does not mean what the migrations left.
    """
    if source.rows.new_rows != snapshot.state.rows:
        raise DriftError(
            f"it has {snapshot.state.rows} rows, and a model at {source.revision} has {source.rows.new_rows}",
            where=str(snapshot.directory),
            hint="name the revision that it is at",
        )
    model = state.model_at(directory, source.generation)
    rows = {row.record.revision: row.record for row in (state.applied_now(model) if model else ())}
    records = tuple(
        replace(rows[revision], position=place) if revision in rows else AppliedRecord(revision, place, checksum)
        for place, (revision, checksum) in enumerate(source.applied)
    )
    objects = ObjectStore(workspace.objects)
    left = [left_of(record.undo, objects) for record in records if record.undo is not None]
    drift = drift_of(replace(snapshot, stamp=source), left)
    if drift.differences:
        raise means_otherwise(
            str(snapshot.directory),
            "the migrations left",
            list(each_line(drift)),
            "put the tokenizer's files back as they were",
        )
    began = replace(snapshot, state=replace(snapshot.state, lineage=source.rows))
    if model is not None and directory == snapshot.directory:
        # What its tokens went through is on record: only their training may be news.
        known = read_init_records(row.event for row in state.token_rows(model))
        events: tuple[TokenEvent | TokensMoved, ...] = ()
    else:
        wanted = {*source.revisions}
        told = (row.event for row in (events_in_force(state, model) if model else ()))
        events = tuple(event for event in told if event.revision in wanted)
        known = read_init_records(event for event in events if isinstance(event, TokenEvent))
    undo = {record.revision: record.undo for record in records if record.undo is not None}
    training = training_of(began, OnRecord(known, undo, objects))
    told_of = (*events, *trained_events(training))
    return RecordedStamp(_restamped(source, snapshot), records, told_of, drift.moved, training)


def _restamped(source: Stamp, snapshot: Snapshot) -> Stamp:
    """Return a stamp with the same history for the files that are there."""
    texts = snapshot.texts
    files = {
        name: ChangedFile(
            blake3(texts[name]).hexdigest() if name in texts else None, layout(snapshot, name) if file.layout else None
        )
        for name, file in source.files.items()
    }
    tensors = {tensor.name: tensor for tensor in snapshot.tensors}
    shards = {
        name: ChangedShard(
            read_shard_digest(snapshot.directory / name, tensors, snapshot.state.rows),
            snapshot.weights.shard(name).header.data_start,
        )
        for name in (snapshot.vocabulary_shards if source.shards else ())
    }
    return replace(source, files=files, shards=shards)


def means_otherwise(where: str, wanted: str, found: list[str], hint: str) -> DriftError:
    return DriftError(f"it does not mean what {wanted}: {format_list(found, separator='; ')}", where=where, hint=hint)

"""Record that a model which another program wrote is at a revision, after verifying that it is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from blake3 import blake3

from tokmigrate.apply.candidate import Candidate
from tokmigrate.apply.digests import lineage, read_shard_digest
from tokmigrate.apply.publish import Change
from tokmigrate.apply.undo_record import read_left
from tokmigrate.audit.drift import drift_of, each_line
from tokmigrate.audit.run_status import refuse_in_progress
from tokmigrate.audit.token_history import read_init_records
from tokmigrate.audit.training import OnRecord, TokenTraining, list_trained_events, training_of
from tokmigrate.commands.records import list_events_in_force
from tokmigrate.commands.restore import record_texts
from tokmigrate.commands.session import Run, model_session, publish_run, sync_with_stamp
from tokmigrate.commands.stamp_hint import format_stamp_commands
from tokmigrate.commands.tag import list_tags
from tokmigrate.errors import DriftError, OperationError, UsageError
from tokmigrate.events import OnProgress, no_progress
from tokmigrate.formatting import format_list
from tokmigrate.model.documents.reading import read_documents
from tokmigrate.model.documents.semantic_diff import differences, without_ignorable
from tokmigrate.model.documents.stamp import FILE as STAMP
from tokmigrate.model.documents.stamp import ChangedFile, ChangedShard, Stamp, parse_stamp, read_stamp
from tokmigrate.model.snapshot import Snapshot, take_snapshot
from tokmigrate.plan.plan import layout
from tokmigrate.plan.progress import check_progress
from tokmigrate.plan.revision_detection import detect_revision, verify_at_revision
from tokmigrate.revision.history import History
from tokmigrate.revision.migration import Migration
from tokmigrate.settings import ModelEntry, Workspace
from tokmigrate.state.ledger import State
from tokmigrate.state.objects import ObjectStore
from tokmigrate.state.rows import AppliedRecord, Direction, Outcome, TokenEvent, TokensMoved
from tokmigrate.vocabulary.row_edit import RowEdit


@dataclass(frozen=True)
class RecordedStamp:
    """A stamp, and the migrations recorded for it.

    Args:
        stamp: The new stamp.
        records: The revisions that it says are applied.
        events: The token events to record for the model.
        moved: The tensors that hold other numbers than the migrations left.
        training: The training of the tokens whose rows they initialised.
    """

    stamp: Stamp
    records: tuple[AppliedRecord, ...]
    events: tuple[TokenEvent | TokensMoved, ...] = ()
    moved: tuple[str, ...] = ()
    training: tuple[TokenTraining, ...] = ()


def find_recorded_stamp(state: State, workspace: Workspace, snapshot: Snapshot, target: str) -> RecordedStamp | None:
    """Return what the ledger knows of a directory that was at a revision and lost its stamp, None without that."""
    model = state.model_at(snapshot.directory, None)
    rows = state.list_applied(model) if model else ()
    digest = next((row.record.undo for row in rows if row.record.revision == target), None)
    objects = ObjectStore(workspace.objects)
    if digest is None or not objects.has(digest):
        return None
    left = read_left(digest, objects).files.get(STAMP)
    if left is None:
        return None
    return build_stamp_from(state, workspace, snapshot, parse_stamp(left.decode("utf-8"), STAMP), snapshot.directory)


def build_stamp_from(
    state: State, workspace: Workspace, snapshot: Snapshot, source: Stamp, directory: Path
) -> RecordedStamp:
    """Return the stamp of a model for another directory or time, with the records of the ledger.

    Args:
        state: The state.
        workspace: The workspace.
        snapshot: The directory, which has no stamp.
        source: The new stamp, except for the digests of its files.
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
    rows = {row.record.revision: row.record for row in (state.list_applied(model) if model else ())}
    records = tuple(
        replace(rows[revision], position=place) if revision in rows else AppliedRecord(revision, place, checksum)
        for place, (revision, checksum) in enumerate(source.applied)
    )
    objects = ObjectStore(workspace.objects)
    left = [read_left(record.undo, objects) for record in records if record.undo is not None]
    drift = drift_of(replace(snapshot, stamp=source), left)
    if drift.differences:
        raise mismatch_error(
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
        events_in_force = (row.event for row in (list_events_in_force(state, model) if model else ()))
        events = tuple(event for event in events_in_force if event.revision in wanted)
        known = read_init_records(event for event in events if isinstance(event, TokenEvent))
    undo = {record.revision: record.undo for record in records if record.undo is not None}
    training = training_of(began, OnRecord(known, undo, objects))
    told_of = (*events, *list_trained_events(training))
    return RecordedStamp(_update_stamp(source, snapshot), records, told_of, drift.moved, training)


def _update_stamp(source: Stamp, snapshot: Snapshot) -> Stamp:
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


def mismatch_error(where: str, wanted: str, found: list[str], hint: str) -> DriftError:
    return DriftError(f"it does not mean what {wanted}: {format_list(found, separator='; ')}", where=where, hint=hint)


@dataclass(frozen=True)
class StampResult:
    """A model that was stamped.

    Args:
        model: The model.
        revision: The revision that it is at.
        undoable: Whether its undo data is here.
        moved: The tensors that hold other numbers than its migrations left.
        training: The training of the tokens whose rows they initialised, as far as the ledger knows.
    """

    model: str
    revision: str
    undoable: bool
    moved: tuple[str, ...] = ()
    training: tuple[TokenTraining, ...] = ()


def stamp_model(
    workspace: Workspace,
    entry: ModelEntry,
    revision: str,
    lock_timeout_s: float = 0.0,
    on_progress: OnProgress = no_progress,
    keep_owner: bool = True,
) -> StampResult:
    """Record that a model is at a revision without changing it, after verifying it.

    Where the ledger knows that the directory was at it, its undo data is kept; otherwise there is none.

    Args:
        workspace: The workspace.
        entry: The model; it must not have a stamp.
        revision: The revision by any of its names.
        lock_timeout_s: How many seconds to wait for another process.
        on_progress: Called at every step.
        keep_owner: Whether it is refused where owner, mode or attributes of files cannot be kept.

    Raises:
        OperationError: What a migration does is not there, or what later ones do is.
        DriftError: The ledger knows better.
    """
    history = History.read(workspace)
    target = history.resolve(revision, None, list_tags(workspace))
    chain = history.chain_for(entry)
    names = [migration.revision for migration in chain]
    if target is None or target not in names:
        raise UsageError(
            f"'{revision}' is not a revision that this model can be at",
            where=entry.name,
            hint="a model at base needs no stamp; `tokmigrate history` lists the migrations",
        )
    migrations = chain[: names.index(target) + 1]
    with model_session(workspace, entry, lock_timeout_s, on_progress) as (_, state, _found):
        snapshot = _without_stamp(entry)
        known = find_recorded_stamp(state, workspace, snapshot, target)
        if known is None:
            _refuse_past(workspace, entry, snapshot, migrations, chain[len(migrations) :])
            taken = verify_at_revision(snapshot.state, migrations)
            stamp_now = Stamp(
                lineage=_lineage(snapshot),
                applied=tuple((migration.revision, migration.checksum) for migration in migrations),
                files={},
                shards={},
                baseline_tokens=taken.baseline_tokens,
                rows=taken.lineage,
                reshaped=False,
                init=taken.init,
            )
            records = tuple(
                AppliedRecord(migration.revision, place, migration.checksum, migration.message)
                for place, migration in enumerate(migrations)
            )
            known = RecordedStamp(stamp_now, records)
        return _carry_out(workspace, entry, state, snapshot, known, on_progress, keep_owner=keep_owner)


def stamp_copy(
    workspace: Workspace,
    entry: ModelEntry,
    other: Path,
    lock_timeout_s: float = 0.0,
    on_progress: OnProgress = no_progress,
    keep_owner: bool = True,
) -> StampResult:
    """Record that a copy of a model, fine-tuned or saved elsewhere, is at the revision of that model.

    Args:
        workspace: The workspace.
        entry: The copy; it must not have a stamp.
        other: The directory of the model that it was made of.
        lock_timeout_s: How many seconds to wait for another process.
        on_progress: Called at every step.
        keep_owner: Whether it is refused where owner, mode or attributes of files cannot be kept.

    Raises:
        UsageError: The other model has no stamp.
        DriftError: The two do not mean the same.
    """
    refuse_in_progress(ModelEntry(str(other), other))
    source = read_stamp(other)
    if source is None:
        raise UsageError(
            "the other model has no stamp", where=str(other), hint="name the model that was upgraded, or a revision"
        )
    with model_session(workspace, entry, lock_timeout_s, on_progress) as (_, state, _found):
        snapshot = _without_stamp(entry)
        _, documents, _ = read_documents(other, source)
        found = without_ignorable(differences(documents, snapshot.state.documents))
        if found:
            raise mismatch_error(
                entry.name,
                "the other model means",
                [str(each) for each in found],
                "save the tokenizer of that model beside these weights",
            )
        known = build_stamp_from(state, workspace, snapshot, source, other)
        check_progress(replace(snapshot, stamp=known.stamp), History.read(workspace).chain_for(entry))
        return _carry_out(workspace, entry, state, snapshot, known, on_progress, keep_owner=keep_owner)


def _without_stamp(entry: ModelEntry) -> Snapshot:
    snapshot = take_snapshot(entry)
    if snapshot.stamp is not None:
        raise UsageError(
            f"the model has a stamp: it is at {snapshot.stamp.revision}",
            where=entry.name,
            hint="`tokmigrate upgrade` and `downgrade` bring it elsewhere; a wrong stamp is taken off by hand: "
            f"remove {STAMP}, which changes nothing else, then stamp it again",
        )
    return snapshot


def _refuse_past(
    workspace: Workspace,
    entry: ModelEntry,
    snapshot: Snapshot,
    migrations: tuple[Migration, ...],
    later: tuple[Migration, ...],
) -> None:
    """Raise OperationError where later migrations have left something: no upgrade could go through them again."""
    detected = detect_revision(snapshot.state, migrations, later)
    if detected is not None:
        raise OperationError(
            f"the model is past that revision: {detected}",
            where=entry.name,
            hint=format_stamp_commands(workspace, entry, detected),
        )


def _lineage(snapshot: Snapshot) -> str:
    tensors = {tensor.name: tensor for tensor in snapshot.tensors}
    found = {
        name: read_shard_digest(snapshot.directory / name, tensors, snapshot.state.rows)
        for name in snapshot.vocabulary_shards
    }
    return lineage(snapshot, found)


def _carry_out(
    workspace: Workspace,
    entry: ModelEntry,
    state: State,
    snapshot: Snapshot,
    known: RecordedStamp,
    on_progress: OnProgress,
    *,
    keep_owner: bool,
) -> StampResult:
    model = sync_with_stamp(state, entry, snapshot)
    candidate = Candidate(
        files={STAMP: known.stamp.encoded()},
        metadata={},
        shards={},
        edit=RowEdit.identity(snapshot.state.rows),
        row=lambda _tensor, _recipe: b"",
        tokens=snapshot.state.tokenizer.ids,
    )
    outcome = Outcome(applied=known.records, tokens=known.events)
    run = Run(Direction.STAMP, known.stamp.revision, known.stamp.revisions, outcome)
    record_texts(workspace, state, [(record.revision, record.checksum) for record in known.records])
    publish_run(workspace, entry, state, model, run, (Change(snapshot, candidate),), on_progress, keep_owner=keep_owner)
    undoable = all(record.undo is not None for record in known.records)
    return StampResult(entry.name, known.stamp.revision, undoable, known.moved, known.training)

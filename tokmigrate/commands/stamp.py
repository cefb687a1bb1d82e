"""Record that a model is at a revision without changing it, after verifying that it is."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from tokmigrate.apply.candidate import Candidate, Change, Completion, Documents
from tokmigrate.apply.digests import lineage, read_shard_digest
from tokmigrate.apply.undo_record import read_left
from tokmigrate.audit.drift import drift_of, each_line
from tokmigrate.audit.run_status import refuse_in_progress
from tokmigrate.audit.token_history import read_init_records
from tokmigrate.audit.training import OnRecord, TokenTraining, list_trained_events, training_of
from tokmigrate.commands.records import list_events_in_force
from tokmigrate.commands.restore import record_texts
from tokmigrate.commands.session import NewRun, model_session, publish_run, sync_with_stamp
from tokmigrate.commands.tag import list_tags
from tokmigrate.commands.targets import format_stamp_commands
from tokmigrate.errors import DriftError, OperationError, UsageError
from tokmigrate.events import OnProgress, no_progress
from tokmigrate.formatting import format_list
from tokmigrate.model.documents.reading import read_documents
from tokmigrate.model.documents.semantic_diff import differences, without_ignorable
from tokmigrate.model.documents.stamp import FILE as STAMP
from tokmigrate.model.documents.stamp import ChangedFile, ChangedShard, Stamp, parse_stamp, read_stamp
from tokmigrate.model.formats.json_text import Json
from tokmigrate.model.snapshot import Snapshot, take_snapshot
from tokmigrate.plan.progress import check_progress
from tokmigrate.plan.revision_detection import detect_revision, verify_at_revision
from tokmigrate.revision.history import History
from tokmigrate.revision.migration import Migration
from tokmigrate.settings import ModelEntry, Workspace
from tokmigrate.state.ledger import State
from tokmigrate.state.objects import ObjectStore
from tokmigrate.state.rows import AppliedRecord, Direction, Outcome, TokenEvent, TokensMoved


@dataclass(frozen=True)
class NewStamp:
    """A stamp that a model gets, what is recorded with it, and what is reported.

    Args:
        moved: The tensors that hold other numbers than its migrations left.
        training: The training of the tokens whose rows they initialised, as far as the ledger knows.
    """

    stamp: Stamp
    records: tuple[AppliedRecord, ...]
    events: tuple[TokenEvent | TokensMoved, ...] = ()
    moved: tuple[str, ...] = ()
    training: tuple[TokenTraining, ...] = ()

    @property
    def undoable(self) -> bool:
        """Whether its undo data is here."""
        return all(record.undo is not None for record in self.records)


def stamp_model(
    workspace: Workspace,
    entry: ModelEntry,
    revision: str,
    lock_timeout_s: float = 0.0,
    on_progress: OnProgress = no_progress,
    keep_owner: bool = True,
) -> NewStamp:
    """Record that a model, which has no stamp, is at a revision.

    Where the ledger knows that the directory was at it, its undo data is kept; otherwise there is none. Raises
    OperationError where what a migration does is not there, or what later ones do is; DriftError where the ledger
    knows better.
    """
    history = History.read(workspace)
    target = history.resolve(revision, None, list_tags(workspace))
    chain = history.chain_for(entry)
    names = [migration.revision for migration in chain]
    if target is None or target not in names:
        hint = "a model at base needs no stamp; `tokmigrate history` lists the migrations"
        raise UsageError(f"'{revision}' is not a revision that this model can be at", where=entry.name, hint=hint)
    count = names.index(target) + 1
    with model_session(workspace, entry, lock_timeout_s, on_progress) as (state, _):
        snapshot = _read_unstamped(entry)
        left = _find_lost_stamp(state, workspace, snapshot, target)
        if left is not None:
            new = _copy_stamp(state, workspace, snapshot, left, snapshot.directory)
        else:
            detected = detect_revision(snapshot.state, chain[:count], chain[count:])
            if detected is not None:
                # No upgrade could go through the later migrations again.
                hint = format_stamp_commands(workspace, entry, detected)
                raise OperationError(f"the model is past that revision: {detected}", where=entry.name, hint=hint)
            try:
                new = _make_stamp(snapshot, chain[:count])
            except OperationError as error:
                reached = detect_revision(snapshot.state, (), chain[:count])
                if reached is not None:
                    # No upgrade could go through what is there again.
                    error.hint = format_stamp_commands(workspace, entry, reached)
                raise
        return _publish(workspace, entry, state, snapshot, new, on_progress, keep_owner=keep_owner)


def stamp_copy(
    workspace: Workspace,
    entry: ModelEntry,
    other: Path,
    lock_timeout_s: float = 0.0,
    on_progress: OnProgress = no_progress,
    keep_owner: bool = True,
) -> NewStamp:
    """Record that a copy of a model, fine-tuned or saved elsewhere, is at the revision of that one, in `other`.

    Raises UsageError where the other model has no stamp, DriftError where the two do not mean the same.
    """
    refuse_in_progress(ModelEntry(str(other), other))
    source = read_stamp(other)
    if source is None:
        raise UsageError(
            "the other model has no stamp", where=str(other), hint="name the model that was upgraded, or a revision"
        )
    with model_session(workspace, entry, lock_timeout_s, on_progress) as (state, _):
        snapshot = _read_unstamped(entry)
        _, documents = read_documents(other)
        found = without_ignorable(differences(documents, snapshot.state.documents))
        if found:
            hint = f"copy {_list_files(documents, snapshot.state.documents)} from that model beside these weights"
            raise _build_mismatch(entry.name, "the other model means", map(str, found), hint)
        new = _copy_stamp(state, workspace, snapshot, source, other)
        check_progress(replace(snapshot, stamp=new.stamp), History.read(workspace).chain_for(entry))
        return _publish(workspace, entry, state, snapshot, new, on_progress, keep_owner=keep_owner)


def _read_unstamped(entry: ModelEntry) -> Snapshot:
    snapshot = take_snapshot(entry)
    if snapshot.stamp is not None:
        raise UsageError(
            f"the model has a stamp: it is at {snapshot.stamp.revision}",
            where=entry.name,
            hint="`tokmigrate upgrade` and `downgrade` bring it elsewhere; a wrong stamp is taken off by hand: "
            f"remove {STAMP}, which changes nothing else, then stamp it again",
        )
    return snapshot


def _find_lost_stamp(state: State, workspace: Workspace, snapshot: Snapshot, target: str) -> Stamp | None:
    """Return the stamp that a run left in a directory when it came to a revision, None where that is not on record."""
    model = state.model_at(snapshot.directory, None)
    rows = state.list_applied(model) if model else ()
    digest = next((row.record.undo for row in rows if row.record.revision == target), None)
    objects = ObjectStore(workspace.objects)
    left = read_left(digest, objects).files.get(STAMP) if digest is not None and objects.has(digest) else None
    return None if left is None else parse_stamp(left, STAMP)


def _make_stamp(snapshot: Snapshot, migrations: Sequence[Migration]) -> NewStamp:
    """Return the stamp of a model that the ledger does not know; raises OperationError where it is not there."""
    taken = verify_at_revision(snapshot.state, migrations)
    stamp = Stamp(
        lineage=lineage(snapshot, _read_digests(snapshot)),
        applied=tuple((migration.revision, migration.checksum) for migration in migrations),
        files={},
        shards={},
        baseline_tokens=taken.baseline_tokens,
        rows=taken.lineage,
        reshaped=False,
        init=taken.init,
    )
    records = (
        AppliedRecord(migration.revision, place, migration.checksum, migration.message)
        for place, migration in enumerate(migrations)
    )
    return NewStamp(stamp, tuple(records))


def _copy_stamp(state: State, workspace: Workspace, snapshot: Snapshot, source: Stamp, directory: Path) -> NewStamp:
    """Return a stamp with the history of another one, for the files that are there, with the records of the ledger.

    `source` is the stamp of the model in `directory`, the snapshot's own where it lost its stamp. Raises DriftError
    where the snapshot does not mean what the migrations left.
    """
    if source.rows.new_rows != snapshot.state.rows:
        message = f"it has {snapshot.state.rows} rows, and a model at {source.revision} has {source.rows.new_rows}"
        hint = "name the revision that it is at"
        raise DriftError(message, where=str(snapshot.directory), hint=hint)
    model = state.model_at(directory, source.generation)
    rows = {row.record.revision: row.record for row in (state.list_applied(model) if model else ())}
    records = tuple(
        replace(rows[revision], position=place) if revision in rows else AppliedRecord(revision, place, checksum)
        for place, (revision, checksum) in enumerate(source.applied)
    )
    objects = ObjectStore(workspace.objects)
    undo = {record.revision: record.undo for record in records if record.undo is not None}
    drift = drift_of(replace(snapshot, stamp=source), [read_left(digest, objects) for digest in undo.values()])
    if drift.differences:
        wanted, hint = "the migrations left", "put the tokenizer's files back as they were"
        raise _build_mismatch(str(snapshot.directory), wanted, each_line(drift), hint)
    events: tuple[TokenEvent | TokensMoved, ...] = ()
    if model is not None and directory == snapshot.directory:
        # What its tokens went through is on record: only their training may be news.
        known = read_init_records(row.event for row in state.token_rows(model))
    else:
        in_force = (row.event for row in (list_events_in_force(state, model) if model else ()))
        events = tuple(event for event in in_force if event.revision in source.revisions)
        known = read_init_records(event for event in events if isinstance(event, TokenEvent))
    with_lineage = replace(snapshot, state=replace(snapshot.state, lineage=source.rows))
    training = training_of(with_lineage, OnRecord(known, undo, objects))
    stamp = _update_stamp(source, snapshot)
    return NewStamp(stamp, records, (*events, *list_trained_events(training)), drift.moved, training)


def _update_stamp(source: Stamp, snapshot: Snapshot) -> Stamp:
    files = {
        name: ChangedFile.of(snapshot.texts.get(name), snapshot.layout(name) if file.layout else None)
        for name, file in source.files.items()
    }
    shards = {
        name: ChangedShard(digest, snapshot.weights.shard(name).header.data_start)
        for name, digest in (_read_digests(snapshot, source.shards) if source.shards else {}).items()
    }
    return replace(source, files=files, shards=shards)


def _read_digests(snapshot: Snapshot, recorded: Collection[str] = ()) -> dict[str, str]:
    """Return the digests of the shards with a vocabulary tensor, and of those `recorded` that are there."""
    tensors = snapshot.tensors_by_name
    rows, there = snapshot.state.rows, snapshot.weights.files
    names = sorted({*snapshot.vocabulary_shards, *there.intersection(recorded)})
    return {name: read_shard_digest(snapshot.directory / name, tensors, rows) for name in names}


def _list_files(wanted: Mapping[str, Json], found: Mapping[str, Json]) -> str:
    """Return the names of the files that make a difference where one alone is taken from the other model."""
    differ = (name for name in wanted if without_ignorable(differences({**found, name: wanted[name]}, found)))
    return format_list(list(differ)) or "its tokenizer and configuration files"


def _build_mismatch(where: str, wanted: str, found: Iterable[str], hint: str) -> DriftError:
    listed = format_list(list(found), separator="; ")
    return DriftError(f"it does not mean what {wanted}: {listed}", where=where, hint=hint)


def _publish(
    workspace: Workspace,
    entry: ModelEntry,
    state: State,
    snapshot: Snapshot,
    new: NewStamp,
    on_progress: OnProgress,
    *,
    keep_owner: bool,
) -> NewStamp:
    model = sync_with_stamp(state, entry, snapshot)
    candidate = Candidate(Documents.unchanged(snapshot))
    completion = Completion(new.stamp.encode(), {}, lambda _tensor, _recipe: b"")
    outcome = partial(Outcome, applied=new.records, tokens=new.events)
    run = NewRun(state, model, snapshot, Direction.STAMP, new.stamp.revision, new.stamp.revisions, outcome)
    record_texts(workspace, state, new.stamp.applied)
    change = Change(snapshot, candidate, lambda *_: completion)
    publish_run(workspace, entry, run, (change,), on_progress, keep_owner=keep_owner)
    return new

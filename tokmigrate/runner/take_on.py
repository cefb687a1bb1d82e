"""Taking a model on at a revision: a stamp for one that another program wrote, after a look at whether it is true."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from tokmigrate.audit.run_status import refuse_in_progress
from tokmigrate.audit.training import TokenTraining
from tokmigrate.change.candidate import Candidate
from tokmigrate.change.digests import lineage, read_shard_digest
from tokmigrate.change.publish import Change
from tokmigrate.errors import OperationError, UsageError
from tokmigrate.events import Listener, ignore
from tokmigrate.model.documents.reading import read_documents
from tokmigrate.model.documents.stamp import FILE as STAMP
from tokmigrate.model.documents.stamp import Stamp, read_stamp
from tokmigrate.model.semantics.semantic_diff import differences, without_ignorable
from tokmigrate.model.snapshot import Snapshot, take_snapshot
from tokmigrate.plan.progress import check_progress
from tokmigrate.plan.revision_detection import detect_revision, verify_at_revision
from tokmigrate.revision.history import History
from tokmigrate.revision.migration import Migration
from tokmigrate.runner.locked import follow_stamp, locked
from tokmigrate.runner.recorded_stamp import RecordedStamp, means_otherwise, stamp_of_source, stamp_on_record
from tokmigrate.runner.restore import keep_texts
from tokmigrate.runner.run_recorder import Run, publish_run
from tokmigrate.runner.seen_signs import way_to_take_on
from tokmigrate.runner.tags import known_tags
from tokmigrate.settings import ModelEntry, Workspace
from tokmigrate.state.ledger import State
from tokmigrate.state.rows import AppliedRecord, Direction, Outcome
from tokmigrate.vocabulary.rows import RowEdit


@dataclass(frozen=True)
class TakenOn:
    """A model that was taken on.

    Args:
        model: The model.
        revision: The revision that it is at.
        undoable: Whether the way back is on record here.
        moved: The tensors that hold other numbers than its migrations left.
        training: What became of the tokens whose rows they began, as far as the ledger knows.
    """

    model: str
    revision: str
    undoable: bool
    moved: tuple[str, ...] = ()
    training: tuple[TokenTraining, ...] = ()


def stamp(
    workspace: Workspace,
    entry: ModelEntry,
    revision: str,
    lock_timeout_s: float = 0.0,
    listener: Listener = ignore,
    keep_owner: bool = True,
) -> TakenOn:
    """Take a model on at a revision without changing it, after checking by meaning that it is there.

    Where the ledger knows that the directory was at it, the way back is kept; otherwise there is none.

    Args:
        workspace: The workspace.
        entry: The model; it must not have a stamp.
        revision: The revision by any of its names.
        lock_timeout_s: How many seconds to wait for another process.
        listener: Told every step.
        keep_owner: Whether it is refused where owner, mode or attributes of files cannot be kept.

    Raises:
        OperationError: What a migration does is not there, or what later ones do is.
        DriftError: The ledger knows better.
    """
    history = History.read(workspace)
    target = history.resolve(revision, None, known_tags(workspace))
    chain = history.chain_for(entry)
    names = [migration.revision for migration in chain]
    if target is None or target not in names:
        raise UsageError(
            f"'{revision}' is no revision that this model can be at",
            where=entry.name,
            hint="a model at base needs no stamp; `tokmigrate history` lists the migrations",
        )
    migrations = chain[: names.index(target) + 1]
    with locked(workspace, entry, lock_timeout_s, listener) as (_, state, _found):
        snapshot = _unstamped(entry)
        known = stamp_on_record(state, workspace, snapshot, target)
        if known is None:
            _refuse_past(workspace, entry, snapshot, migrations, chain[len(migrations) :])
            taken = verify_at_revision(snapshot.state, migrations)
            fresh = Stamp(
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
            known = RecordedStamp(fresh, records)
        return _carry_out(workspace, entry, state, snapshot, known, listener, keep_owner=keep_owner)


def stamp_from(
    workspace: Workspace,
    entry: ModelEntry,
    other: Path,
    lock_timeout_s: float = 0.0,
    listener: Listener = ignore,
    keep_owner: bool = True,
) -> TakenOn:
    """Take on a copy of a model, fine-tuned or saved elsewhere, at the revision of that model.

    Args:
        workspace: The workspace.
        entry: The copy; it must not have a stamp.
        other: The directory of the model that it was made of.
        lock_timeout_s: How many seconds to wait for another process.
        listener: Told every step.
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
    with locked(workspace, entry, lock_timeout_s, listener) as (_, state, _found):
        snapshot = _unstamped(entry)
        _, documents, _ = read_documents(other, source)
        found = without_ignorable(differences(documents, snapshot.state.documents))
        if found:
            raise means_otherwise(
                entry.name,
                "the other model means",
                [str(each) for each in found],
                "save the tokenizer of that model beside these weights",
            )
        known = stamp_of_source(state, workspace, snapshot, source, other)
        check_progress(replace(snapshot, stamp=known.stamp), History.read(workspace).chain_for(entry))
        return _carry_out(workspace, entry, state, snapshot, known, listener, keep_owner=keep_owner)


def _unstamped(entry: ModelEntry) -> Snapshot:
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
    signs = detect_revision(snapshot.state, migrations, later)
    if signs is not None:
        raise OperationError(
            f"the model is past that revision: {signs}", where=entry.name, hint=way_to_take_on(workspace, entry, signs)
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
    listener: Listener,
    *,
    keep_owner: bool,
) -> TakenOn:
    model = follow_stamp(state, entry, snapshot)
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
    keep_texts(workspace, state, [(record.revision, record.checksum) for record in known.records])
    publish_run(workspace, entry, state, model, run, (Change(snapshot, candidate),), listener, keep_owner=keep_owner)
    undoable = all(record.undo is not None for record in known.records)
    return TakenOn(entry.name, known.stamp.revision, undoable, known.moved, known.training)

"""Upgrade, downgrade and recover one model, under its lock."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from blake3 import blake3

from tokmigrate.change.lock import ModelLock
from tokmigrate.change.publish import Found, carry_out, needs_recovery, recover
from tokmigrate.change.undo import way_back
from tokmigrate.change.verify import verify_candidate
from tokmigrate.change.way_forth import Passage, way_forth
from tokmigrate.change.workarea import WorkArea
from tokmigrate.errors import DriftError, UndoError
from tokmigrate.events import Listener, Step, StepReached, Warned, ignore
from tokmigrate.model.snapshot import Snapshot, take_snapshot
from tokmigrate.model.stamp import FILE as STAMP
from tokmigrate.model.stamp import decoded, read_stamp
from tokmigrate.plan.upgrade import Plan, check_applied, plan_upgrade
from tokmigrate.revision.history import History
from tokmigrate.revision.migration import Migration
from tokmigrate.runner.books import FoundBooks, NewBooks
from tokmigrate.settings import ModelEntry, Workspace
from tokmigrate.state.database import open_state, open_state_if_present
from tokmigrate.state.ledger import State
from tokmigrate.state.objects import ObjectStore
from tokmigrate.state.rows import AppliedRecord, Direction, Happened, ModelRow, Outcome, TokenEvent


@dataclass(frozen=True)
class Upgraded:
    """What an upgrade did; a plan without steps means that nothing was pending."""

    plan: Plan
    recovered: Found


@dataclass(frozen=True)
class Downgraded:
    """What a downgrade did.

    Args:
        model: The model.
        before: The revision before.
        after: The revision afterwards, None for `base`.
        reverted: The migrations that were taken back, the latest first.
        recovered: What an earlier interruption had left.
    """

    model: str
    before: str | None
    after: str | None
    reverted: tuple[str, ...]
    recovered: Found


def chain_for(history: History, entry: ModelEntry) -> tuple[Migration, ...]:
    """Return the migrations that are for a model, from the first to the head."""
    return tuple(migration for migration in history.chain() if migration.applies_to(entry))


def plan(workspace: Workspace, entry: ModelEntry, to: str = "head") -> Plan:
    """Return what an upgrade of a model would do; nothing is written.

    Args:
        workspace: The workspace.
        entry: The model.
        to: A revision by any of its names.
    """
    return _planned(workspace, entry, take_snapshot(entry), to)


def upgrade(
    workspace: Workspace,
    entry: ModelEntry,
    to: str = "head",
    lock_timeout_s: float = 0.0,
    listener: Listener = ignore,
) -> Upgraded:
    """Bring a model up to a revision, or leave it as it is.

    Args:
        workspace: The workspace.
        entry: The model.
        to: A revision by any of its names.
        lock_timeout_s: How many seconds to wait for another process.
        listener: Told every step.

    Raises:
        TokmigrateError: Nothing was changed.
    """
    # Planned once before the lock: most mistakes show here, and nothing is made beside the model for them.
    first = plan(workspace, entry, to) if not _interrupted(entry) else None
    if first is not None and not first.steps:
        return Upgraded(first, Found.NOTHING)
    with _locked(workspace, entry, lock_timeout_s, listener) as (area, state, recovered):
        planned = plan(workspace, entry, to)
        if not planned.steps:
            return Upgraded(planned, recovered)
        model = _follow_stamp(state, entry, planned.snapshot)
        for name in _changed_documents(planned.snapshot):
            listener(Warned(entry.name, f"{name} was changed since the last migration; it is migrated as it is now"))
        way = way_forth(planned, workspace.seed, ObjectStore(workspace.objects))
        stamp = planned.snapshot.stamp
        begin = partial(
            state.begin,
            model,
            Direction.UPGRADE,
            from_revision=planned.before,
            to_revision=planned.after,
            revisions=[step.migration.revision for step in planned.steps],
            generation_before=stamp.generation if stamp else None,
            generation_after=way.stamp.generation,
        )
        already = len(stamp.applied) if stamp else 0
        checks = [check for step in planned.steps for check in step.migration.checks]
        carry_out(
            entry.name,
            area,
            planned.snapshot,
            way.candidate,
            (stamp.generation if stamp else None, way.stamp.generation),
            lambda stage: verify_candidate(stage, planned.snapshot, way.candidate, checks, workspace.verify),
            NewBooks(state, begin, _upgrade_outcome(way.passages, already)),
            listener,
        )
        return Upgraded(planned, recovered)


def downgrade(
    workspace: Workspace,
    entry: ModelEntry,
    to: str,
    lock_timeout_s: float = 0.0,
    listener: Listener = ignore,
) -> Downgraded:
    """Take migrations back until a model is at a revision again, bit for bit.

    Args:
        workspace: The workspace.
        entry: The model.
        to: The revision to go back to, by any of its names.
        lock_timeout_s: How many seconds to wait for another process.
        listener: Told every step.

    Raises:
        UndoError: The way back is not on record here.
        DriftError: The model was changed since it was migrated.
    """
    if not _interrupted(entry):
        _way_down(workspace, entry, take_snapshot(entry), to)
    with _locked(workspace, entry, lock_timeout_s, listener) as (area, state, recovered):
        snapshot = take_snapshot(entry)
        target, revisions = _way_down(workspace, entry, snapshot, to)
        if not revisions:
            raise _nothing_back(entry, to)
        stamp = snapshot.stamp
        if stamp is None:
            raise UndoError("the model has no stamp", where=str(entry.path))
        model = _follow_stamp(state, entry, snapshot)
        candidate = way_back(snapshot, _undo_records(state, model, revisions), ObjectStore(workspace.objects))
        _check_untouched(snapshot, candidate.files)
        held = candidate.files[STAMP]
        after = decoded(held.decode(), STAMP).generation if held is not None else None
        begin = partial(
            state.begin,
            model,
            Direction.DOWNGRADE,
            from_revision=stamp.revision,
            to_revision=target,
            revisions=list(revisions),
            generation_before=stamp.generation,
            generation_after=after,
        )
        events = _reverted_events(snapshot, candidate.tokens, revisions)
        carry_out(
            entry.name,
            area,
            snapshot,
            candidate,
            (stamp.generation, after),
            lambda stage: verify_candidate(stage, snapshot, candidate, (), workspace.verify),
            NewBooks(state, begin, Outcome(reverted=revisions, tokens=events)),
            listener,
        )
        return Downgraded(entry.name, stamp.revision, target, revisions, recovered)


def recover_model(
    workspace: Workspace, entry: ModelEntry, lock_timeout_s: float = 0.0, listener: Listener = ignore
) -> Found:
    """Finish what an interrupted change of a model left behind, and say what was found."""
    if not WorkArea(entry.path).root.exists() and open_state_if_present(workspace.state, workspace.root) is None:
        return Found.NOTHING
    with _locked(workspace, entry, lock_timeout_s, listener) as (_, _, found):
        return found


def _interrupted(entry: ModelEntry) -> bool:
    area = WorkArea(entry.path)
    return area.root.exists() and needs_recovery(area)


@contextmanager
def _locked(
    workspace: Workspace, entry: ModelEntry, timeout_s: float, listener: Listener
) -> Iterator[tuple[WorkArea, State, Found]]:
    """Hold the model's lock, with whatever was interrupted recovered."""
    area = WorkArea(entry.path)
    area.create()
    with ModelLock(area.lock, timeout_s):
        state = open_state(workspace.state, workspace.root)
        listener(StepReached(entry.name, Step.LOCKED))
        found = recover(area, lambda operation: _found_books(state, operation))
        stamp = read_stamp(area.model)
        model = state.model_for(entry.name, area.model, stamp.lineage if stamp else "")
        orphan = state.active(model)
        if orphan is not None:
            # It died between its first row here and its journal: nothing was touched.
            state.fail(orphan.id, "interrupted before anything was written")
        yield area, state, found


def _found_books(state: State, operation: str) -> FoundBooks:
    return FoundBooks(state, state.operation(operation) is not None, operation)


def _planned(workspace: Workspace, entry: ModelEntry, snapshot: Snapshot, to: str) -> Plan:
    history = History.read(workspace)
    chain = chain_for(history, entry)
    applied = check_applied(snapshot, chain)
    revisions = [migration.revision for migration in chain]
    target = history.resolve(to, snapshot.revision, _tags(workspace))
    done = len(applied)
    if applied != chain[:done]:
        late = next(migration for migration, found in zip(chain, applied, strict=False) if migration != found)
        raise DriftError(
            f"migration {late.revision} stands before ones that the model has",
            where=late.shown,
            hint="put it behind the head: change its down_revision",
        )
    if target is not None and target not in revisions:
        wanted = [migration.revision for migration in history.chain()]
        position = wanted.index(target)
        pending = [m for m in chain[done:] if wanted.index(m.revision) <= position]
    else:
        stop = revisions.index(target) + 1 if target is not None else 0
        pending = list(chain[done:stop])
    return plan_upgrade(entry, snapshot, pending)


def _way_down(
    workspace: Workspace, entry: ModelEntry, snapshot: Snapshot, to: str
) -> tuple[str | None, tuple[str, ...]]:
    """Return the revision to go down to, and the revisions on the way, the latest first."""
    history = History.read(workspace)
    check_applied(snapshot, chain_for(history, entry))
    applied = [revision for revision, _ in snapshot.stamp.applied] if snapshot.stamp else []
    if not applied:
        raise _nothing_back(entry, to)
    target = history.resolve(to, snapshot.revision, _tags(workspace))
    if target is None:
        return None, tuple(reversed(applied))
    if target not in applied:
        raise UndoError(
            f"the model does not have revision {target}",
            where=entry.name,
            hint="`tokmigrate current` shows where it is",
        )
    revisions = tuple(reversed(applied[applied.index(target) + 1 :]))
    if not revisions:
        raise _nothing_back(entry, to)
    return target, revisions


def _nothing_back(entry: ModelEntry, to: str) -> UndoError:
    return UndoError(
        f"nothing to take back: the model is at '{to}' already", where=entry.name, hint="`tokmigrate current`"
    )


def _tags(workspace: Workspace) -> dict[str, str]:
    state = open_state_if_present(workspace.state, workspace.root)
    return state.all_tags() if state else {}


def _follow_stamp(state: State, entry: ModelEntry, snapshot: Snapshot) -> ModelRow:
    """Return the model's row, with the state's revisions those of the stamp."""
    stamp = snapshot.stamp
    model = state.model_for(entry.name, snapshot.directory, stamp.lineage if stamp else "")
    applied = stamp.applied if stamp else ()
    records = [AppliedRecord(revision, place, checksum) for place, (revision, checksum) in enumerate(applied)]
    known = {row.record.revision for row in state.applied_now(model)}
    state.adopt(model, records, gone=known - {revision for revision, _ in applied})
    return model


def _undo_records(state: State, model: ModelRow, revisions: tuple[str, ...]) -> list[str]:
    known = {row.record.revision: row.record for row in state.applied_now(model)}
    records: list[str] = []
    later: dict[str, str] = {}
    for revision in revisions:
        record = known.get(revision)
        if record is None or record.undo is None:
            raise UndoError(
                f"the way back from {revision} is not on record in this workspace",
                where=model.name,
                hint="downgrade it where it was upgraded, or take the baseline from its source",
            )
        changed = [name for name, digest in record.digests_after.items() if later.get(name, digest) != digest]
        if changed:
            raise DriftError(
                f"{', '.join(sorted(changed))} changed after {revision} was applied and before the next migration,"
                " and going back would lose that",
                where=model.name,
                hint="go back only to the migration after it; training cannot be undone this way",
            )
        later |= record.digests_before
        records.append(record.undo)
    return records


def _check_untouched(snapshot: Snapshot, files: Mapping[str, bytes | None]) -> None:
    """Raise DriftError where a file that migrations wrote has other bytes now."""
    for name in _changed_documents(snapshot):
        if name in files:
            raise DriftError(
                "the file was changed since it was migrated, and going back would lose that",
                where=str(snapshot.directory / name),
                hint="put it back as tokmigrate wrote it; `tokmigrate verify` lists what differs",
            )


def _changed_documents(snapshot: Snapshot) -> tuple[str, ...]:
    """Return the documents that have other bytes than the stamp says."""
    changed: list[str] = []
    for name, file in (snapshot.stamp.files if snapshot.stamp else {}).items():
        data = snapshot.texts.get(name)
        if (blake3(data).hexdigest() if data is not None else None) != file.digest:
            changed.append(name)
    return tuple(sorted(changed))


def _upgrade_outcome(passages: tuple[Passage, ...], already: int) -> Outcome:
    records = [
        AppliedRecord(
            revision=passage.revision,
            position=already + number,
            checksum=passage.checksum,
            message=passage.message,
            undo=passage.undo,
            digests_before=passage.before,
            digests_after=passage.after,
        )
        for number, passage in enumerate(passages)
    ]
    events = [
        TokenEvent(passage.revision, Happened.ADDED, new.token, new.id, init=new.init, row_digest=new.row_digest)
        for passage in passages
        for new in passage.tokens
    ]
    return Outcome(applied=tuple(records), tokens=tuple(events))


def _reverted_events(snapshot: Snapshot, tokens: object, revisions: tuple[str, ...]) -> tuple[TokenEvent, ...]:
    left = tokens if isinstance(tokens, dict) else {}
    return tuple(
        TokenEvent(revisions[-1], Happened.REVERTED, token, None, number)
        for token, number in snapshot.state.tokenizer.ids.items()
        if left.get(token) != number
    )


__all__ = ["Downgraded", "Upgraded", "chain_for", "downgrade", "plan", "recover_model", "upgrade"]

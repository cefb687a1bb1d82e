"""Holding a model: its lock taken, what was interrupted recovered, the state following the stamp."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial

from tokmigrate.apply.candidate import Change
from tokmigrate.apply.gguf_change import GgufChange
from tokmigrate.apply.journal import Journal
from tokmigrate.apply.known_files import describe_files, find_known, find_known_tensors
from tokmigrate.apply.lock import hold_lock
from tokmigrate.apply.publish import RecoveryOutcome, publish, recover
from tokmigrate.apply.workarea import WorkArea
from tokmigrate.audit.run_status import is_in_progress
from tokmigrate.commands.library_check import Accepted, outcome_of_changes, verify_once
from tokmigrate.commands.records import read_left_behind
from tokmigrate.errors import BusyError, RecoveryNeededError, TokmigrateError
from tokmigrate.events import OnProgress, Step, StepReached, Warned, no_progress
from tokmigrate.files import exists
from tokmigrate.model.documents.stamp import read_stamp
from tokmigrate.model.snapshot import Snapshot
from tokmigrate.parallel import BackgroundCall
from tokmigrate.revision.migration import Check
from tokmigrate.settings import ModelEntry, Workspace
from tokmigrate.state.database import open_state, open_state_if_present
from tokmigrate.state.ledger import State
from tokmigrate.state.objects import ObjectStore
from tokmigrate.state.rows import AppliedRecord, AppliedRow, Direction, ModelRow, Outcome, RunRow, Status


@dataclass
class RecoveredRun:
    """Records the end of a run that was interrupted; one that the state does not know, "", is left alone."""

    state: State
    run_id: str = field(default="", kw_only=True)

    def record_applied(self) -> None:
        """Finish the run in the ledger."""
        if self.run_id:
            self.state.finish(self.run_id)

    def record_failed(self, reason: str) -> None:
        """Close the run as failed; its row stays."""
        if self.run_id:
            self.state.fail(self.run_id, reason)


@dataclass
class NewRun(RecoveredRun):
    """Records a run that starts now, step by step.

    `snapshot` is the model before it; `to` is the revision that it leads to, None for base; `outcome` returns what
    finishing it records, once its changes are staged.
    """

    model: ModelRow
    snapshot: Snapshot
    direction: Direction
    to: str | None
    revisions: Sequence[str]
    outcome: Callable[[], Outcome]

    def record_intent(self) -> str:
        """Record the intent and return the id of the run."""
        self.run_id = self.state.begin(
            self.model,
            self.direction,
            from_revision=self.snapshot.revision,
            to_revision=self.to,
            revisions=self.revisions,
            generation_before=self.snapshot.generation,
        ).id
        return self.run_id

    def record_prepared(self, generation: str | None) -> None:
        """Record the generation and the outcome, to be finished even after a crash."""
        self.state.prepare(self.run_id, self.outcome(), generation)


def publish_run(
    workspace: Workspace,
    entry: ModelEntry,
    run: NewRun,
    changes: Sequence[Change],
    on_progress: OnProgress,
    *,
    keep_owner: bool,
    copies: Sequence[GgufChange] = (),
    checks: Sequence[Check] = (),
    accepted: Accepted | None = None,
) -> None:
    """Publish the changes of a run, the model's before those of its adapters and copies, and record it; see `publish`.

    `checks` are what migrations say under `verify:`, `accepted` is what the libraries accepted before.
    """
    known = find_known(run.snapshot, run.state.known_files(run.model))
    reads_again = workspace.verify == "paranoid"
    if not reads_again:
        digests = _read_last_digests(workspace, run.state.list_applied(run.model))
        own = replace(changes[0], known_tensors=find_known_tensors(run.snapshot, known, *digests))
        changes = (own, *changes[1:])
    with BackgroundCall(partial(verify_once, workspace, outcome_of_changes(changes), checks, accepted)) as acceptance:
        written = publish(
            entry.name,
            changes,
            run,
            on_progress,
            workspace.root,
            acceptance,
            copies=copies,
            keep_owner=keep_owner,
            reads_again=reads_again,
        )
    left = {name: digest for name, digest in known.items() if name not in changes[0].candidate.removed}
    # A hint, and the change is made: without it the next command reads more. Clones have a new inode or time too.
    with suppress(TokmigrateError):
        run.state.remember_files(run.model, describe_files(changes[0].area.model, {**left, **written}))


def _read_last_digests(workspace: Workspace, rows: Sequence[AppliedRow]) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """Return the digests of shards and tensors that the last migration of a model left which changed rows."""
    # Without them more is read.
    found = read_left_behind(workspace, rows[::-1], lambda left: (left.shards, left.tensors))
    return next((each for each in found if each[0]), ({}, {}))


@contextmanager
def model_session(
    workspace: Workspace, entry: ModelEntry, timeout_s: float, on_progress: OnProgress
) -> Iterator[tuple[State, RecoveryOutcome]]:
    """Hold the locks of a model and what follows it, with whatever was interrupted recovered."""
    area = WorkArea(entry.path)
    area.create()
    with hold_lock(area.lock, timeout_s), ExitStack() as stack:
        journal = area.read_journal()
        interrupted = Journal.from_json(journal, area, workspace.root) if journal else None
        for follower in _follower_areas(entry, interrupted):
            follower.create(of_file=True)
            stack.enter_context(hold_lock(follower.lock, timeout_s))
        for other in interrupted.others if interrupted else ():
            message = f"it was copied while a change of it was interrupted: {other} belongs to the original"
            on_progress(Warned(entry.name, f"{message}, and stays as it is"))
        with _report_recovery(area, interrupted):
            state = open_state(workspace.state, workspace.root)
            on_progress(StepReached(entry.name, Step.LOCKED))
            found = recover(
                area, lambda run_id: RecoveredRun(state, run_id=run_id if state.run(run_id) else ""), workspace.root
            )
            stamp = read_stamp(area.model)
            lineage, generation = (stamp.lineage, stamp.generation) if stamp else ("", None)
            model = state.model_for(entry.name, area.model, lineage, generation)
            orphan = state.active(model)
            if orphan is not None:
                _close(state, orphan, generation)
            ObjectStore(workspace.objects).remove_unfinished()
        yield state, found


def recover_model(
    workspace: Workspace, entry: ModelEntry, lock_timeout_s: float = 0.0, on_progress: OnProgress = no_progress
) -> RecoveryOutcome:
    """Finish what an interrupted change of a model left behind, and say what was found."""
    if not is_in_progress(entry):
        entry.here()
    if not exists(WorkArea(entry.path).root) and open_state_if_present(workspace.state, workspace.root) is None:
        return RecoveryOutcome.NOTHING
    with model_session(workspace, entry, lock_timeout_s, on_progress) as (_, found):
        return found


@contextmanager
def _report_recovery(area: WorkArea, interrupted: Journal | None) -> Iterator[None]:
    """Say that recovery is needed where what is inside fails: the directories or the state may have changed by then."""
    try:
        yield
    except (RecoveryNeededError, BusyError):
        raise
    except TokmigrateError as error:
        if interrupted is None:
            raise
        raise RecoveryNeededError(
            f"an interrupted change could not be finished: {error}",
            where=str(area.model),
            hint=f"{f'{error.hint}; then ' if error.hint else ''}run `tokmigrate recover`, which continues it",
        ) from error


def _follower_areas(entry: ModelEntry, interrupted: Journal | None) -> list[WorkArea]:
    """Return the work areas of what follows the model: as it is listed, and as an interrupted change was about it."""
    unfinished = interrupted.areas[1:] if interrupted else ()
    listed = (*entry.adapters, *(copy.path for copy in entry.copies if copy.follow))
    areas = {each.model: each for each in (*map(WorkArea, listed), *unfinished)}
    # One order for all, so that two processes never wait for each other.
    return [areas[path] for path in sorted(areas) if exists(path) or exists(areas[path].root)]


def _close(state: State, orphan: RunRow, generation: str | None) -> None:
    """Close a run of which there is no journal, by the generation in place."""
    if orphan.status is Status.PREPARED and generation == orphan.generation_after:
        # It was recovered by another workspace that lists the model, or by a copy of this one.
        state.finish(orphan.id)
    else:
        state.fail(orphan.id, "interrupted before anything was changed")


def sync_with_stamp(state: State, entry: ModelEntry, snapshot: Snapshot) -> ModelRow:
    """Return the model's row, with the state's revisions those of the stamp."""
    stamp = snapshot.stamp
    model = state.model_for(entry.name, snapshot.directory, stamp.lineage if stamp else "", snapshot.generation)
    applied = stamp.applied if stamp else ()
    records = [AppliedRecord(revision, place, checksum) for place, (revision, checksum) in enumerate(applied)]
    known = {row.record.revision for row in state.list_applied(model)}
    state.adopt(model, records, gone=known - {revision for revision, _ in applied})
    return model

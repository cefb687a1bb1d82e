"""Publishing a run, and recording it in the workspace's state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from tokmigrate.change.publish import Change, publish
from tokmigrate.events import Listener
from tokmigrate.revision.conditions import Check
from tokmigrate.runner.verification import Accepted, outcome_of_changes, verify_once
from tokmigrate.settings import ModelEntry, Workspace
from tokmigrate.state.ledger import State
from tokmigrate.state.rows import Direction, ModelRow, Outcome, RunRow


@dataclass
class NewRun:
    """Records a run that starts now, step by step.

    Args:
        state: The workspace's state.
        begin: Records the intent.
        outcome: What finishing it records.
    """

    state: State
    begin: Callable[[], RunRow]
    outcome: Outcome
    run_id: str = ""

    def staging(self) -> str:
        """Record the intent and return the id of the run."""
        self.run_id = self.begin().id
        return self.run_id

    def prepared(self) -> None:
        """Record the outcome, to be finished even after a crash."""
        self.state.prepare(self.run_id, self.outcome.payload())

    def applied(self) -> None:
        """Finish the run in the ledger."""
        self.state.finish(self.run_id)

    def failed(self, reason: str) -> None:
        """Close the run as failed; its row stays."""
        self.state.fail(self.run_id, reason)


@dataclass(frozen=True)
class RecoveredRun:
    """Records the end of a run that was interrupted; a state that does not know it is left alone."""

    state: State
    known: bool
    run_id: str

    def staging(self) -> str:
        """Return the id of the run."""
        return self.run_id

    def prepared(self) -> None:
        """Do nothing: it was prepared before the crash."""

    def applied(self) -> None:
        """Finish the run in the ledger."""
        if self.known:
            self.state.finish(self.run_id)

    def failed(self, reason: str) -> None:
        """Close the run as failed; its row stays."""
        if self.known:
            self.state.fail(self.run_id, reason)


@dataclass(frozen=True)
class Run:
    """What a run does to a model, as the ledger records it.

    Args:
        direction: Which way it goes.
        to: The revision that it leads to, None for `base`.
        revisions: The migrations on the way.
        outcome: What finishing it records.
    """

    direction: Direction
    to: str | None
    revisions: Sequence[str]
    outcome: Outcome


def publish_run(
    workspace: Workspace,
    entry: ModelEntry,
    state: State,
    model: ModelRow,
    run: Run,
    changes: Sequence[Change],
    listener: Listener,
    *,
    keep_owner: bool,
    checks: Sequence[Check] = (),
    accepted: Accepted | None = None,
) -> None:
    """Publish the changes of a run and record it; see `publish`.

    Args:
        workspace: The workspace.
        entry: The model.
        state: The workspace's state.
        model: The model's row in it.
        run: What the run does.
        changes: That of the model, and behind it those of its adapters.
        listener: Told every step.
        keep_owner: Whether it is refused where owner, mode or attributes of files cannot be kept.
        checks: What migrations say under `verify:`.
        accepted: What the libraries accepted before.
    """
    begin = partial(
        state.begin,
        model,
        run.direction,
        from_revision=changes[0].snapshot.revision,
        to_revision=run.to,
        revisions=list(run.revisions),
        generation_before=changes[0].before,
        generation_after=changes[0].after,
    )
    accept = partial(verify_once, workspace, entry.name, outcome_of_changes(changes), checks, listener, accepted)
    recorder = NewRun(state, begin, run.outcome)
    publish(entry.name, changes, recorder, listener, workspace.root, accept, keep_owner=keep_owner)

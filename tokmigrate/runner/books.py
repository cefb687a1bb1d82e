"""One run of an operation: its bookkeeping in the workspace's state, and its publishing."""

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
from tokmigrate.state.rows import Direction, ModelRow, OperationRow, Outcome


@dataclass
class NewBooks:
    """What a change that begins now writes into the state, step by step.

    Args:
        state: The workspace's state.
        begin: Records the intent.
        outcome: What finishing it records.
    """

    state: State
    begin: Callable[[], OperationRow]
    outcome: Outcome
    operation: str = ""

    def staging(self) -> str:
        """Write down the intent and return the operation's id."""
        self.operation = self.begin().id
        return self.operation

    def prepared(self) -> None:
        """Write down the outcome, to be finished even after a crash."""
        self.state.prepare(self.operation, self.outcome.payload())

    def applied(self) -> None:
        """Finish the operation in the ledger."""
        self.state.finish(self.operation)

    def failed(self, reason: str) -> None:
        """Close the operation as failed; its row stays."""
        self.state.fail(self.operation, reason)


@dataclass(frozen=True)
class FoundBooks:
    """The bookkeeping of an operation that was interrupted; a state that never heard of it is left alone."""

    state: State
    known: bool
    operation: str

    def staging(self) -> str:
        """Return the operation's id."""
        return self.operation

    def prepared(self) -> None:
        """Do nothing: it was prepared before the crash."""

    def applied(self) -> None:
        """Finish the operation in the ledger."""
        if self.known:
            self.state.finish(self.operation)

    def failed(self, reason: str) -> None:
        """Close the operation as failed; its row stays."""
        if self.known:
            self.state.fail(self.operation, reason)


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
    books = NewBooks(state, begin, run.outcome)
    publish(entry.name, changes, books, listener, workspace.root, accept, keep_owner=keep_owner)

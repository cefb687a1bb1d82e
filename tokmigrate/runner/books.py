"""The bookkeeping of one operation in the workspace's state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tokmigrate.state.ledger import State
from tokmigrate.state.rows import OperationRow, Outcome


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

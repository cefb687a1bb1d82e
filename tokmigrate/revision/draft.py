"""A draft of a migration: operations that are added where they lead nearer to the files of another tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tokmigrate.errors import TokmigrateError
from tokmigrate.model.documents.declared import Documents
from tokmigrate.model.documents.semantic_diff import differences
from tokmigrate.model.documents.state import ModelState
from tokmigrate.model.tokenizer.tokenizer_json import FILE, Tokenizer
from tokmigrate.operations.operation import Context, Operation, RiskLevel


class Draft:
    """The state that has been reached, the tokenizer that is wanted, and the operations so far."""

    def __init__(self, state: ModelState, wanted: Documents, context: Context) -> None:
        self.state = state
        self.documents = wanted
        self.target = Tokenizer(wanted[FILE])
        self.operations: list[Operation] = []
        self.refused: list[str] = []
        self._context = context

    def add_if_nearer(self, *operations: Operation) -> None:
        """Add operations if they can be applied and leave fewer differences."""
        states = [self.state]
        for operation in operations:
            reached = self.try_apply(operation, states[-1])
            if reached is None:
                return
            states.append(reached)
        if self._distance(states[-1]) < self._distance(self.state):
            for operation, reached in zip(operations, states[1:], strict=True):
                self.add(operation, reached)

    def add_if_possible(self, operation: Operation) -> bool:
        """Add an operation if it can be applied, also where ids will be right only when tokens have moved."""
        reached = self.try_apply(operation)
        if reached is not None:
            self.add(operation, reached)
        return reached is not None

    def try_apply(self, operation: Operation, state: ModelState | None = None) -> ModelState | None:
        """Return the state after an operation, None with the reason noted where it cannot be applied."""
        try:
            return operation.apply(state or self.state, self._context)
        except TokmigrateError as error:
            self.refused.append(f"{operation.name}: {error.message}")
            return None

    def add(self, operation: Operation, reached: ModelState) -> None:
        """Add an operation that leads to the state `reached`."""
        # The reader of the derived migration sees that the other tokenizer breaks with this one.
        if operation.risk(self.state, reached).level is RiskLevel.BREAKING:
            operation = operation.model_copy(update={"acknowledge": "breaking"})
        self.state = reached
        self.operations.append(operation)

    def _distance(self, state: ModelState) -> int:
        return len(differences(state.documents, self.documents))

    @property
    def ids(self) -> Mapping[str, int]:
        return self.state.tokenizer.ids

    @property
    def lost(self) -> dict[str, int]:
        """The tokens that the other tokenizer does not have, with their ids, in rising order."""
        ordered = sorted(self.ids.items(), key=lambda item: item[1])
        return {content: number for content, number in ordered if content not in self.target.ids}

    def read_both(self, read: Callable[..., Any], *more: Any) -> tuple[Any, Any]:
        """Return what `read` finds in the files as they are, and in those that are wanted."""
        return read(self.state.documents, *more), read(self.documents, *more)

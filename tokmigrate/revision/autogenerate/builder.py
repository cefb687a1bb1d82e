"""How far a derivation has come from one tokenizer to another, and with which operations."""

from __future__ import annotations

from tokmigrate.errors import TokmigrateError
from tokmigrate.model.documents.declared import Documents
from tokmigrate.model.documents.semantic_diff import differences
from tokmigrate.model.documents.state import ModelState
from tokmigrate.model.tokenizer.tokenizer_json import FILE, Tokenizer
from tokmigrate.operations.base import Context, Operation, RiskLevel


class Way:
    """A state on its way to a tokenizer, and the operations that led there."""

    def __init__(self, state: ModelState, after: Documents, context: Context) -> None:
        self.state = state
        self.documents = after
        self.target = Tokenizer(after[FILE])
        self.operations: list[Operation] = []
        self.refused: list[str] = []
        self._context = context

    def go(self, operation: Operation) -> None:
        """Take a step if it can be taken and leads nearer."""
        reached = self.try_step(operation)
        if reached is not None and self._distance(reached) < self._distance(self.state):
            self._arrive(reached, operation)

    def take(self, operation: Operation) -> bool:
        """Take a step if it can be taken, also where ids will be right only when tokens have moved."""
        reached = self.try_step(operation)
        if reached is not None:
            self._arrive(reached, operation)
        return reached is not None

    def try_step(self, operation: Operation) -> ModelState | None:
        """Return where a step would lead, None with the reason noted where it cannot be taken."""
        try:
            return operation.apply(self.state, self._context)
        except TokmigrateError as error:
            self.refused.append(f"{operation.name}: {error.message}")
            return None

    def _arrive(self, state: ModelState, operation: Operation) -> None:
        # The reader of the derived migration sees that the other tokenizer breaks with this one.
        if operation.risk(self.state, state).level is RiskLevel.BREAKING:
            operation = operation.model_copy(update={"acknowledge": "breaking"})
        self.state = state
        self.operations.append(operation)

    def _distance(self, state: ModelState) -> int:
        return len(differences(state.documents, self.documents))

    @property
    def gone(self) -> dict[str, int]:
        """The tokens that the other tokenizer does not have, with their ids, in rising order."""
        ordered = sorted(self.state.tokenizer.ids.items(), key=lambda item: item[1])
        return {content: number for content, number in ordered if content not in self.target.ids}

"""The steps of a plan: what each migration makes of the state that it finds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from tokmigrate.errors import OperationError, TokmigrateError
from tokmigrate.formatting import format_count, format_quoted
from tokmigrate.model.documents.state import ModelState
from tokmigrate.operations.base import Context, Risk, RiskLevel
from tokmigrate.operations.token_checks import unreachable_tokens
from tokmigrate.revision.migration import Migration, PlannedOperation
from tokmigrate.vocabulary.token_delta import TokenDelta, token_delta


@dataclass(frozen=True, slots=True)
class AssignedId:
    """An id that an operation gives a token.

    Args:
        token: The token's text.
        id: Its id.
        row: Whether a spare row is used, the matrices grow, or its own row moves with it.
    """

    token: str
    id: int
    row: Literal["spare", "new", "moved"]


@dataclass(frozen=True)
class Applied:
    """One operation between the two states that it leads from and to."""

    planned: PlannedOperation
    before: ModelState = field(repr=False)
    after: ModelState = field(repr=False)

    @cached_property
    def delta(self) -> TokenDelta:
        """What it does to tokens."""
        return token_delta(self.before.tokenizer.ids, self.after.tokenizer.ids)


@dataclass(frozen=True)
class Effect:
    """What one operation does.

    Args:
        operation: Its name.
        place: Where it stands, as `file:line:column`.
        risk: How risky it is, and why.
        unreachable: The tokens that text could produce before it, and cannot produce after it.
        applied: The operation with the states around it.
    """

    operation: str
    place: str
    risk: Risk
    unreachable: tuple[str, ...] = field(repr=False)
    applied: Applied = field(repr=False)

    @cached_property
    def assigned_ids(self) -> tuple[AssignedId, ...]:
        """The ids that it gives: nearly all of them where a vocabulary is compacted."""
        before, after, delta = self.applied.before, self.applied.after, self.applied.delta
        return tuple(
            AssignedId(token, number, "moved" if token in delta.moved else row_of_new(before, after, number))
            for token, number in after.tokenizer.ids.items()
            if token in delta.moved or token in delta.added
        )


@dataclass(frozen=True)
class Step:
    """One migration of a plan.

    Args:
        migration: The migration.
        before: The state that it finds.
        after: The state that it leaves; its edit and its touched files are this step's own.
        applied: Each operation with the states around it.
    """

    migration: Migration
    before: ModelState = field(repr=False)
    after: ModelState = field(repr=False)
    applied: tuple[Applied, ...] = field(default=(), repr=False)

    @cached_property
    def effects(self) -> tuple[Effect, ...]:
        """What each operation does; the tokenizers library is asked where tokens may become unreachable."""
        return tuple(map(_effect, self.applied))


def steps_of(
    state: ModelState,
    migrations: Sequence[Migration],
    finish: Callable[[ModelState, ModelState], ModelState],
) -> tuple[Step, ...]:
    """Return the steps that apply `migrations`, in order.

    Args:
        state: The state before the first.
        migrations: What is to be applied.
        finish: From the states before and after one, the state after it with what follows from both.

    Raises:
        OperationError: A precondition does not hold, or an operation cannot be applied.
    """
    steps: list[Step] = []
    for migration in migrations:
        before = state.settled()
        _check_preconditions(migration, before)
        applied = tuple(_apply(migration, before))
        state = finish(before, applied[-1].after if applied else before)
        steps.append(Step(migration, before, state, applied))
    return tuple(steps)


def _apply(migration: Migration, state: ModelState) -> Iterator[Applied]:
    for planned in migration.recorded(state.tokenizer):
        source = planned.origin or migration
        reached = _next(planned, state, Context(source.revision, source.init, migration.attachments))
        yield Applied(planned, state, reached)
        state = reached


def _effect(applied: Applied) -> Effect:
    operation = applied.planned.operation
    lost = () if operation.keeps_reachable else unreachable_tokens(applied.before, applied.after)
    risk = operation.risk(applied.before, applied.after)
    return Effect(operation.name, applied.planned.place, _with_unreachable(risk, lost), lost, applied)


def _with_unreachable(risk: Risk, lost: tuple[str, ...]) -> Risk:
    if not lost:
        return risk
    level = RiskLevel.CAUTION if risk.level is RiskLevel.SAFE else risk.level
    count = format_count(len(lost), "token")
    return Risk(level, f"{risk.reason}; no text produces {count} any more: {format_quoted(lost)}")


def row_of_new(before: ModelState, after: ModelState, number: int) -> Literal["spare", "new"]:
    """Return whether the row of a new token is one that was spare, or one more.

    Args:
        before: The state without the token.
        after: The state with it.
        number: Its id.
    """
    is_there = number < before.rows and (number not in before.tokenizer.texts or after.rows <= before.rows)
    return "spare" if is_there else "new"


def _next(planned: PlannedOperation, state: ModelState, context: Context) -> ModelState:
    try:
        return planned.operation.apply(state, context)
    except TokmigrateError as error:
        error.where = planned.place if error.where is None else f"{planned.place}, {error.where}"
        raise


def _check_preconditions(migration: Migration, state: ModelState) -> None:
    for condition in migration.preconditions:
        reason = condition.find_fault(state)
        if reason is not None:
            raise OperationError(
                f"a precondition does not hold: {reason}", where=migration.shown, hint="migrate another model"
            )

"""The steps of a plan: what each migration makes of the state that it finds, and its ids against those of the lock."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from tokmigrate.errors import OperationError, TokmigrateError
from tokmigrate.formatting import format_count, format_quoted
from tokmigrate.model.documents.state import ModelState
from tokmigrate.model.snapshot import Snapshot
from tokmigrate.operations.operation import Context, Risk, RiskLevel
from tokmigrate.operations.token_checks import unreachable_tokens
from tokmigrate.revision.lock_file import Lock, LockTrack, PinnedIds, check_fingerprint, check_new_ids
from tokmigrate.revision.migration import Migration, PlannedOperation
from tokmigrate.vocabulary.ids import Ids, Successors, TokenDelta, find_in_place, is_tombstone, token_delta
from tokmigrate.vocabulary.row_edit import RowEdit


@dataclass(frozen=True, slots=True)
class AssignedId:
    """An id that an operation gives a token: for a spare row, a new one, or with its own row, which moves with it."""

    token: str
    id: int
    row: Literal["spare", "new", "moved"]


@dataclass(frozen=True)
class Effect:
    """What one operation does: the operation, and the states that it leads from and to."""

    planned: PlannedOperation
    before: ModelState = field(repr=False)
    after: ModelState = field(repr=False)

    @property
    def operation(self) -> str:
        """The name of the operation."""
        return self.planned.operation.name

    @property
    def place(self) -> str:
        """Where it stands, as `file:line:column`."""
        return self.planned.place

    @cached_property
    def delta(self) -> TokenDelta:
        """What it does to tokens."""
        return token_delta(self.before.tokenizer.ids, self.after.tokenizer.ids, self._find_successors)

    def _find_successors(self, gone: Ids, new: Ids) -> Successors:
        changes = self.planned.operation.token_changes()
        renamed = changes.renamed if changes else {}
        old, now = self.before.edit, self.after.edit
        least = min(old.new_rows, now.new_rows)
        # A new row in the place of an old one is that of another token, unless the operation says that it renames.
        in_place = {
            token: text
            for token, text in find_in_place(gone, new).items()
            if is_tombstone(text)
            or renamed.get(token) == text
            or gone[token] >= least
            or old.row(gone[token]) == now.row(gone[token])
        }
        # A row that moved under another text still has its token.
        held = _find_rows(old, gone) if new else {}
        texts = _find_rows(now, new) if held else {}
        return {held[row]: text for row, text in texts.items() if row in held} | in_place

    @cached_property
    def own_risk(self) -> Risk:
        """How risky the operation says that it is, and why."""
        return self.planned.operation.risk(self.before, self.after)

    @cached_property
    def unreachable(self) -> tuple[str, ...]:
        """The tokens that text could produce before it, and cannot produce after it, as the tokenizers library says."""
        return () if self.planned.operation.keeps_reachable else unreachable_tokens(self.before, self.after)

    @property
    def risk(self) -> Risk:
        """How risky it is, unreachable tokens included, and why."""
        own, lost = self.own_risk, self.unreachable
        if not lost:
            return own
        level = RiskLevel.CAUTION if own.level is RiskLevel.SAFE else own.level
        count = format_count(len(lost), "token")
        return Risk(level, f"{own.reason}; no text produces {count} any more: {format_quoted(lost)}")

    @cached_property
    def assigned_ids(self) -> tuple[AssignedId, ...]:
        """The ids that it gives: nearly all of them where a vocabulary is compacted."""
        added, before, after = self.delta.added, self.before.tokenizer.ids, self.after.tokenizer.ids
        moved = {*self.delta.moved, *(new for old, new in self.delta.renamed.items() if before[old] != after[new])}
        return tuple(
            AssignedId(token, number, "moved" if token in moved else row_of_new(self.before, self.after, number))
            for token, number in after.items()
            if token in moved or token in added
        )


def _find_rows(edit: RowEdit, ids: Ids) -> dict[int, str]:
    """Return the tokens that have a row of the model as it was, by that row."""
    found = ((edit.row(number), token) for token, number in ids.items() if number < edit.new_rows)
    return {row: token for row, token in found if isinstance(row, int)}


@dataclass(frozen=True)
class Step:
    """One migration of a plan; the edit and the touched files of the state after it are this step's own."""

    migration: Migration
    before: ModelState = field(repr=False)
    after: ModelState = field(repr=False)
    effects: tuple[Effect, ...] = field(default=(), repr=False)

    @cached_property
    def delta(self) -> TokenDelta:
        """What the migration does to tokens, whatever its operations do to them on the way."""
        return token_delta(self.before.tokenizer.ids, self.after.tokenizer.ids, self._find_successors)

    def _find_successors(self, _gone: Ids, _new: Ids) -> Successors:
        found: dict[str, str] = {}
        for effect in self.effects:
            delta = effect.delta
            now = {**delta.renamed, **delta.placeholders}
            reached = {*found.values()}
            found = {
                token: now.get(text, text) for token, text in found.items() if text in now or text not in delta.removed
            }
            found |= {token: text for token, text in now.items() if token not in reached}
        return found


def _keep(_before: ModelState, after: ModelState) -> ModelState:
    return after


def steps_of(
    state: ModelState, migrations: Sequence[Migration], finish: Callable[[ModelState, ModelState], ModelState] = _keep
) -> tuple[Step, ...]:
    """Return the steps that apply `migrations`, in order.

    `finish` returns, from the states before and after one, the state after it with what follows from both; by default
    that is the state after it.
    Raises OperationError where a precondition does not hold, or an operation cannot be applied.
    """
    steps: list[Step] = []
    for migration in migrations:
        before = state.settle()
        for condition in migration.preconditions:
            reason = condition.find_fault(before)
            if reason is not None:
                raise OperationError(
                    f"a precondition does not hold: {reason}",
                    where=migration.shown,
                    hint="correct it; a migration for some models only names them under `models:`",
                )
        effects = tuple(_apply(migration, before))
        state = finish(before, effects[-1].after if effects else before)
        steps.append(Step(migration, before, state, effects))
    return tuple(steps)


def _apply(migration: Migration, state: ModelState) -> Iterator[Effect]:
    for planned in migration.record_operations(state.tokenizer):
        source = planned.origin or migration
        try:
            reached = planned.operation.apply(state, Context(source.revision, source.init, migration.attachments))
        except TokmigrateError as error:
            error.where = planned.place if error.where is None else f"{planned.place}, {error.where}"
            raise
        yield Effect(planned, state, reached)
        state = reached


def row_of_new(before: ModelState, after: ModelState, number: int) -> Literal["spare", "new"]:
    """Return whether the row of a new token, which only the second state has, was a spare one, or is one more."""
    is_there = number < before.rows and (number not in before.tokenizer.texts or after.rows <= before.rows)
    return "spare" if is_there else "new"


def compute_pins(steps: Sequence[Step]) -> Iterator[tuple[str, PinnedIds]]:
    """Yield for each step the fingerprint of the tokenizer before it, and the ids that it gives."""
    here, document = "", None
    for step in steps:
        before, after = step.before.tokenizer, step.after.tokenizer
        # A digest of all tokens takes its time, and many migrations leave the file as it is.
        if before.document is not document:
            here = before.fingerprint
        reached = here if after.document is before.document else after.fingerprint
        new = ((number, token) for token, number in after.ids.items() if token not in before.ids)
        yield here, PinnedIds(step.migration.revision, reached, tuple(sorted(new)))
        here, document = reached, after.document


def track_before(snapshot: Snapshot, applied: Sequence[Migration], lock: Lock | None) -> LockTrack | None:
    """Return the way that a model has come with the migrations that it has; None where the lock does not know it."""
    if not applied:
        return LockTrack(snapshot.state.tokenizer.fingerprint)
    come = tuple(migration.revision for migration in applied)
    base = snapshot.stamp.tokenizer if snapshot.stamp else None
    for track in lock.tracks if lock else ():
        if track.revisions[: len(come)] == come:
            pins = track.pins[: len(come)]
            here = snapshot.state.tokenizer.fingerprint
            # A stamp that does not name its base says no more than what the tokenizer is now.
            if track.fingerprint == base or (base is None and pins[-1].fingerprint == here):
                return LockTrack(track.fingerprint, pins)
    return None


def track_after(before: LockTrack, steps: Sequence[Step]) -> LockTrack:
    """Return the way of a model with the steps of a plan after it."""
    return LockTrack(before.fingerprint, (*before.pins, *(pinned for _, pinned in compute_pins(steps))))


def check_pins(lock: Lock, before: LockTrack, steps: Sequence[Step]) -> tuple[str, ...]:
    """Return the revisions of a plan that nothing is pinned for; raises DriftError where an id is not the pinned one.

    `before` is the way that the model has come.
    """
    come = list(before.revisions)
    expected = before.pins[-1].fingerprint if before.pins else before.fingerprint
    open_ones: list[str] = []
    for here, found in compute_pins(steps):
        come.append(found.revision)
        pinned = lock.find_pins(before.fingerprint, come)
        if pinned is None:
            open_ones.append(found.revision)
            continue
        check_new_ids(pinned, found)
        # Tokens that were changed outside tokmigrate are not due to this migration.
        if here == expected:
            check_fingerprint(pinned, found)
        expected = pinned.fingerprint
    return tuple(open_ones)

"""The plan of an upgrade: which state each migration leads to, and what that means for files and rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from tokmigrate.errors import DriftError, OperationError, TokmigrateError, nearest
from tokmigrate.model.json_text import Layout
from tokmigrate.model.references import unknown_references
from tokmigrate.model.snapshot import Snapshot
from tokmigrate.model.state import ModelState
from tokmigrate.model.vocabulary_tensor import VocabularyTensor
from tokmigrate.operations.base import Context, Risk
from tokmigrate.plan.conditions import unmet
from tokmigrate.revision.migration import Migration
from tokmigrate.revision.planned import PlannedOperation
from tokmigrate.settings import ModelEntry
from tokmigrate.vocabulary.rows import RowEdit

FileFate = Literal["new", "changed", "removed"]


@dataclass(frozen=True)
class Given:
    """An id that a token gets.

    Args:
        token: The token's text.
        id: Its id.
        row: Whether a spare row is used, the matrices grow, or its own row moves with it.
    """

    token: str
    id: int
    row: Literal["spare", "new", "moved"]


@dataclass(frozen=True)
class Effect:
    """What one operation does.

    Args:
        operation: Its name.
        place: Where it stands, as `file:line:column`.
        risk: How risky it is, and why.
        given: The ids that it gives.
    """

    operation: str
    place: str
    risk: Risk
    given: tuple[Given, ...]


@dataclass(frozen=True)
class Step:
    """One migration of a plan.

    Args:
        migration: The migration.
        before: The state that it finds.
        after: The state that it leaves; its edit and its touched files are this step's own.
        effects: What each operation does.
    """

    migration: Migration
    before: ModelState
    after: ModelState
    effects: tuple[Effect, ...]


@dataclass(frozen=True)
class FileChange:
    """A file that a change writes or removes, with its bytes afterwards."""

    name: str
    fate: FileFate
    bytes: int


@dataclass(frozen=True)
class Plan:
    """An upgrade of one model.

    Args:
        model: The model's name in the workspace.
        snapshot: The model as it is.
        steps: The pending migrations, in order; without any there is nothing to do.
        adapters: The adapters that the workspace lists for it.
    """

    model: str
    snapshot: Snapshot
    steps: tuple[Step, ...]
    adapters: tuple[str, ...] = ()

    @property
    def before(self) -> str | None:
        """The revision before, None for `base`."""
        return self.snapshot.revision

    @property
    def after(self) -> str | None:
        """The revision afterwards."""
        return self.steps[-1].migration.revision if self.steps else self.before

    @property
    def final(self) -> ModelState:
        """The state at the end."""
        return self.steps[-1].after if self.steps else self.snapshot.state

    @cached_property
    def edits(self) -> tuple[RowEdit, ...]:
        """For each step the rows after it in terms of the rows on disk."""
        edits: list[RowEdit] = []
        edit = RowEdit.identity(self.snapshot.state.rows)
        for step in self.steps:
            edit = edit.then(step.after.edit)
            edits.append(edit)
        return tuple(edits)

    @property
    def edit(self) -> RowEdit:
        """The rows at the end in terms of the rows on disk."""
        return self.edits[-1] if self.edits else RowEdit.identity(self.snapshot.state.rows)

    @property
    def touched(self) -> frozenset[str]:
        """The documents that any step changes."""
        return frozenset().union(*(step.after.touched for step in self.steps))

    @property
    def writes_rows(self) -> bool:
        """Whether shards are written."""
        return any(not step.after.edit.is_identity for step in self.steps)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know before it is carried out."""
        notes = list(self.snapshot.notes)
        if self.adapters:
            named = ", ".join(self.adapters)
            notes.append(f"its adapters are not changed with it: train or check them anew ({named})")
        notes += unknown_references(self.final)
        if self.snapshot.weights.unread:
            notes.append(f"not looked at: {', '.join(self.snapshot.weights.unread)}")
        return tuple(notes)

    def file_changes(self) -> tuple[FileChange, ...]:
        """Return the files that will be written or removed, without the stamp."""
        return tuple(self._changes())

    def _changes(self) -> Iterator[FileChange]:
        for name in sorted(self.touched):
            data = rendered(self.snapshot, self.final, name)
            there = name in self.snapshot.texts
            if data is None:
                if there:
                    yield FileChange(name, "removed", 0)
            else:
                yield FileChange(name, "changed" if there else "new", len(data))
        if self.writes_rows:
            for file in self.snapshot.vocabulary_shards:
                shard = self.snapshot.weights.shard(file)
                delta = sum(_grown(tensor, self.edit) * tensor.row_bytes for tensor in self.snapshot.in_shard(file))
                yield FileChange(file, "changed", shard.size + delta)

    @property
    def bytes_to_write(self) -> int:
        """The bytes of all files that will be written."""
        return sum(change.bytes for change in self.file_changes())


def rendered(snapshot: Snapshot, state: ModelState, name: str) -> bytes | None:
    """Return the bytes of the document `name` in `state`; an untouched one is as on disk."""
    if name not in state.documents:
        return None
    value = state.documents[name]
    if value is snapshot.state.documents.get(name):
        return snapshot.texts[name]
    if isinstance(value, str):
        return value.encode("utf-8")
    return layout(snapshot, name).render(value).encode("utf-8")


def layout(snapshot: Snapshot, name: str) -> Layout:
    """Return the layout in which a JSON file is written."""
    recorded = snapshot.stamp.files.get(name) if snapshot.stamp else None
    return snapshot.layouts.get(name) or (recorded.layout if recorded else None) or Layout()


def check_applied(snapshot: Snapshot, chain: Sequence[Migration]) -> tuple[Migration, ...]:
    """Return the migrations of `chain` that the model has, after checking that none was edited since.

    Raises:
        DriftError: One was edited, or the model has a revision that the workspace does not know.
    """
    if snapshot.stamp is None:
        return ()
    known = {migration.revision: migration for migration in chain}
    applied: list[Migration] = []
    for revision, checksum in snapshot.stamp.applied:
        migration = known.get(revision)
        if migration is None:
            raise DriftError(
                f"the model has revision {revision}, which is not among the migrations",
                where=str(snapshot.directory),
                hint=nearest(revision, known) or "fetch the branch that has it",
            )
        if migration.checksum != checksum:
            raise DriftError(
                f"migration {revision} was edited after it was applied",
                where=migration.shown,
                hint="put it back as it was, and say what you want in a new migration",
            )
        applied.append(migration)
    return tuple(applied)


def plan_upgrade(entry: ModelEntry, snapshot: Snapshot, migrations: Sequence[Migration]) -> Plan:
    """Return the plan that applies `migrations`, in order, to a model.

    Raises:
        OperationError: A precondition does not hold, or an operation cannot be applied.
    """
    state = snapshot.state
    steps: list[Step] = []
    for migration in migrations:
        before = state.settled()
        _check_preconditions(migration, before)
        after, effects = _applied(migration, before)
        after = _with_index_sizes(snapshot, after)
        steps.append(Step(migration, before, after, effects))
        state = after
    return Plan(entry.name, snapshot, tuple(steps), tuple(str(path) for path in entry.adapters))


def _applied(migration: Migration, before: ModelState) -> tuple[ModelState, tuple[Effect, ...]]:
    context = Context(migration.revision, migration.init, migration.attachments)
    state = before
    effects: list[Effect] = []
    for planned in migration.recorded(before.tokenizer):
        reached = _next(planned, state, context)
        given = tuple(
            Given(token, number, _row(state, token, number))
            for token, number in reached.tokenizer.ids.items()
            if state.tokenizer.ids.get(token) != number
            # An id that has a token already is given to no new one: that token was renamed.
            and (token in state.tokenizer.ids or number not in state.tokenizer.texts)
        )
        risk = planned.operation.risk(state, reached)
        effects.append(Effect(planned.operation.name, planned.place, risk, given))
        state = reached
    return state, tuple(effects)


def _row(state: ModelState, token: str, number: int) -> Literal["spare", "new", "moved"]:
    if token in state.tokenizer.ids:
        return "moved"
    return "spare" if number < state.rows else "new"


def _next(planned: PlannedOperation, state: ModelState, context: Context) -> ModelState:
    try:
        return planned.operation.apply(state, context)
    except TokmigrateError as error:
        error.where = planned.place if error.where is None else f"{planned.place}, {error.where}"
        raise


def _check_preconditions(migration: Migration, state: ModelState) -> None:
    for condition in migration.preconditions:
        reason = unmet(condition, state)
        if reason is not None:
            raise OperationError(
                f"a precondition does not hold: {reason}", where=migration.shown, hint="migrate another model"
            )


def _with_index_sizes(snapshot: Snapshot, state: ModelState) -> ModelState:
    """Return the state with the index's totals as the rows want them."""
    index = snapshot.weights.index
    if index is None or state.edit.new_rows == state.edit.old_rows:
        return state
    metadata = state.documents[index].get("metadata") or {}
    if "total_size" in metadata:
        size = metadata["total_size"] + sum(_grown(t, state.edit) * t.row_bytes for t in snapshot.tensors)
        state = state.with_value(index, ("metadata", "total_size"), size)
    if "total_parameters" in metadata:
        own = [tensor for tensor in snapshot.tensors if tensor.canonical == tensor.name]
        total = metadata["total_parameters"] + sum(_grown(t, state.edit) * t.width for t in own)
        state = state.with_value(index, ("metadata", "total_parameters"), total)
    return state


def _grown(tensor: VocabularyTensor, edit: RowEdit) -> int:
    """Return how many rows a tensor has more after `edit`."""
    return tensor.window.rows(edit.new_rows) - tensor.window.rows(edit.old_rows)

"""The plan of an upgrade: what its migrations mean for the files and rows of a model, and of its adapters."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from pathlib import Path
from threading import RLock
from typing import Literal

from blake3 import blake3

from tokmigrate.errors import OperationError, OutOfStepError, TokmigrateError
from tokmigrate.memo import Memo
from tokmigrate.model.adapter import with_adapter_ids
from tokmigrate.model.documents.pipeline_overrides import find_added_on_loading
from tokmigrate.model.documents.slow_tokenizer_files import slow_tokenizer_notes
from tokmigrate.model.documents.state import ModelState
from tokmigrate.model.formats.gguf import Head
from tokmigrate.model.formats.json_text import Parts
from tokmigrate.model.gguf_copy import GgufCopy
from tokmigrate.model.references.references import unknown_references
from tokmigrate.model.snapshot import Snapshot
from tokmigrate.model.weights.vocabulary_tensor import VocabularyTensor
from tokmigrate.model.weights.weights import INDEX
from tokmigrate.operations.operation import RiskLevel
from tokmigrate.plan.shard_layout import (
    VOCABULARY_SHARD,
    ShardLayout,
    describe_isolation,
    isolate_vocabulary,
    lay_out_shards,
    refuse_taken_names,
)
from tokmigrate.plan.steps import Step, steps_of
from tokmigrate.plan.token_changes import TokenChange, token_changes
from tokmigrate.revision.migration import Migration
from tokmigrate.settings import ModelEntry
from tokmigrate.vocabulary.ids import count
from tokmigrate.vocabulary.row_edit import RowEdit


@dataclass(frozen=True)
class FileChange:
    """A file that a change writes or removes, with its bytes afterwards."""

    name: str
    kind: Literal["new", "changed", "removed"]
    bytes: int


@dataclass
class _Derived:
    """What was computed from the steps of a plan; plans that have the steps in common share it.

    Args:
        parts: What `Layout.encode` keeps, by the name of a document.
    """

    lock: RLock = field(default_factory=RLock)
    edits: tuple[RowEdit, ...] | None = None
    tokens: tuple[TokenChange, ...] | None = None
    layouts: Mapping[str, ShardLayout] | None = None
    parts: defaultdict[str, Parts] = field(default_factory=lambda: defaultdict(dict))


@dataclass(frozen=True)
class CopyPlan:
    """The upgrade of a GGUF; `heads` are its heads after each step of the plan of its model."""

    copy: GgufCopy
    heads: tuple[Head, ...] = field(repr=False)

    @property
    def bytes(self) -> int:
        """The size of the file afterwards."""
        return self.heads[-1].file_size


@dataclass(frozen=True)
class Plan:
    """An upgrade of one model.

    Args:
        model: The model's name in the workspace; an adapter goes by its directory.
        snapshot: The model as it is.
        steps: The pending migrations, in order; without any there is nothing to do.
        copies: The GGUFs that change with it.
        remarks: What else a user should know of it.
    """

    model: str
    snapshot: Snapshot = field(repr=False)
    steps: tuple[Step, ...]
    adapters: tuple[Plan, ...] = ()
    copies: tuple[CopyPlan, ...] = ()
    remarks: tuple[str, ...] = ()
    _derived: _Derived = field(default_factory=_Derived, repr=False, compare=False)

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

    @property
    def edits(self) -> tuple[RowEdit, ...]:
        """For each step the rows after it in terms of the rows on disk."""
        with self._derived.lock:
            if self._derived.edits is None:
                rows = RowEdit.identity(self.snapshot.state.rows)
                edits = accumulate((step.after.edit for step in self.steps), RowEdit.then, initial=rows)
                self._derived.edits = tuple(edits)[1:]
            return self._derived.edits

    @property
    def edit(self) -> RowEdit:
        """The rows at the end in terms of the rows on disk."""
        return self.edits[-1] if self.edits else RowEdit.identity(self.snapshot.state.rows)

    @property
    def tokens(self) -> tuple[TokenChange, ...]:
        """What happens to the tokens from now to the end, each once."""
        with self._derived.lock:
            if self._derived.tokens is None:
                self._derived.tokens = token_changes(self.steps, self.edit)
            return self._derived.tokens

    @property
    def touched(self) -> frozenset[str]:
        """The documents that any step changes."""
        return frozenset().union(*(step.after.touched for step in self.steps))

    @property
    def writes_rows(self) -> bool:
        """Whether shards are written."""
        return any(not step.after.edit.is_identity for step in self.steps)

    @property
    def shard_layouts(self) -> Mapping[str, ShardLayout]:
        """The shards that are written, as they are at the end, by file."""
        if not self.writes_rows:
            return {}
        with self._derived.lock:
            if self._derived.layouts is None:
                self._derived.layouts = lay_out_shards(self.snapshot, self.snapshot.state, self.final)
            return self._derived.layouts

    @property
    def removed_shards(self) -> frozenset[str]:
        """The shards whose tensors are all written elsewhere."""
        layouts = self.shard_layouts
        return frozenset(name for name in self.snapshot.vocabulary_shards if layouts and name not in layouts)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know before it is applied."""
        unread = ", ".join(self.snapshot.weights.unread)
        return (
            *self.snapshot.notes,
            *find_added_on_loading(self.final),
            *unknown_references(self.final),
            *slow_tokenizer_notes(self.snapshot.state, self.final),
            *([f"not looked at: {unread}"] if unread else []),
            *self._isolation_notes,
            *self.remarks,
        )

    @property
    def _isolation_notes(self) -> Iterator[str]:
        there = self.snapshot.weights.files
        if VOCABULARY_SHARD in self.shard_layouts and VOCABULARY_SHARD not in there:
            yield describe_isolation(self.snapshot) or ""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is probably a mistake, and stops nothing."""
        empty = (step.migration.shown for step in self.steps if not step.effects)
        return tuple(f"{file} has no operations: it changes nothing but the revision" for file in empty)

    def file_changes(self) -> tuple[FileChange, ...]:
        """Return the files that will be written or removed, without the stamp."""
        found: list[FileChange] = []
        for name in sorted(self.touched):
            data = self.render_document(self.final, name)
            is_there = name in self.snapshot.texts
            if data is not None:
                found.append(FileChange(name, "changed" if is_there else "new", len(data)))
            elif is_there:
                found.append(FileChange(name, "removed", 0))
        there = self.snapshot.weights.files
        for name, written in self.shard_layouts.items():
            found.append(FileChange(name, "changed" if name in there else "new", written.header.file_size))
        found += [FileChange(name, "removed", 0) for name in sorted(self.removed_shards)]
        return tuple(found)

    def copy_changes(self) -> tuple[FileChange, ...]:
        """Return the GGUFs that change with the model, by their paths."""
        return tuple(FileChange(str(each.copy.path), "changed", each.bytes) for each in self.copies)

    @property
    def bytes_to_write(self) -> int:
        """The bytes of all files that will be written, those of its adapters and copies too."""
        own = sum(change.bytes for change in self.file_changes())
        return own + sum(each.bytes_to_write for each in self.adapters) + sum(each.bytes for each in self.copies)

    @property
    def lost_rows(self) -> int:
        """How many rows on disk are not there at the end; undo data keeps them."""
        return count(self.edit.find_lost_rows())

    @property
    def bytes_of_lost_rows(self) -> int:
        """The bytes of these rows, in all tensors."""
        return sum(count(tensor.window.lost_rows(self.edit)) * tensor.row_bytes for tensor in self.snapshot.tensors)

    def render_document(self, state: ModelState, name: str) -> bytes | None:
        """Return the bytes of a document in a state, as `render_document` does; large parts are rendered once."""
        with self._derived.lock:
            return render_document(self.snapshot, state, name, self._derived.parts[name])


def render_document(snapshot: Snapshot, state: ModelState, name: str, parts: Parts | None = None) -> bytes | None:
    """Return the bytes of the document `name` in `state`, an untouched one as on disk; `parts` is for `encode`."""
    if name not in state.documents:
        return None
    value = state.documents[name]
    if value is snapshot.state.documents.get(name):
        return snapshot.texts[name]
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode("utf-8")
    return snapshot.layout(name).encode(value, parts)


def plan_upgrade(
    entry: ModelEntry, snapshot: Snapshot, migrations: Sequence[Migration], adapters: Sequence[Snapshot] = ()
) -> Plan:
    """Return the plan that applies `migrations`, in order, to a model and its adapters.

    Raises OperationError where a precondition does not hold, an operation cannot be applied, or one is breaking and not
    acknowledged; WeightsError where a file has a name that a new shard needs.
    """

    def finish(_before: ModelState, after: ModelState) -> ModelState:
        if entry.weights.isolate_vocab and not after.edit.is_identity:
            after = isolate_vocabulary(snapshot, after)
        return with_index_sizes(snapshot, after)

    def compute() -> _Planned:
        steps = steps_of(snapshot.state, migrations, finish)
        _check_acknowledged(steps)
        return _Planned(snapshot.state, steps)

    # The code of a Python migration may look at more than the tokenizer.
    is_pure = all(migration.source is None for migration in migrations)
    planned = _PLANNED.get(_collect_inputs(entry, snapshot, migrations), compute) if is_pure else compute()
    if planned.state is not snapshot.state:
        # The steps are about these documents, by identity.
        snapshot = replace(snapshot, state=planned.state)
    beside = tuple(_plan_adapter(adapter, migrations, planned.steps) for adapter in adapters)
    made = Plan(entry.name, snapshot, planned.steps, beside, _derived=planned.derived)
    refuse_taken_names(snapshot, made.shard_layouts)
    return made


@dataclass(frozen=True)
class _Planned:
    """The steps from a state, and what is derived from them."""

    state: ModelState
    steps: tuple[Step, ...]
    derived: _Derived = field(default_factory=_Derived)


_PLANNED: Memo[_Planned] = Memo(1)
"""For the models of a command that have the same documents and shapes; more would keep more large vocabularies."""


def _collect_inputs(entry: ModelEntry, snapshot: Snapshot, migrations: Sequence[Migration]) -> tuple[object, ...]:
    """Return all that the steps of a plan, and the bytes of their documents, follow from."""
    stamp, state = snapshot.stamp, snapshot.state
    return (
        tuple(migrations),
        replace(entry, name="", path=Path(), adapters=(), copies=(), tags=()),
        # By their bytes: as values 1 and true are equal.
        {name: blake3(data).digest() for name, data in snapshot.texts.items()},
        json.dumps(state.init),
        replace(state, documents={}),
        {name: file.layout for name, file in stamp.files.items()} if stamp else None,
        {name: shard.baseline_start for name, shard in stamp.shards.items()} if stamp else None,
        snapshot.tensors,
        [(shard.file, shard.header.raw) for shard in snapshot.weights.shards],
        snapshot.weights.index,
    )


def _check_acknowledged(steps: Sequence[Step]) -> None:
    """Raise OperationError where an operation is breaking on this model and not acknowledged."""
    for effect in (each for step in steps for each in step.effects):
        operation = effect.planned.operation
        if operation.acknowledge is None and effect.own_risk.level is RiskLevel.BREAKING:
            names = [name for name in type(operation).model_fields if name in operation.model_fields_set]
            fields = ", ".join([*(f"{name}: …" for name in names), "acknowledge: breaking"])
            raise OperationError(
                f"{operation.name} is breaking, and the migration does not acknowledge it: {effect.own_risk.reason}",
                where=effect.place,
                hint=f"if it is intended, add `acknowledge: breaking`, as in `{operation.name}: {{{fields}}}`",
            )


def _plan_adapter(adapter: Snapshot, migrations: Sequence[Migration], steps: Sequence[Step]) -> Plan:
    """Return the plan for an adapter: the same migrations, on the files that it has."""

    def finish(before: ModelState, after: ModelState) -> ModelState:
        after = with_adapter_ids(before, after)
        return replace(after, touched=after.touched.intersection(adapter.texts))

    where = str(adapter.directory)
    try:
        own = steps_of(adapter.state, migrations, finish)
    except TokmigrateError as error:
        error.where = where if error.where is None else f"{where}: {error.where}"
        raise
    if [step.after.edit for step in own] != [step.after.edit for step in steps]:
        raise OutOfStepError(
            "the migrations would change its rows differently from those of its model",
            where=where,
            hint="give the adapter the tokenizer files of its model",
        )
    return Plan(where, adapter, own)


def with_index_sizes(snapshot: Snapshot, state: ModelState) -> ModelState:
    """Return the state with the index's totals as the rows want them."""
    if INDEX not in state.documents or state.edit.new_rows == state.edit.old_rows:
        return state
    metadata = state.documents[INDEX].get("metadata") or {}
    if "total_size" in metadata:
        size = metadata["total_size"] + sum(_growth(t, state.edit) * t.row_bytes for t in snapshot.tensors)
        state = state.with_value(INDEX, ("metadata", "total_size"), size)
    if "total_parameters" in metadata:
        own = [tensor for tensor in snapshot.tensors if tensor.canonical == tensor.name]
        total = metadata["total_parameters"] + sum(_growth(t, state.edit) * t.width for t in own)
        state = state.with_value(INDEX, ("metadata", "total_parameters"), total)
    return state


def _growth(tensor: VocabularyTensor, edit: RowEdit) -> int:
    """Return how many rows a tensor has more after `edit`."""
    return tensor.window.rows(edit.new_rows) - tensor.window.rows(edit.old_rows)


def plan_copy(copy: GgufCopy, steps: Sequence[Step]) -> CopyPlan:
    """Return what migrations make of a GGUF; raises OperationError where one changes what a GGUF cannot express."""
    heads: list[Head] = []
    head = copy.head
    for step in steps:
        head = copy.migrate(head, step.before, step.after, step.migration.revision)
        heads.append(head)
    return CopyPlan(copy, tuple(heads))

"""Gathering the report on one model: from its directory, its migrations and the ledger; nothing is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from tokmigrate.audit.token_history import read_init_records
from tokmigrate.audit.training import OnRecord, training_of, undo_digests
from tokmigrate.errors import TokmigrateError
from tokmigrate.events import BytesStreamed, Listener, StreamStarted, WeightsRead, ignore
from tokmigrate.model.formats.byte_letters import is_byte_level
from tokmigrate.model.snapshot import Snapshot, take_snapshot
from tokmigrate.model.tokenizer.tokenizer_json import FILE
from tokmigrate.plan.progress import Progress, check_progress
from tokmigrate.plan.upgrade import Plan
from tokmigrate.revision.history import History
from tokmigrate.runner.records import events_in_force
from tokmigrate.runner.reporting.concerns import concerns_of
from tokmigrate.runner.reporting.data import Milestone, Recorded, ReportData
from tokmigrate.runner.reporting.lives import lives_of
from tokmigrate.runner.reporting.matrices import matrices, surveyed
from tokmigrate.runner.reporting.tokens import kinds_of, made_rows, readings_of, reported_tokens
from tokmigrate.runner.targets import planned_upgrade
from tokmigrate.settings import ModelEntry, Workspace
from tokmigrate.state.database import open_state_if_present
from tokmigrate.state.objects import ObjectStore
from tokmigrate.state.queries import each_token
from tokmigrate.state.rows import Origin, TokenEvent
from tokmigrate.vocabulary.tokens import expand

COMPARED_AT_MOST = 256
"""How many begun tokens are compared with all others: each costs a product with the whole matrix."""


@dataclass(frozen=True)
class _Ledger:
    """What the ledger knows of a model: how each revision was applied, what befell tokens, and the undo records."""

    recorded: Mapping[str, Recorded]
    events: tuple[TokenEvent, ...]
    undo: Mapping[str, str]


def report_on(workspace: Workspace, entry: ModelEntry, listener: Listener = ignore) -> ReportData:
    """Return the report on a model.

    Each embedding matrix is read once, in blocks; the model is never loaded.

    Args:
        workspace: The workspace.
        entry: The model.
        listener: Told how far the reading is.

    Raises:
        ModelError: The model cannot be worked on.
        DriftError: Its stamp and the migrations do not fit together.
    """
    snapshot = take_snapshot(entry)
    progress = check_progress(snapshot, History.read(workspace).chain_for(entry))
    ledger = _ledger(workspace, snapshot)
    lives = lives_of(ledger.events, (migration.revision for migration in progress.applied))
    kinds = tuple(kinds_of(snapshot, lives))
    texts = snapshot.state.tokenizer.texts
    # New rows that start alike would only name each other.
    old = set(expand(snapshot.state.population))
    live = [number for number in texts if number in old and kinds[number] != "tombstone"]
    begun = [number for number, made in made_rows(snapshot).items() if number in texts and kinds[number] != "tombstone"]
    listener(StreamStarted(entry.name, sum(tensor.geometry.size for tensor in matrices(snapshot)), "reading"))
    found = surveyed(
        snapshot, begun, begun[:COMPARED_AT_MOST], live, lambda count: listener(BytesStreamed(entry.name, count))
    )
    listener(WeightsRead(entry.name))
    known = OnRecord(read_init_records(ledger.events), ledger.undo, ObjectStore(workspace.objects))
    training = {token.id: token for token in training_of(snapshot, known)}
    tokens = tuple(
        replace(token, neighbours=found.nearest.get(token.id, ()), twins=found.twins.get(token.id, 0))
        if token.id is not None
        else token
        for token in reported_tokens(snapshot, lives, kinds, training)
    )
    plan = _planned(workspace, entry, snapshot) if progress.pending else None
    return ReportData(
        model=entry.name,
        path=_shown(entry.path, workspace.root),
        revision=snapshot.revision,
        lineage=snapshot.stamp.lineage if snapshot.stamp else None,
        made=datetime.now(UTC),
        rows=snapshot.state.rows,
        tied=snapshot.state.traits.tied,
        byte_level=is_byte_level(snapshot.state.documents[FILE]),
        texts=texts,
        readings=readings_of(snapshot),
        timeline=tuple(_timeline(progress, ledger, plan)),
        tokens=tokens,
        kinds=kinds,
        norms=found.norms,
        unlooked=max(0, len(begun) - COMPARED_AT_MOST),
        concerns=concerns_of(entry, snapshot, tokens, found.norms, plan),
    )


def _planned(workspace: Workspace, entry: ModelEntry, snapshot: Snapshot) -> Plan | TokmigrateError:
    """Return what bringing it to the head means, or why that cannot be."""
    try:
        return planned_upgrade(workspace, entry, snapshot, "head")
    except TokmigrateError as error:
        return error


def _ledger(workspace: Workspace, snapshot: Snapshot) -> _Ledger:
    """Return what the ledger knows of a model; nothing where it has none, or one of another baseline at this place."""
    state = open_state_if_present(workspace.state, workspace.root)
    model = state.model_at(snapshot.directory, snapshot.generation) if state else None
    if state is None or model is None or snapshot.stamp is None:
        return _Ledger({}, (), {})
    operations = {operation.id: operation for operation in state.runs(model, None)}
    generations = {operation.generation_after for operation in operations.values()}
    if model.lineage != snapshot.stamp.lineage and snapshot.stamp.generation not in generations:
        return _Ledger({}, (), {})
    rows = state.applied_now(model)
    recorded = {
        row.record.revision: Recorded(row.applied_at, operations[row.run_id].provenance, row.origin is Origin.ADOPTED)
        for row in rows
    }
    return _Ledger(recorded, tuple(row.event for row in each_token(events_in_force(state, model))), undo_digests(rows))


def _shown(path: Path, root: Path) -> str:
    """Return a path relative to the workspace where it is in it."""
    return str(path.relative_to(root) if path.is_relative_to(root) else path)


def _timeline(progress: Progress, ledger: _Ledger, plan: Plan | TokmigrateError | None) -> Iterator[Milestone]:
    effects = {step.migration.revision: step.effects for step in plan.steps} if isinstance(plan, Plan) else {}
    counts: dict[str, Counter[str]] = {}
    for event in ledger.events:
        counts.setdefault(event.revision, Counter())[event.event.value] += 1
    for migration in (*progress.applied, *progress.pending):
        yield Milestone(
            migration.revision,
            migration.message,
            migration.author,
            migration.shown,
            migration in progress.applied,
            ledger.recorded.get(migration.revision),
            dict(counts.get(migration.revision, {})),
            effects.get(migration.revision, ()),
        )

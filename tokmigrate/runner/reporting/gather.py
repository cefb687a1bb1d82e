"""Gathering the report on one model: from its directory, its migrations and the ledger; nothing is written."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from tokmigrate.errors import TokmigrateError
from tokmigrate.events import BytesStreamed, Listener, StreamStarted, ignore
from tokmigrate.model.byte_letters import is_byte_level
from tokmigrate.model.roles import ROLES, special_token
from tokmigrate.model.snapshot import Snapshot, take_snapshot
from tokmigrate.model.state import Made
from tokmigrate.model.tokenizer import FILE, FLAGS
from tokmigrate.model.tombstones import is_tombstone
from tokmigrate.plan.upgrade import Plan, check_applied
from tokmigrate.revision.history import History
from tokmigrate.revision.migration import Migration
from tokmigrate.runner.records import events_in_force
from tokmigrate.runner.reporting.concerns import concerns_of
from tokmigrate.runner.reporting.data import Kind, Milestone, Recorded, ReportData, ReportedToken
from tokmigrate.runner.reporting.lives import Life, Lives, lives_of
from tokmigrate.runner.reporting.matrices import matrices, surveyed
from tokmigrate.runner.reporting.untrained import birth, untrained_tokens
from tokmigrate.runner.targets import chain_for, planned_upgrade
from tokmigrate.settings import ModelEntry, Workspace
from tokmigrate.state.database import open_state_if_present
from tokmigrate.state.rows import Happened, Origin, TokenEvent

COMPARED_AT_MOST = 256
"""How many begun tokens are compared with all others: each costs a product with the whole matrix."""

_KIND_OF: Mapping[Happened, Kind] = {
    Happened.ADDED: "added",
    Happened.REINITIALISED: "reinitialised",
    Happened.RENAMED: "renamed",
    Happened.MOVED: "moved",
}
"""The first of these that befell a token is what it is shown as."""


@dataclass(frozen=True)
class _Ledger:
    """What the ledger knows of a model: how each revision was applied, and what befell tokens."""

    recorded: Mapping[str, Recorded]
    events: tuple[TokenEvent, ...]


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
    chain = chain_for(History.read(workspace), entry)
    applied = check_applied(snapshot, chain)
    ledger = _ledger(workspace, entry)
    lives = lives_of(ledger.events, (migration.revision for migration in applied))
    kinds = tuple(_kinds(snapshot, lives))
    texts = snapshot.state.tokenizer.texts
    live = [number for number in texts if kinds[number] != "tombstone"]
    begun = [number for number, made in _made(snapshot).items() if number in texts and kinds[number] != "tombstone"]
    listener(StreamStarted(entry.name, sum(tensor.geometry.size for tensor in matrices(snapshot))))
    norms, nearest = surveyed(
        snapshot, begun, begun[:COMPARED_AT_MOST], live, lambda count: listener(BytesStreamed(entry.name, count))
    )
    tokens = tuple(
        replace(token, neighbours=nearest.get(token.id, ())) if token.id is not None else token
        for token in _tokens(snapshot, lives, kinds, untrained_tokens(snapshot, ledger.events))
    )
    pending = tuple(migration for migration in chain if migration not in applied)
    plan = _planned(workspace, entry, snapshot) if pending else None
    return ReportData(
        model=entry.name,
        path=os.path.relpath(entry.path, workspace.root),
        revision=snapshot.revision,
        lineage=snapshot.stamp.lineage if snapshot.stamp else None,
        made=datetime.now(UTC),
        rows=snapshot.state.rows,
        tied=snapshot.state.traits.tied,
        byte_level=is_byte_level(snapshot.state.documents[FILE]),
        texts=texts,
        timeline=tuple(_timeline(applied, pending, ledger, plan)),
        tokens=tokens,
        kinds=kinds,
        norms=norms,
        unlooked=max(0, len(begun) - COMPARED_AT_MOST),
        concerns=concerns_of(entry, snapshot, tokens, norms, plan),
    )


def _planned(workspace: Workspace, entry: ModelEntry, snapshot: Snapshot) -> Plan | TokmigrateError:
    """Return what bringing it to the head means, or why that cannot be."""
    try:
        return planned_upgrade(workspace, entry, snapshot, "head")
    except TokmigrateError as error:
        return error


def _ledger(workspace: Workspace, entry: ModelEntry) -> _Ledger:
    """Return what the ledger knows of a model; nothing where there is no ledger, or none of its rows is of it."""
    state = open_state_if_present(workspace.state, workspace.root)
    place = os.path.realpath(entry.path)
    model = next((model for model in state.known_models() if model.path == place), None) if state else None
    if state is None or model is None:
        return _Ledger({}, ())
    recorded = {}
    for row in state.applied_now(model):
        operation = state.operation(row.operation_id)
        who = operation.who if operation else None
        recorded[row.record.revision] = Recorded(row.applied_at, who, row.origin is Origin.ADOPTED)
    return _Ledger(recorded, tuple(row.event for row in events_in_force(state, model)))


def _made(snapshot: Snapshot) -> dict[int, Made]:
    """Return the rows that migrations made, as the stamp remembers them."""
    return {row: made for row, made in snapshot.state.lineage.fresh() if isinstance(made, Made)}


def _kinds(snapshot: Snapshot, lives: Lives) -> Iterator[Kind]:
    """Yield what is at each id, from 0; where the ledger is silent, the stamp tells what is not of the baseline."""
    state = snapshot.state
    texts, made = state.tokenizer.texts, _made(snapshot)
    moved = {
        row for start, piece in state.lineage.kept() if piece.start != start for row in range(start, start + len(piece))
    }
    for number in range(max(state.rows, max(texts, default=-1) + 1)):
        text = texts.get(number)
        life = {event.event for event in lives.by_id.get(number, ())}
        if text is None:
            yield "spare"
        elif is_tombstone(text):
            yield "tombstone"
        else:
            told = next((kind for happened, kind in _KIND_OF.items() if happened in life), None)
            yield told or ("added" if number in made else "moved" if number in moved else "base")


def _tokens(
    snapshot: Snapshot, lives: Lives, kinds: tuple[Kind, ...], untrained: frozenset[str]
) -> Iterator[ReportedToken]:
    """Yield the tokens that migrations touched and all added ones, by id, then those that are gone."""
    tokenizer, made = snapshot.state.tokenizer, _made(snapshot)
    roles = _roles(snapshot)
    for number, text in sorted(tokenizer.texts.items()):
        added = tokenizer.token(text)
        if kinds[number] == "base" and added is None and text not in roles:
            continue
        life = lives.by_id.get(number, ())
        known = birth(life) is not None
        revision = life[-1].revision if life else made[number].revision if number in made else None
        yield ReportedToken(
            text,
            number,
            kinds[number],
            tuple(flag for flag in FLAGS if added is not None and getattr(added, flag)),
            roles.get(text, ()),
            life,
            revision,
            text not in untrained if known else None,
        )
    buried = {removal for number, life in lives.by_id.items() if kinds[number] == "tombstone" for removal in _end(life)}
    for life in lives.removed:
        if not buried.intersection(_end(life)):
            yield ReportedToken(life[-1].token, None, "removed", (), (), life, life[-1].revision, None)


def _end(life: Life) -> list[tuple[str, str]]:
    """Return the removal in a life, as revision and token."""
    return [(event.revision, event.token) for event in life if event.event is Happened.REMOVED]


def _roles(snapshot: Snapshot) -> dict[str, tuple[str, ...]]:
    """Return the special roles of each token that has one."""
    found: dict[str, tuple[str, ...]] = {}
    for role in ROLES:
        text = special_token(snapshot.state, role)
        if text is not None:
            found[text] = (*found.get(text, ()), role)
    return found


def _timeline(
    applied: Iterable[Migration], pending: Iterable[Migration], ledger: _Ledger, plan: Plan | TokmigrateError | None
) -> Iterator[Milestone]:
    effects = {step.migration.revision: step.effects for step in plan.steps} if isinstance(plan, Plan) else {}
    counts: dict[str, Counter[str]] = {}
    for event in ledger.events:
        counts.setdefault(event.revision, Counter())[event.event.value] += 1
    done = tuple(applied)
    for migration in (*done, *pending):
        yield Milestone(
            migration.revision,
            migration.message,
            migration.author,
            migration.shown,
            migration in done,
            ledger.recorded.get(migration.revision),
            dict(counts.get(migration.revision, {})),
            effects.get(migration.revision, ()),
        )

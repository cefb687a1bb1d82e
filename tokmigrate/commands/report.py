"""Collect the report on one model as one JSON document, from its directory, its migrations and the ledger."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from typing import Any, Literal, get_args

from tokmigrate.audit.drift import list_changed_documents
from tokmigrate.audit.run_status import find_lock_holder
from tokmigrate.audit.token_history import TokenHistory, read_init_records, read_token_histories
from tokmigrate.audit.training import OnRecord, TokenTraining, Training, training_of, undo_digests
from tokmigrate.commands.evaluations import read_evaluation
from tokmigrate.commands.models import format_path
from tokmigrate.commands.plan import plan_or_reuse
from tokmigrate.commands.records import list_events_in_force
from tokmigrate.commands.row_survey import COMPARED_AT_MOST, embedding_matrices, survey_matrices
from tokmigrate.errors import TokmigrateError
from tokmigrate.events import OnProgress, no_progress, report_activity
from tokmigrate.init.file_strategy import find_provenance
from tokmigrate.model.documents.roles import ROLES, special_token
from tokmigrate.model.documents.state import Made
from tokmigrate.model.references.references import unknown_references
from tokmigrate.model.snapshot import Snapshot, take_snapshot
from tokmigrate.model.tokenizer.byte_level import is_byte_level, text_of_letters
from tokmigrate.model.tokenizer.tokenizer_json import FILE, FLAGS
from tokmigrate.operations.operation import RiskLevel
from tokmigrate.plan.plan import Plan
from tokmigrate.plan.progress import Progress, check_progress
from tokmigrate.revision.history import History
from tokmigrate.revision.migration import Migration
from tokmigrate.settings import ModelEntry, Workspace
from tokmigrate.state.database import open_state_if_present
from tokmigrate.state.objects import ObjectStore
from tokmigrate.state.rows import AppliedRow, Origin, RunRow, TokenEventType, TokenRow
from tokmigrate.vocabulary.ids import expand, is_tombstone

Kind = Literal["base", "added", "renamed", "moved", "reinitialised", "placeholder", "spare"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""What is at an id: a token of the baseline, one that migrations added or changed, or none in use."""

# The first of these events that a token has is its kind.
_KIND_BY_EVENT: Mapping[TokenEventType, Kind] = {
    TokenEventType.ADDED: "added",
    TokenEventType.REINITIALISED: "reinitialised",
    TokenEventType.RENAMED: "renamed",
    TokenEventType.MOVED: "moved",
}
# Of a row whose values came from a file it is not known.
_TRAINED = {Training.TRAINED: True, Training.UNTRAINED: False, Training.MOVED: False, Training.PARTLY: False}

# The letters for space, line feed, tab and carriage return, which readers of vocabularies know.
_WELL_KNOWN = str.maketrans("", "", "ĠĊĉč")


@dataclass(frozen=True, eq=False)
class Report:
    """The report on a model: the document that `report --json` prints, and by id the texts of all tokens.

    `readings` is what a token stands for, where the vocabulary writes it in unreadable characters.
    """

    document: dict[str, Any]
    texts: Mapping[int, str]
    readings: Mapping[int, str]


_Ledger = tuple[Sequence[AppliedRow], Mapping[str, RunRow], Sequence[TokenRow]]
"""What the ledger has of a model: its applied revisions, the runs by id, and the token events in force."""


def collect_report(workspace: Workspace, entry: ModelEntry, on_progress: OnProgress = no_progress) -> Report:
    """Return the report on a model; each embedding matrix is read once, in blocks, and nothing is written."""
    snapshot = take_snapshot(entry)
    state, texts = snapshot.state, snapshot.state.tokenizer.texts
    progress = check_progress(snapshot, History.read(workspace).chain_for(entry))
    applied, _, events = ledger = _read_ledger(workspace, snapshot)
    # A row that only the shorter tensors got has no revision: the others had it before.
    made = {row: made for row, made in state.lineage.recipes() if isinstance(made, Made) and made.revision}
    new = [number for number in made if number in texts and not is_tombstone(texts[number])]
    # New rows that start alike would only name each other.
    old = set(expand(state.population))
    among = [number for number, text in texts.items() if number in old and not is_tombstone(text)]
    size = sum(each.geometry.size for each in embedding_matrices(snapshot))
    with report_activity(on_progress, entry.name, "reading", size) as count_bytes:
        norms, nearest, equal = survey_matrices(snapshot, new, among, count_bytes)
    records = read_init_records(row.event for row in events)
    known = OnRecord(records, undo_digests(applied), ObjectStore(workspace.objects))
    training = {token.id: token for token in training_of(snapshot, known)}
    kinds, tokens = _describe_tokens(snapshot, made, read_token_histories(events), training)
    for token in tokens:
        near = nearest.get(token["id"], [])
        token["neighbours"] = [{"token": texts[number], "id": number, "cosine": cosine} for number, cosine in near]
        token["same_row"] = equal.get(token["id"], 0)
    untrained = [token["token"] for token in tokens if token["trained"] is False]
    plan: Plan | TokmigrateError | None = None
    if progress.pending:
        try:
            plan = plan_or_reuse(workspace, entry, snapshot, "head")
        except TokmigrateError as error:
            plan = error
    concerns = list(_concerns(entry, snapshot, untrained, training.values(), norms, plan))
    # The worst first.
    concerns.sort(key=lambda concern: list(RiskLevel).index(concern[0]), reverse=True)
    document = {
        "model": entry.name,
        "path": format_path(workspace, entry.path),
        "revision": snapshot.revision,
        "lineage": snapshot.stamp.lineage if snapshot.stamp else None,
        "made": datetime.now(UTC).isoformat(),
        "tokens": len(texts),
        "rows": state.rows,
        "tied": state.traits.tied,
        "byte_level": is_byte_level(state.documents[FILE]),
        "concerns": [
            {"level": level.value, "subject": subject, "text": text, "tokens": named}
            for level, subject, text, named in concerns
        ],
        "timeline": list(_timeline(progress, ledger, plan)),
        "ids": dict.fromkeys(KINDS, 0) | Counter(kinds),
        "runs": runs_of(kinds),
        "norms": norms,
        "untrained": untrained,
        "listed": tokens,
        "not_compared": max(0, len(new) - COMPARED_AT_MOST),
        "evaluation": read_evaluation(workspace, entry.name, snapshot),
        "trainings": list(_read_trainings(progress.applied)),
    }
    # A byte-level vocabulary writes most texts in unreadable characters.
    readable = {
        number: text_of_letters(text)
        for number, text in texts.items()
        if document["byte_level"] and state.tokenizer.token(text) is None and not text.translate(_WELL_KNOWN).isascii()
    }
    return Report(document, texts, readable)


def _find_odd_norms(norms: Mapping[str, Any]) -> Iterator[tuple[RiskLevel, str, list[int]]]:
    rows, old = [(row["id"], row["norm"]) for row in norms["rows"]], norms["old"]
    yield RiskLevel.BREAKING, "rows with an infinity or a NaN", norms["not_finite"]
    is_output = norms["side"] == "output"
    effect = "where all other logits are negative such a token is predicted" if is_output else "they are all the same"
    yield RiskLevel.CAUTION, f"rows of zeros; {effect}", [number for number, norm in rows if norm == 0]
    if old["count"]:
        short = [number for number, norm in rows if 0 < norm < old["min"]]
        yield RiskLevel.SAFE, f"new rows are shorter than every old one ({old['min']:.4g})", short
        long = [number for number, norm in rows if norm > old["max"]]
        yield RiskLevel.CAUTION, f"new rows are longer than every old one ({old['max']:.4g})", long


def _read_ledger(workspace: Workspace, snapshot: Snapshot) -> _Ledger:
    """Return what the ledger has of a model; nothing where it has none, or one of another baseline at this path."""
    state = open_state_if_present(workspace.state, workspace.root)
    model = state.model_at(snapshot.directory, snapshot.generation) if state else None
    if state is None or model is None or snapshot.stamp is None:
        return (), {}, ()
    runs = {run.id: run for run in state.runs(model, None)}
    generations = {run.generation_after for run in runs.values()}
    if model.lineage != snapshot.stamp.lineage and snapshot.stamp.generation not in generations:
        return (), {}, ()
    events = tuple(each for row in list_events_in_force(state, model) for each in row.each())
    return state.list_applied(model), runs, events


def _timeline(progress: Progress, ledger: _Ledger, plan: Plan | TokmigrateError | None) -> Iterator[dict[str, Any]]:
    effects = {step.migration.revision: step.effects for step in plan.steps} if isinstance(plan, Plan) else {}
    applied, runs, rows = ledger
    records = {row.record.revision: row for row in applied}
    events = Counter((row.event.revision, row.event.event.value) for row in rows)
    for migration in (*progress.applied, *progress.pending):
        revision, record = migration.revision, records.get(migration.revision)
        who = runs[record.run_id].provenance if record else None
        yield {
            "revision": revision,
            "message": migration.message,
            "author": migration.author,
            "file": migration.shown,
            "applied": migration in progress.applied,
            "recorded": record.applied_at.isoformat() if record else None,
            "adopted": record is not None and record.origin is Origin.ADOPTED,
            **{name: getattr(who, name, None) for name in ("user", "host", "git_commit")},
            "tokens": {event: count for (of, event), count in events.items() if of == revision},
            "operations": [
                {
                    "operation": effect.operation,
                    "risk": effect.risk.level.value,
                    "reason": effect.risk.reason,
                    "new_ids": len(effect.assigned_ids),
                }
                for effect in effects.get(revision, ())
            ],
        }


def _read_trainings(applied: Iterable[Migration]) -> Iterator[dict[str, Any]]:
    """Yield how the rows of each migration were learned whose files say so."""
    for migration in applied:
        told = find_provenance(migration.attachments)
        if told is not None:
            yield {"revision": migration.revision, "message": migration.message, **told}


def _concerns(
    entry: ModelEntry,
    snapshot: Snapshot,
    untrained: Sequence[str],
    training: Iterable[TokenTraining],
    norms: Iterable[Mapping[str, Any]],
    plan: Plan | TokmigrateError | None,
) -> Iterator[tuple[RiskLevel, str, str, Sequence[str]]]:
    """Yield what a user should know of: how serious it is, a subject, a text and the tokens."""
    holder, texts = find_lock_holder(entry), snapshot.state.tokenizer.texts
    if holder:
        yield RiskLevel.CAUTION, "locked", f"{holder} was changing it when this page was made", ()
    for name in list_changed_documents(snapshot):
        yield RiskLevel.CAUTION, name, "changed since it was migrated; `tokmigrate verify` checks all files", ()
    notes = [*snapshot.notes, *unknown_references(snapshot.state)]
    for note in notes:
        yield RiskLevel.CAUTION, "note", note, ()
    if untrained:
        text = "not trained since their init, moved or not: the model has not learnt what these tokens mean"
        yield RiskLevel.CAUTION, "untrained rows", text, untrained
    unknown: dict[str, list[str]] = {}
    for token in training:
        if token.why is not None:
            unknown.setdefault(token.why, []).append(token.token)
    for why, named in unknown.items():
        text = f"whether the rows of these tokens were trained is not known: {why}"
        yield RiskLevel.CAUTION, "training unknown", text, named
    for each in norms:
        for level, text, ids in _find_odd_norms(each):
            if ids:
                yield level, each["tensor"], text, [texts.get(number, f"row {number}") for number in ids]
    if isinstance(plan, TokmigrateError):
        yield RiskLevel.BREAKING, "pending", f"the pending migrations cannot be planned: {plan}", ()
    elif plan is not None:
        for step in plan.steps:
            for effect in step.effects:
                if effect.risk.level is not RiskLevel.SAFE:
                    text = f"pending, {effect.operation}: {effect.risk.reason}"
                    yield effect.risk.level, step.migration.revision, text, ()
        for note in plan.notes:
            if note not in notes:
                yield RiskLevel.CAUTION, "pending", note, ()


def runs_of(kinds: Sequence[Kind]) -> list[dict[str, Any]]:
    """Return what is at the ids as runs: a kind, the first id and the last."""
    runs: list[dict[str, Any]] = []
    for kind, run in groupby(kinds):
        first = runs[-1]["last"] + 1 if runs else 0
        runs.append({"kind": kind, "first": first, "last": first + sum(1 for _ in run) - 1})
    return runs


def _describe_tokens(
    snapshot: Snapshot,
    made: Mapping[int, Made],
    histories: Iterable[TokenHistory],
    training: Mapping[int, TokenTraining],
) -> tuple[list[Kind], list[dict[str, Any]]]:
    """Return what is at each id, and an entry for each token that a migration changed, and each added or special one.

    Where the ledger has nothing, the stamp tells what is not of the baseline. A placeholder has the history of the
    removed token; tokens without one come last.
    """
    state, tokenizer, texts = snapshot.state, snapshot.state.tokenizer, snapshot.state.tokenizer.texts
    by_id: dict[int, TokenHistory] = {}
    removed: list[TokenHistory] = []
    for history in histories:
        number = history.events[-1].event.old_id
        if history.token is not None:
            by_id[tokenizer.ids.get(history.token, -1)] = history
        elif number is not None and is_tombstone(texts.get(number, "")) and number not in by_id:
            by_id[number] = history
        else:
            removed.append(history)
    runs = [(start, piece) for start, piece in state.lineage.copied_rows() if piece.start != start]
    moved = {row for start, piece in runs for row in range(start, start + len(piece))}
    roles: dict[str | None, list[str]] = {}
    for role in ROLES:
        roles.setdefault(special_token(state, role), []).append(role)
    kinds: list[Kind] = []
    entries: list[dict[str, Any]] = []
    for number in range(max(state.rows, max(texts, default=-1) + 1)):
        text, kept = texts.get(number), by_id.get(number)
        kind: Kind = "added" if number in made else "moved" if number in moved else "base"
        if text is None or is_tombstone(text):
            kind = "spare" if text is None else "placeholder"
        elif kept is not None:
            events = {row.event.event for row in kept.events}
            kind = next((each for event, each in _KIND_BY_EVENT.items() if event in events), kind)
        kinds.append(kind)
        added = None if text is None else tokenizer.token(text)
        if text is not None and (kind != "base" or added is not None or text in roles):
            trained = training.get(number) if kind != "placeholder" else None
            entry = _token_entry(text, number, kind, kept, trained)
            entry["flags"] = [flag for flag in FLAGS if added is not None and getattr(added, flag)]
            entry["roles"] = roles.get(text, [])
            if number in made:
                entry["revision"] = entry["revision"] or made[number].revision
            entries.append(entry)
    entries += (_token_entry(each.events[-1].event.token, None, "removed", each, None) for each in removed)
    return kinds, entries


def _token_entry(
    text: str, number: int | None, kind: str, history: TokenHistory | None, trained: TokenTraining | None
) -> dict[str, Any]:
    events = [row.event for row in history.events] if history else []
    return {
        "token": text,
        "id": number,
        "kind": kind,
        "flags": [],
        "roles": [],
        "init": next((event.init for event in reversed(events) if event.init is not None), None),
        "trained": _TRAINED.get(trained.training) if trained else None,
        "training": trained.training.value if trained else None,
        "figures": trained.figures if trained else {},
        "revision": events[-1].revision if events else None,
        "events": events,
    }

"""Collect the report on one model as one JSON document, from its directory, its migrations and the ledger."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal, get_args

from tokmigrate.audit.run_status import locked_by
from tokmigrate.audit.token_history import TokenHistory, read_init_records, read_token_histories
from tokmigrate.audit.training import OnRecord, TokenTraining, Training, training_of, undo_digests
from tokmigrate.commands.plan import plan_or_reuse
from tokmigrate.commands.records import list_changed_documents, list_events_in_force
from tokmigrate.commands.report.rows import COMPARED_AT_MOST, embedding_matrices, norm_concerns, survey_matrices
from tokmigrate.errors import TokmigrateError
from tokmigrate.events import ActivityEnded, ActivityStarted, BytesProcessed, OnProgress, no_progress
from tokmigrate.model.documents.roles import ROLES, special_token
from tokmigrate.model.documents.state import Made
from tokmigrate.model.formats.byte_letters import is_byte_level, text_of_letters
from tokmigrate.model.references.references import unknown_references
from tokmigrate.model.snapshot import Snapshot, take_snapshot
from tokmigrate.model.tokenizer.tokenizer_json import FILE, FLAGS
from tokmigrate.operations.base import RiskLevel
from tokmigrate.plan.plan import Plan
from tokmigrate.plan.progress import Progress, check_progress
from tokmigrate.revision.history import History
from tokmigrate.settings import ModelEntry, Workspace
from tokmigrate.state.database import open_state_if_present
from tokmigrate.state.objects import ObjectStore
from tokmigrate.state.rows import AppliedRow, Origin, RunRow, TokenEventType, TokenRow
from tokmigrate.vocabulary.ids import expand, is_tombstone

Kind = Literal["base", "added", "renamed", "moved", "reinitialised", "placeholder", "spare"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""What is at an id: a token of the baseline, one that migrations added or changed, or none in use."""

# The first of these events that a token has is its kind.
_BY_EVENT: Mapping[TokenEventType, Kind] = {
    TokenEventType.ADDED: "added",
    TokenEventType.REINITIALISED: "reinitialised",
    TokenEventType.RENAMED: "renamed",
    TokenEventType.MOVED: "moved",
}
# Of a row whose values came from a file it is not known.
_TRAINED = {Training.TRAINED: True, Training.UNTRAINED: False, Training.MOVED: False, Training.PARTLY: False}

# The letters for space, line feed, tab and carriage return, which readers of vocabularies know.
_WELL_KNOWN = str.maketrans("", "", "ĠĊĉč")

_LEVELS = (RiskLevel.BREAKING, RiskLevel.CAUTION, RiskLevel.SAFE)


@dataclass(frozen=True, eq=False)
class Report:
    """The report on a model.

    Args:
        document: The report, as `report --json` prints it.
        texts: The text of every id that has a token, which the document leaves to tokenizer.json.
        readings: By its id what a token stands for, where the vocabulary writes it in unreadable characters.
    """

    document: dict[str, Any]
    texts: Mapping[int, str]
    readings: Mapping[int, str]


_Ledger = tuple[Sequence[AppliedRow], Mapping[str, RunRow], Sequence[TokenRow]]
"""What the ledger has of a model: its applied revisions, the runs by id, and the events of its tokens."""


def collect_report(workspace: Workspace, entry: ModelEntry, on_progress: OnProgress = no_progress) -> Report:
    """Return the report on a model; each embedding matrix is read once, in blocks, and nothing is written.

    Raises:
        ModelError: The model cannot be read.
        DriftError: Its stamp and the migrations do not fit together.
    """
    snapshot = take_snapshot(entry)
    progress = check_progress(snapshot, History.read(workspace).chain_for(entry))
    ledger = applied, _, rows = _read_ledger(workspace, snapshot)
    texts = snapshot.state.tokenizer.texts
    histories, removed = histories_by_id(snapshot, rows)
    kinds = tuple(kinds_by_id(snapshot, histories))
    # New rows that start alike would only name each other.
    old = set(expand(snapshot.state.population))
    new = [number for number in new_rows(snapshot) if number in texts and kinds[number] != "placeholder"]
    size = sum(each.geometry.size for each in embedding_matrices(snapshot))
    on_progress(ActivityStarted(entry.name, "reading", size))
    among = [number for number in texts if number in old and kinds[number] != "placeholder"]
    norms, nearest, equal = survey_matrices(snapshot, new, among, lambda n: on_progress(BytesProcessed(entry.name, n)))
    on_progress(ActivityEnded(entry.name))
    records = read_init_records(row.event for row in rows)
    known = OnRecord(records, undo_digests(applied), ObjectStore(workspace.objects))
    training = {token.id: token for token in training_of(snapshot, known)}
    tokens = list(token_entries(snapshot, histories, removed, kinds, training))
    for token in tokens:
        near = nearest.get(token["id"], [])
        token["neighbours"] = [{"token": texts[number], "id": number, "cosine": cosine} for number, cosine in near]
        token["same_row"] = equal.get(token["id"], 0)
    plan = _plan_pending(workspace, entry, snapshot) if progress.pending else None
    concerns = [
        *_model_concerns(entry, snapshot),
        *_training_concerns(tokens, training.values()),
        *(
            _concern(level, each["tensor"], text, named)
            for each in norms
            for level, text, named in norm_concerns(texts, each)
            if named
        ),
        *_plan_concerns(plan),
    ]
    counts = Counter(kinds)
    inside = entry.path.is_relative_to(workspace.root)
    document = {
        "model": entry.name,
        "path": str(entry.path.relative_to(workspace.root) if inside else entry.path),
        "revision": snapshot.revision,
        "lineage": snapshot.stamp.lineage if snapshot.stamp else None,
        "made": datetime.now(UTC).isoformat(),
        "tokens": len(texts),
        "rows": snapshot.state.rows,
        "tied": snapshot.state.traits.tied,
        "byte_level": is_byte_level(snapshot.state.documents[FILE]),
        "concerns": sorted(concerns, key=lambda concern: _LEVELS.index(RiskLevel(concern["level"]))),
        "timeline": list(_timeline(progress, ledger, plan)),
        "ids": {kind: counts[kind] for kind in KINDS},
        "runs": runs_of(kinds),
        "norms": norms,
        "untrained": [token["token"] for token in tokens if token["trained"] is False],
        "listed": tokens,
        "not_compared": max(0, len(new) - COMPARED_AT_MOST),
    }
    return Report(document, texts, byte_level_readings(snapshot))


def _plan_pending(workspace: Workspace, entry: ModelEntry, snapshot: Snapshot) -> Plan | TokmigrateError:
    """Return the plan up to the head, or why there is none."""
    try:
        return plan_or_reuse(workspace, entry, snapshot, "head")
    except TokmigrateError as error:
        return error


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
    steps = {step.migration.revision: step for step in plan.steps} if isinstance(plan, Plan) else {}
    applied, runs, rows = ledger
    records = {row.record.revision: row for row in applied}
    counts: dict[str, Counter[str]] = {}
    for row in rows:
        counts.setdefault(row.event.revision, Counter())[row.event.event.value] += 1
    for migration in (*progress.applied, *progress.pending):
        record, step = records.get(migration.revision), steps.get(migration.revision)
        who = runs[record.run_id].provenance if record else None
        yield {
            "revision": migration.revision,
            "message": migration.message,
            "author": migration.author,
            "file": migration.shown,
            "applied": migration in progress.applied,
            "recorded": record.applied_at.isoformat() if record else None,
            "adopted": record is not None and record.origin is Origin.ADOPTED,
            "user": who.user if who else None,
            "host": who.host if who else None,
            "git_commit": who.git_commit if who else None,
            "tokens": dict(counts.get(migration.revision, {})),
            "operations": [
                {
                    "operation": effect.operation,
                    "risk": effect.risk.level.value,
                    "reason": effect.risk.reason,
                    "new_ids": len(effect.assigned_ids),
                }
                for effect in (step.effects if step else ())
            ],
        }


def _concern(level: RiskLevel, subject: str, text: str, tokens: Sequence[str] = ()) -> dict[str, Any]:
    return {"level": level.value, "subject": subject, "text": text, "tokens": list(tokens)}


def _model_concerns(entry: ModelEntry, snapshot: Snapshot) -> Iterator[dict[str, Any]]:
    holder = locked_by(entry)
    if holder:
        yield _concern(RiskLevel.CAUTION, "locked", f"{holder} was changing it when this page was made")
    for name in list_changed_documents(snapshot):
        text = "changed since it was migrated; `tokmigrate verify` checks all files"
        yield _concern(RiskLevel.CAUTION, name, text)
    for note in (*snapshot.notes, *unknown_references(snapshot.state)):
        yield _concern(RiskLevel.CAUTION, "note", note)


def _training_concerns(
    tokens: Sequence[Mapping[str, Any]], training: Iterable[TokenTraining]
) -> Iterator[dict[str, Any]]:
    untrained = [token["token"] for token in tokens if token["trained"] is False]
    if untrained:
        text = "not trained since their init, moved or not: the model has not learnt what these tokens mean"
        yield _concern(RiskLevel.CAUTION, "untrained rows", text, untrained)
    unknown: dict[str, list[str]] = {}
    for token in training:
        if token.why is not None:
            unknown.setdefault(token.why, []).append(token.token)
    for why, named in unknown.items():
        text = f"whether the rows of these tokens were trained is not known: {why}"
        yield _concern(RiskLevel.CAUTION, "training unknown", text, named)


def _plan_concerns(plan: Plan | TokmigrateError | None) -> Iterator[dict[str, Any]]:
    if isinstance(plan, TokmigrateError):
        yield _concern(RiskLevel.BREAKING, "pending", f"the pending migrations cannot be planned: {plan}")
    elif plan is not None:
        for step in plan.steps:
            for effect in step.effects:
                if effect.risk.level is not RiskLevel.SAFE:
                    text = f"pending, {effect.operation}: {effect.risk.reason}"
                    yield _concern(effect.risk.level, step.migration.revision, text)
        already = {*plan.snapshot.notes, *unknown_references(plan.snapshot.state)}
        for note in plan.notes:
            if note not in already:
                yield _concern(RiskLevel.CAUTION, "pending", note)


def new_rows(snapshot: Snapshot) -> dict[int, Made]:
    """Return the rows that migrations made, as the stamp has them."""
    # One that only the shorter tensors got has no revision: the others had it before.
    return {row: made for row, made in snapshot.state.lineage.recipes() if isinstance(made, Made) and made.revision}


def histories_by_id(snapshot: Snapshot, rows: Iterable[TokenRow]) -> tuple[dict[int, TokenHistory], list[TokenHistory]]:
    """Return the history of each token by its id, a placeholder's being that of the removed token; and the others.

    Args:
        snapshot: The model.
        rows: The events of the migrations that it has, the earliest first.
    """
    tokenizer = snapshot.state.tokenizer
    by_id: dict[int, TokenHistory] = {}
    removed: list[TokenHistory] = []
    for history in read_token_histories(rows):
        if history.token is not None:
            if history.token in tokenizer.ids:
                by_id[tokenizer.ids[history.token]] = history
            continue
        number = history.events[-1].event.old_id
        if number is not None and is_tombstone(tokenizer.texts.get(number, "")) and number not in by_id:
            by_id[number] = history
        else:
            removed.append(history)
    return by_id, removed


def kinds_by_id(snapshot: Snapshot, histories: Mapping[int, TokenHistory]) -> Iterator[Kind]:
    """Yield what is at each id, from 0; where the ledger has nothing, the stamp tells what is not of the baseline."""
    state, made = snapshot.state, new_rows(snapshot)
    texts = state.tokenizer.texts
    moved = {
        row
        for start, piece in state.lineage.copied_rows()
        if piece.start != start
        for row in range(start, start + len(piece))
    }
    for number in range(max(state.rows, max(texts, default=-1) + 1)):
        text = texts.get(number)
        if text is None:
            yield "spare"
        elif is_tombstone(text):
            yield "placeholder"
        else:
            events = {row.event.event for row in histories[number].events} if number in histories else ()
            found = next((kind for event, kind in _BY_EVENT.items() if event in events), None)
            yield found or ("added" if number in made else "moved" if number in moved else "base")


def runs_of(kinds: Sequence[Kind]) -> list[dict[str, Any]]:
    """Return what is at the ids as runs: a kind, the first id and the last."""
    starts = [number for number, kind in enumerate(kinds) if number == 0 or kinds[number - 1] != kind]
    stops = [*starts[1:], len(kinds)]
    return [{"kind": kinds[start], "first": start, "last": stop - 1} for start, stop in zip(starts, stops, strict=True)]


def token_entries(
    snapshot: Snapshot,
    histories: Mapping[int, TokenHistory],
    removed: Iterable[TokenHistory],
    kinds: Sequence[Kind],
    training: Mapping[int, TokenTraining],
) -> Iterator[dict[str, Any]]:
    """Yield an entry for each token that a migration changed, and each added or special one, by id; removed ones last.

    Args:
        snapshot: The model.
        histories: The histories by id.
        removed: Those of removed tokens without a placeholder.
        kinds: What is at each id.
        training: The training of the rows that migrations initialised, by id.
    """
    tokenizer, made = snapshot.state.tokenizer, new_rows(snapshot)
    roles: dict[str | None, list[str]] = {}
    for role in ROLES:
        roles.setdefault(special_token(snapshot.state, role), []).append(role)
    for number, text in sorted(tokenizer.texts.items()):
        added = tokenizer.token(text)
        if kinds[number] != "base" or added is not None or text in roles:
            trained = training.get(number) if kinds[number] != "placeholder" else None
            entry = _entry(text, number, kinds[number], histories.get(number), trained)
            entry["flags"] = [flag for flag in FLAGS if added is not None and getattr(added, flag)]
            entry["roles"] = roles.get(text, [])
            if number in made:
                entry["revision"] = entry["revision"] or made[number].revision
            yield entry
    for history in removed:
        yield _entry(history.events[-1].event.token, None, "removed", history, None)


def _entry(
    text: str, number: int | None, kind: str, history: TokenHistory | None, trained: TokenTraining | None
) -> dict[str, Any]:
    events = [row.event for row in history.events] if history else []
    figures = trained.figures if trained else {}
    return {
        "token": text,
        "id": number,
        "kind": kind,
        "flags": [],
        "roles": [],
        "init": next((event.init for event in reversed(events) if event.init is not None), None),
        "trained": _TRAINED.get(trained.training) if trained else None,
        "training": trained.training.value if trained else None,
        "figures": {side: {"change": each.change, "likeness": each.likeness} for side, each in figures.items()},
        "revision": events[-1].revision if events else None,
        "events": [{**asdict(event), "event": event.event.value} for event in events],
    }


def byte_level_readings(snapshot: Snapshot) -> dict[int, str]:
    """Return by id what tokens stand for, where a byte-level vocabulary writes them in unreadable characters."""
    if not is_byte_level(snapshot.state.documents[FILE]):
        return {}
    tokenizer = snapshot.state.tokenizer
    return {
        number: text_of_letters(token)
        for token, number in tokenizer.vocabulary.items()
        if token not in tokenizer.added and not token.translate(_WELL_KNOWN).isascii()
    }

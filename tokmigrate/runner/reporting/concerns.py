"""What a reader of the report should know of: risks, and what stands in the way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from tokmigrate.audit.run_status import locked_by
from tokmigrate.errors import TokmigrateError
from tokmigrate.model.references.references import unknown_references
from tokmigrate.model.snapshot import Snapshot
from tokmigrate.operations.base import RiskLevel
from tokmigrate.plan.upgrade import Plan
from tokmigrate.runner.records import changed_documents
from tokmigrate.runner.reporting.data import Concern, MatrixNorms, ReportedToken
from tokmigrate.settings import ModelEntry

_GRAVITY = (RiskLevel.BREAKING, RiskLevel.CAUTION, RiskLevel.SAFE)
_SAME = 1 - 1e-6


def concerns_of(
    entry: ModelEntry,
    snapshot: Snapshot,
    tokens: Sequence[ReportedToken],
    norms: Sequence[MatrixNorms],
    plan: Plan | TokmigrateError | None,
) -> tuple[Concern, ...]:
    """Return the concerns about a model, the gravest first.

    Args:
        entry: The model in the workspace.
        snapshot: The model as it is.
        tokens: The tokens that the report has a line for.
        norms: The norms of its matrices.
        plan: What the pending migrations mean, or why they cannot be planned; None where none is pending.
    """
    found = [*_state(entry, snapshot), *_rows(snapshot, tokens, norms), *_pending(plan)]
    return tuple(sorted(found, key=lambda concern: _GRAVITY.index(concern.level)))


def _state(entry: ModelEntry, snapshot: Snapshot) -> Iterator[Concern]:
    holder = locked_by(entry)
    if holder:
        yield Concern(RiskLevel.CAUTION, "busy", f"{holder} was changing it when this page was made")
    for name in changed_documents(snapshot):
        yield Concern(RiskLevel.CAUTION, name, "changed since it was migrated; `tokmigrate verify` looks at all files")
    for note in (*snapshot.notes, *unknown_references(snapshot.state)):
        yield Concern(RiskLevel.CAUTION, "note", note)


def _rows(snapshot: Snapshot, tokens: Sequence[ReportedToken], norms: Sequence[MatrixNorms]) -> Iterator[Concern]:
    untrained = tuple(token.token for token in tokens if token.trained is False)
    if untrained:
        told = "not trained since their init, moved or not: the model has not learnt what these tokens mean"
        yield Concern(RiskLevel.CAUTION, "untrained rows", told, untrained)
    unknown: dict[str, list[str]] = {}
    for token in tokens:
        if token.training is not None and token.training.why is not None:
            unknown.setdefault(token.training.why, []).append(token.token)
    for why, named in unknown.items():
        told = f"whether the rows of these tokens were trained is not known: {why}"
        yield Concern(RiskLevel.CAUTION, "training unknown", told, tuple(named))
    for matrix in norms:
        yield from _lengths(snapshot.state.tokenizer.texts, matrix)
    new = {token.id for token in tokens if token.neighbours}
    alike = tuple(
        token.token
        for token in tokens
        if token.trained is not True and any(near.id in new and near.cosine >= _SAME for near in token.neighbours)
    )
    if alike:
        told = "the input row points where that of another new token does; only training tells them apart"
        yield Concern(RiskLevel.SAFE, "alike", told, alike)


def _lengths(texts: Mapping[int, str], matrix: MatrixNorms) -> Iterator[Concern]:
    """Yield what is odd about the lengths of a matrix's rows."""
    if matrix.broken:
        named = tuple(texts.get(number, f"row {number}") for number in matrix.broken)
        yield Concern(RiskLevel.BREAKING, matrix.tensor, "rows with an infinity or a NaN", named)
    zero = tuple(texts[number] for number, norm in matrix.new.items() if norm == 0)
    if zero:
        output = "rows of zeros; where all other logits are negative such a token is predicted"
        told = output if matrix.side == "output" else "rows of zeros, which nothing tells apart"
        yield Concern(RiskLevel.CAUTION, matrix.tensor, told, zero)
    if matrix.old.size:
        low, high = float(np.min(matrix.old)), float(np.max(matrix.old))
        short = tuple(texts[number] for number, norm in matrix.new.items() if 0 < norm < low)
        if short:
            yield Concern(RiskLevel.SAFE, matrix.tensor, f"new rows are shorter than every old one ({low:.4g})", short)
        long = tuple(texts[number] for number, norm in matrix.new.items() if norm > high)
        if long:
            told = f"new rows are longer than every old one ({high:.4g})"
            yield Concern(RiskLevel.CAUTION, matrix.tensor, told, long)


def _pending(plan: Plan | TokmigrateError | None) -> Iterator[Concern]:
    if isinstance(plan, TokmigrateError):
        yield Concern(RiskLevel.BREAKING, "pending", f"the pending migrations cannot be planned: {plan}")
    elif plan is not None:
        for step in plan.steps:
            for effect in step.effects:
                if effect.risk.level is not RiskLevel.SAFE:
                    told = f"pending, {effect.operation}: {effect.risk.reason}"
                    yield Concern(effect.risk.level, step.migration.revision, told)
        already = set(plan.snapshot.notes) | set(unknown_references(plan.snapshot.state))
        for note in plan.notes:
            if note not in already:
                yield Concern(RiskLevel.CAUTION, "pending", note)

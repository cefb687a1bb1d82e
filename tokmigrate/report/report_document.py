"""The report on a model as JSON."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict
from typing import Any

from tokmigrate.report.norm_figures import norm_figures
from tokmigrate.report.training import figures_content
from tokmigrate.report.vocabulary_map import runs_of
from tokmigrate.runner.reporting.data import KINDS, MatrixNorms, Milestone, ReportData, ReportedToken
from tokmigrate.state.rows import TokenEvent


def report_content(data: ReportData) -> dict[str, Any]:
    """Return the report as JSON; the texts of the base vocabulary are left to tokenizer.json."""
    counts = Counter(data.kinds)
    return {
        "model": data.model,
        "path": data.path,
        "revision": data.revision,
        "lineage": data.lineage,
        "made": data.made.isoformat(),
        "tokens": len(data.texts),
        "rows": data.rows,
        "tied": data.tied,
        "concerns": [
            {"level": each.level.value, "subject": each.subject, "text": each.text, "tokens": list(each.tokens)}
            for each in data.concerns
        ],
        "timeline": [_milestone(step) for step in data.timeline],
        "ids": {kind: counts[kind] for kind in KINDS},
        "runs": [{"what": kind, "first": start, "last": stop - 1} for kind, start, stop in runs_of(data.kinds)],
        "norms": [_norms(norms) for norms in data.norms],
        "untrained": [token.token for token in data.untrained],
        "listed": [_token(token, data) for token in data.tokens],
        "not_compared": data.unlooked,
    }


def _milestone(step: Milestone) -> dict[str, Any]:
    recorded = step.recorded
    who = recorded.who if recorded else None
    return {
        "revision": step.revision,
        "message": step.message,
        "author": step.author,
        "file": step.file,
        "applied": step.applied,
        "recorded": recorded and recorded.when.isoformat(),
        "adopted": bool(recorded and recorded.adopted),
        "who": who and who.user,
        "host": who and who.host,
        "git_commit": who and who.git_commit,
        "tokens": dict(step.tokens),
        "operations": [
            {"operation": effect.operation, "risk": effect.risk.level.value, "reason": effect.risk.reason}
            for effect in step.effects
        ],
    }


def _norms(norms: MatrixNorms) -> dict[str, Any]:
    names = ("least", "first_hundredth", "median", "last_hundredth", "greatest")
    figures = norm_figures(norms)
    return {
        "tensor": norms.tensor,
        "side": norms.side,
        "shared": norms.shared,
        "old_rows": len(norms.old),
        "old": figures.old and dict(zip(names, figures.old, strict=True)),
        # JSON has no number for what is not finite.
        "new": [{"id": number, "norm": norm if math.isfinite(norm) else None} for number, norm in norms.new.items()],
        "not_finite": list(norms.broken),
    }


def _token(token: ReportedToken, data: ReportData) -> dict[str, Any]:
    return {
        "token": token.token,
        "id": token.id,
        "what": token.kind,
        "flags": list(token.flags),
        "roles": list(token.roles),
        "init": token.init,
        "trained": token.trained,
        "training": token.training.training.value if token.training else None,
        "figures": figures_content(token.training) if token.training else {},
        "revision": token.revision,
        "events": [_event(event) for event in token.events],
        "neighbours": [
            {"token": data.texts[near.id], "id": near.id, "cosine": near.cosine} for near in token.neighbours
        ],
        "same_row": token.twins,
    }


def _event(event: TokenEvent) -> dict[str, Any]:
    return {**asdict(event), "event": event.event.value}

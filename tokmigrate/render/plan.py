"""Plans, upgrades and downgrades, as text and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Column
from rich.text import Text

from tokmigrate.formatting import format_bytes
from tokmigrate.operations.operation import RiskLevel
from tokmigrate.render.escape import escape, escape_quoted
from tokmigrate.render.plan_summary import (
    choose_effects,
    describe_risk,
    describe_rows,
    describe_token,
    is_acknowledged,
    list_files,
    list_tokens,
    summarise_plan,
    token_kind,
    token_text,
)
from tokmigrate.render.terminal import plain_table

if TYPE_CHECKING:
    from tokmigrate.commands.downgrade import Downgraded
    from tokmigrate.commands.upgrade import Upgraded
    from tokmigrate.plan.plan import Plan
    from tokmigrate.plan.token_changes import TokenChange

_SHOWN = {"added": 50, "removed": 50, "changed": 50, "moved": 20}
"""How many tokens of a kind are shown on a screen; JSON has all."""

_MOST = 50
"""How many files and safe operations are shown."""

_RISK_STYLE = {RiskLevel.SAFE: "", RiskLevel.CAUTION: "caution", RiskLevel.BREAKING: "bad"}


def plan_text(plan: Plan) -> RenderableType:
    """Return a plan: its figures, then tokens, rows, files and risks."""
    if not plan.steps:
        return Text(f"{escape(plan.model)}: nothing is pending, it is at {plan.before or 'base'}")
    figures = plain_table("", "")
    figures.show_header = False
    summary = summarise_plan(plan)
    *lines, (name, risk) = summary.lines()
    for line in lines:
        figures.add_row(*line)
    figures.add_row(name, Text(risk, style=_RISK_STYLE[summary.risk] if summary.risk else ""))
    return Group(
        Text(f"{escape(plan.model)}: {plan.before or 'base'} → {plan.after or 'base'}", style="bold"),
        figures,
        *_token_parts(list_tokens(plan)),
        *_row_parts(plan),
        *_file_parts(plan),
        *_risk_parts(plan),
        *(Text(escape(f"note: {note}")) for note in plan.notes),
    )


def _token_parts(changes: Sequence[TokenChange]) -> Iterator[RenderableType]:
    if not changes:
        return
    table = plain_table("token", Column("id", justify="right"), "what happens to it")
    counts: Counter[str] = Counter()
    for change in changes:
        kind = token_kind(change)
        counts[kind] += 1
        if counts[kind] <= _SHOWN[kind]:
            number = "" if change.id is None else str(change.id)
            table.add_row(escape_quoted(token_text(change)), number, describe_token(change))
    yield from (Text(), table)
    yield from _left_out({kind: counts[kind] - most for kind, most in _SHOWN.items()})


def _row_parts(plan: Plan) -> Iterator[RenderableType]:
    lines = describe_rows(plan)
    if lines:
        yield from (Text(), Text("rows", style="bold"), *(Text(escape(line)) for line in lines))


def _file_parts(plan: Plan) -> Iterator[RenderableType]:
    files = list_files(plan)
    if not files:
        return
    table = plain_table("file", Column("will be"), Column("bytes", justify="right"))
    for name, change in files[:_MOST]:
        table.add_row(escape(name), change.kind, f"{change.bytes:,}")
    yield from (Text(), table)
    yield from _left_out({"files": len(files) - _MOST})


def _risk_parts(plan: Plan) -> Iterator[RenderableType]:
    shown, more = choose_effects(plan, _MOST)
    everything = [effect for step in plan.steps for effect in shown[step.migration.revision]]
    widths = [
        max(map(len, column)) for column in zip(*((e.operation, describe_risk(e)) for e in everything), strict=True)
    ]
    yield from (Text(), Text("risks", style="bold"))
    for step in plan.steps:
        effects = shown[step.migration.revision]
        if step.effects and not effects:
            continue
        yield Text(escape(f"{step.migration.revision} {step.migration.message}"))
        if not step.effects:
            yield Text("  it has no operations")
            continue
        table = plain_table(*(Column(min_width=width) for width in widths), "")
        table.show_header = False
        for effect in effects:
            risk = Text(describe_risk(effect), style=_RISK_STYLE[effect.risk.level])
            table.add_row(effect.operation, risk, escape(effect.risk.reason))
        yield Padding(table, (0, 0, 0, 2), expand=False)
    yield from _left_out({"safe operations": more})


def _left_out(counts: Mapping[str, int]) -> Iterator[RenderableType]:
    more = ", ".join(f"{number:,} more {what}" for what, number in counts.items() if number > 0)
    if more:
        yield Text(f"… and {more}, which --json lists", style="dim")


def upgrade_line(plan: Plan) -> str:
    """Return what an upgrade did, and how to go back."""
    return (
        f"{plan.model}: upgraded to {plan.after or 'base'}, {format_bytes(plan.bytes_to_write)} written; "
        f"`tokmigrate downgrade {plan.before or 'base'}` goes back"
    )


def downgrade_line(done: Downgraded) -> str:
    """Return what a downgrade did."""
    said = f"{done.model}: {done.before or 'base'} → {done.after or 'base'}, {len(done.reverted)} reverted"
    if not done.semantic_undo:
        return f"{said}, every byte verified"
    return (
        f"{said} by a semantic undo, since these were changed or saved again: {', '.join(done.semantic_undo)};"
        " rows that were there before keep their values, added rows are removed, lost rows are restored"
    )


def plan_content(plan: Plan) -> dict[str, Any]:
    """Return a plan as JSON."""
    return {
        "model": plan.model,
        "from_revision": plan.before,
        "to_revision": plan.after,
        "rows_before": plan.edit.old_rows,
        "rows_after": plan.edit.new_rows,
        "bytes_to_write": plan.bytes_to_write,
        "summary": summarise_plan(plan),
        "lost_rows": plan.lost_rows,
        "bytes_of_lost_rows": plan.bytes_of_lost_rows,
        "tokens": plan.tokens,
        "files": _files(plan),
        "adapters": [{"path": adapter.model, "files": _files(adapter)} for adapter in plan.adapters],
        "copies": [{"path": change.name, "bytes": change.bytes} for change in plan.copy_changes()],
        "migrations": [
            {
                "revision": step.migration.revision,
                "message": step.migration.message,
                "operations": [
                    {
                        "operation": effect.operation,
                        "place": effect.place,
                        "risk": effect.risk.level.value,
                        "reason": effect.risk.reason,
                        "acknowledged": is_acknowledged(effect),
                        "assigned_ids": effect.assigned_ids,
                        "unreachable": effect.unreachable,
                    }
                    for effect in step.effects
                ],
            }
            for step in plan.steps
        ],
        "notes": plan.notes,
        "warnings": plan.warnings,
    }


def _files(plan: Plan) -> list[dict[str, Any]]:
    return [{"name": change.name, "change": change.kind, "bytes": change.bytes} for change in plan.file_changes()]


def upgrade_content(done: Upgraded) -> dict[str, Any]:
    """Return what an upgrade did as JSON."""
    return {**plan_content(done.plan), "recovered": done.recovered.value, "changed": bool(done.plan.steps)}


def downgrade_content(done: Downgraded) -> dict[str, Any]:
    """Return what a downgrade did as JSON."""
    return {
        "model": done.model,
        "from_revision": done.before,
        "to_revision": done.after,
        "reverted": done.reverted,
        "semantic_undo": done.semantic_undo,
        "recovered": done.recovered.value,
    }

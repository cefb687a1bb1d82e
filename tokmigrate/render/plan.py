"""Plans, upgrades and downgrades, as text and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Column
from rich.text import Text

from tokmigrate.formatting import format_bytes
from tokmigrate.operations.operation import RiskLevel
from tokmigrate.render.escape import escape, escape_quoted
from tokmigrate.render.terminal import format_revision, plain_table

if TYPE_CHECKING:
    from tokmigrate.commands.downgrade import Downgraded
    from tokmigrate.commands.upgrade import Upgraded
    from tokmigrate.plan.plan import Plan
    from tokmigrate.plan.token_changes import TokenChange

_SHOWN = {"new": 200, "removed": 200, "changed": 200, "moved": 20}
"""How many of a kind are shown on a screen; JSON has all."""

_ROWS = {"new": "new", "spare": "new, in a spare row", "kept": "new, with the row that was there"}

_SIDES = {"new": "is new", "spare": "is a spare one", "kept": "stays", "reinitialised": "is initialised again"}


def _token_table(changes: Sequence[TokenChange]) -> Iterator[RenderableType]:
    table = plain_table("token", Column("id", justify="right"), "what happens to it")
    counts: Counter[str] = Counter()
    for change in changes:
        kind = _kind(change)
        counts[kind] += 1
        if counts[kind] <= _SHOWN[kind]:
            token = escape_quoted(change.token if change.token is not None else change.old_token or "")
            table.add_row(token, "" if change.id is None else str(change.id), ", ".join(_descriptions(change)))
    yield table
    more = {kind: counts[kind] - most for kind, most in _SHOWN.items() if counts[kind] > most}
    if more:
        summary = ", ".join(f"{count:,} more {kind}" for kind, count in more.items())
        yield Text(f"… and {summary}, which --json lists", style="dim")


def _kind(change: TokenChange) -> str:
    if change.token is None:
        return "removed"
    if change.old_token is None:
        return "new"
    is_same = change.token == change.old_token and change.row == "kept" and change.output_row in ("kept", None)
    return "moved" if is_same and not (change.flags or change.gains or change.loses) else "changed"


def _descriptions(change: TokenChange) -> Iterator[str]:
    if change.token is None:
        placed = f"; {escape_quoted(change.placeholder)} holds its place" if change.placeholder is not None else ""
        yield f"removed, was {change.old_id}{placed}"
        return
    if change.old_token is None:
        yield _ROWS[change.row or "new"]
        if change.output_row not in (change.row, None):
            yield f"its output row {_SIDES[change.output_row or 'new']}"
    else:
        if change.token != change.old_token:
            yield f"renamed from {escape_quoted(change.old_token)}"
        if change.id != change.old_id:
            yield f"moved from {change.old_id}"
        if change.output_row not in (change.row, None):
            yield f"its input row {_SIDES[change.row or 'kept']}"
            yield f"its output row {_SIDES[change.output_row or 'new']}"
        elif change.row == "reinitialised":
            yield "its row is initialised again"
    for each in change.flags:
        yield f"{each.flag}: {_YES[each.before]} → {_YES[each.after]}"
    yield from (f"becomes {role}" for role in change.gains)
    yield from (f"no longer {role}" for role in change.loses)


_YES = {True: "yes", False: "no"}

_RISK_STYLE = {RiskLevel.SAFE: "green", RiskLevel.CAUTION: "yellow", RiskLevel.BREAKING: "bold red"}


def plan_text(plan: Plan) -> RenderableType:
    """Return a plan: ids, rows, files, bytes and risks."""
    if not plan.steps:
        return Text(f"{escape(plan.model)}: nothing is pending, it is at {format_revision(plan.before)}")
    table = plain_table("migration", "operation", "risk", "why")
    for step in plan.steps:
        first = f"{step.migration.revision} {step.migration.message}"
        for effect in step.effects:
            risk = Text(effect.risk.level.value, style=_RISK_STYLE[effect.risk.level])
            table.add_row(escape(first), effect.operation, risk, escape(effect.risk.reason))
            first = ""
        if not step.effects:
            table.add_row(escape(first), "none", "", "it has no operations")
    parts: list[RenderableType] = [
        Text(f"{escape(plan.model)}: {format_revision(plan.before)} → {format_revision(plan.after)}", style="bold"),
        table,
    ]
    if plan.tokens:
        parts += [Text(), *_token_table(plan.tokens)]
    files = plain_table("file", Column("will be"), Column("bytes", justify="right"))
    for each in (plan, *plan.adapters):
        prefix = "" if each is plan else f"{each.model}/"
        for change in each.file_changes():
            files.add_row(escape(f"{prefix}{change.name}"), change.kind, f"{change.bytes:,}")
    if files.row_count:
        parts += [Text(), files]
    parts += [
        Text(),
        Text(f"rows {plan.edit.old_rows} → {plan.edit.new_rows}, {format_bytes(plan.bytes_to_write)} to be written"),
    ]
    if plan.lost_rows:
        kept = format_bytes(plan.bytes_of_lost_rows)
        parts.append(Text(f"{plan.lost_rows:,} rows lost: undo data keeps {kept} of them, uncompressed"))
    parts += [Text(escape(f"note: {note}")) for note in plan.notes]
    return Group(*parts)


def upgrade_line(plan: Plan) -> str:
    """Return what an upgrade did, and how to go back."""
    return (
        f"{plan.model}: upgraded to {format_revision(plan.after)}, {format_bytes(plan.bytes_to_write)} written; "
        f"`tokmigrate downgrade {format_revision(plan.before)}` goes back"
    )


def downgrade_line(done: Downgraded) -> str:
    """Return what a downgrade did."""
    said = (
        f"{done.model}: {format_revision(done.before)} → {format_revision(done.after)}, {len(done.reverted)} reverted"
    )
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
        "lost_rows": plan.lost_rows,
        "bytes_of_lost_rows": plan.bytes_of_lost_rows,
        "tokens": plan.tokens,
        "files": _files(plan),
        "adapters": [{"path": adapter.model, "files": _files(adapter)} for adapter in plan.adapters],
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

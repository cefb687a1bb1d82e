"""Results as Rich renderables for a terminal."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tokmigrate.formatting import format_bytes
from tokmigrate.operations.base import RiskLevel
from tokmigrate.render.escape import escape, escape_quoted
from tokmigrate.render.training import adapter_rows_line, training_lines

if TYPE_CHECKING:
    from tokmigrate.commands.downgrade import Downgraded
    from tokmigrate.commands.inspect import ModelStatus
    from tokmigrate.plan.plan import Plan
    from tokmigrate.plan.token_changes import TokenChange
    from tokmigrate.revision.conditions import Check, Precondition
    from tokmigrate.revision.migration import Migration


_SHOWN = {"new": 200, "removed": 200, "changed": 200, "moved": 20}
"""How many of a kind are shown on a screen; JSON has all."""

_ROWS = {"new": "new", "spare": "new, in a spare row", "kept": "new, with the row that was there"}

_SIDES = {"new": "is new", "spare": "is a spare one", "kept": "stays", "reinitialised": "is initialised again"}


def token_table(changes: Sequence[TokenChange]) -> Iterator[RenderableType]:
    """Yield a table of tokens with their ids at the end of a plan, and how many it leaves out."""
    table = Table(box=None, pad_edge=False, show_edge=False)
    table.add_column("token", overflow="fold")
    table.add_column("id", justify="right")
    table.add_column("what happens to it", overflow="fold")
    left = dict(_SHOWN)
    more = dict.fromkeys(_SHOWN, 0)
    for change in changes:
        kind = _kind(change)
        if left[kind]:
            left[kind] -= 1
            token = change.token if change.token is not None else change.old_token or ""
            table.add_row(
                escape_quoted(token), "" if change.id is None else str(change.id), ", ".join(_descriptions(change))
            )
        else:
            more[kind] += 1
    yield table
    summary = ", ".join(f"{count:,} more {kind}" for kind, count in more.items() if count)
    if summary:
        yield Text(f"… and {summary}, which --json lists", style="dim")


def _kind(change: TokenChange) -> Literal["new", "removed", "changed", "moved"]:
    if change.token is None:
        return "removed"
    if change.old_token is None:
        return "new"
    is_same = change.token == change.old_token and change.row == "kept" and change.output_row in ("kept", None)
    only_moved = is_same and not (change.flags or change.gains or change.loses)
    return "moved" if only_moved else "changed"


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
        yield f"{each.flag}: {_yes(each.before)} → {_yes(each.after)}"
    yield from (f"becomes {role}" for role in change.gains)
    yield from (f"no longer {role}" for role in change.loses)


def _yes(flag: bool) -> str:
    return "yes" if flag else "no"


_RISK_STYLE = {RiskLevel.SAFE: "green", RiskLevel.CAUTION: "yellow", RiskLevel.BREAKING: "bold red"}


def format_revision(revision: str | None) -> str:
    """Return a revision as messages name it."""
    return revision or "base"


def plan_text(plan: Plan) -> RenderableType:
    """Return a plan: ids, rows, files, bytes and risks."""
    if not plan.steps:
        return Text(f"{escape(plan.model)}: nothing is pending, it is at {format_revision(plan.before)}")
    table = Table(box=None, pad_edge=False, show_edge=False)
    for column in ("migration", "operation", "risk", "why"):
        table.add_column(column, overflow="fold")
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
        parts += [Text(), *token_table(plan.tokens)]
    changes = [(change.name, change) for change in plan.file_changes()]
    for adapter in plan.adapters:
        changes += [(f"{adapter.model}/{change.name}", change) for change in adapter.file_changes()]
    if changes:
        files = Table(box=None, pad_edge=False, show_edge=False)
        files.add_column("file", overflow="fold")
        files.add_column("will be")
        files.add_column("bytes", justify="right")
        for name, change in changes:
            files.add_row(escape(name), change.kind, f"{change.bytes:,}")
        parts += [Text(), files]
    parts += [
        Text(),
        Text(f"rows {plan.edit.old_rows} → {plan.edit.new_rows}, {format_bytes(plan.bytes_to_write)} to be written"),
    ]
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


def history_table(
    migrations: Sequence[Migration], heads: Iterable[str], at: Mapping[str, list[str]], tags: Mapping[str, list[str]]
) -> RenderableType:
    """Return the migrations, the newest first, with the tags of each and the models that are at it."""
    table = Table(box=None, pad_edge=False, show_edge=False)
    for column in ("", "revision", "after", "message", "models here", *(["tags"] if tags else [])):
        table.add_column(column, overflow="fold")
    last = set(heads)
    for migration in reversed(migrations):
        here = ", ".join(at.get(migration.revision, ()))
        table.add_row(
            migration.number,
            migration.revision,
            format_revision(migration.down_revision),
            escape(migration.message),
            escape(" ".join(filter(None, (here, "(head)" if migration.revision in last else "")))),
            *([escape(", ".join(tags.get(migration.revision, ())))] if tags else []),
        )
    return table


def migration_text(migration: Migration) -> RenderableType:
    """Return one migration in full."""
    rows = [
        ("revision", migration.revision),
        ("after", format_revision(migration.down_revision)),
        ("message", migration.message),
        ("author", migration.author),
        ("file", migration.shown),
        ("models", ", ".join(migration.models)),
        ("checksum", migration.checksum),
        ("replaces", ", ".join(each.revision for each in migration.replaces)),
        ("attachments", ", ".join(migration.attachments)),
    ]
    if migration.init:
        rows.append(("init", _one_line(migration.init.model_dump(mode="json", exclude_defaults=True))))
    rows += [("precondition", _condition(each)) for each in migration.preconditions]
    for planned in migration.operations:
        fields = planned.operation.model_dump(mode="json", exclude_defaults=True)
        rows.append(("operation", f"{planned.operation.name}: {_one_line(fields)}"))
    if migration.source is not None:
        rows.append(("operation", "(Python: known when it is planned for a model)"))
    rows += [("verify", _condition(each)) for each in migration.checks]
    return Text("\n".join(escape(f"{name:<12} {value}") for name, value in rows if value))


def _condition(condition: Precondition | Check) -> str:
    ((name, value),) = condition.as_written().items()
    return f"{name}: {_one_line(value)}"


def _one_line(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def status_text(status: ModelStatus) -> RenderableType:
    """Return where a model stands."""
    table = Table(box=None, pad_edge=False, show_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    table.add_row("model", escape(f"{status.name} ({status.path})"))
    table.add_row("revision", format_revision(status.revision))
    pending = ", ".join(migration.revision for migration in status.pending)
    table.add_row("pending", pending or "nothing")
    table.add_row("tokens", f"{status.tokens} in {status.rows} rows, {'tied' if status.tied else 'untied'}")
    for tensor in status.tensors:
        table.add_row("tensor", escape(f"{tensor.name} {list(tensor.shape)} {tensor.dtype} in {tensor.file}"))
    for adapter in status.adapters:
        tensors = f"{len(adapter.tensors)} tensors with rows of the vocabulary"
        label = f"{adapter.path}: {format_revision(adapter.revision)}, {tensors}"
        table.add_row("adapter", escape(label))
        for held in adapter.rows:
            table.add_row("", escape(adapter_rows_line(held)))
    for line in training_lines(status.training):
        table.add_row("training", escape(line))
    for note in status.notes:
        table.add_row("note", escape(note))
    if status.locked_by:
        table.add_row("locked by", escape(status.locked_by))
    return table

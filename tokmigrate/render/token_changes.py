"""What a plan does to tokens, as a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from tokmigrate.render.escape import escape_quoted

if TYPE_CHECKING:
    from tokmigrate.plan.token_changes import TokenChange

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

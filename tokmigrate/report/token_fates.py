"""What becomes of tokens, as a table of a plan."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from tokmigrate.report.shown import quoted

if TYPE_CHECKING:
    from tokmigrate.plan.token_fates import TokenFate

_SHOWN = {"new": 200, "removed": 200, "changed": 200, "moved": 20}
"""How many of a kind are shown on a screen; JSON has all."""

_ROWS = {"new": "new", "spare": "new, in a spare row", "kept": "new, with the row that was there"}

_SIDES = {"new": "is new", "spare": "is a spare one", "kept": "stays", "anew": "is initialised again"}


def fates_table(fates: Sequence[TokenFate]) -> Iterator[RenderableType]:
    """Yield a table of tokens with their ids at the end of a plan, and how many it leaves out."""
    table = Table(box=None, pad_edge=False, show_edge=False)
    table.add_column("token", overflow="fold")
    table.add_column("id", justify="right")
    table.add_column("what becomes of it", overflow="fold")
    left = dict(_SHOWN)
    more = dict.fromkeys(_SHOWN, 0)
    for fate in fates:
        kind = _kind(fate)
        if left[kind]:
            left[kind] -= 1
            token = fate.token if fate.token is not None else fate.old_token or ""
            table.add_row(quoted(token), "" if fate.id is None else str(fate.id), ", ".join(_said(fate)))
        else:
            more[kind] += 1
    yield table
    told = ", ".join(f"{count:,} more {kind}" for kind, count in more.items() if count)
    if told:
        yield Text(f"… and {told}, which --json lists", style="dim")


def _kind(fate: TokenFate) -> Literal["new", "removed", "changed", "moved"]:
    if fate.token is None:
        return "removed"
    if fate.old_token is None:
        return "new"
    is_same = fate.token == fate.old_token and fate.row == "kept" and fate.output_row in ("kept", None)
    only_moved = is_same and not (fate.flags or fate.gains or fate.loses)
    return "moved" if only_moved else "changed"


def _said(fate: TokenFate) -> Iterator[str]:
    if fate.token is None:
        placed = f"; {quoted(fate.placeholder)} holds its place" if fate.placeholder is not None else ""
        yield f"removed, was {fate.old_id}{placed}"
        return
    if fate.old_token is None:
        yield _ROWS[fate.row or "new"]
        if fate.output_row not in (fate.row, None):
            yield f"its output row {_SIDES[fate.output_row or 'new']}"
    else:
        if fate.token != fate.old_token:
            yield f"renamed from {quoted(fate.old_token)}"
        if fate.id != fate.old_id:
            yield f"moved from {fate.old_id}"
        if fate.output_row not in (fate.row, None):
            yield f"its input row {_SIDES[fate.row or 'kept']} and its output row {_SIDES[fate.output_row or 'new']}"
        elif fate.row == "anew":
            yield "its row begins anew"
    for each in fate.flags:
        yield f"{each.flag}: {_yes(each.before)} → {_yes(each.after)}"
    yield from (f"becomes {role}" for role in fate.gains)
    yield from (f"no longer {role}" for role in fate.loses)


def _yes(flag: bool) -> str:
    return "yes" if flag else "no"

"""Plans as GitHub-flavoured Markdown, for the comment under a pull request."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tokmigrate.errors import TokmigrateError
from tokmigrate.formatting import format_count
from tokmigrate.operations.operation import RiskLevel
from tokmigrate.render.escape import escape_markdown, escape_markdown_code, escape_markdown_quoted
from tokmigrate.render.plan_summary import (
    choose_effects,
    describe_risk,
    describe_rows,
    describe_token,
    list_files,
    list_tokens,
    summarise_plan,
    token_text,
)
from tokmigrate.render.terminal import format_plain

if TYPE_CHECKING:
    from rich.console import RenderableType

    from tokmigrate.plan.plan import Plan

_LONGEST = 65_000
"""GitHub takes comments of 65,536 characters."""

_MOST = (1_000, 300, 100, 30, 10, 3, 0)
"""How many lines of each list are written: the first number with which the document is not too long."""

_OPEN = 15
"""How many lines of a list are not folded."""


@dataclass(frozen=True)
class PlannedModel:
    """A plan, with a corpus its impact, or why there is no plan."""

    name: str
    plan: Plan | TokmigrateError
    impact: RenderableType | None = None


def format_markdown(models: Sequence[PlannedModel]) -> str:
    """Return plans as one document that GitHub takes as a comment; long lists are shortened, and the rest counted."""
    for most in _MOST:
        document = _format(models, most)
        if len(document) <= _LONGEST:
            return document
    shown = len(models)
    while len(document) > _LONGEST:
        shown = shown * 3 // 4
        document = _format(models[:shown], 0, len(models) - shown)
    return document


def _format(models: Sequence[PlannedModel], most: int, left_out: int = 0) -> str:
    lines = ["## tokmigrate plan", ""]
    if len(models) > 1:
        lines += _format_table(("model", *_FIGURES), [(_name(each), *_overview(each)) for each in models])
    for each in models:
        lines += _section(each, most)
    if left_out:
        lines.append(f"… and {left_out:,} more models: `tokmigrate plan` shows them.")
    return "\n".join(lines).rstrip() + "\n"


_FIGURES = ("migrations", "tokens", "rows", "files", "highest risk")


def _overview(model: PlannedModel) -> tuple[str, ...]:
    plan = model.plan
    if isinstance(plan, TokmigrateError) or not plan.steps:
        return ("cannot be planned" if isinstance(plan, TokmigrateError) else "nothing is pending", "", "", "", "")
    return tuple(figure for _, figure in summarise_plan(plan).lines())


def _section(model: PlannedModel, most: int) -> Iterator[str]:
    plan = model.plan
    if isinstance(plan, TokmigrateError):
        yield from (f"### {_name(model)}: cannot be planned", "", _prose(str(plan)), "")
        yield from (f"what to do: {_prose(plan.hint)}", "") if plan.hint else ()
        return
    before, after = (f"`{revision or 'base'}`" for revision in (plan.before, plan.after))
    if not plan.steps:
        yield from (f"### {_name(model)}: nothing is pending, it is at {before}", "")
        return
    yield from (f"### {_name(model)}: {before} → {after}", "")
    yield from _format_table(_FIGURES, [_overview(model)])
    tokens = [
        (
            _shorten(token_text(change), escape_markdown_quoted),
            "" if change.id is None else str(change.id),
            escape_markdown(describe_token(change)),
        )
        for change in list_tokens(plan)[:most]
    ]
    yield from _format_list(("token", "id", "what happens to it"), tokens, len(plan.tokens), "token")
    rows = describe_rows(plan)
    yield from (*(f"- {_prose(line)}" for line in rows), "") if rows else ()
    files = list_files(plan)
    sizes = [(_shorten(name, escape_markdown_code), each.kind, f"{each.bytes:,}") for name, each in files[:most]]
    yield from _format_list(("file", "will be", "bytes"), sizes, len(files), "file")
    yield from _risks(plan, most)
    if plan.notes:
        yield from (*(f"- note: {_prose(note)}" for note in plan.notes[:_OPEN]), "")
        yield from _left_out(len(plan.notes) - _OPEN, "note")
    if model.impact is not None:
        yield from ("<details><summary>impact on texts</summary>", "")
        # Indented lines are code that no text of a token can end.
        yield from (f"    {line}".rstrip() for line in format_plain(model.impact).strip().splitlines())
        yield from ("", "</details>", "")


def _risks(plan: Plan, most: int) -> Iterator[str]:
    shown, more = choose_effects(plan, most)
    rows: list[tuple[str, ...]] = []
    for step in plan.steps:
        migration = f"`{step.migration.revision}` {_prose(step.migration.message)}"
        rows += [
            (migration, escape_markdown_code(each.operation), describe_risk(each), _prose(each.risk.reason))
            for each in shown[step.migration.revision]
        ]
        if not step.effects:
            rows.append((migration, "none", "", "it has no operations"))
    # Those that are not safe stand first, and are the last that are left out.
    rows.sort(key=_is_safe)
    count = len(rows) + more
    yield from _format_list(("migration", "operation", "risk", "why"), rows[:most], count, "operation")


def _is_safe(row: Sequence[str]) -> bool:
    return row[2] in ("", RiskLevel.SAFE.value)


def _format_list(columns: Sequence[str], rows: Sequence[Sequence[str]], count: int, noun: str) -> Iterator[str]:
    """Yield a table of the first rows, folded where it is long, and how many more there are."""
    if not count:
        return
    folds = len(rows) > _OPEN
    yield from (f"<details><summary>{format_count(count, noun)}</summary>", "") if folds else ()
    yield from _format_table(columns, rows) if rows else ()
    yield from _left_out(count - len(rows), noun)
    yield from ("</details>", "") if folds else ()


def _format_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(columns)} |"
    yield f"|{'|'.join('---:' if column in _NUMBERS else '---' for column in columns)}|"
    for row in rows:
        # In a table this holds in code spans too.
        yield f"| {' | '.join(cell.replace('|', _PIPE) for cell in row)} |"
    yield ""


_NUMBERS = ("id", "bytes")
_PIPE = "\\|"


def _left_out(count: int, noun: str) -> Iterator[str]:
    if count > 0:
        yield from (f"… and {format_count(count, f'more {noun}')}, which `tokmigrate plan --json` lists", "")


def _name(model: PlannedModel) -> str:
    return _shorten(model.name, escape_markdown_code)


def _prose(text: str) -> str:
    return _shorten(text, escape_markdown, 500)


def _shorten(text: str, escape: Callable[[str], str], longest: int = 120) -> str:
    """Return a text escaped, and of a long one its start and its length."""
    return escape(text) if len(text) <= longest else f"{escape(text[:longest])}… ({len(text):,} characters)"

"""In what two tokenizers differ, as Rich renderables and as JSON."""

from __future__ import annotations

import difflib
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.text import Text

from tokmigrate.formatting import format_count, format_list
from tokmigrate.render.escape import escape, escape_quoted
from tokmigrate.render.growth import growth_content, growth_table
from tokmigrate.render.terminal import plain_table

if TYPE_CHECKING:
    from tokmigrate.commands.diff import Comparison
    from tokmigrate.commands.vocabulary_audit import VocabularyAudit
    from tokmigrate.model.documents.semantic_diff import Aspect, Difference
    from tokmigrate.model.formats.json_text import Json

_SHOWN = 20  # How many of one aspect are shown on a screen; JSON has all

_LONGEST = 120
_LINE_STYLES = {"+": "good", "-": "bad", "@": "dim"}
_TOKENS: tuple[Aspect, ...] = ("added", "removed", "renamed", "moved")
_TITLES: dict[Aspect, str] = {
    "flags": "flags of added tokens",
    "scores": "scores",
    "rounding": "scores, in their last digits",
    "merges": "merges",
    "model": "model",
    "role": "special tokens",
    "specials": "listed special tokens, those of one side",
    "setting": "tokenizer_config.json",
    "id field": "ids",
    "rows": "sizes in config.json",
}
"""What the tables of single values are called."""


def comparison_text(comparison: Comparison) -> RenderableType:
    """Return the differences of two tokenizers in tables, a kind after the other."""
    found = comparison.differences
    title = Text(f"{escape(comparison.before)} → {escape(comparison.after)}", style="bold")
    if not found:
        return Group(title, Text("no semantic difference"))
    return Group(title, *difference_tables(found))


def difference_tables(found: Sequence[Difference]) -> Iterator[RenderableType]:
    """Yield the lines of differences, a kind after the other, with an empty line before each."""
    by_aspect: defaultdict[Aspect, list[Difference]] = defaultdict(list)
    for each in found:
        by_aspect[each.aspect].append(each)
    tokens = {aspect: by_aspect[aspect] for aspect in _TOKENS if by_aspect[aspect]}
    if tokens:
        counts = ", ".join(f"{len(rows):,} {aspect}" for aspect, rows in tokens.items())
        some = [each for rows in tokens.values() for each in rows[:_SHOWN]]
        more = sum(max(0, len(rows) - _SHOWN) for rows in tokens.values())
        yield from _add_title(f"tokens: {counts}", _token_table(some), more)
    for aspect, heading in _TITLES.items():
        if by_aspect[aspect]:
            more = max(0, len(by_aspect[aspect]) - _SHOWN)
            yield from _add_title(heading, _value_table(by_aspect[aspect][:_SHOWN]), more)
    for each in by_aspect["part"]:
        yield from _add_title(each.subject, _part_table(each))
    for each in by_aspect["template"]:
        yield from _add_title(f"chat template '{each.subject}'", _template_lines(each))


def _add_title(heading: str, body: RenderableType, more: int = 0) -> Iterator[RenderableType]:
    yield Text()
    yield Text(escape(heading), style="bold")
    yield body
    if more:
        yield Text(f"… and {more:,} more, which --json lists", style="dim")


def _token_table(tokens: Sequence[Difference]) -> RenderableType:
    table = plain_table("what", "token", "id")
    for each in tokens:
        if each.aspect == "renamed":
            token, number = f"{escape_quoted(each.before)} → {escape_quoted(each.after)}", each.subject
        else:
            token = escape_quoted(each.subject)
            number = " → ".join(str(held) for held in (each.before, each.after) if held is not None)
        table.add_row(each.aspect, token, number)
    return table


def _value_table(rows: Sequence[Difference]) -> RenderableType:
    table = plain_table("", "before", "after")
    for each in rows:
        values = (each.before, each.after)
        if each.aspect == "specials":
            old, new = values
            values = ([token for token in old if token not in new], [token for token in new if token not in old])
        table.add_row(escape(each.subject), *map(_value, values))
    return table


def _part_table(part: Difference) -> RenderableType:
    table = plain_table("", "before", "after")
    # A part that only one side has is shown field by field as well.
    alone = part.before is None or part.after is None
    leaves = _fields(part.before or {}, part.after or {}) if alone else _leaves(part.before, part.after)
    for place, before, after in leaves:
        table.add_row(escape(place), _value(before), _value(after))
    return table


def _leaves(before: Json, after: Json, place: str = "") -> Iterator[tuple[str, Json, Json]]:
    """Yield the places at which two parts differ: the fields of objects of one type, and the members of lists."""
    if isinstance(before, dict) and isinstance(after, dict) and before.get("type") == after.get("type"):
        for name, old, new in _fields(before, after):
            yield from _leaves(old, new, f"{place}.{name}" if place else name)
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for number, (old, new) in enumerate(zip(before, after, strict=True)):
            if old != new:
                yield from _leaves(old, new, f"{place}[{number}]")
    else:
        yield place, before, after


def _fields(before: Mapping[str, Json], after: Mapping[str, Json]) -> Iterator[tuple[str, Json, Json]]:
    for name in dict.fromkeys((*before, *after)):
        if before.get(name) != after.get(name):
            yield name, before.get(name), after.get(name)


def _value(held: Json) -> str:
    if held is None:
        return "-"
    text = escape(held if isinstance(held, str) else json.dumps(held, ensure_ascii=False))
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _template_lines(template: Difference) -> RenderableType:
    if template.before is None or template.after is None:
        return Text("only the first has one" if template.after is None else "only the second has one")
    lines = list(difflib.unified_diff(template.before.split("\n"), template.after.split("\n"), lineterm="", n=1))[2:]
    first = [Text(escape(line), style=_LINE_STYLES.get(line[:1], "")) for line in lines[: 2 * _SHOWN]]
    more = [Text(f"… and {len(lines) - len(first)} more lines", style="dim")] if len(lines) > len(first) else []
    return Group(*first, *more)


def audit_text(audit: VocabularyAudit) -> Iterator[RenderableType]:
    """Yield what a second model is to a first: tokens, rows, and what text costs."""
    order = (
        "in the same order"
        if audit.out_of_order is None
        else f"in another order from {escape_quoted(audit.out_of_order)} on"
    )
    yield Text()
    yield Text("audit", style="bold")
    yield (
        f"{audit.kept:,} of {format_count(audit.tokens_before, 'token')} are kept, {order},"
        f" {audit.moved:,} with another id; {audit.tokens_after - audit.kept:,} are new"
    )
    if audit.unreachable:
        names = format_list([escape_quoted(token) for token in audit.unreachable])
        yield f"{format_count(len(audit.unreachable), 'token')} of the second can no longer be reached: {names}"
    table = plain_table("script", "tokens", "kept", "new")
    for name, each in list(audit.scripts.items())[:_SHOWN]:
        table.add_row(name, f"{each.before:,}", f"{each.kept:,}", f"{each.added:,}")
    yield table
    if audit.unread is not None:
        yield f"rows are not compared: {escape(audit.unread)}"
    for rows in audit.rows:
        result = (
            f"{rows.differing:,} differ, such as that of {escape_quoted(rows.first)}" if rows.first else "all are equal"
        )
        yield f"{escape(rows.tensor)}: {format_count(rows.rows, 'row')} of kept tokens, {result}"
    yield from growth_table(audit.growth)


def audit_content(audit: VocabularyAudit) -> dict[str, Any]:
    """Return the same as JSON."""
    return {
        "tokens_before": audit.tokens_before,
        "tokens_after": audit.tokens_after,
        "kept": audit.kept,
        "moved": audit.moved,
        "out_of_order": audit.out_of_order,
        "unreachable": audit.unreachable,
        "by_script": [{"script": name, **vars(each)} for name, each in audit.scripts.items()],
        "rows": audit.rows,
        "rows_not_compared": audit.unread,
        "corpus": growth_content(audit.growth),
    }


def comparison_content(comparison: Comparison) -> dict[str, Any]:
    """Return the differences of two tokenizers as JSON."""
    return {**vars(comparison), "equal": not comparison.differences}

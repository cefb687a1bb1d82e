"""The impact of a plan on a corpus as Rich renderables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Column, Table
from rich.text import Text

from tokmigrate.formatting import format_bytes
from tokmigrate.render.escape import escape
from tokmigrate.render.terminal import plain_table

if TYPE_CHECKING:
    from tokmigrate.plan.corpus import CorpusChange, Example, ExampleTokens, Impact

_BETWEEN = "¦"  # The separator of two tokens: a character that texts seldom have

_LONGEST_PIECE = 16  # A longer token is shortened, so that the first that differs is on the screen


def impact_text(impact: Impact | None) -> RenderableType:
    """Return the figures of an impact, what each migration has in them, and the worst lines."""
    if impact is None:
        return Text("\nimpact: none, nothing in the plan changes how text is tokenized")
    parts: list[RenderableType] = [
        Text(),
        Text(f"impact on {escape(impact.corpus)}", style="bold"),
        Text(f"lines: {impact.lines:,} with text, {impact.empty:,} without; {format_bytes(impact.text_bytes)}"),
        Text(),
        _figures(impact),
    ]
    if len(impact.migrations) > 1:
        parts += [Text(), _migrations(impact)]
    if impact.worst:
        parts += [Text(), Text(_format_heading(impact), style="bold")]
        parts += [line for example in impact.worst for line in _example(example)]
    return Group(*parts)


def _figures(impact: Impact) -> Table:
    columns = [Column(name, justify="right" if name else "left", no_wrap=True) for name in ("before", "after", "")]
    table = plain_table(Column(), *columns)
    before, after, lines = impact.whole.before, impact.whole.after, impact.lines
    differently, other_ids = impact.whole.tokenized_differently, impact.whole.other_ids
    table.add_row("lines tokenized differently", "", f"{differently:,}", share(differently, lines))
    table.add_row("lines with other ids", "", f"{other_ids:,}", share(other_ids, lines))
    table.add_row("tokens", f"{before.tokens:,}", f"{after.tokens:,}", _growth(impact.whole))
    table.add_row("tokens per line", f"{before.tokens / lines:.2f}", f"{after.tokens / lines:.2f}", "")
    table.add_row("longest line", f"{before.longest:,}", f"{after.longest:,}", "")
    limits = [counts.limit for counts in (before, after)]
    sources = ", ".join(dict.fromkeys(limit.source for limit in limits if limit))
    most = [f"{limit.tokens:,}" if limit else "not stated" for limit in limits]
    table.add_row("most a line may have", *most, sources)
    for name, old, new in (
        ("lines beyond that", before.beyond, after.beyond),
        ("unknown tokens", before.unknown, after.unknown),
        ("tokens for single bytes", before.byte_tokens, after.byte_tokens),
    ):
        if old is not None or new is not None:
            table.add_row(name, *("-" if count is None else f"{count:,}" for count in (old, new)), "")
    return table


def _migrations(impact: Impact) -> Table:
    columns = [Column(name, justify="right", no_wrap=True) for name in ("tokenized differently", "other ids", "tokens")]
    table = plain_table("migration", *columns)
    for migration, change in impact.migrations:
        first = escape(f"{migration.revision} {migration.message}")
        if change is None:
            table.add_row(first, "nothing", "nothing", "")
        else:
            shares = (share(count, impact.lines) for count in (change.tokenized_differently, change.other_ids))
            table.add_row(first, *shares, _growth(change))
    return table


def _format_heading(impact: Impact) -> str:
    count, worst = impact.whole.tokenized_differently, len(impact.worst)
    if count == 1:
        return "the line that is tokenized differently"
    if count == worst:
        return f"the {count} lines that are tokenized differently, the worst first"
    return f"the {worst} worst of {count:,} lines that are tokenized differently"


def _example(example: Example) -> Iterator[Text]:
    """Yield a line's number, its text, and below each other how it was and will be tokenized."""
    yield Text(f"line {example.line:,}: {example.before.tokens:,} → {example.after.tokens:,} tokens")
    start = "…" if example.skipped else ""
    goes_on = "…" if example.before.more or example.after.more else ""
    for name, line in (
        ("text", Text(f"{start}{printable(example.text)}{goes_on}")),
        ("old", _tokens(example.before, start)),
        ("new", _tokens(example.after, start)),
    ):
        yield Text.assemble((f"  {name:<5}", "dim"), line, no_wrap=True, overflow="ellipsis")


def _tokens(tokens: ExampleTokens, start: str) -> Text:
    line = Text(start)
    for place, text in enumerate(map(printable, tokens.texts)):
        line.append(_BETWEEN if place else "", style="dim")
        line.append(text if len(text) <= _LONGEST_PIECE else f"{text[: _LONGEST_PIECE - 1]}…")
    return line.append("…" if tokens.more else "")


def printable(text: str) -> str:
    """Return a text in which nothing moves the cursor, hides, or looks like the separator of tokens."""
    return escape(text).replace(_BETWEEN, "\\xa6")


def share(count: int, total: int) -> str:
    """Return a share in percent, which says 0 and 100 only where that is all there is to it."""
    percent = f"{100 * count / total:.1f}"
    if count and percent == "0.0":
        return "< 0.1 %"
    if count != total and percent == "100.0":
        return "> 99.9 %"
    return f"{percent} %"


def _growth(change: CorpusChange) -> str:
    before, after = change.before.tokens, change.after.tokens
    return f"{100 * (after - before) / before:+.2f} %" if before and after != before else ""


def impact_content(impact: Impact | None) -> dict[str, Any] | None:
    """Return the impact of a plan on a corpus as JSON, null where it can do nothing to a text."""
    if impact is None:
        return None
    return {
        "corpus": impact.corpus,
        "lines": impact.lines,
        "empty": impact.empty,
        "text_bytes": impact.text_bytes,
        **vars(impact.whole),
        "migrations": [{"revision": migration.revision, "impact": change} for migration, change in impact.migrations],
        "worst": impact.worst,
    }

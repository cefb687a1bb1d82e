"""How many tokens the texts of a corpus have before and after, as a table and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType
from rich.table import Column, Table
from rich.text import Text

from tokmigrate.formatting import format_bytes
from tokmigrate.render.escape import escape
from tokmigrate.render.terminal import plain_table

if TYPE_CHECKING:
    from tokmigrate.plan.token_growth import CorpusGrowth, Growth

_SHOWN = 10  # How many files and scripts are shown on a screen; JSON has all


def growth_content(growth: CorpusGrowth) -> dict[str, Any]:
    """Return it as JSON."""
    return {
        **vars(growth.whole),
        "unexpected": growth.unexpected and {"file": growth.unexpected[0], "text": growth.unexpected[1]},
        "by_script": [{"script": name, **vars(each)} for name, each in growth.scripts.items()],
        "by_file": [{"file": name, **vars(each)} for name, each in growth.files.items()],
    }


def growth_table(growth: CorpusGrowth) -> Iterator[RenderableType]:
    """Yield a table with a row for all texts, and for each file and script where there are several."""
    titles = ("text", "tokens a byte", "afterwards", "growth", "differently")
    table = plain_table("", *(Column(title, justify="right") for title in titles))
    more = sum(_add_rows(table, groups) for groups in (growth.scripts, growth.files) if len(groups) > 1)
    _add_row(table, "all", growth.whole)
    yield table
    if more:
        yield Text(f"… and {more:,} more, which --json lists", style="dim")
    if growth.unexpected:
        file, number = growth.unexpected
        yield f"{escape(file)}:{number} has no removed token, and is tokenized differently without being shorter"


def _add_rows(table: Table, groups: Mapping[str, Growth]) -> int:
    """Add the rows of the largest groups, and return how many are left out."""
    for name, each in sorted(groups.items(), key=lambda item: -item[1].bytes)[:_SHOWN]:
        _add_row(table, escape(name), each)
    return max(0, len(groups) - _SHOWN)


def _add_row(table: Table, name: str, growth: Growth) -> None:
    size = growth.bytes
    table.add_row(
        name,
        format_bytes(size),
        f"{growth.tokens_before / size:.4f}",
        f"{growth.tokens_after / size:.4f}",
        f"{growth.ratio - 1:+.2%}",
        f"{growth.tokenized_differently / growth.texts:.1%}",
    )

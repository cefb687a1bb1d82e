"""Headlines and the lines under them, where a narrow terminal folds them; and when something was."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from rich.console import Console, ConsoleOptions, RenderableType
from rich.padding import Padding
from rich.text import Text

_NARROWEST = 20


def moment(when: datetime) -> str:
    """Return a moment to the second, in UTC and saying so: who reads a ledger may live elsewhere."""
    return f"{when.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def indented(line: str, by: int, style: str = "") -> RenderableType:
    """Return a line that keeps its indentation where a narrow terminal folds it."""
    return Padding(Text(line, style=style), (0, 0, 0, by), expand=False)


@dataclass(frozen=True)
class Hanging:
    """A headline of which what is folded stands under its beginning.

    Args:
        headline: The headline.
        by: How far its further lines are indented.
    """

    headline: Text
    by: int

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        """Yield its lines."""
        first, *more = self.headline.wrap(console, max(options.max_width - self.by, _NARROWEST))
        yield first
        yield from (Text.assemble(" " * self.by, line) for line in more)

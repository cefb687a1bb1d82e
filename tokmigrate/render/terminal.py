"""Everything that goes to a terminal: Rich changes no text, and no hidden character gets through."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import IO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.padding import Padding
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.segment import Segment
from rich.text import Text

from tokmigrate.formatting import format_bytes
from tokmigrate.render.escape import escape_lines

_NO_FOLD = 400
"""The width of a pipe without COLUMNS, which has none: nothing is to be cut or folded there."""


def terminal(*, stderr: bool = False) -> Console:
    """Return the console of stdout or stderr; NO_COLOR and pipes are respected."""
    found = Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    if found.is_terminal:
        return found
    width = os.environ.get("COLUMNS", "")
    wide = int(width) if width.isdecimal() and int(width) > 0 else _NO_FOLD
    return Console(stderr=stderr, width=wide, highlight=False, markup=False, emoji=False)


def print_renderable(renderable: RenderableType, console: Console) -> None:
    """Write a renderable to a console; in a pipe, without the spaces that Rich fills lines with."""
    if console.is_terminal:
        console.print(SanitizedRenderable(renderable))
        return
    with console.capture() as captured:
        console.print(SanitizedRenderable(renderable))
    console.file.write(re.sub(r" +$", "", captured.get(), flags=re.MULTILINE))
    console.file.flush()


def print_plain(renderable: RenderableType, file: IO[str]) -> None:
    """Write a renderable into a file, without colours, as a pipe gets it."""
    console = Console(
        file=file, force_terminal=False, color_system=None, width=_NO_FOLD, highlight=False, markup=False, emoji=False
    )
    print_renderable(renderable, console)


class SanitizedRenderable:
    """A renderable of which nothing hidden is left, whatever it was made of."""

    def __init__(self, renderable: RenderableType) -> None:
        self._renderable = renderable

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        """Yield its segments; those that Rich steers the terminal with stay."""
        for segment in console.render(self._renderable, options):
            yield segment if segment.control else segment._replace(text=escape_lines(segment.text))


_NARROWEST = 20


def moment(when: datetime) -> str:
    """Return a moment to the second, in UTC and saying so: who reads a ledger may live elsewhere."""
    return f"{when.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def indent_line(line: str, by: int, style: str = "") -> RenderableType:
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


def progress_lines(console: Console) -> Progress:
    """Return lines that are gone when they are done; where the console is not a terminal there are none.

    Args:
        console: Where they are shown.
    """
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TimeElapsedColumn(),
        _Bytes(),
        console=console,
        transient=True,
        # What is written to stdout is a result, and goes there while stderr shows this.
        redirect_stdout=False,
        disable=not console.is_terminal,
    )


class _Bytes(ProgressColumn):
    """The bytes of a task that counts them, and how many in a second."""

    def render(self, task: Task) -> Text:
        """Return them in the units of the plan."""
        if task.total is None:
            return Text()
        speed = task.finished_speed or task.speed
        amount = f"{format_bytes(int(task.completed))} of {format_bytes(int(task.total))}"
        return Text(f"{amount}, {format_bytes(int(speed))}/s" if speed else amount)

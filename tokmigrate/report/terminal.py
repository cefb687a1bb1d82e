"""The one way to a terminal: Rich replaces nothing in a text, and nothing hidden gets through."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import IO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from tokmigrate.report.shown import without_hidden

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


def put(renderable: RenderableType, console: Console) -> None:
    """Write a renderable to a console; in a pipe, without the spaces that Rich fills lines with."""
    if console.is_terminal:
        console.print(Harmless(renderable))
        return
    with console.capture() as captured:
        console.print(Harmless(renderable))
    console.file.write(re.sub(r" +$", "", captured.get(), flags=re.MULTILINE))
    console.file.flush()


def written_plainly(renderable: RenderableType, file: IO[str]) -> None:
    """Write a renderable into a file, without colours, as a pipe gets it."""
    console = Console(
        file=file, force_terminal=False, color_system=None, width=_NO_FOLD, highlight=False, markup=False, emoji=False
    )
    put(renderable, console)


class Harmless:
    """A renderable of which nothing hidden is left, whatever it was made of."""

    def __init__(self, renderable: RenderableType) -> None:
        self._renderable = renderable

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        """Yield its segments; those that Rich steers the terminal with stay."""
        for segment in console.render(self._renderable, options):
            yield segment if segment.control else segment._replace(text=without_hidden(segment.text))

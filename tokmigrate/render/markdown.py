"""Markdown on a terminal, in colours that can be read on a light and on a dark background."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from rich.console import Console, ConsoleOptions
from rich.markdown import Markdown
from rich.segment import Segment
from rich.style import Style
from rich.syntax import ANSISyntaxTheme
from rich.theme import Theme

# Rich's own styles set code on black.
_THEME = Theme(
    {
        "markdown.code": "bold",
        "markdown.h2": "bold",
        "markdown.h3": "bold",
        "markdown.list": "none",
        "markdown.item.number": "bold",
        "markdown.table.border": "dim",
        "markdown.table.header": "bold",
    }
)

_CODE: dict[tuple[str, ...], Style] = {("Comment",): Style(dim=True), ("Name", "Tag"): Style(bold=True)}


class TerminalMarkdown:
    """A Markdown text as wide as the terminal."""

    def __init__(self, text: str) -> None:
        # A name would be that of a theme with yellow or a ground of its own.
        self._markdown = Markdown(text, code_theme=cast("str", ANSISyntaxTheme(_CODE)))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        """Yield its segments."""
        with console.use_theme(_THEME):
            yield from console.render(self._markdown, options)

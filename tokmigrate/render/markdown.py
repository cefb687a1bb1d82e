"""Markdown on a terminal, in colours that can be read on a light and on a dark background."""

from __future__ import annotations

from typing import cast

from rich.markdown import Markdown
from rich.style import Style
from rich.syntax import ANSISyntaxTheme

_CODE: dict[tuple[str, ...], Style] = {("Comment",): Style(dim=True), ("Name", "Tag"): Style(bold=True)}


def render_markdown(text: str) -> Markdown:
    """Return a Markdown text as wide as the terminal, in the styles of its theme."""
    # A name would be that of a theme with yellow or a ground of its own.
    return Markdown(text, code_theme=cast("str", ANSISyntaxTheme(_CODE)))

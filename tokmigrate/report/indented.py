"""Lines under a headline."""

from __future__ import annotations

from rich.console import RenderableType
from rich.padding import Padding
from rich.text import Text


def indented(line: str, by: int, style: str = "") -> RenderableType:
    """Return a line that keeps its indentation where a narrow terminal folds it."""
    return Padding(Text(line, style=style), (0, 0, 0, by), expand=False)

"""How far a command is: what it does, and where bytes are counted how many."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.text import Text

from tokmigrate.change.room import human_bytes


def progress_lines(console: Console) -> Progress:
    """Return lines that are gone when they are done; where the console is no terminal there are none.

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
        told = f"{human_bytes(int(task.completed))} of {human_bytes(int(task.total))}"
        return Text(f"{told}, {human_bytes(int(speed))}/s" if speed else told)

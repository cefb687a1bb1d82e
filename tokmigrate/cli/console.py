"""What is printed with Rich: tables, and the progress of a command."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import RenderableType
from rich.progress import TaskID

from tokmigrate import events
from tokmigrate.cli.output import echo_err
from tokmigrate.events import Event, OnProgress
from tokmigrate.render.escape import escape
from tokmigrate.render.terminal import print_renderable, progress_lines, terminal


def print_rich(renderable: RenderableType, *, stderr: bool = False) -> None:
    """Write a renderable to stdout or stderr; NO_COLOR and pipes are respected."""
    print_renderable(renderable, terminal(stderr=stderr))


class _Progress:
    """The bar of each model that a command works on."""

    def __init__(self) -> None:
        self.bars = progress_lines(terminal(stderr=True))
        self._tasks: dict[str, TaskID] = {}

    def on_progress(self, event: Event) -> None:
        """Show what an event says."""
        match event:
            case events.ActivityStarted(model, activity, total):
                self._start(model, activity, total)
            case events.BytesProcessed(model, count):
                self.bars.advance(self._tasks[model], count)
                # The result of another model may have stopped them.
                self.bars.start()
            case events.StepReached(model, events.Step.STAGED):
                self._start(model, "comparing what was written")
            case events.StepReached(model, events.Step.VERIFIED):
                self._start(model, "publishing")
            case events.ActivityEnded(model) | events.StepReached(model, events.Step.CLEANED):
                self._stop(model)
            case events.Warned(model, message):
                echo_err(f"warning: {model}: {message}")

    def _start(self, model: str, doing: str, total: int | None = None) -> None:
        self._stop(model)
        self._tasks[model] = self.bars.add_task(escape(f"{model}: {doing}"), total=total)
        self.bars.start()

    def _stop(self, model: str) -> None:
        # The bar is removed before a result is written in its place.
        self.bars.stop()
        if model in self._tasks:
            self.bars.remove_task(self._tasks.pop(model))


@contextmanager
def progress() -> Iterator[OnProgress]:
    """Show on stderr, if it is a terminal, what is being done and how far it is."""
    shown_progress = _Progress()
    try:
        yield shown_progress.on_progress
    finally:
        shown_progress.bars.stop()

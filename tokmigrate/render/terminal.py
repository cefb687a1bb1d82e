"""Everything that goes to a terminal, progress too: Rich changes no text, and no hidden character gets through."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from io import StringIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.padding import Padding
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.segment import Segment
from rich.table import Column, Table
from rich.text import Text
from rich.theme import Theme

from tokmigrate import events
from tokmigrate.events import Event, OnProgress
from tokmigrate.formatting import format_bytes
from tokmigrate.render.escape import escape, escape_lines
from tokmigrate.render.verbosity import VERBOSITY, Verbosity, is_quiet

_NO_FOLD = 400  # The width of a pipe without COLUMNS, which has none: nothing is to be cut or folded there


# Of the 16 colours, which a terminal sets itself, those that can be read on a light and a dark ground: no yellow, white
# or cyan. Words say the same as each colour.
_THEME = Theme(
    {
        "good": "green",
        "caution": "magenta",
        "bad": "bold red",
        **dict.fromkeys(("bar.complete", "bar.finished", "bar.pulse"), "magenta"),
        "bar.back": "dim",
        # Rich's own styles of Markdown set code on black.
        **dict.fromkeys(("markdown.code", "markdown.h2", "markdown.h3", "markdown.item.number"), "bold"),
        "markdown.list": "none",
        "markdown.table.border": "dim",
        "markdown.table.header": "bold",
    }
)

_console = partial(Console, highlight=False, markup=False, emoji=False, theme=_THEME)


def _open_console(*, stderr: bool) -> Console:
    """Return the console of stdout or stderr; NO_COLOR and pipes are respected."""
    found = _console(stderr=stderr)
    # FORCE_COLOR makes a pipe a terminal for Rich, and no wider.
    if not found.file.isatty():
        width = os.environ.get("COLUMNS", "")
        found.width = int(width) if width.isdecimal() and int(width) > 0 else _NO_FOLD
    return found


def print_rich(renderable: RenderableType, *, stderr: bool = False) -> None:
    """Write a renderable to stdout or stderr."""
    _print(renderable, _open_console(stderr=stderr))


def _print(renderable: RenderableType, console: Console) -> None:
    """Write a renderable to a console; in a pipe, without the spaces that Rich fills lines with."""
    if console.file.isatty():
        console.print(SanitizedRenderable(renderable))
        return
    with console.capture() as captured:
        console.print(SanitizedRenderable(renderable))
    console.file.write(re.sub(r" +$", "", captured.get(), flags=re.MULTILINE))
    console.file.flush()


def format_plain(renderable: RenderableType) -> str:
    """Return a renderable as a pipe without COLUMNS gets it."""
    file = StringIO()
    _print(renderable, _console(file=file, force_terminal=False, color_system=None, width=_NO_FOLD))
    return file.getvalue()


def plain_table(*columns: str | Column) -> Table:
    """Return a table without lines; a column that is given by its header folds long texts."""
    all_columns = (Column(each, overflow="fold") if isinstance(each, str) else each for each in columns)
    return Table(*all_columns, box=None, pad_edge=False, show_edge=False)


class SanitizedRenderable:
    """A renderable of which nothing hidden is left, whatever it was made of."""

    def __init__(self, renderable: RenderableType) -> None:
        self._renderable = renderable

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        """Yield its segments; those that Rich steers the terminal with stay."""
        for segment in console.render(self._renderable, options):
            yield segment if segment.control else segment._replace(text=escape_lines(segment.text))


_NARROWEST = 20


def format_time(when: datetime) -> str:
    """Return a time to the second in UTC, and say so: a reader may be in another time zone."""
    return f"{when.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def indent_line(line: str, by: int, style: str = "") -> RenderableType:
    """Return a line that keeps its indentation where a narrow terminal folds it."""
    return Padding(Text(line, style=style), (0, 0, 0, by), expand=False)


@dataclass(frozen=True)
class Hanging:
    """A headline whose further lines, where a narrow terminal folds it, are indented."""

    headline: Text
    by: int

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        """Yield its lines."""
        first, *more = self.headline.wrap(console, max(options.max_width - self.by, _NARROWEST))
        yield first
        yield from (Text.assemble(" " * self.by, line) for line in more)


class _Progress:
    """The bar of each model that a command works on."""

    def __init__(self) -> None:
        console = _open_console(stderr=True)
        # They are gone when they are done; where stderr is not a terminal there are none.
        self.bars = Progress(
            # In a narrow terminal a long name is shortened, and no figure.
            TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, ratio=2)),
            BarColumn(bar_width=None, table_column=Column(ratio=1)),
            _Amount(table_column=Column(no_wrap=True)),
            expand=True,
            console=console,
            transient=True,
            # What is written to stdout is a result, and goes there while stderr shows this.
            redirect_stdout=False,
            disable=not console.file.isatty(),
        )
        self._tasks: dict[str, TaskID] = {}

    def on_progress(self, event: Event) -> None:
        """Show what an event says."""
        match event:
            case events.ActivityStarted(model, activity, total, unit):
                self._start(model, activity, total, unit)
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
                print(escape(f"warning: {model}: {message}"), file=sys.stderr, flush=True)

    def _start(self, model: str, doing: str, total: int | None = None, unit: events.Unit = "bytes") -> None:
        self._stop(model)
        self._tasks[model] = self.bars.add_task(escape(f"{model}: {doing}"), total=total, unit=unit)
        self.bars.start()

    def stop(self) -> None:
        """Remove the bars."""
        # Before version 14.1 Rich then writes an empty line even if it shows none.
        if not self.bars.disable:
            self.bars.stop()

    def _stop(self, model: str) -> None:
        # The bar is removed before a result is written in its place.
        self.stop()
        if model in self._tasks:
            self.bars.remove_task(self._tasks.pop(model))


class _StepLog:
    """A line on stderr for each event, with the seconds since the first could come."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._activities: dict[str, tuple[str, float]] = {}

    def on_progress(self, event: Event) -> None:
        """Print what an event says."""
        now = time.monotonic()
        match event:
            case events.ActivityStarted(model, activity, total, unit):
                self._activities[model] = activity, now
                size = "" if total is None else f", {total:,} steps" if unit == "steps" else f", {format_bytes(total)}"
                self._print(now, f"{model}: {activity}{size}")
            case events.ActivityEnded(model) if model in self._activities:
                ended, started = self._activities.pop(model)
                self._print(now, f"{model}: {ended} took {now - started:.2f} s")
            case events.StepReached(model, step):
                self._print(now, f"{model}: {step.value}")
            case events.Warned(model, message):
                self._print(now, f"warning: {model}: {message}")

    def _print(self, now: float, line: str) -> None:
        print(escape(f"{now - self._start:8.2f} s  {line}"), file=sys.stderr, flush=True)


@contextmanager
def progress() -> Iterator[OnProgress]:
    """Show on stderr what is being done: how far it is on a terminal; if verbose each step, if quiet nothing."""
    if is_quiet():
        yield events.no_progress
        return
    if VERBOSITY.get() is Verbosity.VERBOSE:
        yield _StepLog().on_progress
        return
    shown_progress = _Progress()
    try:
        yield shown_progress.on_progress
    finally:
        shown_progress.stop()


class _Amount(ProgressColumn):
    """The bytes of a task that counts them, how many in a second, in the units of the plan, and the time left.

    A task that counts steps shows these; one that counts nothing shows the seconds since it started.
    """

    def render(self, task: Task) -> Text:
        if task.total is None:
            return Text(f"{task.elapsed or 0:.0f} s")
        left = f", {task.time_remaining:.0f} s left" if task.time_remaining else ""
        if task.fields["unit"] == "steps":
            return Text(f"{task.completed:,.0f} of {task.total:,.0f} steps{left}")
        speed = task.finished_speed or task.speed
        amount = f"{format_bytes(int(task.completed))} of {format_bytes(int(task.total))}"
        return Text(f"{amount}, {format_bytes(int(speed))}/s{left}" if speed else amount)

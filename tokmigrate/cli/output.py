"""Where a command's result goes: one JSON document or a Rich table on stdout, everything else on stderr."""

from __future__ import annotations

import json
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from tokmigrate.errors import FileProblems, TokmigrateError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from tokmigrate.events import Event, Listener


TRACEBACKS = ContextVar("TRACEBACKS", default=False)
"""Whether errors come with their tracebacks."""

_CONTROLS = re.compile("[\x7f-\x9f]")


def print_json(document: dict[str, Any]) -> None:
    """Write one JSON document to stdout."""
    text = json.dumps(document, indent=2, ensure_ascii=False)
    # JSON leaves these as they are, and a terminal may obey them.
    sys.stdout.write(_CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n")


def show(renderable: RenderableType) -> None:
    """Write a result to the terminal; NO_COLOR and pipes are respected."""
    _print(renderable, stderr=False)


def show_aside(renderable: RenderableType) -> None:
    """Write what goes with a result to stderr."""
    _print(renderable, stderr=True)


def _print(renderable: RenderableType, stderr: bool) -> None:
    from rich.console import Console  # noqa: PLC0415

    console = Console(highlight=False, stderr=stderr)
    if not console.is_terminal:
        # A pipe has no width: nothing is to be cut or folded there.
        console = Console(highlight=False, stderr=stderr, width=400)
    console.print(renderable)


def trace(error: TokmigrateError) -> None:
    """Write the traceback of an error to stderr, where that is asked for."""
    if TRACEBACKS.get():
        sys.stderr.write("".join(traceback.format_exception(error)))


def print_error(error: TokmigrateError, as_json: bool, model: str | None = None) -> None:
    """Write an error, and its traceback to stderr where that is asked for.

    Args:
        error: The error.
        as_json: As a document on stdout; else to stderr.
        model: The model that it is about, where that has to be said.
    """
    trace(error)
    if as_json:
        from tokmigrate.report.machine import error_document  # noqa: PLC0415

        print_json(error_document(error))
        return
    if isinstance(error, FileProblems):
        sys.stderr.write("".join(f"error: {problem}\n" for problem in error.problems))
        return
    sys.stderr.write(f"error: {f'{model}: ' if model else ''}{error}\n")
    if error.hint:
        sys.stderr.write(f"what to do: {error.hint}\n")


@contextmanager
def progress() -> Iterator[Listener]:
    """Show the bytes while they are written or read, on stderr, where that is a terminal."""
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn  # noqa: PLC0415

    from tokmigrate.events import (  # noqa: PLC0415
        BytesStreamed,
        CorpusMeasured,
        CorpusOpened,
        CorpusRead,
        Step,
        StepReached,
        StreamStarted,
        Warned,
        WeightsRead,
    )

    console = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    tasks: dict[str, Any] = {}

    def listen(event: Event) -> None:
        if isinstance(event, StreamStarted | CorpusOpened):
            tasks[event.model] = bar.add_task(event.model, total=event.total)
            bar.start()
        elif isinstance(event, BytesStreamed | CorpusRead):
            bar.advance(tasks[event.model], event.count)
        elif isinstance(event, CorpusMeasured | WeightsRead) or (
            isinstance(event, StepReached) and event.step is Step.STAGED
        ):
            # It goes before a result is written where it stood.
            bar.stop()
            bar.remove_task(tasks.pop(event.model))
        elif isinstance(event, Warned):
            sys.stderr.write(f"warning: {event.model}: {event.message}\n")

    try:
        yield listen
    finally:
        bar.stop()

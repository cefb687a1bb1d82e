"""Where a command's result goes: one JSON document or a Rich table on stdout, everything else on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tokmigrate.errors import FileProblems, TokmigrateError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from tokmigrate.events import Event, Listener


def print_json(document: dict[str, Any]) -> None:
    """Write one JSON document to stdout."""
    from tokmigrate.report.shown import in_json  # noqa: PLC0415

    sys.stdout.write(in_json(json.dumps(document, indent=2, ensure_ascii=False)) + "\n")


def say(line: str) -> None:
    """Write one line of a result to stdout."""
    print(_shown(line), flush=True)


def say_aside(line: str) -> None:
    """Write one line that goes with a result to stderr."""
    print(_shown(line), file=sys.stderr, flush=True)


def _shown(text: str) -> str:
    from tokmigrate.report.shown import shown  # noqa: PLC0415

    return shown(text)


def show(renderable: RenderableType) -> None:
    """Write a result to the terminal; NO_COLOR and pipes are respected."""
    _print(renderable, stderr=False)


def show_aside(renderable: RenderableType) -> None:
    """Write what goes with a result to stderr."""
    _print(renderable, stderr=True)


def _print(renderable: RenderableType, stderr: bool) -> None:
    from tokmigrate.report.terminal import Harmless, terminal  # noqa: PLC0415

    terminal(stderr=stderr).print(Harmless(renderable))


def print_error(error: TokmigrateError, as_json: bool) -> None:
    """Write an error: as a document on stdout if asked, else to stderr."""
    if as_json:
        from tokmigrate.report.machine import error_document  # noqa: PLC0415

        print_json(error_document(error))
        return
    if isinstance(error, FileProblems):
        for problem in error.problems:
            say_aside(f"error: {problem}")
        return
    say_aside(f"error: {error}")
    if error.hint:
        # A hint may hold lines for a file.
        for line in f"what to do: {error.hint}".split("\n"):
            say_aside(line)


@contextmanager
def progress() -> Iterator[Listener]:
    """Show the bytes while they are written or read, on stderr, where that is a terminal."""
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
    from tokmigrate.report.shown import shown  # noqa: PLC0415
    from tokmigrate.report.terminal import terminal  # noqa: PLC0415

    console = terminal(stderr=True)
    bar = Progress(
        TextColumn("{task.description}", markup=False),
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
            tasks[event.model] = bar.add_task(shown(event.model), total=event.total)
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
            say_aside(f"warning: {event.model}: {event.message}")

    try:
        yield listen
    finally:
        bar.stop()

"""Where a command's result goes: one JSON document or a Rich table on stdout, everything else on stderr."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from tokmigrate.cli.streams import is_lost
from tokmigrate.errors import FileProblems, TokmigrateError

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.progress import TaskID

    from tokmigrate.events import Event, Listener


TRACEBACKS = ContextVar("TRACEBACKS", default=False)
"""Whether errors come with their tracebacks."""


def print_json(document: dict[str, Any]) -> None:
    """Write one JSON document to stdout."""
    from tokmigrate.report.escape import escape_json  # noqa: PLC0415

    # In JSON a letter that the stream has no bytes for is written by its number.
    plain = not (sys.stdout.encoding or "utf-8").lower().startswith("utf")
    sys.stdout.write(escape_json(json.dumps(document, indent=2, ensure_ascii=plain)) + "\n")
    sys.stdout.flush()


def say(line: str) -> None:
    """Write one line of a result to stdout."""
    print(_shown(line), flush=True)


def say_aside(line: str) -> None:
    """Write one line that goes with a result to stderr."""
    print(_shown(line), file=sys.stderr, flush=True)


def _shown(text: str) -> str:
    from tokmigrate.report.escape import escape  # noqa: PLC0415

    return escape(text)


def show(renderable: RenderableType) -> None:
    """Write a result to the terminal; NO_COLOR and pipes are respected."""
    _print(renderable, stderr=False)


def show_aside(renderable: RenderableType) -> None:
    """Write what goes with a result to stderr."""
    _print(renderable, stderr=True)


def _print(renderable: RenderableType, stderr: bool) -> None:
    from tokmigrate.report.terminal import put, terminal  # noqa: PLC0415

    put(renderable, terminal(stderr=stderr))


def trace(error: TokmigrateError) -> None:
    """Write the traceback of an error to stderr, where that is asked for."""
    if TRACEBACKS.get():
        from tokmigrate.report.escape import escape_lines  # noqa: PLC0415

        sys.stderr.write(escape_lines("".join(traceback.format_exception(error))))


def print_error(error: TokmigrateError, as_json: bool, model: str | None = None) -> None:
    """Write an error, and its traceback to stderr where that is asked for.

    Args:
        error: The error.
        as_json: As a document on stdout; else to stderr.
        model: The model that it is about, where that has to be said.
    """
    trace(error)
    if as_json:
        from tokmigrate.report.json import error_document  # noqa: PLC0415

        print_json(error_document(error))
        if not is_lost(sys.stdout):
            return
    if isinstance(error, FileProblems):
        for problem in error.problems:
            say_aside(f"error: {problem}")
        return
    say_aside(f"error: {f'{model}: ' if model else ''}{error}")
    if error.hint:
        # A hint may hold lines for a file.
        for line in f"what to do: {error.hint}".split("\n"):
            say_aside(line)


@contextmanager
def progress() -> Iterator[Listener]:
    """Show what is being done, and how far it is, on stderr, where that is a terminal."""
    from tokmigrate import events  # noqa: PLC0415
    from tokmigrate.report.escape import escape  # noqa: PLC0415
    from tokmigrate.report.terminal import progress_lines, terminal  # noqa: PLC0415

    lines = progress_lines(terminal(stderr=True))
    tasks: dict[str, TaskID] = {}

    def end(model: str) -> None:
        # It goes before a result is written where it stood.
        lines.stop()
        if model in tasks:
            lines.remove_task(tasks.pop(model))

    def begin(model: str, doing: str, total: int | None = None) -> None:
        end(model)
        tasks[model] = lines.add_task(escape(f"{model}: {doing}"), total=total)
        lines.start()

    def listen(event: Event) -> None:
        match event:
            case events.ComputationStarted(model):
                begin(model, "computing the new rows")
            case events.StreamStarted(model, total, doing):
                begin(model, doing, total)
            case events.CorpusOpened(model, total):
                begin(model, "cutting the corpus", total)
            case events.BytesStreamed(model, count) | events.CorpusRead(model, count):
                lines.advance(tasks[model], count)
            case events.VerificationStarted(model, thoroughness):
                begin(model, "verifying with transformers" if thoroughness == "full" else "verifying")
            case events.StepReached(model, events.Step.STAGED):
                begin(model, "comparing what was written")
            case events.StepReached(model, events.Step.VERIFIED):
                begin(model, "publishing")
            case (
                events.WeightsRead(model)
                | events.VerificationEnded(model)
                | events.CorpusMeasured(model)
                | events.StepReached(model, events.Step.CLEANED)
            ):
                end(model)
            case events.Warned(model, message):
                say_aside(f"warning: {model}: {message}")

    try:
        yield listen
    finally:
        lines.stop()

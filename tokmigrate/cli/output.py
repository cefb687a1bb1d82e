"""Where the result of a command goes: lines or one JSON document to stdout, all else to stderr."""

from __future__ import annotations

import io
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import fields
from datetime import datetime
from pathlib import PurePath
from typing import Any, TextIO, cast

from tokmigrate.cli import pager
from tokmigrate.errors import FileProblems, TokmigrateError, name_explanation
from tokmigrate.formats import JSON_OUTPUT
from tokmigrate.render.escape import escape, escape_json, escape_lines
from tokmigrate.render.verbosity import is_quiet

MAKES_CHANGES = ContextVar("MAKES_CHANGES", default=False)
"""Whether the command changes files: then its exit code is that of the change, even if its output is lost."""


def declare_changes() -> None:
    """Let the exit code be that of the change, even if the output is lost."""
    MAKES_CHANGES.set(True)


class Stream:
    """A stream whose errors are kept; its target is None where it is closed.

    `hold` keeps what is written for the pager; what is written to a stream `after` another releases that first.
    """

    def __init__(self, target: TextIO | None, after: Stream | None = None) -> None:
        self._target: TextIO = target or io.StringIO()
        self._after = after
        self._held: io.StringIO | None = None
        self.error: str | None = None if target else "it is closed"
        self.lost_reader = False
        if isinstance(target, io.TextIOWrapper):
            target.reconfigure(errors="backslashreplace")

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the target."""
        return getattr(self._target, name)

    def write(self, text: str) -> int:
        """Write a text, unless an earlier write failed."""
        if self._after:
            self._after.release()
        if self._held is None:
            self._try(self._target.write, text)
        else:
            self._held.write(text)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write lines, unless an earlier write failed."""
        for line in lines:
            self.write(line)

    def hold(self) -> None:
        """Keep what is written until it is released, if it may go to a pager."""
        if pager.pages(self._target):
            self._held = io.StringIO()

    def release(self) -> None:
        """Show what was kept, in a pager where the terminal is too small for it."""
        text = self._held.getvalue() if self._held else ""
        if text:
            self._held = io.StringIO()
            if not pager.show_paged(text, self._target):
                self._try(self._target.write, text)
                self._try(self._target.flush)

    def flush(self) -> None:
        """Flush, unless an earlier write failed."""
        self._try(self._target.flush)

    def _try(self, act: Callable[..., object], *arguments: str) -> None:
        if self.error is None:
            try:
                act(*arguments)
            except OSError as error:
                self.error = error.strerror or str(error)
                self.lost_reader = isinstance(error, BrokenPipeError)


def is_lost(stream: object) -> bool:
    """Return whether a write to a stream failed."""
    return isinstance(stream, Stream) and stream.error is not None


@contextmanager
def capture_stream_errors() -> Iterator[tuple[Stream, Stream]]:
    """Replace stdout and stderr with streams that keep their errors while a command runs."""
    _open_closed_descriptors()
    out, err = sys.stdout, sys.stderr
    held = Stream(out)
    streams = held, Stream(err, after=held)
    sys.stdout, sys.stderr = (cast("TextIO", each) for each in streams)
    try:
        yield streams
    finally:
        sys.stdout, sys.stderr = out, err
        for each in streams:
            each.flush()
            if each.error:
                # The interpreter flushes once more when it exits.
                with suppress(OSError, ValueError), open(os.devnull, "w") as nowhere:  # noqa: PTH123
                    os.dup2(nowhere.fileno(), each.fileno())


def _open_closed_descriptors() -> None:
    """Open 0, 1 and 2 if they are closed: else a model file could get such a number and be overwritten by output."""
    descriptor = os.open(os.devnull, os.O_RDWR)
    while descriptor <= 2:
        descriptor = os.open(os.devnull, os.O_RDWR)
    os.close(descriptor)


TRACEBACKS = ContextVar("TRACEBACKS", default=False)
"""Whether errors are printed with their tracebacks."""


def json_lines(document: dict[str, Any] | list[dict[str, Any]]) -> list[str]:
    """Return the lines of a JSON document for stdout, which escapes what stdout cannot encode."""
    ascii_only = not (sys.stdout.encoding or "utf-8").lower().startswith("utf")
    return escape_json(json.dumps(document, indent=2, ensure_ascii=ascii_only, default=_encode)).split("\n")


def _encode(value: object) -> object:
    match value:
        case Mapping():
            return dict(value)
        case datetime():
            return value.isoformat()
        case PurePath():
            return str(value)
    # Raises TypeError for any other value; `asdict` takes seconds for a large vocabulary, since it copies deeply.
    return {each.name: getattr(value, each.name) for each in fields(cast("Any", value))}


def document(command: str, **content: Any) -> dict[str, Any]:
    """Return the document of one command."""
    return {"schema_version": JSON_OUTPUT.version, "command": command, **content}


def error_document(error: TokmigrateError) -> dict[str, Any]:
    """Return the document of an error."""
    found: dict[str, Any] = {
        "kind": type(error).__name__,
        "message": error.message,
        "where": error.where,
        "hint": error.hint,
        "explain": error.topic,
        "exit_code": error.exit_code,
    }
    if isinstance(error, FileProblems):
        found["problems"] = error.problems
    return {"schema_version": JSON_OUTPUT.version, "error": found}


def print_json(document: dict[str, Any] | list[dict[str, Any]]) -> None:
    """Write one JSON document to stdout."""
    print("\n".join(json_lines(document)), flush=True)


def echo(line: str) -> None:
    """Write one line of a result to stdout."""
    print(escape(line), flush=True)


def echo_err(line: str) -> None:
    """Write one line to stderr."""
    print(escape(line), file=sys.stderr, flush=True)


def echo_note(line: str) -> None:
    """Write one line to stderr that is neither a result nor an error, unless the command is quiet."""
    if not is_quiet():
        echo_err(line)


def print_traceback(error: TokmigrateError) -> None:
    """Write the traceback of an error to stderr if --debug is given."""
    if TRACEBACKS.get():
        sys.stderr.write(escape_lines("".join(traceback.format_exception(error))))


def print_error(error: TokmigrateError, as_json: bool, model: str | None = None, *, names_topic: bool = True) -> None:
    """Write an error, which may have to name its model and its topic, and its traceback if --debug is given."""
    print_traceback(error)
    if as_json:
        print_json(error_document(error))
        if not is_lost(sys.stdout):
            return
    if isinstance(error, FileProblems):
        lines = [f"error: {problem}" for problem in error.problems]
    else:
        # A hint may hold lines for a file.
        hint = f"what to do: {error.hint}".split("\n") if error.hint else []
        lines = [f"error: {f'{model}: ' if model else ''}{error}", *hint]
    if names_topic:
        lines.append(name_explanation(error.topic))
    for line in lines:
        echo_err(line)

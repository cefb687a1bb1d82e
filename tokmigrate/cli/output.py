"""Where the result of a command goes: lines or one JSON document to stdout, all else to stderr."""

from __future__ import annotations

import json
import sys
import traceback
from contextvars import ContextVar
from typing import Any

from tokmigrate.cli.streams import is_lost
from tokmigrate.errors import FileProblems, TokmigrateError
from tokmigrate.render.escape import escape, escape_json, escape_lines
from tokmigrate.render.json import error_document

TRACEBACKS = ContextVar("TRACEBACKS", default=False)
"""Whether errors are printed with their tracebacks."""


def print_json(document: dict[str, Any]) -> None:
    """Write one JSON document to stdout."""
    # Where the stream cannot encode a character, JSON escapes it.
    ascii_only = not (sys.stdout.encoding or "utf-8").lower().startswith("utf")
    sys.stdout.write(escape_json(json.dumps(document, indent=2, ensure_ascii=ascii_only)) + "\n")
    sys.stdout.flush()


def echo(line: str) -> None:
    """Write one line of a result to stdout."""
    print(escape(line), flush=True)


def echo_err(line: str) -> None:
    """Write one line to stderr."""
    print(escape(line), file=sys.stderr, flush=True)


def print_traceback(error: TokmigrateError) -> None:
    """Write the traceback of an error to stderr if --debug is given."""
    if TRACEBACKS.get():
        sys.stderr.write(escape_lines("".join(traceback.format_exception(error))))


def print_error(error: TokmigrateError, as_json: bool, model: str | None = None) -> None:
    """Write an error, and its traceback to stderr if --debug is given.

    Args:
        error: The error.
        as_json: As a document on stdout; else to stderr.
        model: The model that the error is about, where the message has to name it.
    """
    print_traceback(error)
    if as_json:
        print_json(error_document(error))
        if not is_lost(sys.stdout):
            return
    if isinstance(error, FileProblems):
        for problem in error.problems:
            echo_err(f"error: {problem}")
        return
    echo_err(f"error: {f'{model}: ' if model else ''}{error}")
    if error.hint:
        # A hint may hold lines for a file.
        for line in f"what to do: {error.hint}".split("\n"):
            echo_err(line)

"""stdout and stderr with deferred errors: a full disk or a closed pipe does not stop a command.

A command that fails has changed nothing. So an error in printing a result must not look like a failed change: it is
kept until the command has ended, and reported then.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any, TextIO, cast

MAKES_CHANGES = ContextVar("MAKES_CHANGES", default=False)
"""Whether the command changes files: then its exit code is that of the change, even if its output is lost."""


def declare_changes() -> None:
    """Let the exit code be that of the change, even if the output is lost."""
    MAKES_CHANGES.set(True)


class Stream:
    """A stream whose errors are kept.

    Args:
        target: The stream that it writes to, None where that is closed.
    """

    def __init__(self, target: TextIO | None) -> None:
        self._target: TextIO = target or io.StringIO()
        self.error: str | None = None if target else "it is closed"
        if isinstance(target, io.TextIOWrapper):
            target.reconfigure(errors="backslashreplace")

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the target."""
        return getattr(self._target, name)

    def write(self, text: str) -> int:
        """Write a text, unless an earlier write failed."""
        if self.error is None:
            self._keep_error(self._target.write, text)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write lines, unless an earlier write failed."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Flush, unless an earlier write failed."""
        if self.error is None:
            self._keep_error(self._target.flush)

    def close_lost(self) -> None:
        """Flush; after an error, redirect to /dev/null, since the interpreter flushes once more when it exits."""
        self.flush()
        if self.error:
            with suppress(OSError, ValueError), open(os.devnull, "w") as nowhere:  # noqa: PTH123
                os.dup2(nowhere.fileno(), self._target.fileno())

    def _keep_error(self, act: Callable[..., object], *arguments: str) -> None:
        try:
            act(*arguments)
        except OSError as error:
            self.error = error.strerror or str(error)


def is_lost(stream: object) -> bool:
    """Return whether a write to a stream failed."""
    return isinstance(stream, Stream) and stream.error is not None


@contextmanager
def capture_stream_errors() -> Iterator[tuple[Stream, Stream]]:
    """Replace stdout and stderr with streams that keep their errors while a command runs."""
    _open_closed_descriptors()
    out, err = sys.stdout, sys.stderr
    streams = Stream(out), Stream(err)
    sys.stdout, sys.stderr = (cast("TextIO", each) for each in streams)
    try:
        yield streams
    finally:
        sys.stdout, sys.stderr = out, err
        for each in streams:
            each.close_lost()


def _open_closed_descriptors() -> None:
    """Open 0, 1 and 2 if they are closed: else a model file could get such a number and be overwritten by output."""
    descriptor = os.open(os.devnull, os.O_RDWR)
    while descriptor <= 2:
        descriptor = os.open(os.devnull, os.O_RDWR)
    os.close(descriptor)

"""stdout and stderr as a command writes to them: what they do not take is lost, and ends no command.

A command that fails has changed nothing. So an error in saying what was done must not look like one in doing it: it is
kept until the command has ended, and told then.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any, TextIO, cast

CHANGES_SOMETHING = ContextVar("CHANGES_SOMETHING", default=False)
"""Whether the command writes something besides what it says: then its exit code is about that alone."""


def changes_something() -> None:
    """Let the exit code of the command be about what it does, even where what it says is lost."""
    CHANGES_SOMETHING.set(True)


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
        """Return what the target has."""
        return getattr(self._target, name)

    def write(self, text: str) -> int:
        """Write a text, unless an earlier one was lost."""
        if self.error is None:
            self._keep_error(self._target.write, text)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write lines, unless something was lost before."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Hand over what was written, unless something was lost before."""
        if self.error is None:
            self._keep_error(self._target.flush)

    def close_lost(self) -> None:
        """Let the interpreter, which flushes once more at its end, find nothing to complain of."""
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
    """Return whether something that was written to a stream was lost."""
    return isinstance(stream, Stream) and stream.error is not None


@contextmanager
def kept_errors() -> Iterator[tuple[Stream, Stream]]:
    """Let stdout and stderr keep their errors while a command runs, and give both."""
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
    """Open 0, 1 and 2 where they are closed: else a file of a model would get such a number, and be written to."""
    descriptor = os.open(os.devnull, os.O_RDWR)
    while descriptor <= 2:
        descriptor = os.open(os.devnull, os.O_RDWR)
    os.close(descriptor)

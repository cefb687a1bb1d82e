"""The pager, as Git has it: for output that is longer than the terminal."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
from contextvars import ContextVar
from types import FrameType
from typing import TextIO

PAGES = ContextVar("PAGES", default=True)
"""Whether a pager may be used."""

_DEFAULTS = {"LESS": "FRX", "LV": "-c"}
"""As Git sets them: colours stay, and less ends at once where one screen holds all."""


def pages(stream: TextIO) -> bool:
    """Return whether what goes to a stream may go to a pager."""
    return PAGES.get() and stream.isatty() and os.environ.get("TERM") != "dumb" and _find_pager() is not None


def _find_pager() -> str | None:
    for name in ("TOKMIGRATE_PAGER", "PAGER"):
        named = os.environ.get(name)
        if named is not None:
            return named if named.strip() not in ("", "cat") else None
    return shutil.which("less")


def show_paged(text: str, stream: TextIO) -> bool:
    """Show a text that the terminal of a stream is too small for; return whether that was done.

    Those of click and rich do not ask for the size of the screen, and lose colours with a pager of the user's.
    """
    pager = _find_pager()
    if pager is None or not _is_long(text, stream):
        return False
    stream.flush()
    # Ctrl-C is for the pager, which would inherit that it is ignored, but inherits no handler.
    before = signal.signal(signal.SIGINT, _leave_to_pager)
    try:
        process = subprocess.Popen(shlex.split(pager), stdin=subprocess.PIPE, env=_DEFAULTS | os.environ)
        process.communicate(text.encode(stream.encoding or "utf-8", "backslashreplace"))
    except (OSError, ValueError):
        # There is no such program.
        return False
    finally:
        signal.signal(signal.SIGINT, before)
    # One that failed may have shown nothing.
    return process.returncode <= 0


def _leave_to_pager(_number: int, _frame: FrameType | None) -> None:
    pass


def _is_long(text: str, stream: TextIO) -> bool:
    columns, lines = os.get_terminal_size(stream.fileno())
    if not columns or not lines:
        return False
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    return sum(1 + (len(line) - 1) // columns if line else 1 for line in plain.splitlines()) >= lines

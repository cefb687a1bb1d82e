"""How much a command prints beside its results and errors."""

from __future__ import annotations

from contextvars import ContextVar
from enum import IntEnum


class Verbosity(IntEnum):
    """From results and errors alone to each step with its time."""

    QUIET = 0
    NORMAL = 1
    VERBOSE = 2


VERBOSITY = ContextVar("VERBOSITY", default=Verbosity.NORMAL)


def is_quiet() -> bool:
    """Return whether only results and errors are printed."""
    return VERBOSITY.get() is Verbosity.QUIET

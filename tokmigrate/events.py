"""What the engine tells while it works; only the command line decides how it looks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

Thoroughness = Literal["full", "fast", "paranoid"]
"""How a change is verified: see `verify` in docs/workspace.md."""


class Step(StrEnum):
    """The steps of a change in their order; a process may die between any two of them."""

    LOCKED = "locked"
    RECORDED = "recorded"
    STAGED = "staged"
    VERIFIED = "verified"
    STAMPED = "stamped"
    PREPARED = "prepared"
    SWAPPED = "swapped"
    FOLLOWED = "followed"
    APPLIED = "applied"
    CLEANED = "cleaned"


@dataclass(frozen=True)
class StepReached:
    """A change of `model` has completed `step`."""

    model: str
    step: Step


Activity = Literal[
    "computing the new rows",
    "staging",
    "reading",
    "verifying",
    "tokenizing the corpus",
    "learning from the corpus",
    "computing rows",
    "training",
    "writing snippets",
    "measuring the model",
]
Unit = Literal["bytes", "steps"]


@dataclass(frozen=True)
class ActivityStarted:
    """An activity on `model` starts; `total` is how many bytes or steps it takes, None where they are not counted."""

    model: str
    activity: Activity
    total: int | None = None
    unit: Unit = "bytes"


@dataclass(frozen=True)
class BytesProcessed:
    """The activity on `model` has read or written `count` more bytes, or done so many steps."""

    model: str
    count: int


@dataclass(frozen=True)
class ActivityEnded:
    """The activity on `model` has ended."""

    model: str


@dataclass(frozen=True)
class Warned:
    """Something that the user should know, and that stops nothing."""

    model: str
    message: str


Event = StepReached | ActivityStarted | BytesProcessed | ActivityEnded | Warned
OnProgress = Callable[[Event], None]


def no_progress(event: Event) -> None:
    """Listen to nothing."""


@contextmanager
def report_activity(
    on_progress: OnProgress, model: str, activity: Activity, total: int | None = None, unit: Unit = "bytes"
) -> Iterator[Callable[[int], None]]:
    """Report an activity while it lasts, and give what reports how many more bytes or steps are done."""
    on_progress(ActivityStarted(model, activity, total, unit))
    try:
        yield lambda count: on_progress(BytesProcessed(model, count))
    finally:
        on_progress(ActivityEnded(model))

"""What the engine tells while it works; only the command line decides how it looks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal


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


@dataclass(frozen=True)
class ComputationStarted:
    """The new rows of a change of `model`, and its undo data, are about to be computed."""

    model: str


@dataclass(frozen=True)
class StreamStarted:
    """`total` bytes of `model` are about to be written beside it, or read."""

    model: str
    total: int
    doing: Literal["staging", "reading"]


@dataclass(frozen=True)
class BytesStreamed:
    """`count` more bytes have been written, or read."""

    model: str
    count: int


@dataclass(frozen=True)
class VerificationStarted:
    """The libraries are about to load `model` as a change leaves it; `full` asks transformers too."""

    model: str
    thoroughness: Literal["fast", "full"]


@dataclass(frozen=True)
class VerificationEnded:
    """They have answered."""

    model: str


@dataclass(frozen=True)
class WeightsRead:
    """The reading of `model`'s weights has ended."""

    model: str


@dataclass(frozen=True)
class CorpusOpened:
    """`total` bytes of a corpus are about to be cut by `model`'s tokenizers."""

    model: str
    total: int


@dataclass(frozen=True)
class CorpusRead:
    """`count` more bytes of it have been cut."""

    model: str
    count: int


@dataclass(frozen=True)
class CorpusMeasured:
    """The reading of it has ended."""

    model: str


@dataclass(frozen=True)
class Warned:
    """Something that the user should know, and that stops nothing."""

    model: str
    message: str


Event = (
    StepReached
    | ComputationStarted
    | StreamStarted
    | BytesStreamed
    | VerificationStarted
    | VerificationEnded
    | WeightsRead
    | CorpusOpened
    | CorpusRead
    | CorpusMeasured
    | Warned
)
OnProgress = Callable[[Event], None]


def no_progress(event: Event) -> None:
    """Listen to nothing."""

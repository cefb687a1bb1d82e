"""The rows of the state as frozen values, free of SQL; and who makes them, with which programs, from which commit."""

from __future__ import annotations

import getpass
import os
import platform
import socket
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from enum import StrEnum
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from tokmigrate import __version__
from tokmigrate.git import ask_git
from tokmigrate.vocabulary.ids import Move

LIBRARIES = ("transformers", "tokenizers", "torch", "safetensors", "numpy")
_GIT_TIMEOUT_S = 5.0


class Direction(StrEnum):
    """What a run does to a model's history."""

    UPGRADE = "upgrade"
    DOWNGRADE = "downgrade"
    STAMP = "stamp"
    ADOPT = "adopt"


class Status(StrEnum):
    """How far a run has come."""

    STAGING = "STAGING"
    PREPARED = "PREPARED"
    APPLIED = "APPLIED"
    FAILED = "FAILED"

    @property
    def active(self) -> bool:
        """Whether the run still holds its model."""
        return self in (Status.STAGING, Status.PREPARED)


class Origin(StrEnum):
    """Where an applied revision is known from."""

    APPLIED = "applied"
    ADOPTED = "adopted"


class TokenEventType(StrEnum):
    """The type of a token event."""

    ADDED = "added"
    REMOVED = "removed"
    RENAMED = "renamed"
    MOVED = "moved"
    REINITIALISED = "reinitialised"
    TRAINED = "trained"
    REVERTED = "reverted"


@dataclass(frozen=True)
class AppliedRecord:
    """A revision that a run applies, as it goes into the ledger.

    `position` counts the applied revisions from 0; `undo` is the digest of the undo record; the others those of files.
    """

    revision: str
    position: int
    checksum: str
    message: str = ""
    undo: str | None = None
    digests_before: Mapping[str, str] = field(default_factory=dict)
    digests_after: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class MigrationText:
    """A migration as it was applied; `attachments` has the BLAKE3 digest of each file that it refers to, by name."""

    revision: str
    checksum: str
    file: str
    text: str
    attachments: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TokenEvent:
    """A token event: what a revision does to one token, as it goes into the ledger.

    Args:
        token: The token's text; after a rename the new one.
        token_id: The id that it has now, None where it is gone; `old_id` that before, None where it was not there.
        old_token: Before a rename the old text; of a trained token its initial text, where that is another.
        init: How its row is initialised, as a JSON object, None for an old row.
        row_fingerprint: That of a new row, or of a trained one as it was found; None for an old row.
    """

    revision: str
    event: TokenEventType
    token: str
    token_id: int | None = None
    old_id: int | None = None
    old_token: str | None = None
    init: Mapping[str, Any] | None = None
    row_fingerprint: str | None = None


@dataclass(frozen=True)
class TokensMoved:
    """What a revision does to tokens that move together, in one row: `moved`, or `reverted` where they move back."""

    revision: str
    event: TokenEventType
    move: Move

    def each(self) -> Iterator[TokenEvent]:
        """Yield what happened to each token."""
        for token, old, new in self.move.each():
            yield TokenEvent(self.revision, self.event, token, new, old)


@dataclass(frozen=True)
class Outcome:
    """All that finishing a run writes into the ledger; kept with it before the swap."""

    applied: tuple[AppliedRecord, ...] = ()
    reverted: tuple[str, ...] = ()
    tokens: tuple[TokenEvent | TokensMoved, ...] = ()

    def payload(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        events = [field_values(event) for event in self.tokens]
        return {"applied": [asdict(each) for each in self.applied], "reverted": self.reverted, "tokens": events}

    @staticmethod
    def of(payload: Mapping[str, Any]) -> Outcome:
        """Return the outcome that `payload` holds."""
        return Outcome(
            tuple(AppliedRecord(**record) for record in payload.get("applied", ())),
            tuple(payload.get("reverted", ())),
            tuple(map(_event_of, payload.get("tokens", ()))),
        )


def field_values(event: TokenEvent | TokensMoved) -> dict[str, Any]:
    """Return the fields of an event by name; `asdict` would copy each value of 100,000 events."""
    values = {name: getattr(event, name) for name in _NAMES[type(event)]}
    if isinstance(event, TokensMoved):
        values["move"] = {name: getattr(event.move, name) for name in _NAMES[Move]}
    return values


_NAMES: Mapping[type, tuple[str, ...]] = {
    kind: tuple(each.name for each in fields(kind)) for kind in (TokenEvent, TokensMoved, Move)
}
"""The names of the fields of events."""


def _event_of(payload: Mapping[str, Any]) -> TokenEvent | TokensMoved:
    values = {**payload, "event": TokenEventType(payload["event"])}
    if "move" not in values:
        return TokenEvent(**values)
    move = values["move"]
    return TokensMoved(**{**values, "move": Move(move["start"], move["shift"], tuple(move["tokens"]))})


@dataclass(frozen=True)
class Provenance:
    """The author of a run, with the versions of tokmigrate, Python and libraries, and the commit of the workspace."""

    user: str
    host: str
    pid: int
    tool_version: str = __version__
    libraries: dict[str, str] = field(default_factory=dict)
    git_commit: str | None = None


@dataclass(frozen=True)
class ModelRow:
    """A model that the state knows."""

    id: int
    name: str
    path: str
    lineage: str


@dataclass(frozen=True)
class RunRow:
    """A run: the intent and outcome of one change of one model; `payload` is there until it is applied."""

    id: str
    number: int
    model_id: int
    direction: Direction
    from_revision: str | None
    to_revision: str | None
    revisions: tuple[str, ...]
    status: Status
    generation_before: str | None
    generation_after: str | None
    provenance: Provenance
    started: datetime
    finished: datetime | None
    duration_s: float | None
    error: str | None
    payload: dict[str, Any] | None


@dataclass(frozen=True)
class AppliedRow:
    """An applied revision in the ledger; `reverted_by` is the run that took it back."""

    run_id: str
    origin: Origin
    record: AppliedRecord
    applied_at: datetime
    reverted_by: str | None


@dataclass(frozen=True, slots=True)
class TokenRow:
    """A token event in the ledger; `table` is where its row is."""

    number: int
    run_id: str
    event: TokenEvent
    recorded_at: datetime
    table: Literal["token_events", "token_moves"] = "token_events"

    def each(self) -> Iterator[TokenRow]:
        """Yield it: a row for each token, as a move of several tokens does."""
        yield self


@dataclass(frozen=True)
class MoveRow:
    """Tokens that moved together, in the ledger."""

    number: int
    run_id: str
    event: TokensMoved
    recorded_at: datetime

    def each(self) -> Iterator[TokenRow]:
        """Yield a row for each token, with the number of the one that holds them all."""
        for event in self.event.each():
            yield TokenRow(self.number, self.run_id, event, self.recorded_at, "token_moves")


@dataclass(frozen=True)
class BrokenRun:
    """The first run of a ledger that its hash chain does not account for; `run_id` is empty where there is none."""

    run_id: str
    reason: str

    def __str__(self) -> str:
        return f"run {self.run_id or '(none)'}: {self.reason}"


def identify(workspace: Path) -> Provenance:
    """Return who runs this process, and at which commit `workspace` is."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError, ImportError):
        user = str(os.getuid())
    return Provenance(
        user=user,
        host=socket.gethostname(),
        pid=os.getpid(),
        libraries=dict(library_versions()),
        git_commit=git_commit(workspace),
    )


@cache
def library_versions() -> Mapping[str, str]:
    """Return the installed versions by name, without importing a library."""
    versions = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def git_commit(folder: Path) -> str | None:
    """Return the commit that `folder` is at, or None outside Git, without Git, or where it hangs."""
    found = ask_git(folder, "rev-parse", "--verify", "HEAD", timeout_s=_GIT_TIMEOUT_S).output
    return found.strip() or None if found else None

"""The lives of tokens as the ledger tells them: each token under all its names, from its first event to its last."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tokmigrate.state.rows import Happened, TokenRow


@dataclass(frozen=True, slots=True)
class Life:
    """What befell one token.

    Args:
        names: The texts that it had, the first one first, each once.
        events: What befell it, the earliest first.
        added: Whether a migration added it; a token of the baseline otherwise.
        token: Its text at the end, None where it is gone.
    """

    names: tuple[str, ...]
    events: tuple[TokenRow, ...]
    added: bool
    token: str | None

    @property
    def ids(self) -> frozenset[int]:
        """Every id that its events tell of."""
        told = (number for row in self.events for number in (row.event.token_id, row.event.old_id))
        return frozenset(number for number in told if number is not None)


class _Going:
    """A life while its events are read."""

    __slots__ = ("added", "events", "names", "token")

    def __init__(self, name: str, added: bool) -> None:
        self.names: dict[str, None] = {name: None}
        self.added = added
        self.events: list[TokenRow] = []
        self.token: str | None = name


def lives(rows: Iterable[TokenRow]) -> tuple[Life, ...]:
    """Return the life of every token that the events of a model name, in the order of their first events.

    Args:
        rows: The events, the earliest first.
    """
    reading = _Reading()
    for row in rows:
        reading.read(row)
    return tuple(Life(tuple(each.names), tuple(each.events), each.added, each.token) for each in reading.begun)


class _Reading:
    """Follows each token from name to name."""

    def __init__(self) -> None:
        self.begun: list[_Going] = []
        self._now: dict[str, _Going] = {}
        self._removed: dict[tuple[str, str], _Going] = {}
        self._taken_back: dict[tuple[str, str], _Going] = {}

    def read(self, row: TokenRow) -> None:
        event = row.event
        if event.event is Happened.ADDED:
            life = self._added(event.revision, event.token)
        elif event.event is Happened.RENAMED:
            life = self._taken(event.old_token or event.token)
        elif event.event is Happened.REVERTED and event.old_id is None:
            life = self._returned(event.revision, event.token)
        elif event.event is Happened.REVERTED:
            life = self._taken(event.old_token or event.token)
        else:
            life = self._taken(event.token)
        life.events.append(row)
        if event.token_id is None:
            life.token = None
            gone = self._removed if event.event is Happened.REMOVED else self._taken_back
            gone[event.revision, event.token] = life
            return
        former = self._now.get(event.token)
        if former is not None:
            # It went without an event: the model was put back by hand.
            former.token = None
        life.names.setdefault(event.token)
        life.token = event.token
        self._now[event.token] = life

    def _added(self, revision: str, name: str) -> _Going:
        """Return a new token; or the one that this migration had added once, before it was taken back."""
        known = (revision, name) in self._taken_back
        return self._taken_back.pop((revision, name)) if known else self._begin(name, added=True)

    def _taken(self, name: str) -> _Going:
        """Return the token of that name, which has to be given its name again."""
        return self._now.pop(name) if name in self._now else self._begin(name, added=False)

    def _returned(self, revision: str, name: str) -> _Going:
        """Return the token of that name that a migration had removed."""
        known = (revision, name) in self._removed
        return self._removed.pop((revision, name)) if known else self._begin(name, added=False)

    def _begin(self, name: str, added: bool) -> _Going:
        self.begun.append(_Going(name, added))
        return self.begun[-1]

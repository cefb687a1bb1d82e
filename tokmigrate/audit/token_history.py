"""The history of tokens in the ledger: each token under all its names, from its first event to its last."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from tokmigrate.state.rows import TokenEvent, TokenEventType, TokenRow

T = TypeVar("T")
RowKey = tuple[str, str]
"""A revision, and the text of the token whose row it initialised: what the lineage of a model keeps of a row."""


@dataclass(frozen=True, slots=True)
class TokenHistory:
    """The events of one token, which a migration added or the baseline had.

    `names` are the texts that it had, the first one first; `token` is its text at the end, None where it is removed.
    """

    names: tuple[str, ...]
    events: tuple[TokenRow, ...]
    added: bool
    token: str | None

    @property
    def ids(self) -> frozenset[int]:
        ids = (number for row in self.events for number in (row.event.token_id, row.event.old_id))
        return frozenset(number for number in ids if number is not None)


def read_token_histories(rows: Iterable[TokenRow]) -> tuple[TokenHistory, ...]:
    """Return the history of every token that the events of a model, the earliest first, name, by their first events."""
    found: list[_OpenHistory] = []
    by_name: dict[str, _OpenHistory] = {}
    removed: dict[RowKey, _OpenHistory] = {}
    addition_reverted: dict[RowKey, _OpenHistory] = {}

    def take(known: dict[T, _OpenHistory], key: T, name: str, added: bool = False) -> _OpenHistory:
        """Return a history and take it out of those that are known, or begin one."""
        if key in known:
            return known.pop(key)
        found.append(_OpenHistory({name: None}, added, name))
        return found[-1]

    for row in rows:
        event = row.event
        key = (event.revision, event.token)
        if event.event is TokenEventType.ADDED:
            # An addition that was reverted and applied again is the same token.
            history = take(addition_reverted, key, event.token, added=True)
        elif event.event is TokenEventType.REVERTED and event.old_id is None:
            history = take(removed, key, event.token)
        else:
            renames = event.event in (TokenEventType.RENAMED, TokenEventType.REVERTED)
            name = (event.old_token if renames else None) or event.token
            history = take(by_name, name, name)
        history.events.append(row)
        if event.token_id is None:
            history.token = None
            (removed if event.event is TokenEventType.REMOVED else addition_reverted)[key] = history
            continue
        former = by_name.get(event.token)
        if former is not None:
            # It went without an event: the model was put back by hand.
            former.token = None
        history.names.setdefault(event.token)
        history.token = event.token
        by_name[event.token] = history
    return tuple(TokenHistory(tuple(each.names), tuple(each.events), each.added, each.token) for each in found)


@dataclass(slots=True)
class _OpenHistory:
    names: dict[str, None]
    added: bool
    token: str | None
    events: list[TokenRow] = field(default_factory=list)


@dataclass(frozen=True)
class InitRecord:
    """What the ledger keeps of a row that a migration initialised.

    Args:
        fingerprint: The fingerprint of the row after initialisation, as `format_fingerprints` writes it.
        known_trained: Whether the ledger has recorded that it was trained.
        from_file: By side whose values came from a file what that says of how they were learned, None for nothing.
    """

    fingerprint: str
    known_trained: bool = False
    from_file: Mapping[str, Mapping[str, Any] | None] = field(default_factory=dict)


def read_init_records(events: Iterable[TokenEvent]) -> Mapping[RowKey, InitRecord]:
    """Return the init records that the token events of a model hold, of a migration that was applied again the last."""
    found: dict[RowKey, InitRecord] = {}
    for event in events:
        if event.event is TokenEventType.TRAINED:
            key = (event.revision, event.old_token or event.token)
            if key in found:
                found[key] = replace(found[key], known_trained=True)
        elif event.init is not None and event.row_fingerprint is not None:
            sides = {side: held for side, held in event.init.items() if isinstance(held, Mapping)}
            from_file = {side: held.get("provenance") for side, held in sides.items() if held.get("strategy") == "file"}
            found[event.revision, event.token] = InitRecord(event.row_fingerprint, from_file=from_file)
    return found

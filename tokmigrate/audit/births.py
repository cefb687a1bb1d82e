"""What the ledger says of the rows that migrations began."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from tokmigrate.state.rows import Happened, TokenEvent

Key = tuple[str, str]
"""A revision, and the text of the token whose row it began: what the lineage of a model knows of a row."""


@dataclass(frozen=True)
class Birth:
    """A row that a migration began, as it is on record.

    Args:
        marks: What it was, as `model.birth_marks` writes it.
        known_trained: Whether the ledger says already that it was trained.
        given: The sides on which a file gave it, so that it may be trained although nobody trained it here.
    """

    marks: str
    known_trained: bool = False
    given: frozenset[str] = frozenset()


def births(events: Iterable[TokenEvent]) -> Mapping[Key, Birth]:
    """Return the births that token events tell of.

    A migration that was taken back and applied again began its rows again: the last time counts.

    Args:
        events: The events of one model, the earliest first.
    """
    found: dict[Key, Birth] = {}
    for event in events:
        if event.event is Happened.TRAINED:
            key = (event.revision, event.old_token or event.token)
            if key in found:
                found[key] = replace(found[key], known_trained=True)
        elif event.init is not None and event.row_digest is not None:
            given = frozenset(side for side, strategy in event.init.items() if _is_of_file(strategy))
            found[event.revision, event.token] = Birth(event.row_digest, given=given)
    return found


def _is_of_file(strategy: object) -> bool:
    return isinstance(strategy, Mapping) and strategy.get("strategy") == "file"

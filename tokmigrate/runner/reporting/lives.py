"""What befell each token, followed through moves and renames to the id that it has now."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tokmigrate.state.rows import TokenEvent, TokenEventType
from tokmigrate.vocabulary.tokens import is_tombstone

Life = tuple[TokenEvent, ...]


@dataclass(frozen=True)
class Lives:
    """The lives of tokens that migrations touched.

    Args:
        by_id: Of what is there now, by its id; a placeholder goes on with the life of the token that it buries.
        removed: Of the tokens that are gone.
    """

    by_id: Mapping[int, Life]
    removed: tuple[Life, ...]


def lives_of(events: Iterable[TokenEvent], revisions: Iterable[str]) -> Lives:
    """Return the lives that these events tell.

    Args:
        events: The events of the revisions that are in force.
        revisions: These revisions, in the order in which they were applied.
    """
    told: defaultdict[str, list[TokenEvent]] = defaultdict(list)
    for event in events:
        told[event.revision].append(event)
    by_id: dict[int, Life] = {}
    removed: list[Life] = []
    for revision in revisions:
        by_id = _after(by_id, told[revision], removed)
    return Lives(by_id, tuple(removed))


def _after(by_id: dict[int, Life], events: Iterable[TokenEvent], removed: list[Life]) -> dict[int, Life]:
    """Return the lives after one revision; its moves all happen at once."""
    left = dict(by_id)
    placed: dict[int, Life] = {}
    buried: dict[int, Life] = {}
    for event in events:
        if event.event is TokenEventType.MOVED and event.token_id is not None and event.old_id is not None:
            placed[event.token_id] = (*left.pop(event.old_id, ()), event)
        elif event.event is TokenEventType.REMOVED and event.old_id is not None:
            buried[event.old_id] = (*left.pop(event.old_id, ()), event)
            removed.append(buried[event.old_id])
    left |= buried | placed
    for event in events:
        if event.token_id is None or event.event in (TokenEventType.MOVED, TokenEventType.REMOVED):
            continue
        begins = event.event is TokenEventType.ADDED and not is_tombstone(event.token)
        left[event.token_id] = (event,) if begins else (*left.get(event.token_id, ()), event)
    return left

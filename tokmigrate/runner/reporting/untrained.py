"""Which rows that migrations began were trained since, as the page says it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tokmigrate.audit.births import births
from tokmigrate.audit.training import Training, training_of
from tokmigrate.model.snapshot import Snapshot
from tokmigrate.state.rows import TokenEvent

_SAID = {Training.TRAINED: True, Training.UNTRAINED: False, Training.PARTLY: False, Training.UNKNOWN: None}


def trained_rows(snapshot: Snapshot, events: Iterable[TokenEvent]) -> Mapping[int, bool | None]:
    """Return of each id whose row a migration began whether all of it was trained, None where that is not known.

    Args:
        snapshot: The model as it is.
        events: The ledger's events of the revisions that it has.
    """
    return {token.id: _SAID[token.training] for token in training_of(snapshot, births(events))}

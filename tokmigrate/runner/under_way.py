"""Was a change of a model interrupted? Asked without its lock."""

from __future__ import annotations

from tokmigrate.change.workarea import WorkArea
from tokmigrate.errors import RecoveryNeededError
from tokmigrate.settings import ModelEntry


def interrupted(entry: ModelEntry) -> bool:
    """Return whether a change of the model was interrupted."""
    area = WorkArea(entry.path)
    return area.root.exists() and area.read_journal() is not None


def refuse_under_way(entry: ModelEntry) -> None:
    """Raise RecoveryNeededError where a change of the model was interrupted."""
    if interrupted(entry):
        raise RecoveryNeededError(
            "a change of the model was interrupted", where=entry.name, hint="run `tokmigrate recover`"
        )

"""Which revision a model is at, by its stamp alone."""

from __future__ import annotations

from tokmigrate.audit.run_status import refuse_in_progress, refuse_interrupted
from tokmigrate.files import has_directory
from tokmigrate.model.documents.stamp import read_stamp
from tokmigrate.settings import ModelEntry


def current(entry: ModelEntry) -> str | None:
    """Return the revision of a model, read off its stamp alone; None at `base`.

    Raises MissingModelError where its directory is not there, RecoveryNeededError where a change was interrupted.
    """
    refuse_interrupted(entry)
    require_directory(entry)
    stamp = read_stamp(entry.path)
    return stamp.revision if stamp else None


def require_directory(entry: ModelEntry) -> None:
    """Raise MissingModelError where a model is not there, RecoveryNeededError where an interrupted change has it."""
    if not has_directory(entry.path):
        refuse_in_progress(entry)
    entry.here()

"""The import of the libraries, started before all else that a command does: it takes as long as the rest."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from tokmigrate.errors import TokmigrateError
from tokmigrate.model.documents.stamp import read_stamp
from tokmigrate.model.worker.worker import prepare_worker
from tokmigrate.revision.history import History
from tokmigrate.settings import ModelEntry, Workspace


def prepare_upgrade(workspace: Workspace, entries: Iterable[ModelEntry]) -> None:
    """Have what the verification of an upgrade needs imported in the background, if a migration seems to be pending."""
    # What is wrong here, the plan says.
    with suppress(TokmigrateError):
        history = History.read(workspace) if workspace.verify != "fast" else None
        if history and any(_seems_pending(history, entry) for entry in entries):
            prepare_worker("transformers")


def prepare_downgrade(workspace: Workspace) -> None:
    """Have what the verification of a downgrade needs imported in the background."""
    if workspace.verify != "fast":
        prepare_worker("transformers")


def _seems_pending(history: History, entry: ModelEntry) -> bool:
    """Return whether the stamp of a model names another revision than the last one for it."""
    chain = history.chain_for(entry)
    stamp = read_stamp(entry.here())
    return bool(chain) and chain[-1].revision != (stamp.revision if stamp else None)

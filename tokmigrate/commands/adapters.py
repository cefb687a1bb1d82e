"""The adapters of a model on the way up and down."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tokmigrate.apply.build_downgrade import build_downgrade
from tokmigrate.apply.build_upgrade import UpgradeCandidate
from tokmigrate.apply.publish import Change
from tokmigrate.apply.undo_record import Objects, read_adapter_records
from tokmigrate.errors import UndoError
from tokmigrate.events import OnProgress, Warned
from tokmigrate.model.adapter import list_trained_ids, take_adapter
from tokmigrate.model.documents.state import ADAPTER_CONFIG
from tokmigrate.model.snapshot import Snapshot
from tokmigrate.model.weights.weights import read_adapter_weights
from tokmigrate.plan.plan import Plan
from tokmigrate.settings import ModelEntry


def adapters_of(entry: ModelEntry, snapshot: Snapshot) -> tuple[Snapshot, ...]:
    """Return the adapters that the workspace lists for a model; raises ModelError where one is not of it."""
    return tuple(take_adapter(path, snapshot) for path in entry.adapters)


def changes_up(plan: Plan, way: UpgradeCandidate) -> Iterator[Change]:
    """Yield the changes of the adapters that an upgrade takes along."""
    for adapter, own in zip(plan.adapters, way.adapters, strict=True):
        yield Change(adapter.snapshot, own.candidate, read_adapter_weights)


def changes_down(
    model: str, adapters: Sequence[Snapshot], records: Sequence[str], objects: Objects, on_progress: OnProgress
) -> Iterator[Change]:
    """Yield the changes of the adapters that a downgrade takes along.

    Args:
        model: The model's name, for events.
        adapters: Those that the workspace lists.
        records: The model's undo records on the way, the latest first.
        objects: Where the records are.
        on_progress: Receives warnings on adapters that were upgraded with the model and are no longer listed.

    Raises:
        UndoError: One was added after a revision to undo, so it has no undo data for it.
        DriftError: One was changed since it was migrated.
    """
    listed = {adapter.stamp.lineage for adapter in adapters if adapter.stamp}
    left = {lineage for record in read_adapter_records(records, objects) for lineage in record} - listed
    if left:
        on_progress(Warned(model, f"{len(left)} adapters that went up with it are not listed, and stay as they are"))
    for adapter, own in downgrades_of_adapters(adapters, records, objects):
        yield Change(adapter, build_downgrade(adapter, own, objects).candidate, read_adapter_weights)


def downgrades_of_adapters(
    adapters: Sequence[Snapshot], records: Sequence[str], objects: Objects
) -> Iterator[tuple[Snapshot, Sequence[str]]]:
    """Yield the adapters that a downgrade takes along, each with its own undo records, the latest first.

    Args:
        adapters: Those that the workspace lists.
        records: The model's undo records on the way, the latest first.
        objects: Where the records are.

    Raises:
        UndoError: One was added after a revision to undo, so it has no undo data for it.
    """
    held = read_adapter_records(records, objects)
    for adapter in adapters:
        if adapter.stamp is None:
            _check_indifferent(adapter)
            continue
        own = [record[adapter.stamp.lineage] for record in held if adapter.stamp.lineage in record]
        if len(own) < len(held):
            raise _too_late(adapter)
        yield adapter, own


def _check_indifferent(adapter: Snapshot) -> None:
    """Raise UndoError where an adapter that was never migrated depends on the vocabulary as it is now."""
    if adapter.tensors or list(list_trained_ids(adapter.state.documents[ADAPTER_CONFIG])) or len(adapter.texts) > 1:
        raise _too_late(adapter)


def _too_late(adapter: Snapshot) -> UndoError:
    return UndoError(
        "the adapter was added after a revision that the downgrade undoes, and has no undo data for it",
        where=str(adapter.directory),
        hint="merge the adapter into a copy of the model first, or take it out of `adapters:`",
    )

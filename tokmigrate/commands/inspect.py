"""Questions about models that change nothing and make nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from tokmigrate.apply.digests import read_shard_digest
from tokmigrate.apply.library_check import verify_model
from tokmigrate.audit.copies import CopyStatus, compare_copies
from tokmigrate.audit.drift import list_changed_documents
from tokmigrate.audit.ledger_check import UndoData, undo_data
from tokmigrate.audit.lora import HeldRows, find_trained_tokens, rows_of_adapter
from tokmigrate.audit.run_status import find_lock_holder, guard_reading, refuse_in_progress
from tokmigrate.audit.training import TokenTraining, training_on_record
from tokmigrate.commands.current import require_directory
from tokmigrate.commands.models import adapters_of
from tokmigrate.commands.records import drift_on_record, refuse_lost_stamp
from tokmigrate.commands.targets import describe_detected
from tokmigrate.files import exists
from tokmigrate.model.documents.pipeline_overrides import find_added_on_loading
from tokmigrate.model.snapshot import Snapshot, take_snapshot
from tokmigrate.model.weights.vocabulary_tensor import VocabularyTensor
from tokmigrate.plan.progress import check_progress
from tokmigrate.plan.shard_layout import describe_isolation
from tokmigrate.revision.history import History
from tokmigrate.revision.migration import KlAtMost, Migration
from tokmigrate.settings import ModelEntry, Workspace
from tokmigrate.state.database import open_state_if_present
from tokmigrate.state.objects import ObjectStore


@dataclass(frozen=True)
class AdapterStatus:
    """Where an adapter stands; `rows` are those that it holds in place of the model's."""

    path: str
    revision: str | None
    tensors: tuple[VocabularyTensor, ...] = field(repr=False)
    rows: tuple[HeldRows, ...] = field(repr=False)

    @property
    def trained(self) -> tuple[str, ...]:
        """The tokens whose rows migrations initialised, and of which it holds a trained one."""
        return tuple(sorted(find_trained_tokens(self.rows)))


@dataclass(frozen=True)
class ModelStatus:
    """Where a model stands; `locked_by` is the process that is changing it now."""

    model: str
    path: str
    revision: str | None
    pending: tuple[Migration, ...]
    locked_by: str | None
    rows: int
    tokens: int
    tied: bool
    tensors: tuple[VocabularyTensor, ...] = field(repr=False)
    adapters: tuple[AdapterStatus, ...]
    copies: tuple[CopyStatus, ...]
    training: tuple[TokenTraining, ...] = field(repr=False)
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Verified:
    """What `verify` found; `changed` files have other bytes than the stamp says, or are gone.

    The `same_meaning` is that which its migrations left, as after training or saving it.
    """

    model: str
    revision: str | None
    changed: tuple[str, ...]
    same_meaning: bool
    undo: UndoData
    notes: tuple[str, ...]


def status(workspace: Workspace, entry: ModelEntry) -> ModelStatus:
    """Return where a model stands; RecoveryNeededError where a change of it was interrupted."""
    with guard_reading(entry):
        require_directory(entry)
        snapshot = take_snapshot(entry)
        progress = check_progress(snapshot, History.read(workspace).chain_for(entry))
        likely = describe_detected(workspace, entry, snapshot, progress)
        state = open_state_if_present(workspace.state, workspace.root)
        training = training_on_record(state, snapshot, ObjectStore(workspace.objects))
        return ModelStatus(
            model=entry.name,
            path=str(entry.path),
            revision=snapshot.revision,
            pending=progress.pending,
            locked_by=find_lock_holder(entry),
            rows=snapshot.state.rows,
            tokens=len(snapshot.state.tokenizer.ids),
            tied=snapshot.state.traits.tied,
            tensors=snapshot.tensors,
            adapters=tuple(
                AdapterStatus(
                    str(each.directory), each.revision, each.tensors, rows_of_adapter(each, snapshot, training)
                )
                for each in adapters_of(entry, snapshot)
            ),
            copies=compare_copies(entry.copies, snapshot, state),
            training=training,
            notes=(
                *snapshot.notes,
                *find_added_on_loading(snapshot.state),
                *_describe_isolation(entry, snapshot),
                *([f"it looks like a model at {likely[1]}"] if likely else []),
            ),
        )


def _describe_isolation(entry: ModelEntry, snapshot: Snapshot) -> Iterator[str]:
    if entry.weights.isolate_vocab and (found := describe_isolation(snapshot)):
        yield f"with the next migration that changes rows {found}"


def verify(workspace: Workspace, entry: ModelEntry) -> Verified:
    """Check a model against its stamp, and load it with the libraries.

    Raises VerificationError where a library loads something else than the files say, BusyError where a change of it is
    in progress, DriftError where it has no stamp, and the ledger has migrations of it.
    """
    refuse_in_progress(entry)
    snapshot = take_snapshot(entry)
    refuse_lost_stamp(workspace, snapshot)
    own = _list_changed(snapshot)
    beside = [f"{each.directory}/{name}" for each in adapters_of(entry, snapshot) for name in _list_changed(each)]
    progress = check_progress(snapshot, History.read(workspace).chain_for(entry))
    checks = [check for migration in progress.applied for check in migration.checks]
    notes = verify_model(snapshot, checks, workspace.verify)
    if any(isinstance(check, KlAtMost) for check in checks):
        notes = (*notes, "`kl_at_most` is not checked again: `tokmigrate evaluate` measures it")
    # Adapters are not compared semantically: a changed one is reported as changed.
    same = not beside and (not own or not drift_on_record(workspace, snapshot).breaks)
    changed = tuple(sorted((*own, *beside)))
    return Verified(entry.name, snapshot.revision, changed, same, undo_data(workspace, snapshot), notes)


def _list_changed(snapshot: Snapshot) -> list[str]:
    changed = list(list_changed_documents(snapshot))
    tensors = snapshot.tensors_by_name
    for name, shard in (snapshot.stamp.shards if snapshot.stamp else {}).items():
        path = snapshot.directory / name
        if not exists(path) or read_shard_digest(path, tensors, snapshot.state.rows) != shard.digest:
            changed.append(name)
    return changed

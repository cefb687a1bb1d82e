"""The models of a workspace: what a command line calls them, opened or as dummies, their adapters, and who has what."""

from __future__ import annotations

import os
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from tokmigrate.apply.build_downgrade import DowngradeCandidate, build_downgrade
from tokmigrate.apply.candidate import Change
from tokmigrate.apply.gguf_change import GgufChange
from tokmigrate.apply.gguf_migrations import build_gguf_downgrade, read_gguf_records
from tokmigrate.apply.kept_objects import Objects
from tokmigrate.apply.undo_record import read_adapter_records, read_copy_records
from tokmigrate.audit.run_status import refuse_in_progress
from tokmigrate.errors import HistoryError, ModelError, UndoError, UsageError
from tokmigrate.events import OnProgress, Warned
from tokmigrate.files import exists, has_directory
from tokmigrate.formatting import format_count, format_list
from tokmigrate.model.adapter import list_trained_ids, take_adapter
from tokmigrate.model.documents.stamp import read_stamp
from tokmigrate.model.documents.state import ADAPTER_CONFIG
from tokmigrate.model.dummy_model import lacks_weights, make_dummy_without_weights
from tokmigrate.model.gguf_copy import GgufCopy, take_gguf
from tokmigrate.model.gguf_rows import check_rows
from tokmigrate.model.snapshot import Snapshot
from tokmigrate.model.weights.weights import read_adapter_weights
from tokmigrate.revision.migration import Migration
from tokmigrate.settings import ModelEntry, Workspace
from tokmigrate.state.database import open_state_if_present

AppliedModels = dict[str, list[str]]


def format_path(workspace: Workspace, directory: Path) -> str:
    """Return a directory as seen from the workspace, which may be moved; one outside of it as it is."""
    inside = directory.is_relative_to(workspace.root)
    return str(directory.relative_to(workspace.root) if inside else directory)


def format_model(workspace: Workspace, directory: Path) -> str:
    """Return what `--model` calls the model in a directory."""
    names = (name for name, entry in workspace.models.items() if entry.path == directory)
    return next(names, format_path(workspace, directory))


def check_output(output: Path, *directories: Path) -> None:
    """Raise UsageError where a new directory exists, or is inside one of `directories`, which stay as they are."""
    inside = next((each for each in directories if output.resolve().is_relative_to(each.resolve())), None)
    if inside is not None or exists(output):
        message = "it exists already" if inside is None else f"it is inside {inside}, which stays as it is"
        raise UsageError(message, where=str(output), hint="name another directory: --output DIR")


@contextmanager
def open_model_or_dummy(entry: ModelEntry) -> Iterator[ModelEntry]:
    """Give the model itself, or a dummy model where its weights are not here and its configuration is.

    The dummy model has the model's files, ids, number of rows and stamp, and so the same states before and after a
    migration; its rows hold nothing, and it is gone afterwards. Raises WeightsError where their shapes are not known.
    """
    if not lacks_weights(entry.path):
        yield entry
        return
    with tempfile.TemporaryDirectory(prefix="tokmigrate-") as folder:
        yield make_dummy_without_weights(entry, Path(folder, "model"))


def applied_models_by_revision(workspace: Workspace) -> AppliedModels:
    """Return for each revision the models that have it, by their stamps; of a model that is not here, by the state.

    Raises BusyError where a process is changing one of them, or that was interrupted.
    """
    found: defaultdict[str, list[str]] = defaultdict(list)
    directories = {os.path.realpath(entry.path): name for name, entry in workspace.models.items()}
    state = open_state_if_present(workspace.state, workspace.root)
    for model in state.list_models() if state else ():
        if has_directory(Path(model.path)):
            directories.setdefault(model.path, model.name)
        elif state:
            for row in state.list_applied(model):
                found[row.record.revision].append(f"{model.name} (not here now)")
    for path, name in directories.items():
        # In the middle of a change the stamp may be missing, and what a model is about to have is not in it.
        refuse_in_progress(ModelEntry(name, Path(path)))
        stamp = read_stamp(Path(path))
        for revision in stamp.revisions if stamp else ():
            found[revision].append(name)
    return dict(found)


def refuse_applied(migrations: Iterable[Migration], where: AppliedModels) -> None:
    """Raise HistoryError where a model has one of the migrations that are to be moved."""
    for migration in migrations:
        names = where.get(migration.revision)
        if names:
            before = migration.down_revision or "base"
            message = f"{migration.revision} cannot be moved: {', '.join(names)} has it"
            hint = f"`tokmigrate downgrade {before}` undoes it first; or write a new migration"
            raise HistoryError(message, where=migration.shown, hint=hint)


def adapters_of(entry: ModelEntry, snapshot: Snapshot) -> tuple[Snapshot, ...]:
    """Return the adapters that the workspace lists for a model; raises ModelError where one is not of it."""
    return tuple(take_adapter(path, snapshot) for path in entry.adapters)


def change_down(snapshot: Snapshot, back: DowngradeCandidate) -> Change:
    """Return the change of a downgrade."""
    return Change(snapshot, back.candidate, lambda *_: back.completion)


def changes_down(
    model: str, adapters: Sequence[Snapshot], records: Sequence[str], objects: Objects, on_progress: OnProgress
) -> Iterator[Change]:
    """Yield the changes of the adapters that a downgrade takes along; a warning counts those that are not listed.

    Raises UndoError as `downgrades_of_adapters`, DriftError where one was changed since it was migrated.
    """
    listed = {adapter.stamp.lineage for adapter in adapters if adapter.stamp}
    left = {lineage for record in read_adapter_records(records, objects) for lineage in record} - listed
    if left:
        on_progress(Warned(model, f"{len(left)} adapters that went up with it are not listed, and stay as they are"))
    for adapter, own in downgrades_of_adapters(adapters, records, objects):
        yield replace(change_down(adapter, build_downgrade(adapter, own, objects)), read=read_adapter_weights)


def copies_of(entry: ModelEntry, snapshot: Snapshot) -> tuple[GgufCopy, ...]:
    """Return the GGUFs that follow a model; raises ModelError where one is not of it as it is, or a copy of another."""
    # A file that is listed twice is swapped once: a second swap would put the old one back.
    paths = {os.path.realpath(copy.path): copy.path for copy in entry.copies if copy.follow}
    copies = tuple(take_gguf(path, snapshot) for path in paths.values())
    known: dict[str, GgufCopy] = {}
    for copy in copies:
        other = known.setdefault(copy.lineage, copy)
        if other is not copy:
            message = f"it is a copy of {other.path}, and undo data would not tell the two apart"
            hint = "list one of them with `follow: true`, and copy it again afterwards"
            raise ModelError(message, where=str(copy.path), hint=hint)
    return copies


def check_copies_down(entry: ModelEntry, snapshot: Snapshot, records: Sequence[str], objects: Objects) -> int:
    """Return the bytes of the GGUFs that a downgrade would take along; errors are those of `copies_down`."""
    copies, held = copies_of(entry, snapshot), read_copy_records(records, objects)
    for copy in copies:
        read_gguf_records(copy, held, objects)
        # Training since then shows in a sample; to know what a semantic undo is costs a pass over the weights.
        check_rows(copy, snapshot)
    return sum(copy.head.file_size for copy in copies)


def copies_down(
    entry: ModelEntry,
    snapshot: Snapshot,
    back: DowngradeCandidate,
    records: Sequence[str],
    objects: Objects,
    on_progress: OnProgress,
) -> tuple[GgufChange, ...]:
    """Return the changes of the GGUFs that a downgrade takes along; a warning counts those that are not listed.

    Raises UndoError where one did not follow a revision to undo, or the model is undone semantically.
    """
    copies = copies_of(entry, snapshot)
    if copies and back.semantic_undo:
        raise UndoError(
            f"a GGUF cannot follow a semantic undo, and these were changed: {format_list(back.semantic_undo)}",
            where=str(copies[0].path),
            hint="remove `follow: true` in tokmigrate.yaml, and convert the model again after the downgrade",
        )
    held = read_copy_records(records, objects)
    left = {lineage for record in held.values() for lineage in record} - {copy.lineage for copy in copies}
    if left:
        message = f"{format_count(len(left), 'GGUF')} that followed it upwards and are not listed stay as they are"
        on_progress(Warned(entry.name, message))
    return tuple(
        build_gguf_downgrade(copy, back.candidate.documents.edit, read_gguf_records(copy, held, objects), objects)
        for copy in copies
    )


def downgrades_of_adapters(
    adapters: Sequence[Snapshot], records: Sequence[str], objects: Objects
) -> Iterator[tuple[Snapshot, Sequence[str]]]:
    """Yield the adapters that a downgrade takes along, each with its own undo records, the latest migration's first.

    Raises UndoError where one was added after a revision to undo, so that it has no undo data for it.
    """
    held = read_adapter_records(records, objects)
    for adapter in adapters:
        lineage = adapter.stamp.lineage if adapter.stamp else ""
        own = [record[lineage] for record in held if lineage in record]
        if len(own) < len(held) if adapter.stamp else _has_vocabulary(adapter):
            message = "the adapter was added after a revision that the downgrade undoes, and has no undo data for it"
            hint = "merge the adapter into a copy of the model first, or take it out of `adapters:`"
            raise UndoError(message, where=str(adapter.directory), hint=hint)
        if adapter.stamp:
            yield adapter, own


def _has_vocabulary(adapter: Snapshot) -> bool:
    return bool(
        adapter.tensors or list(list_trained_ids(adapter.state.documents[ADAPTER_CONFIG])) or len(adapter.texts) > 1
    )

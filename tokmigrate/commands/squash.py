"""Squash several migrations into one, after verifying that the result is the same."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from tokmigrate.audit.run_status import refuse_in_progress
from tokmigrate.commands.file_transaction import write_files
from tokmigrate.commands.lock import compute_state_before
from tokmigrate.commands.models import applied_models_by_revision, open_model_or_dummy
from tokmigrate.commands.tag import list_tags
from tokmigrate.errors import DriftError, HistoryError, ModelError, UsageError
from tokmigrate.files import has_directory
from tokmigrate.git import list_uncommitted_files
from tokmigrate.model.documents.state import ModelState
from tokmigrate.model.snapshot import take_snapshot
from tokmigrate.plan.progress import check_progress
from tokmigrate.plan.steps import Step, compute_pins, steps_of
from tokmigrate.revision.history import Files, History, refuse_taken
from tokmigrate.revision.lock_file import FILE as LOCK
from tokmigrate.revision.lock_file import Lock, PinnedIds, build_locked, lock_files, read_lock
from tokmigrate.revision.migration import Migration
from tokmigrate.revision.new_file import check_message, dump_written_fields, file_name
from tokmigrate.revision.squash import format_squashed, squash_lock, squash_migrations
from tokmigrate.revision.yaml_file import yaml_migration
from tokmigrate.settings import ModelEntry, Workspace
from tokmigrate.vocabulary.row_edit import RowEdit


@dataclass(frozen=True)
class Squashed:
    """The result of squashing: what it was tried on by model, and how many preconditions of later ones are gone."""

    migration: Migration
    replaced: tuple[Migration, ...]
    trials: Mapping[str, Literal["model", "dummy"]]
    dropped: int
    lock: Lock | None


def squash(
    workspace: Workspace, entries: Sequence[ModelEntry], first: str, last: str, message: str | None = None
) -> Squashed:
    """Put one migration in the place of those from `first` to `last`, by any of their names, and write the lock.

    It is tried on the models that are here and known as before the first.

    Raises:
        UsageError: That is not two migrations or more, or the message is empty or more than one line.
        HistoryError: One cannot become part of another, or a model is in the middle.
        ModelError: There is no model to try it on.
        DriftError: It leads a model elsewhere, or the lock is not up to date.
    """
    if message is not None:
        check_message(message)
    history = History.read(workspace)
    chain = history.chain()
    members = _members(workspace, history, first, last)
    lock = read_lock(workspace)
    if lock is not None and lock.revisions != tuple(map(build_locked, chain)):
        raise DriftError(
            "the lock and the migrations do not agree", where=LOCK, hint="`tokmigrate validate` says where they differ"
        )
    _refuse_middle(workspace, members)
    # A file that goes is one that Git can bring back, with the comments in it.
    uncommitted = list_uncommitted_files(workspace.root, (each.path for each in members))
    if uncommitted:
        lost = ", ".join(os.path.relpath(each, workspace.root) for each in uncommitted)
        raise UsageError(f"Git does not have {lost} as it is", hint="commit it before it is squashed")
    number, _, name = file_name(workspace, message or "squashed", ".yaml").partition("_")
    path = workspace.migrations / f"{members[-1].number or number}_{name}"
    subject = message or f"Squash {members[0].number or first} to {members[-1].number or last}"
    drafted = squash_migrations(members, subject, path, os.path.relpath(path, workspace.root))
    proven: dict[str, PinnedIds] = {}
    tried: dict[str, Literal["model", "dummy"]] = {}
    for entry in entries:
        with open_model_or_dummy(entry) as here:
            found = _find_state_before(workspace, here, history, members)
        if found is not None:
            state, base = found
            proven[base] = verify_same_end(state, members, drafted, entry.name)
            tried[entry.name] = "model" if here is entry else "dummy"
    if not tried:
        raise ModelError(
            "there is no model here to try it on",
            hint=f"name one that is at {members[0].down_revision or 'base'} or before: --model PATH",
        )
    text = format_squashed(drafted).encode("utf-8")
    migration = yaml_migration(text, path, drafted.shown, workspace.root)
    _check_same(migration, drafted)
    after = squash_lock(lock, migration, proven) if lock else None
    gone: Files = {each.path: None for each in members}
    refuse_taken(path, gone)
    write_files(workspace, {**gone, path: text, **(lock_files(workspace, after) if after else {})})
    dropped = sum(len(each.preconditions) for each in members[1:])
    return Squashed(migration, members, tried, dropped, after)


def _members(workspace: Workspace, history: History, first: str, last: str) -> tuple[Migration, ...]:
    tags = list_tags(workspace)
    begin, end = history.resolve(first, None, tags), history.resolve(last, None, tags)
    line = [migration.revision for migration in history.lineage(end)]
    if begin is None or begin not in line:
        raise UsageError(f"'{first}' does not come before '{last}'", hint="FIRST:LAST, both included")
    members = history.lineage(end)[line.index(begin) :]
    if len(members) < 2:
        raise UsageError("one migration is as short as it can be", hint="FIRST:LAST, both included")
    return members


def _refuse_middle(workspace: Workspace, members: Sequence[Migration]) -> None:
    where = applied_models_by_revision(workspace)
    done = set(where.get(members[-1].revision, ()))
    for migration in members[:-1]:
        halfway = [name for name in where.get(migration.revision, ()) if name not in done]
        if halfway:
            down = members[0].down_revision or "base"
            message = f"{', '.join(halfway)} has {migration.revision} and not {members[-1].revision}"
            hint = f"`tokmigrate upgrade {members[-1].revision}` or `tokmigrate downgrade {down}` first"
            raise HistoryError(message, where=migration.shown, hint=hint)


def _find_state_before(
    workspace: Workspace, entry: ModelEntry, history: History, members: Sequence[Migration]
) -> tuple[ModelState, str] | None:
    """Return a model as the first of the migrations finds it, with its base; None if that is unknown."""
    if not has_directory(entry.path) or not members[0].applies_to(entry):
        return None
    refuse_in_progress(entry)
    snapshot = take_snapshot(entry)
    progress = check_progress(snapshot, history.chain_for(entry))
    if members[0] in progress.applied:
        found = compute_state_before(workspace, entry, snapshot, members[0].revision)
        return (found[0], found[1] or "") if found else None
    progress.check_order()
    pending = progress.pending
    steps = steps_of(snapshot.state, pending[: pending.index(members[0])])
    stamp = snapshot.stamp
    base = (stamp.tokenizer or "") if stamp else snapshot.state.tokenizer.fingerprint
    return steps[-1].after if steps else snapshot.state, base


def verify_same_end(state: ModelState, members: Sequence[Migration], one: Migration, model: str) -> PinnedIds:
    """Return what one migration gives that stands for several; DriftError where it leads a model elsewhere.

    The same end is: every document, every row as an old one or the same recipe with the same seed, what the lineage
    says of rows, and the default for later ones. The stamp may differ, since it names the migrations.
    """
    several, single = (steps_of(state, migrations) for migrations in (members, [one]))
    expected, found = _describe_end(several), _describe_end(single)
    for what in expected:
        if found[what] != expected[what]:
            message = f"as one migration they would leave other {what} on {model}"
            hint = "squash a shorter range; nothing was changed"
            raise DriftError(message, where=f"{members[0].shown} to {members[-1].shown}", hint=hint)
    (_, pinned), *_ = compute_pins(single)
    return pinned


def _describe_end(steps: Sequence[Step]) -> dict[str, object]:
    """Return the state at the end, with its rows in terms of those at the beginning, by what a message calls it."""
    edit = RowEdit.identity(steps[0].before.rows)
    for step in steps:
        edit = edit.then(step.after.edit)
    last = steps[-1].after
    return {
        "files": last.documents,
        "rows": edit,
        "origins of rows": (last.lineage, last.baseline_tokens, last.reshaped),
        "defaults for later rows": last.init,
    }


def _check_same(read: Migration, drafted: Migration) -> None:
    """Raise HistoryError where a file does not say what was tried, which only a plug-in's operation could cause."""
    for was, now in zip(drafted.operations, read.operations, strict=True):
        # An `init:` for one side says the same as for both, and is written as that.
        if dump_written_fields(was.operation) != dump_written_fields(now.operation):
            message = f"{was.operation.name} cannot be written to a file and read as the same"
            hint = "leave its migration out of the range"
            raise HistoryError(message, where=was.place, hint=hint)

"""What an upgrade of a model would do: planned, checked against what it would be refused for, and bound to a file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from blake3 import blake3
from pydantic import BaseModel, ConfigDict, Field

from tokmigrate.apply.digests import compute_sampled_digest
from tokmigrate.apply.metadata_check import refuse_losses
from tokmigrate.audit.copies import describe_stale_copies
from tokmigrate.audit.run_status import is_in_progress, refuse_in_progress
from tokmigrate.commands.models import adapters_of, copies_of, format_path
from tokmigrate.commands.records import refuse_drift
from tokmigrate.commands.targets import add_stamp_hint, progress_to
from tokmigrate.errors import OperationError, StalePlanError, StorageError, UsageError
from tokmigrate.files import read_file
from tokmigrate.formats import PLAN_FILE, check_version
from tokmigrate.formatting import format_list
from tokmigrate.model.gguf_rows import check_rows
from tokmigrate.model.snapshot import Snapshot, take_snapshot
from tokmigrate.plan.plan import Plan, plan_copy, plan_upgrade
from tokmigrate.plan.steps import check_pins, track_before
from tokmigrate.revision.history import History
from tokmigrate.revision.lock_file import read_lock
from tokmigrate.revision.migration import Check, KlAtMost, Migration
from tokmigrate.settings import ModelEntry, Workspace
from tokmigrate.state.database import open_state_if_present


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)


class _Contents(_Strict):
    """What a plan depends on of a model or an adapter: its stamp, digests of its files and of samples of its shards."""

    generation: str | None
    files: dict[str, str]
    shards: dict[str, str]


class BoundPlan(_Strict):
    """The plan of one model with all that it depends on, as a file holds it."""

    model: str
    to_revision: str | None
    drift: Literal["refuse", "accept"] = "refuse"
    from_revision: str | None
    generation: str | None
    migrations: list[Annotated[list[str], Field(min_length=2, max_length=2)]]
    ids: dict[str, int | None]
    files: dict[str, str]
    shards: dict[str, str]
    adapters: dict[str, _Contents]
    copies: dict[str, str] = {}
    last_run: str | None
    seed: str
    isolate_vocab: bool = False

    def settings(self, workspace: Workspace) -> Workspace:
        """Return the workspace with drift accepted where the plan was made so."""
        return replace(workspace, drift="accept") if self.drift == "accept" else workspace

    def check(self, workspace: Workspace, plan: Plan) -> None:
        """Raise StalePlanError where a plan that is made now does not depend on the same."""
        now = bind_plan(workspace, plan).model_copy(
            update={"model": self.model, "to_revision": self.to_revision, "drift": self.drift}
        )
        if now != self:
            causes = list(_find_causes(self, now))
            if not causes:
                others = now.ids != self.ids
                causes = ["tokens would get other ids" if others else "the model was worked on since it was made"]
            raise StalePlanError(
                f"the plan is stale: {'; '.join(causes)}",
                where=self.model,
                hint="make and review a new one: `tokmigrate plan -o FILE`",
            )


class _Plans(_Strict):
    format: int
    plans: list[BoundPlan]


def bind_plan(workspace: Workspace, plan: Plan) -> BoundPlan:
    """Return a plan with all that it depends on."""
    state = open_state_if_present(workspace.state, workspace.root)
    model = state.model_at(plan.snapshot.directory, plan.snapshot.generation) if state else None
    last = state.runs(model, 1) if state and model else ()
    return BoundPlan(
        model=plan.model,
        to_revision=plan.after,
        drift=workspace.drift,
        from_revision=plan.before,
        migrations=[[step.migration.revision, step.migration.checksum] for step in plan.steps],
        ids={each.token: each.id for each in plan.tokens if each.token is not None and each.id != each.old_id},
        adapters={
            format_path(workspace, each.snapshot.directory): _Contents(**read_contents(each.snapshot))
            for each in plan.adapters
        },
        copies={format_path(workspace, each.copy.path): each.copy.digest for each in plan.copies},
        last_run=last[0].id if last else None,
        seed=workspace.seed,
        isolate_vocab=workspace.weights.isolate_vocab,
        **read_contents(plan.snapshot),
    )


def read_contents(snapshot: Snapshot) -> dict[str, Any]:
    """Return the generation that a model's stamp names, digests of its files, and of samples of its shards."""
    weights = snapshot.weights
    return {
        "generation": snapshot.generation,
        "files": {name: blake3(data).hexdigest() for name, data in sorted(snapshot.texts.items())},
        # To read all of a shard would cost more than the plan.
        "shards": {shard.file: compute_sampled_digest(weights.path(shard), shard) for shard in weights.shards},
    }


def format_plans(plans: Sequence[BoundPlan]) -> dict[str, Any]:
    """Return plans as what a file holds."""
    return _Plans(format=PLAN_FILE.version, plans=list(plans)).model_dump()


def write_plans(path: Path, plans: Sequence[BoundPlan]) -> None:
    """Write plans into a file of their own; raises UsageError where that cannot be."""
    try:
        path.write_text(json.dumps(format_plans(plans), indent=2, ensure_ascii=False) + "\n", "utf-8")
    except OSError as error:
        hint = "name a file in a directory that exists and that you may write to"
        raise UsageError(f"the plan cannot be written: {error.strerror}", where=str(path), hint=hint) from error


def read_plans(path: Path) -> tuple[BoundPlan, ...]:
    """Return the plans of a file; raises UsageError where it is none, FormatError where another tokmigrate wrote it."""
    try:
        data = read_file(path)
        check_version(PLAN_FILE, json.loads(data)["format"], str(path))
        return tuple(_Plans.model_validate_json(data).plans)
    except StorageError as error:
        raise UsageError(f"the plan cannot be read: {error.message}", where=str(path), hint=error.hint) from error
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise UsageError("not a plan", where=str(path), hint="`tokmigrate plan -o FILE` writes one") from error


def _find_causes(held: BoundPlan, now: BoundPlan) -> Iterator[str]:
    """Yield what differs from when a plan was made, the cause of the rest first; what follows from it is left out."""
    moved = now.from_revision != held.from_revision
    if moved:
        yield f"the model is at {now.from_revision or 'base'} now, not at {held.from_revision or 'base'}"
    old, new = dict(held.migrations), dict(now.migrations)
    edited = [revision for revision in old if revision in new and old[revision] != new[revision]]
    if edited:
        yield f"since it was made {format_list(edited)} {'was' if len(edited) == 1 else 'were'} edited"
    if now.seed != held.seed:
        yield "the workspace has another seed"
    if now.isolate_vocab != held.isolate_vocab:
        yield f"`isolate_vocab` is {'on' if now.isolate_vocab else 'off'} in tokmigrate.yaml now"
    if moved:
        # Other migrations are pending then, and other files there.
        return
    if list(old) != list(new):
        would = format_list(list(new)) or "nothing"
        yield f"it leads by {format_list(list(old)) or 'nothing'}, and {would} would be next"
    parts: tuple[tuple[str, Mapping[str, object], Mapping[str, object]], ...] = (
        ("files", held.files, now.files),
        ("weights", held.shards, now.shards),
        ("adapters", held.adapters, now.adapters),
        ("copies", held.copies, now.copies),
    )
    for what, before, after in parts:
        if before != after:
            changed = [name for name in sorted({*before, *after}) if before.get(name) != after.get(name)]
            yield f"{what} of the model were changed: {format_list(changed)}"
    if now.generation != held.generation:
        yield "its stamp is another one"


def plan(workspace: Workspace, entry: ModelEntry, to: str = "head") -> Plan:
    """Return what an upgrade of a model to a revision, by any of its names, would do; nothing is written."""
    refuse_in_progress(entry)
    return plan_or_reuse(workspace, entry, take_snapshot(entry), to)


def plan_or_reuse(
    workspace: Workspace, entry: ModelEntry, snapshot: Snapshot, to: str, earlier: Plan | None = None
) -> Plan:
    """Return the plan that brings a model up to a revision.

    Args:
        earlier: A plan made before, whose steps are taken over where model and migrations are the same.

    Raises:
        DriftError: Its history does not fit, it is not what its migrations left, or an id would come out otherwise than
            the lock pins.
        OperationError: A migration cannot be applied; the hint says where the model seems to be at it already.
    """
    history = History.read(workspace)
    progress = progress_to(workspace, history, entry, snapshot, to)
    pending = progress.pending
    if not pending:
        return Plan(entry.name, snapshot, ())
    drift = (f"accepted drift: {line}" for line in refuse_drift(workspace, snapshot))
    adapters = adapters_of(entry, snapshot)
    steps = [step.migration for step in earlier.steps] if earlier else []
    # Steps of a large vocabulary take seconds.
    if earlier and earlier.snapshot is snapshot and not (adapters or earlier.adapters) and steps == list(pending):
        made = earlier
    else:
        try:
            made = plan_upgrade(entry, snapshot, pending, adapters)
        except OperationError as error:
            error.hint = add_stamp_hint(workspace, entry, snapshot, progress, error.hint)
            raise
    lock = _check_lock(workspace, history, progress.applied, made)
    copies = made.copies
    if made is not earlier or not all(each.copy.is_untouched for each in copies):
        copies = tuple(plan_copy(copy, made.steps) for copy in copies_of(entry, snapshot))
        for each in copies:
            check_rows(each.copy, snapshot)
    return replace(made, copies=copies, remarks=(*drift, *lock, *describe_stale_copies(entry.copies)))


def _check_lock(workspace: Workspace, history: History, applied: Sequence[Migration], plan: Plan) -> tuple[str, ...]:
    """Check the ids of a plan against the lock, and return what a user should know of it.

    A workspace without a lock has pinned nothing. A migration that is another one than the lock knows binds
    nothing either, but is reported: `validate` refuses it.

    Raises:
        DriftError: An id would not be the one that the lock pins.
        FileProblems: The lock is damaged, or has conflict markers.
    """
    lock = read_lock(workspace)
    if lock is None:
        return ()
    held = lock.keep_valid(history.chain())
    known = {locked.revision for locked in held.revisions}
    planned = [step.migration.revision for step in plan.steps]
    before = track_before(plan.snapshot, applied, held)
    unpinned = check_pins(held, before, plan.steps) if before else planned
    strange = [revision for revision in planned if revision not in known]
    if strange:
        return (f"the lock does not know {', '.join(strange)} as it is now: `tokmigrate lock` writes it",)
    if unpinned:
        return (f"the lock pins no ids for this tokenizer in {', '.join(unpinned)}: `tokmigrate lock` writes it",)
    return ()


def preview_upgrade(
    workspace: Workspace,
    entry: ModelEntry,
    to: str = "head",
    bound: BoundPlan | None = None,
    *,
    keep_owner: bool = True,
) -> Plan | None:
    """Return what an upgrade would do; raise what it would be refused for.

    None if a change is in progress or has to be recovered first.

    Args:
        keep_owner: Whether it is refused where owner, mode or attributes of files cannot be kept.
    """
    if is_in_progress(entry):
        return None
    planned = plan(bound.settings(workspace) if bound else workspace, entry, to)
    if bound is not None:
        bound.check(workspace, planned)
    if keep_owner and planned.steps:
        for each in (planned, *planned.adapters):
            shards = each.snapshot.vocabulary_shards if each.writes_rows else ()
            refuse_losses(each.snapshot.directory, {*each.touched, *shards})
    return planned


def checks_of(plan: Plan) -> list[Check]:
    """Return what the migrations of a plan say under `verify:`."""
    return [check for step in plan.steps for check in step.migration.checks]


def runs_model(plan: Plan) -> bool:
    """Return whether a check of a plan needs a model that runs."""
    return any(isinstance(check, KlAtMost) for check in checks_of(plan))

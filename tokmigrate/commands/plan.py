"""What an upgrade of a model would do: planned, and checked against what it would be refused for."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from blake3 import blake3
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tokmigrate.apply.digests import compute_sampled_digest
from tokmigrate.apply.metadata_check import refuse_losses
from tokmigrate.audit.run_status import is_in_progress, refuse_in_progress
from tokmigrate.commands.targets import plan_or_reuse
from tokmigrate.errors import StalePlanError, StorageError, UsageError
from tokmigrate.files import read_file
from tokmigrate.formats import PLAN_FILE, check_version
from tokmigrate.formatting import format_list
from tokmigrate.model.snapshot import Snapshot, take_snapshot
from tokmigrate.plan.plan import Plan
from tokmigrate.revision.conditions import Check
from tokmigrate.settings import ModelEntry, Workspace
from tokmigrate.state.database import open_state_if_present

_HELD = ("from_revision", "generation", "migrations", "ids", "files", "shards", "adapters", "last_run", "seed")


class _Part(BaseModel):
    """What a plan depends on of a model or an adapter."""

    model_config = ConfigDict(strict=True, frozen=True)

    generation: str | None
    files: dict[str, str]
    shards: dict[str, str]


class _PlanOfModel(_Part):
    """The plan of one model, as a file holds it."""

    model: str
    to_revision: str | None
    drift: Literal["refuse", "accept"] = "refuse"
    from_revision: str | None
    migrations: list[Annotated[list[str], Field(min_length=2, max_length=2)]]
    ids: dict[str, int | None]
    adapters: dict[str, _Part]
    last_run: str | None
    seed: str


class _Versioned(BaseModel):
    """What every version of a file of plans holds."""

    model_config = ConfigDict(strict=True, frozen=True)

    format: int


class _Plans(_Versioned):
    """What a file of plans holds."""

    plans: list[_PlanOfModel]


@dataclass(frozen=True)
class BoundPlan:
    """What a plan of one model was made of.

    Args:
        model: The model's name.
        to: The revision that it leads to.
        held: All that it depends on.
        drift: What the workspace made of drift when it was made.
    """

    model: str
    to: str | None
    held: Mapping[str, Any]
    drift: Literal["refuse", "accept"] = "refuse"

    def settings(self, workspace: Workspace) -> Workspace:
        """Return the workspace with drift accepted where the plan was made so."""
        return replace(workspace, drift="accept") if self.drift == "accept" else workspace

    def check(self, workspace: Workspace, plan: Plan) -> None:
        """Raise StalePlanError where a plan that is made now does not depend on the same."""
        now = _build_bindings(workspace, plan)
        if any(now[key] != self.held.get(key) for key in _HELD):
            raise StalePlanError(
                f"the plan is stale: {'; '.join(_reasons(self.held, now))}",
                where=self.model,
                hint="make and review a new one: `tokmigrate plan -o FILE`",
            )


def bind_plan(workspace: Workspace, plan: Plan) -> BoundPlan:
    """Return a plan with all that it depends on."""
    return BoundPlan(plan.model, plan.after, _build_bindings(workspace, plan), workspace.drift)


def format_plans(plans: Sequence[BoundPlan]) -> dict[str, Any]:
    """Return plans as what a file holds."""
    return {
        "format": PLAN_FILE.version,
        "plans": [{"model": plan.model, "to_revision": plan.to, "drift": plan.drift, **plan.held} for plan in plans],
    }


def write_plans(path: Path, plans: Sequence[BoundPlan]) -> None:
    """Write plans into a file of their own; raises UsageError where that cannot be."""
    try:
        path.write_text(json.dumps(format_plans(plans), indent=2, ensure_ascii=False) + "\n", "utf-8")
    except OSError as error:
        raise UsageError(f"the plan cannot be written: {error.strerror}", where=str(path)) from error


def read_plans(path: Path) -> tuple[BoundPlan, ...]:
    """Return the plans of a file; raises UsageError where it is none, FormatError where another tokmigrate wrote it."""
    try:
        data = read_file(path)
        version = _Versioned.model_validate_json(data).format
        check_version(PLAN_FILE, version, str(path))
        read = _Plans.model_validate_json(data)
    except StorageError as error:
        raise UsageError(f"the plan cannot be read: {error.message}", where=str(path), hint=error.hint) from error
    except ValidationError as error:
        raise UsageError("not a plan", where=str(path), hint="`tokmigrate plan -o FILE` writes one") from error
    return tuple(
        BoundPlan(each.model, each.to_revision, each.model_dump(include={*_HELD}), each.drift) for each in read.plans
    )


def _reasons(held: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is otherwise than when a plan was made, the cause of the rest first; what follows from it is left out.

    Args:
        held: What the plan depends on.
        now: The same as it is.
    """
    found = list(_causes(held, now))
    if not found and now["ids"] != held["ids"]:
        found.append("tokens would get other ids")
    if not found:
        found.append("the model was worked on since it was made")
    yield from found


def _causes(held: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    moved = now["from_revision"] != held["from_revision"]
    if moved:
        yield f"the model is at {now['from_revision'] or 'base'} now, not at {held['from_revision'] or 'base'}"
    old, new = dict(held["migrations"]), dict(now["migrations"])
    edited = [revision for revision in old if revision in new and old[revision] != new[revision]]
    if edited:
        yield f"since it was made {_format_names(edited)} {'was' if len(edited) == 1 else 'were'} edited"
    if now["seed"] != held["seed"]:
        yield "the workspace has another seed"
    if moved:
        # Other migrations are pending then, and other files there.
        return
    if list(old) != list(new):
        yield f"it leads by {_format_names(list(old))}, and {_format_names(list(new))} would be next"
    if now["files"] != held["files"]:
        yield f"files of the model were changed: {_format_names(_others(held['files'], now['files']))}"
    if now["shards"] != held["shards"]:
        yield f"weights of the model were changed: {_format_names(_others(held['shards'], now['shards']))}"
    if now["adapters"] != held["adapters"]:
        yield f"adapters of the model were changed: {_format_names(_others(held['adapters'], now['adapters']))}"
    if now["generation"] != held["generation"]:
        yield "its stamp is another one"


def _others(held: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    return [name for name in sorted({*held, *now}) if held.get(name) != now.get(name)]


def _format_names(names: Sequence[str]) -> str:
    return format_list(names) or "nothing"


def _build_bindings(workspace: Workspace, plan: Plan) -> dict[str, Any]:
    state = open_state_if_present(workspace.state, workspace.root)
    model = state.model_at(plan.snapshot.directory, plan.snapshot.generation) if state else None
    last = state.runs(model, 1) if state and model else ()
    return {
        "from_revision": plan.before,
        "generation": plan.snapshot.generation,
        "migrations": [[step.migration.revision, step.migration.checksum] for step in plan.steps],
        "ids": {
            change.token: change.id for change in plan.tokens if change.token is not None and change.id != change.old_id
        },
        "files": dict(_files(plan.snapshot)),
        "shards": dict(_shards(plan.snapshot)),
        "adapters": {
            _place(adapter.snapshot.directory, workspace): {
                "generation": adapter.snapshot.generation,
                "files": dict(_files(adapter.snapshot)),
                "shards": dict(_shards(adapter.snapshot)),
            }
            for adapter in plan.adapters
        },
        "last_run": last[0].id if last else None,
        "seed": workspace.seed,
    }


def _place(directory: Path, workspace: Workspace) -> str:
    """Return a directory as a plan names it: relative to the workspace where it lies in it, which may be moved."""
    inside = directory.is_relative_to(workspace.root)
    return str(directory.relative_to(workspace.root) if inside else directory)


def _files(snapshot: Snapshot) -> Iterator[tuple[str, str]]:
    for name, data in sorted(snapshot.texts.items()):
        yield name, blake3(data).hexdigest()


def _shards(snapshot: Snapshot) -> Iterator[tuple[str, str]]:
    """Yield a digest of a sample of each shard: reading all of it would cost more than the plan."""
    for shard in snapshot.weights.shards:
        yield shard.file, compute_sampled_digest(snapshot.weights.path(shard), shard)


def plan(workspace: Workspace, entry: ModelEntry, to: str = "head") -> Plan:
    """Return what an upgrade of a model would do; nothing is written.

    Args:
        workspace: The workspace.
        entry: The model.
        to: A revision by any of its names.
    """
    refuse_in_progress(entry)
    return plan_or_reuse(workspace, entry, take_snapshot(entry), to)


def preview_upgrade(
    workspace: Workspace,
    entry: ModelEntry,
    to: str = "head",
    bound: BoundPlan | None = None,
    *,
    keep_owner: bool = True,
) -> Plan | None:
    """Return what an upgrade would do, None if a change is in progress or has to be recovered first.

    Args:
        workspace: The workspace.
        entry: The model.
        to: A revision by any of its names.
        bound: A plan made before.
        keep_owner: Whether it is refused where owner, mode or attributes of files cannot be kept.

    Raises:
        TokmigrateError: What the upgrade would be refused for.
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

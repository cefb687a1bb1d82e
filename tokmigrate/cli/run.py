"""Commands that change models or say where they are: upgrade, downgrade, stamp, tag, peft-config."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from tokmigrate.audit import lora, trainers
from tokmigrate.cli.each import ChangeResults, ModelResults, Result, print_result
from tokmigrate.cli.options import (
    REVISION_NAMES,
    AcceptDrift,
    AsJson,
    LockTimeout,
    Models,
    NoOwner,
    complete_model,
    complete_revision,
    complete_tag,
    open_workspace,
    select_models,
)
from tokmigrate.cli.output import declare_changes, json_lines
from tokmigrate.commands import downgrade as downgrading
from tokmigrate.commands import plan as planning
from tokmigrate.commands import preparation
from tokmigrate.commands import stamp as stamping
from tokmigrate.commands import tag as tags
from tokmigrate.commands import upgrade as upgrading
from tokmigrate.errors import UsageError
from tokmigrate.render import check as check_report
from tokmigrate.render import plan as plan_report
from tokmigrate.render import terminal, training
from tokmigrate.render.verbosity import is_quiet
from tokmigrate.training import evaluate as measuring

if TYPE_CHECKING:
    from tokmigrate.commands.library_check import Accepted
    from tokmigrate.commands.plan import BoundPlan
    from tokmigrate.events import OnProgress
    from tokmigrate.plan.plan import Plan
    from tokmigrate.settings import ModelEntry, Workspace

KeepGoing = Annotated[bool, Option("--keep-going", help="Continue with the other models after one fails.")]
Jobs = Annotated[int, Option("--jobs", "-j", help="Change this many models at a time.", metavar="N", min=1)]


def upgrade(
    revision: Annotated[
        str | None, Argument(help=f"{REVISION_NAMES} Default: head.", autocompletion=complete_revision)
    ] = None,
    model: Models = None,
    plan_file: Annotated[
        Path | None, Option("--plan", help="Apply this plan file; refuse it if it is stale.", metavar="FILE")
    ] = None,
    accept_drift: AcceptDrift = False,
    lock_timeout: LockTimeout = 0.0,
    no_owner: NoOwner = False,
    keep_going: KeepGoing = False,
    jobs: Jobs = 1,
    as_json: AsJson = False,
) -> None:
    """Apply pending migrations to tokenizer and embeddings.

    A model is changed completely or not at all. All models are planned and verified with the libraries first: if one
    cannot be changed, none is. Models run in order and stop at the first failure, such as a lack of space; a summary
    lists done, failed and skipped models. `--keep-going` continues with the others. With `-j N`, N models are worked on
    at a time, or fewer while memory or disk space are not enough for one more; what is printed stays in the order of
    the models.
    """
    workspace = open_workspace(accept_drift)
    plans = _read_plans(plan_file, revision, model) if plan_file else {}
    entries = select_models(workspace, list(plans) or model)
    preparation.prepare_upgrade(workspace, entries)
    # Of several models at a time a plan is printed with the result.
    announces = not as_json and (jobs == 1 or len(entries) == 1)
    command = _Upgrade(
        "upgrade", entries, as_json, keep_going, workspace, revision, plans, lock_timeout, not no_owner, announces
    )
    command.run(jobs)
    command.finish()


@dataclass
class _Upgrade(ChangeResults):
    workspace: Workspace
    revision: str | None
    plans: Mapping[str, BoundPlan]
    lock_timeout_s: float
    keep_owner: bool
    announces: bool

    def accept(self, entry: ModelEntry, on_progress: OnProgress) -> Accepted | None:
        to, bound = self._target(entry)
        return upgrading.accept_upgrade(
            self.workspace,
            entry,
            to,
            on_progress,
            bound,
            verifications=self.verifications,
            keep_owner=self.keep_owner,
            check_predictions=measuring.check_predictions,
        )

    def change(self, entry: ModelEntry, accepted: Accepted | None, on_progress: OnProgress) -> Result:
        to, bound = self._target(entry)
        announce = _print_plan if self.announces else upgrading.ignore_plan
        done = upgrading.upgrade(
            self.workspace,
            entry,
            to,
            self.lock_timeout_s,
            on_progress,
            bound,
            announce,
            keep_owner=self.keep_owner,
            accepted=accepted,
            check_predictions=measuring.check_predictions,
        )
        notes = _recovery_notes(entry.name, done.recovered.value)
        if self.as_json:
            return Result(plan_report.upgrade_content(done), notes=notes)
        parts = [] if self.announces or is_quiet() else [plan_report.plan_text(done.plan)]
        return Result({}, [*parts, *([plan_report.upgrade_line(done.plan)] if done.plan.steps else [])], notes)

    def _target(self, entry: ModelEntry) -> tuple[str, BoundPlan | None]:
        """Return the revision to upgrade a model to, and its part of the plan file, if one is given."""
        bound = self.plans.get(entry.name)
        return (bound.to_revision or "base") if bound else self.revision or "head", bound


def _print_plan(plan: Plan) -> None:
    if not is_quiet():
        terminal.print_rich(plan_report.plan_text(plan))


def downgrade(
    revision: Annotated[str, Argument(help="base, a revision, or -N.", autocompletion=complete_revision)],
    model: Models = None,
    accept_drift: AcceptDrift = False,
    lock_timeout: LockTimeout = 0.0,
    no_owner: NoOwner = False,
    keep_going: KeepGoing = False,
    jobs: Jobs = 1,
    as_json: AsJson = False,
) -> None:
    """Undo migrations down to a revision, byte for byte.

    Several models are handled as by `upgrade`; one that is at the revision already is skipped.
    """
    workspace = open_workspace(accept_drift)
    entries = select_models(workspace, model)
    preparation.prepare_downgrade(workspace)
    command = _Downgrade("downgrade", entries, as_json, keep_going, workspace, revision, lock_timeout, not no_owner)
    command.run(jobs)
    command.finish()


@dataclass
class _Downgrade(ChangeResults):
    workspace: Workspace
    revision: str
    lock_timeout_s: float
    keep_owner: bool

    def accept(self, entry: ModelEntry, on_progress: OnProgress) -> Accepted | None:
        return downgrading.accept_downgrade(
            self.workspace,
            entry,
            self.revision,
            on_progress,
            verifications=self.verifications,
            keep_owner=self.keep_owner,
        )

    def change(self, entry: ModelEntry, accepted: Accepted | None, on_progress: OnProgress) -> Result:
        done = downgrading.downgrade(
            self.workspace,
            entry,
            self.revision,
            self.lock_timeout_s,
            on_progress,
            keep_owner=self.keep_owner,
            accepted=accepted,
        )
        notes = _recovery_notes(entry.name, done.recovered.value)
        return Result(plan_report.downgrade_content(done), [plan_report.downgrade_line(done)], notes)


def stamp(
    revision: Annotated[
        str | None, Argument(help="The revision that the model is at.", autocompletion=complete_revision)
    ] = None,
    source: Annotated[
        Path | None,
        Option(
            "--from",
            help="Adopt the model as a copy of this one, trained or saved elsewhere.",
            metavar="DIR",
            autocompletion=complete_model,
        ),
    ] = None,
    model: Models = None,
    lock_timeout: LockTimeout = 0.0,
    no_owner: NoOwner = False,
    as_json: AsJson = False,
) -> None:
    """Record that an existing model is at a revision.

    The model is compared semantically with what the migrations leave. `--from DIR` adopts a fine-tuned copy of a model
    that this workspace migrated: it gets that model's revision and undo data. To undo a stamp, delete tokmigrate.json
    from the model; ledger and undo data remain.
    """
    if (revision is None) == (source is None):
        raise UsageError("stamp takes a revision, or --from DIR", hint="tokmigrate stamp head --model NAME")
    workspace = open_workspace()
    entries = select_models(workspace, model)
    if len(entries) != 1:
        raise UsageError("stamp takes one model at a time", hint="--model NAME")
    declare_changes()
    with terminal.progress() as on_progress:
        if source is not None:
            known = workspace.models.get(str(source))
            origin = known.path if known else source
            done = stamping.stamp_copy(workspace, entries[0], origin, lock_timeout, on_progress, not no_owner)
        else:
            done = stamping.stamp_model(workspace, entries[0], str(revision), lock_timeout, on_progress, not no_owner)
    model_name, at = entries[0].name, done.stamp.revision
    undo = "undo data exists" if done.undoable else "there is no undo data here, so it cannot be downgraded"
    lines = [f"{model_name}: stamped at {at}; {undo}"]
    if done.moved:
        lines.append(f"changed since it was migrated: {check_report.format_tensors(done.moved)}")
        lines += training.training_lines(done.training)
    content = {"model": model_name, "revision": at, "undoable": done.undoable, "moved": done.moved}
    content["training"] = training.training_content(done.training)
    print_result("stamp", Result(content, lines), as_json)


def tag(
    name: Annotated[
        str | None, Argument(help="The tag; without one, all are listed.", autocompletion=complete_tag)
    ] = None,
    revision: Annotated[
        str | None, Argument(help="The revision to name. Default: head.", autocompletion=complete_revision)
    ] = None,
    delete: Annotated[
        str | None, Option("--delete", help="Delete this tag.", metavar="NAME", autocompletion=complete_tag)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Give a revision a name, or list all tags.

    Every command accepts a tag in place of a revision. An existing tag is moved. Tags are stored in the state of the
    workspace, not in Git: a workspace with another state has other tags.
    """
    workspace = open_workspace()
    if name is not None or delete is not None:
        declare_changes()
    if delete is not None:
        if name is not None:
            raise UsageError("--delete names the tag itself", hint=f"tokmigrate tag --delete {delete}")
        before = tags.delete_tag(workspace, delete)
        result = Result({"tags": {}, "deleted": {delete: before}}, [f"{delete}: deleted, it named {before}"])
    elif name is None:
        found = tags.list_tags(workspace)
        result = Result({"tags": found}, [f"{each}: {target}" for each, target in found.items()])
    elif not name.strip():
        raise UsageError("a tag needs a name", hint="tokmigrate tag NAME")
    else:
        new, old = tags.set_tag(workspace, name, revision or "head")
        line = f"{name}: moved from {old} to {new}" if old else f"{name}: {new}"
        result = Result({"tags": {name: new}, "moved_from": old}, [line])
    print_result("tag", result, as_json)


def peft_config(
    model: Models = None,
    trainer: Annotated[
        trainers.Trainer, Option("--for", help="Print what this trainer takes.", metavar="NAME")
    ] = "peft",
    as_json: AsJson = False,
) -> None:
    """Print peft's trainable_token_indices for untrained tokens.

    The JSON is an argument of peft's LoraConfig: `LoraConfig(**json.load(file), r=16, …)`. Layers are named as peft
    finds them; a model without tied embeddings has its output layer listed too. With --json one document covers all
    models.

    Not every trainer trains single rows, and not every one by that name. `--for NAME` prints what works, with the
    reason: arguments of LoraConfig as JSON for `peft`, `transformers` and `trl`, keys of a configuration file as YAML
    for `axolotl` and `llamafactory`, and arguments of `get_peft_model` in Python for `unsloth`.
    """
    workspace = open_workspace()
    entries = select_models(workspace, model)
    if len(entries) > 1 and not as_json:
        names = ", ".join(entry.name for entry in entries)
        raise UsageError("a LoRA run is for one model", hint=f"name it: --model; there are {names}")
    results = ModelResults("peft-config", entries, as_json)
    for entry in entries:
        with results.keep_error(entry):
            found = lora.lora_rows(workspace, entry)
            config = trainers.configure_trainer(trainer, found)
            lines = json_lines(dict(config.settings)) if config.syntax == "json" else training.trainer_lines(config)
            notes = [*training.lora_notes(found), *training.trainer_notes(entry.name, config)]
            results.add(Result({**training.lora_content(found), **training.trainer_content(config)}, lines, notes))
    results.finish()


def _read_plans(path: Path, revision: str | None, model: list[str] | None) -> dict[str, BoundPlan]:
    if revision or model:
        raise UsageError("--plan already names revision and models", hint="tokmigrate upgrade --plan FILE")
    plans = {each.model: each for each in planning.read_plans(path)}
    if not plans:
        raise UsageError(
            "the plan file contains no models", where=str(path), hint="write one: `tokmigrate plan -o FILE`"
        )
    return plans


def _recovery_notes(model: str, outcome: str) -> list[str]:
    if outcome == "nothing":
        return []
    return [f"{model}: recovered an interrupted change first; the model was the one {outcome} it"]

"""Commands that change models: plan, upgrade, downgrade."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tokmigrate import events
from tokmigrate.cli import console
from tokmigrate.cli.each import ChangeCommand, Command, change_each, run_each
from tokmigrate.cli.options import (
    AcceptDrift,
    AsJson,
    Here,
    LockTimeout,
    Models,
    NoOwner,
    complete_revision,
    open_workspace,
    select_models,
    select_present,
    with_drift_setting,
)
from tokmigrate.cli.output import declare_changes, echo, echo_err, print_json
from tokmigrate.commands import downgrade as downgrading
from tokmigrate.commands import plan as bound_plan
from tokmigrate.commands import plan as planning
from tokmigrate.commands import upgrade as upgrading
from tokmigrate.errors import UsageError
from tokmigrate.plan import corpus as plan_corpus
from tokmigrate.render import impact, text
from tokmigrate.render import json as json_report

if TYPE_CHECKING:
    from tokmigrate.commands.library_check import Accepted
    from tokmigrate.commands.plan import BoundPlan
    from tokmigrate.events import OnProgress
    from tokmigrate.plan.plan import Plan
    from tokmigrate.settings import ModelEntry, Workspace

_NAMES = "A revision id, a prefix of it, a file number, a tag, head, or +N."
Target = Annotated[str, typer.Argument(help=_NAMES, autocompletion=complete_revision)]

KeepGoing = Annotated[
    bool, typer.Option("--keep-going", metavar="", help="Continue with the other models after one fails.")
]

Corpus = Annotated[
    Path | None,
    typer.Option(
        help="Count how the plan changes the tokenization of this file, line by line.",
        metavar="FILE",
        exists=True,
        dir_okay=False,
        readable=True,
    ),
]


@dataclass(frozen=True)
class PlanCommand(Command["Plan"]):
    """`plan` for one model.

    Args:
        workspace: The workspace.
        revision: The revision to plan for, by any of its names.
        corpus: A text file to measure the plan on.
        to_stderr: Whether stdout is taken by the plan file.
        on_progress: Called with each event.
        bounds: The plans so far, as a plan file holds them.
    """

    name = "plan"

    workspace: Workspace
    revision: str
    corpus: Path | None
    to_stderr: bool
    on_progress: OnProgress
    bounds: list[BoundPlan] = field(default_factory=list)

    def run(self, entry: ModelEntry) -> Plan:
        """Plan the upgrade of a model."""
        plan = planning.plan(self.workspace, entry, to=self.revision)
        for warning in plan.warnings:
            self.on_progress(events.Warned(entry.name, warning))
        self.bounds.append(bound_plan.bind_plan(self.workspace, plan))
        return plan

    def render(self, result: Plan) -> None:
        """Print a plan, and what it does to the corpus."""
        console.print_rich(text.plan_text(result), stderr=self.to_stderr)
        if self.corpus:
            measured = plan_corpus.measure(result, self.corpus, self.on_progress)
            console.print_rich(impact.impact_text(measured), stderr=self.to_stderr)

    def content(self, result: Plan) -> dict[str, Any]:
        """Return a plan, and what it does to the corpus, as JSON."""
        content = json_report.plan_content(result)
        if self.corpus:
            measured = plan_corpus.measure(result, self.corpus, self.on_progress)
            content["impact"] = json_report.impact_content(measured)
        return content


def plan(
    revision: Target = "head",
    model: Models = None,
    here: Here = False,
    corpus: Corpus = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Write the plan to a file for `upgrade --plan`; - is stdout.", metavar="FILE"
        ),
    ] = None,
    accept_drift: AcceptDrift = False,
    as_json: AsJson = False,
) -> None:
    """Show what an upgrade would change, without writing anything.

    The plan lists ids, rows, files, bytes and risks. With `--corpus FILE` (UTF-8, one text a line) it also counts the
    lines that are tokenized differently, those that get other ids, tokens, unknown tokens, and lines longer than the
    model takes, and shows the lines that change most. Lines are counted as a model gets them, with the special tokens
    around them. The longest line is given by `model_max_length`, or else by the positions in config.json. If nothing
    in the plan changes tokenization, the file is not read.

    `-o FILE` writes a plan that is bound to the migrations, the files and the state that it was made from:
    `upgrade --plan FILE` applies it and nothing else. With `-o -` it goes to stdout, and all else to stderr.
    """
    to_stdout = output == Path("-")
    if to_stdout and as_json:
        raise UsageError("-o - and --json both go to stdout", hint="name a file: -o FILE")
    workspace = with_drift_setting(open_workspace(), accept_drift)
    entries = select_models(workspace, model)
    if here:
        entries = select_present(entries, as_json)
    with console.progress() as on_progress:
        command = PlanCommand(workspace, revision, corpus, to_stdout, on_progress)
        run_each(command, entries, as_json)
    if to_stdout:
        print_json(bound_plan.format_plans(command.bounds))
    elif output is not None:
        declare_changes()
        bound_plan.write_plans(output, command.bounds)
        if not as_json:
            file = shlex.quote(str(output))
            echo(f"wrote {file}: `tokmigrate upgrade --plan {file}` applies it")


@dataclass(frozen=True)
class UpgradeCommand(ChangeCommand["upgrading.Upgraded"]):
    """`upgrade` for one model.

    Args:
        workspace: The workspace.
        revision: The revision to upgrade to, by any of its names.
        plans: The plans of a plan file, by model; empty without one.
        lock_timeout_s: How long to wait for another process.
        keep_owner: Whether to refuse a change that loses owner, mode or attributes of files.
        show_plan: Whether to print the plan before the work.
        on_progress: Called with each event.
    """

    name = "upgrade"

    workspace: Workspace
    revision: str
    plans: Mapping[str, BoundPlan]
    lock_timeout_s: float
    keep_owner: bool
    show_plan: bool
    on_progress: OnProgress

    def plan(self, entry: ModelEntry) -> Accepted | None:
        """Plan and verify the upgrade of a model."""
        bound = self.plans.get(entry.name)
        to = self._target(bound)
        return upgrading.accept_upgrade(self.workspace, entry, to, self.on_progress, bound, keep_owner=self.keep_owner)

    def run(self, entry: ModelEntry, accepted: Accepted | None = None) -> upgrading.Upgraded:
        """Upgrade a model."""
        bound = self.plans.get(entry.name)
        return upgrading.upgrade(
            self.workspace,
            entry,
            self._target(bound),
            self.lock_timeout_s,
            self.on_progress,
            bound,
            self.announce,
            keep_owner=self.keep_owner,
            accepted=accepted,
        )

    def announce(self, plan: Plan) -> None:
        """Print the plan before the work begins."""
        if self.show_plan:
            console.print_rich(text.plan_text(plan))

    def render(self, result: upgrading.Upgraded) -> None:
        """Print what was upgraded."""
        _echo_recovered(result.plan.model, result.recovered.value)
        if result.plan.steps:
            echo(text.upgrade_line(result.plan))

    def content(self, result: upgrading.Upgraded) -> dict[str, Any]:
        """Return what was upgraded as JSON."""
        return json_report.upgrade_content(result)

    def _target(self, bound: BoundPlan | None) -> str:
        return (bound.to or "base") if bound else self.revision


def upgrade(
    revision: Annotated[
        str | None, typer.Argument(help=f"{_NAMES} Default: head.", autocompletion=complete_revision)
    ] = None,
    model: Models = None,
    plan_file: Annotated[
        Path | None, typer.Option("--plan", help="Apply this plan file; refuse it if it is stale.", metavar="FILE")
    ] = None,
    accept_drift: AcceptDrift = False,
    lock_timeout: LockTimeout = 0.0,
    no_owner: NoOwner = False,
    keep_going: KeepGoing = False,
    as_json: AsJson = False,
) -> None:
    """Apply pending migrations to tokenizer and embeddings.

    A model is changed completely or not at all. All models are planned and verified with the libraries first: if one
    cannot be changed, none is. Models run in order and stop at the first failure, such as a lack of space; a summary
    lists done, failed and skipped models. `--keep-going` continues with the others.
    """
    workspace = with_drift_setting(open_workspace(), accept_drift)
    plans = _read_plans(plan_file, revision, model) if plan_file else {}
    entries = select_models(workspace, list(plans) or model)
    with console.progress() as on_progress:
        command = UpgradeCommand(
            workspace, revision or "head", plans, lock_timeout, not no_owner, not as_json, on_progress
        )
        change_each(command, entries, as_json, keep_going=keep_going)


@dataclass(frozen=True)
class DowngradeCommand(ChangeCommand["downgrading.Downgraded"]):
    """`downgrade` for one model.

    Args:
        workspace: The workspace.
        revision: The revision to downgrade to, by any of its names.
        lock_timeout_s: How long to wait for another process.
        keep_owner: Whether to refuse a change that loses owner, mode or attributes of files.
        on_progress: Called with each event.
    """

    name = "downgrade"

    workspace: Workspace
    revision: str
    lock_timeout_s: float
    keep_owner: bool
    on_progress: OnProgress

    def plan(self, entry: ModelEntry) -> Accepted | None:
        """Find the undo data of a model, and verify the result."""
        return downgrading.accept_downgrade(
            self.workspace, entry, self.revision, self.on_progress, keep_owner=self.keep_owner
        )

    def run(self, entry: ModelEntry, accepted: Accepted | None = None) -> downgrading.Downgraded:
        """Downgrade a model."""
        return downgrading.downgrade(
            self.workspace,
            entry,
            self.revision,
            self.lock_timeout_s,
            self.on_progress,
            keep_owner=self.keep_owner,
            accepted=accepted,
        )

    def render(self, result: downgrading.Downgraded) -> None:
        """Print what was undone."""
        _echo_recovered(result.model, result.recovered.value)
        echo(text.downgrade_line(result))

    def content(self, result: downgrading.Downgraded) -> dict[str, Any]:
        """Return what was undone as JSON."""
        return json_report.downgrade_content(result)


def downgrade(
    revision: Annotated[str, typer.Argument(help="base, a revision, or -N.", autocompletion=complete_revision)],
    model: Models = None,
    accept_drift: AcceptDrift = False,
    lock_timeout: LockTimeout = 0.0,
    no_owner: NoOwner = False,
    keep_going: KeepGoing = False,
    as_json: AsJson = False,
) -> None:
    """Undo migrations down to a revision, byte for byte.

    Several models are handled as by `upgrade`; one that is at the revision already is skipped.
    """
    workspace = with_drift_setting(open_workspace(), accept_drift)
    entries = select_models(workspace, model)
    with console.progress() as on_progress:
        command = DowngradeCommand(workspace, revision, lock_timeout, not no_owner, on_progress)
        change_each(command, entries, as_json, keep_going=keep_going)


def _read_plans(path: Path, revision: str | None, model: list[str] | None) -> dict[str, BoundPlan]:
    if revision or model:
        raise UsageError("--plan already names revision and models", hint="tokmigrate upgrade --plan FILE")
    plans = {each.model: each for each in bound_plan.read_plans(path)}
    if not plans:
        raise UsageError(
            "the plan file contains no models", where=str(path), hint="write one: `tokmigrate plan -o FILE`"
        )
    return plans


def _echo_recovered(model: str, outcome: str) -> None:
    if outcome != "nothing":
        echo_err(f"{model}: recovered an interrupted change first; the model was the one {outcome} it")

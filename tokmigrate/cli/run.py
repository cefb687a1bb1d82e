"""Commands that change models: plan, upgrade, downgrade."""

from __future__ import annotations

import shlex
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tokmigrate.cli.change_each import change_each, document_changes
from tokmigrate.cli.completion import complete_revision
from tokmigrate.cli.each import document_each, show_each
from tokmigrate.cli.options import (
    AcceptDrift,
    AsJson,
    Here,
    LockTimeout,
    Models,
    NoOwner,
    accepting,
    selected,
    those_here,
    workspace,
)
from tokmigrate.cli.output import print_json, progress, say, say_aside, show, show_aside
from tokmigrate.cli.streams import changes_something

if TYPE_CHECKING:
    from tokmigrate.plan.upgrade import Plan
    from tokmigrate.runner.bound_plan import BoundPlan
    from tokmigrate.runner.verification import Accepted
    from tokmigrate.settings import ModelEntry

_NAMES = "A revision, a prefix of it, a file's number, a tag, head, or +N."
Target = Annotated[str, typer.Argument(help=_NAMES, autocompletion=complete_revision)]

KeepGoing = Annotated[
    bool, typer.Option("--keep-going", metavar="", help="Go on with the other models where one fails.")
]

Corpus = Annotated[
    Path | None,
    typer.Option(
        help="Measure on this text file, a line for each text, what the plan does to how text is cut.",
        metavar="FILE",
        exists=True,
        dir_okay=False,
        readable=True,
    ),
]


def plan(
    revision: Target = "head",
    model: Models = None,
    here: Here = False,
    corpus: Corpus = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Write the plan into a file, for `upgrade --plan`; - is stdout.", metavar="FILE"
        ),
    ] = None,
    accept_drift: AcceptDrift = False,
    as_json: AsJson = False,
) -> None:
    """Show what `upgrade` would do: ids, rows, files, bytes and risks. Nothing is written.

    With `--corpus` it also counts, on a text file in UTF-8 with a line for
    each text, the lines that become other tokens, those that get other
    ids, tokens, unknown tokens, and lines longer than the model takes; and it
    shows the lines that fare worst. All is counted as a model gets it, with
    the special tokens around a line. The most that a line may have is
    `model_max_length`, or else the positions that config.json states. Where
    nothing in the plan changes how text is tokenized, the file is not read.

    With `-o FILE` the plan is kept, bound to the migrations, the files and the
    state that it was made of: `upgrade --plan FILE` does that and nothing else.
    With `-o -` it goes to stdout, and what is shown to stderr.
    """
    from tokmigrate.errors import UsageError  # noqa: PLC0415
    from tokmigrate.plan.corpus import measure  # noqa: PLC0415
    from tokmigrate.report.impact import impact_text  # noqa: PLC0415
    from tokmigrate.report.json import impact_content, plan_content  # noqa: PLC0415
    from tokmigrate.report.text import plan_text  # noqa: PLC0415
    from tokmigrate.runner import migrate  # noqa: PLC0415
    from tokmigrate.runner.bound_plan import bound, format_plans, write_plans  # noqa: PLC0415

    def content(planned: Plan) -> dict[str, Any]:
        measured = {"impact": impact_content(measure(planned, corpus, listener))} if corpus else {}
        return {**plan_content(planned), **measured}

    def render(planned: Plan) -> None:
        out(plan_text(planned))
        if corpus:
            out(impact_text(measure(planned, corpus, listener)))

    to_stdout = output == Path("-")
    if to_stdout and as_json:
        raise UsageError("-o - and --json both go to stdout", hint="name a file: -o FILE")
    out = show_aside if to_stdout else show
    place = accepting(workspace(), accept_drift)
    entries = selected(place, model)
    if here:
        entries = those_here(entries, as_json)
    bounds: list[BoundPlan] = []

    def act(entry: ModelEntry) -> Plan:
        planned = migrate.plan(place, entry, to=revision)
        bounds.append(bound(place, planned))
        return planned

    with progress() as listener:
        if as_json:
            document_each("plan", entries, act, content)
        else:
            show_each(entries, act, render)
    if to_stdout:
        print_json(format_plans(bounds))
    elif output is not None:
        changes_something()
        write_plans(output, bounds)
        if not as_json:
            file = shlex.quote(str(output))
            say(f"wrote {file}: `tokmigrate upgrade --plan {file}` does what it says")


def upgrade(
    revision: Annotated[
        str | None, typer.Argument(help=f"{_NAMES} By default head.", autocompletion=complete_revision)
    ] = None,
    model: Models = None,
    planned: Annotated[
        Path | None,
        typer.Option("--plan", help="Do what this plan says; a stale one is refused.", metavar="FILE"),
    ] = None,
    accept_drift: AcceptDrift = False,
    lock_timeout: LockTimeout = 0.0,
    no_owner: NoOwner = False,
    keep_going: KeepGoing = False,
    as_json: AsJson = False,
) -> None:
    """Bring models up to a revision: tokenizer and embedding matrix together, or not at all.

    Several models are all planned first, and verified with the libraries: where one cannot be changed, none is. What
    then still fails, as for want of space, ends it with the models before it done; what was done, what failed and what
    was not tried is said. With --keep-going the other models are changed all the same.
    """
    from tokmigrate.report.json import upgraded_content  # noqa: PLC0415
    from tokmigrate.report.text import plan_text, upgraded_line  # noqa: PLC0415
    from tokmigrate.runner import migrate  # noqa: PLC0415

    def render(done: migrate.Upgraded) -> None:
        _say_recovered(done.plan.model, done.recovered.value)
        if done.plan.steps:
            say(upgraded_line(done.plan))

    def announce(planned: Plan) -> None:
        if not as_json:
            show(plan_text(planned))

    place = accepting(workspace(), accept_drift)
    bounds = _plans(planned, revision, model) if planned else {}
    entries = selected(place, list(bounds) if planned else model)

    def target(entry: ModelEntry) -> tuple[str, BoundPlan | None]:
        bound = bounds.get(entry.name)
        return (bound.to or "base") if bound else revision or "head", bound

    def accept(entry: ModelEntry) -> Accepted | None:
        to, bound = target(entry)
        return migrate.accept_upgrade(place, entry, to, listener, bound, keep_owner=not no_owner)

    def act(entry: ModelEntry, accepted: Accepted | None) -> migrate.Upgraded:
        to, bound = target(entry)
        return migrate.upgrade(
            place, entry, to, lock_timeout, listener, bound, announce, keep_owner=not no_owner, accepted=accepted
        )

    with progress() as listener:
        if as_json:
            document_changes("upgrade", entries, accept, act, upgraded_content, keep_going=keep_going)
        else:
            change_each(entries, accept, act, render, keep_going=keep_going)


def downgrade(
    revision: Annotated[str, typer.Argument(help="base, a revision, or -N.", autocompletion=complete_revision)],
    model: Models = None,
    accept_drift: AcceptDrift = False,
    lock_timeout: LockTimeout = 0.0,
    no_owner: NoOwner = False,
    keep_going: KeepGoing = False,
    as_json: AsJson = False,
) -> None:
    """Take migrations back until models are at a revision again, bit for bit.

    Several models go as with `upgrade`; one that is there already is passed over.
    """
    from tokmigrate.report.json import downgraded_content  # noqa: PLC0415
    from tokmigrate.report.text import downgraded_line  # noqa: PLC0415
    from tokmigrate.runner import migrate  # noqa: PLC0415

    def render(done: migrate.Downgraded) -> None:
        _say_recovered(done.model, done.recovered.value)
        say(downgraded_line(done))

    place = accepting(workspace(), accept_drift)
    entries = selected(place, model)
    with progress() as listener:
        accept = partial(migrate.accept_downgrade, place, to=revision, listener=listener, keep_owner=not no_owner)

        def act(entry: ModelEntry, accepted: Accepted | None) -> migrate.Downgraded:
            return migrate.downgrade(
                place, entry, revision, lock_timeout, listener, keep_owner=not no_owner, accepted=accepted
            )

        if as_json:
            document_changes("downgrade", entries, accept, act, downgraded_content, keep_going=keep_going)
        else:
            change_each(entries, accept, act, render, keep_going=keep_going)


def _plans(path: Path, revision: str | None, model: list[str] | None) -> dict[str, BoundPlan]:
    from tokmigrate.errors import UsageError  # noqa: PLC0415
    from tokmigrate.runner.bound_plan import read_plans  # noqa: PLC0415

    if revision or model:
        raise UsageError("--plan says revision and models itself", hint="tokmigrate upgrade --plan FILE")
    found = {each.model: each for each in read_plans(path)}
    if not found:
        raise UsageError("the plan is of no model", where=str(path), hint="make one: `tokmigrate plan -o FILE`")
    return found


def _say_recovered(model: str, found: str) -> None:
    if found != "nothing":
        say_aside(f"{model}: an interrupted change was recovered first; the model was the one {found} it")


def register(app: typer.Typer) -> None:
    """Add these commands to the application."""
    app.command(rich_help_panel="Run")(plan)
    app.command(rich_help_panel="Run")(upgrade)
    # -1 is a revision here, not an option.
    app.command(rich_help_panel="Run", context_settings={"ignore_unknown_options": True})(downgrade)

"""Commands that change models: plan, upgrade, downgrade."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from tokmigrate.cli.each import document_each, show_each
from tokmigrate.cli.options import AsJson, LockTimeout, Models, selected, workspace
from tokmigrate.cli.output import progress, show

Target = Annotated[str, typer.Argument(help="A revision, a prefix of it, a file's number, a tag, head, or +N.")]


def plan(revision: Target = "head", model: Models = None, as_json: AsJson = False) -> None:
    """Show what `upgrade` would do: ids, rows, files, bytes and risks. Nothing is written."""
    from tokmigrate.report.machine import plan_content  # noqa: PLC0415
    from tokmigrate.report.text import plan_text  # noqa: PLC0415
    from tokmigrate.runner import migrate  # noqa: PLC0415

    place = workspace()
    entries = selected(place, model)
    act = partial(migrate.plan, place, to=revision)
    if as_json:
        document_each("plan", entries, act, plan_content)
    else:
        show_each(entries, act, lambda planned: show(plan_text(planned)))


def upgrade(
    revision: Target = "head",
    model: Models = None,
    lock_timeout: LockTimeout = 0.0,
    as_json: AsJson = False,
) -> None:
    """Bring models up to a revision: tokenizer and embedding matrix together, or not at all."""
    from tokmigrate.report.machine import upgraded_content  # noqa: PLC0415
    from tokmigrate.report.text import plan_text, upgraded_line  # noqa: PLC0415
    from tokmigrate.runner import migrate  # noqa: PLC0415

    def render(done: migrate.Upgraded) -> None:
        _say_recovered(done.plan.model, done.recovered.value)
        show(plan_text(done.plan))
        if done.plan.steps:
            typer.echo(upgraded_line(done.plan))

    place = workspace()
    entries = selected(place, model)
    with progress() as listener:
        act = partial(migrate.upgrade, place, to=revision, lock_timeout_s=lock_timeout, listener=listener)
        if as_json:
            document_each("upgrade", entries, act, upgraded_content)
        else:
            show_each(entries, act, render)


def downgrade(
    revision: Annotated[str, typer.Argument(help="base, a revision, or -N.")],
    model: Models = None,
    lock_timeout: LockTimeout = 0.0,
    as_json: AsJson = False,
) -> None:
    """Take migrations back until models are at a revision again, bit for bit."""
    from tokmigrate.report.machine import downgraded_content  # noqa: PLC0415
    from tokmigrate.report.text import downgraded_line  # noqa: PLC0415
    from tokmigrate.runner import migrate  # noqa: PLC0415

    def render(done: migrate.Downgraded) -> None:
        _say_recovered(done.model, done.recovered.value)
        typer.echo(downgraded_line(done))

    place = workspace()
    entries = selected(place, model)
    with progress() as listener:
        act = partial(migrate.downgrade, place, to=revision, lock_timeout_s=lock_timeout, listener=listener)
        if as_json:
            document_each("downgrade", entries, act, downgraded_content)
        else:
            show_each(entries, act, render)


def _say_recovered(model: str, found: str) -> None:
    if found != "nothing":
        typer.echo(f"{model}: an interrupted change was recovered first; the model was the one {found} it", err=True)


def register(app: typer.Typer) -> None:
    """Add these commands to the application."""
    app.command(rich_help_panel="Run")(plan)
    app.command(rich_help_panel="Run")(upgrade)
    # -1 is a revision here, not an option.
    app.command(rich_help_panel="Run", context_settings={"ignore_unknown_options": True})(downgrade)

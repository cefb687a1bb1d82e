"""Commands that change models: plan, upgrade, downgrade."""

from __future__ import annotations

from typing import Annotated

import typer

from tokmigrate.cli.options import AsJson, LockTimeout, Models, selected, workspace
from tokmigrate.cli.output import print_json, progress, show

Target = Annotated[str, typer.Argument(help="A revision, a prefix of it, a file's number, a tag, head, or +N.")]


def plan(revision: Target = "head", model: Models = None, as_json: AsJson = False) -> None:
    """Show what `upgrade` would do: ids, rows, files, bytes and risks. Nothing is written."""
    from tokmigrate.report.machine import document, plan_content  # noqa: PLC0415
    from tokmigrate.report.text import plan_text  # noqa: PLC0415
    from tokmigrate.runner import migrate  # noqa: PLC0415

    place = workspace()
    found = [migrate.plan(place, entry, revision) for entry in selected(place, model)]
    if as_json:
        print_json(document("plan", models=[plan_content(each) for each in found]))
        return
    for each in found:
        show(plan_text(each))


def upgrade(
    revision: Target = "head",
    model: Models = None,
    lock_timeout: LockTimeout = 0.0,
    as_json: AsJson = False,
) -> None:
    """Bring models up to a revision: tokenizer and embedding matrix together, or not at all."""
    from tokmigrate.report.machine import document, plan_content  # noqa: PLC0415
    from tokmigrate.report.text import named, plan_text, size  # noqa: PLC0415
    from tokmigrate.runner import migrate  # noqa: PLC0415

    place = workspace()
    found = []
    with progress() as listener:
        for entry in selected(place, model):
            found.append(migrate.upgrade(place, entry, revision, lock_timeout, listener))
    if as_json:
        models = [
            {**plan_content(each.plan), "recovered": each.recovered.value, "changed": bool(each.plan.steps)}
            for each in found
        ]
        print_json(document("upgrade", models=models))
        return
    for each in found:
        _say_recovered(each.plan.model, each.recovered.value)
        show(plan_text(each.plan))
        if each.plan.steps:
            typer.echo(
                f"{each.plan.model}: upgraded to {named(each.plan.after)}, {size(each.plan.bytes_to_write)} written; "
                f"`tokmigrate downgrade {named(each.plan.before)}` goes back"
            )


def downgrade(
    revision: Annotated[str, typer.Argument(help="base, a revision, or -N.")],
    model: Models = None,
    lock_timeout: LockTimeout = 0.0,
    as_json: AsJson = False,
) -> None:
    """Take migrations back until models are at a revision again, bit for bit."""
    from tokmigrate.report.machine import document  # noqa: PLC0415
    from tokmigrate.report.text import named  # noqa: PLC0415
    from tokmigrate.runner import migrate  # noqa: PLC0415

    place = workspace()
    found = []
    with progress() as listener:
        for entry in selected(place, model):
            found.append(migrate.downgrade(place, entry, revision, lock_timeout, listener))
    if as_json:
        models = [
            {
                "model": each.model,
                "from_revision": each.before,
                "to_revision": each.after,
                "reverted": list(each.reverted),
                "recovered": each.recovered.value,
            }
            for each in found
        ]
        print_json(document("downgrade", models=models))
        return
    for each in found:
        _say_recovered(each.model, each.recovered.value)
        typer.echo(
            f"{each.model}: {named(each.before)} → {named(each.after)}, {len(each.reverted)} taken back, every byte proven"
        )


def _say_recovered(model: str, found: str) -> None:
    if found != "nothing":
        typer.echo(f"{model}: an interrupted change was recovered first; the model was the one {found} it", err=True)


def register(app: typer.Typer) -> None:
    """Add these commands to the application."""
    app.command(rich_help_panel="Run")(plan)
    app.command(rich_help_panel="Run")(upgrade)
    # -1 is a revision here, not an option.
    app.command(rich_help_panel="Run", context_settings={"ignore_unknown_options": True})(downgrade)

"""Commands for when something went wrong: recover."""

from __future__ import annotations

import typer

from tokmigrate.cli.options import SETTLED, AsJson, LockTimeout, Models, selected, workspace
from tokmigrate.cli.output import print_json, say

_SAID = {
    "nothing": "nothing to recover",
    "before": "the change had not happened: the model is the one before it",
    "after": "the change had happened: the model is the one after it",
}


def recover(model: Models = None, lock_timeout: LockTimeout = 0.0, as_json: AsJson = False) -> None:
    """Finish what an interrupted upgrade or downgrade left of a model, and what a rebase or squash left of migrations.

    Each ends as it was before the interrupted command or as that was to leave
    it. Commands that write go on by themselves from where another one stopped.
    """
    from tokmigrate.report.machine import document  # noqa: PLC0415
    from tokmigrate.runner import migrate  # noqa: PLC0415
    from tokmigrate.runner.rewriting import settle  # noqa: PLC0415

    place = workspace()
    migrations = settle(place).value
    entries = selected(place, model) if migrations == "nothing" else place.select(model or [])
    found = [(entry.name, migrate.recover_model(place, entry, lock_timeout).value) for entry in entries]
    if as_json:
        models = [{"model": name, "found": what} for name, what in found]
        print_json(document("recover", models=models, migrations=migrations))
        return
    if SETTLED[migrations]:
        say(f"migrations: {SETTLED[migrations]}")
    for name, what in found:
        say(f"{name}: {_SAID[what]}")


def register(app: typer.Typer) -> None:
    """Add these commands to the application."""
    app.command(rich_help_panel="Operate")(recover)

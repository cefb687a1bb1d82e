"""Commands for when something went wrong: recover."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from tokmigrate.cli.each import document_each, show_each
from tokmigrate.cli.options import SETTLED, AsJson, LockTimeout, Models, selected, workspace
from tokmigrate.cli.output import progress, say
from tokmigrate.cli.streams import changes_something

if TYPE_CHECKING:
    from tokmigrate.settings import ModelEntry

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
    from tokmigrate.runner import migrate  # noqa: PLC0415
    from tokmigrate.runner.team.rewriting import settle  # noqa: PLC0415

    changes_something()
    place = workspace()
    migrations = settle(place).value
    entries = selected(place, model) if migrations == "nothing" else place.select(model or [])

    def act(entry: ModelEntry) -> tuple[str, str]:
        return entry.name, migrate.recover_model(place, entry, lock_timeout, listener).value

    def content(done: tuple[str, str]) -> dict[str, Any]:
        return {"model": done[0], "found": done[1]}

    with progress() as listener:
        if as_json:
            document_each("recover", entries, act, content, migrations=migrations)
            return
        if SETTLED[migrations]:
            say(f"migrations: {SETTLED[migrations]}")
        show_each(entries, act, lambda done: say(f"{done[0]}: {_SAID[done[1]]}"))


def register(app: typer.Typer) -> None:
    """Add these commands to the application."""
    app.command(rich_help_panel="Operate")(recover)

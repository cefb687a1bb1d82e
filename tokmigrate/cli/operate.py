"""Commands for when something went wrong: recover, restore."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from tokmigrate.cli.completion import complete_revision
from tokmigrate.cli.each import document_each, show_each
from tokmigrate.cli.options import SETTLED, AsJson, LockTimeout, Models, selected, workspace
from tokmigrate.cli.output import print_json, progress, say
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
    from tokmigrate.runner.team.file_transaction import finish_writing  # noqa: PLC0415

    changes_something()
    place = workspace()
    migrations = finish_writing(place).value
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


def restore(
    revision: Annotated[
        str,
        typer.Argument(help="A revision that was applied here, by any of its names.", autocompletion=complete_revision),
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be put back; nothing is written.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Put a migration back as it was applied, with the files that it refers to.

    The ledger keeps the text of each migration that was applied. An edited file
    is kept beside it under a name that ends with .edited. It need not be valid,
    or be there at all.
    """
    from tokmigrate.report.json import document  # noqa: PLC0415
    from tokmigrate.runner.restore import restore as put_back  # noqa: PLC0415

    if not dry_run:
        changes_something()
    done = put_back(workspace(), revision, write=not dry_run)
    if as_json:
        content = {
            "revision": done.revision,
            "file": str(done.path),
            "diff": list(done.diff),
            "attachments": [str(path) for path in done.attachments],
            "kept_as": str(done.kept_as) if done.kept_as else None,
            "written": not dry_run and bool(done.diff or done.attachments),
        }
        print_json(document("restore", **content))
        return
    for line in done.diff:
        say(line)
    if not done.diff and not done.attachments:
        say(f"{done.path} is as it was applied")
        return
    for path in (*([done.path] if done.diff else []), *done.attachments):
        say(f"{'would put back' if dry_run else 'put back'} {path}")
    if done.kept_as:
        say(f"the edited file is kept as {done.kept_as}")


def register(app: typer.Typer) -> None:
    """Add these commands to the application."""
    for command in (recover, restore):
        app.command(rich_help_panel="Maintain")(command)

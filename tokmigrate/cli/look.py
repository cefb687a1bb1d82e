"""Commands that look: current, heads, history, show, status, verify."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from tokmigrate.cli.each import document_each, show_each
from tokmigrate.cli.options import AsJson, Models, selected, workspace
from tokmigrate.cli.output import print_json, say, say_aside, show

NO_MIGRATIONS = 'no migrations yet: `tokmigrate revision -m "What it is for"` writes the first'


def current(model: Models = None, as_json: AsJson = False) -> None:
    """Show the revision of each model, read off its stamp; 1 where a model is missing."""
    from tokmigrate.errors import MissingModelError  # noqa: PLC0415
    from tokmigrate.runner.current import current as found_at  # noqa: PLC0415

    entries = selected(workspace(), model)
    found: dict[Path, str | None] = {}
    for entry in entries:
        with suppress(MissingModelError):
            found[entry.path] = found_at(entry)
    if as_json:
        from tokmigrate.report.machine import document  # noqa: PLC0415

        there = [entry for entry in entries if entry.path in found]
        models = [{"model": entry.name, "revision": found[entry.path]} for entry in there]
        missing = [entry.name for entry in entries if entry.path not in found]
        print_json(document("current", models=models, missing=missing))
    else:
        for entry in entries:
            told = found[entry.path] or "base" if entry.path in found else f"missing, no directory {entry.path}"
            say(f"{entry.name}: {told}")
    if len(found) < len(entries):
        raise typer.Exit(1)


def heads(as_json: AsJson = False) -> None:
    """Show the heads of the history; more than one is a fork to be mended."""
    from tokmigrate.report.machine import document, migration_content  # noqa: PLC0415
    from tokmigrate.revision.history import History  # noqa: PLC0415

    found = History.read(workspace()).heads
    if as_json:
        print_json(document("heads", heads=[migration_content(migration) for migration in found]))
        return
    if not found:
        say(NO_MIGRATIONS)
    for migration in found:
        say(f"{migration.revision} {migration.message} ({migration.shown})")
    if len(found) > 1:
        say_aside("warning: more than one head; `tokmigrate rebase` lets one follow the other")


def history(as_json: AsJson = False) -> None:
    """Show the migrations, the newest first, with their tags, and which models are at each."""
    from tokmigrate.model.documents.stamp import read_stamp  # noqa: PLC0415
    from tokmigrate.report.machine import document, migration_content  # noqa: PLC0415
    from tokmigrate.report.text import history_table  # noqa: PLC0415
    from tokmigrate.revision.history import History  # noqa: PLC0415
    from tokmigrate.runner.tags import known_tags  # noqa: PLC0415

    place = workspace()
    found = History.read(place)
    tags: dict[str, list[str]] = {}
    for name, revision in known_tags(place).items():
        tags.setdefault(revision, []).append(name)
    missing = [entry for entry in place.models.values() if not entry.path.is_dir()]
    at: dict[str, list[str]] = {}
    for entry in place.models.values():
        stamp = read_stamp(entry.path)
        if stamp:
            at.setdefault(stamp.revision, []).append(entry.name)
    if as_json:
        migrations = [
            {
                **migration_content(migration),
                "models_here": at.get(migration.revision, []),
                "tags": tags.get(migration.revision, []),
            }
            for migration in found.ordered()
        ]
        print_json(document("history", migrations=migrations, missing=[entry.name for entry in missing]))
        return
    for entry in missing:
        say_aside(f"warning: {entry.name} is missing: there is no directory {entry.path}")
    if not found.migrations:
        say(NO_MIGRATIONS)
        return
    show(history_table(found.ordered(), [migration.revision for migration in found.heads], dict(at), dict(tags)))


def show_revision(
    revision: Annotated[str, typer.Argument(help="A revision by any of its names.")], as_json: AsJson = False
) -> None:
    """Show one migration in full."""
    from tokmigrate.errors import UnknownNameError  # noqa: PLC0415
    from tokmigrate.report.machine import document, migration_content  # noqa: PLC0415
    from tokmigrate.report.text import migration_text  # noqa: PLC0415
    from tokmigrate.revision.history import History  # noqa: PLC0415
    from tokmigrate.runner.tags import known_tags  # noqa: PLC0415

    place = workspace()
    found = History.read(place)
    target = found.resolve(revision, None, known_tags(place))
    if target is None:
        raise UnknownNameError(
            "base is what a model is before any migration: there is no file of it",
            hint="`tokmigrate history` lists all migrations",
        )
    migration = found.get(target)
    if as_json:
        print_json(document("show", migration=migration_content(migration)))
    else:
        show(migration_text(migration))


def status(model: Models = None, as_json: AsJson = False) -> None:
    """Show where each model stands: revision, pending migrations, rows, vocabulary tensors."""
    from tokmigrate.report.machine import status_content  # noqa: PLC0415
    from tokmigrate.report.text import status_text  # noqa: PLC0415
    from tokmigrate.runner import look  # noqa: PLC0415

    place = workspace()
    # A model that is missing ends the command: those that are there come first.
    entries = sorted(selected(place, model), key=lambda entry: not entry.path.is_dir())
    act = partial(look.status, place)
    if as_json:
        document_each("status", entries, act, status_content)
    else:
        show_each(entries, act, lambda found: show(status_text(found)))


def verify(model: Models = None, as_json: AsJson = False) -> None:
    """Check each model against its stamp, byte by byte, and load it with the libraries; 4 where a file was changed.

    Training a model or saving it anew changes files too; whether it still
    means what its migrations left is what `tokmigrate check` asks.
    """
    from tokmigrate.report.machine import document  # noqa: PLC0415
    from tokmigrate.runner import look  # noqa: PLC0415

    place = workspace()
    found = [look.verify(place, entry) for entry in selected(place, model)]
    if as_json:
        models = [
            {
                "model": each.name,
                "revision": each.revision,
                "changed": list(each.changed),
                "same_meaning": each.same_meaning,
            }
            for each in found
        ]
        print_json(document("verify", models=models))
    else:
        for each in found:
            how = "saved anew" if each.same_meaning else "changed"
            said = f"{how} since it was migrated: {', '.join(each.changed)}" if each.changed else "all as it should be"
            say(f"{each.name}: {each.revision or 'base'}, {said}")
            if each.changed and each.same_meaning:
                say("  by meaning it is what its migrations left (`tokmigrate check`)")
    if any(each.changed for each in found):
        raise typer.Exit(4)


def register(app: typer.Typer) -> None:
    """Add these commands to the application."""
    for command in (current, heads, history, status):
        app.command(rich_help_panel="Look")(command)
    app.command("show", rich_help_panel="Look")(show_revision)
    app.command(rich_help_panel="Gate")(verify)

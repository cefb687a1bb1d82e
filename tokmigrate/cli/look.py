"""Commands that look: current, heads, history, show, status, verify."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tokmigrate.cli.completion import complete_revision
from tokmigrate.cli.each import document_each, failed_interrupted, leave_with, print_several, show_each
from tokmigrate.cli.options import AsJson, Here, Models, selected, those_here, workspace
from tokmigrate.cli.output import print_json, say, say_aside, show
from tokmigrate.errors import DriftError
from tokmigrate.files import has_directory

if TYPE_CHECKING:
    from tokmigrate.settings import ModelEntry

NO_MIGRATIONS = 'no migrations yet: `tokmigrate revision -m "What it is for"` writes the first'


def current(model: Models = None, as_json: AsJson = False) -> None:
    """Show the revision of each model, read off its stamp; 1 where a model is missing."""
    from tokmigrate.runner.current import current as revision_of  # noqa: PLC0415

    def act(entry: ModelEntry) -> tuple[str, str | None]:
        return entry.name, revision_of(entry)

    entries = selected(workspace(), model)
    if as_json:
        document_each("current", entries, act, lambda done: {"model": done[0], "revision": done[1]})
    else:
        show_each(entries, act, lambda done: say(f"{done[0]}: {done[1] or 'base'}"))


def heads(as_json: AsJson = False) -> None:
    """Show the heads of the history; more than one is a fork to be mended."""
    from tokmigrate.report.json import document, migration_content  # noqa: PLC0415
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
    from tokmigrate.report.json import migration_content  # noqa: PLC0415
    from tokmigrate.report.text import history_table  # noqa: PLC0415
    from tokmigrate.revision.history import History  # noqa: PLC0415
    from tokmigrate.runner.tags import known_tags  # noqa: PLC0415

    place = workspace()
    found = History.read(place)
    tags: dict[str, list[str]] = {}
    for name, revision in known_tags(place).items():
        tags.setdefault(revision, []).append(name)
    interrupted = tuple(failed_interrupted(place.models.values()))
    missing = [entry for entry in place.models.values() if not has_directory(entry.path)]
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
        names = [entry.name for entry in missing]
        print_several("history", None, interrupted, migrations=migrations, missing=names)
        leave_with(interrupted, told=True)
        return
    for entry in missing:
        say_aside(f"warning: {entry.name} is missing: there is no directory {entry.path}")
    if not found.migrations:
        say(NO_MIGRATIONS)
    else:
        show(history_table(found.ordered(), [migration.revision for migration in found.heads], dict(at), dict(tags)))
    leave_with(interrupted, told=False)


def show_revision(
    revision: Annotated[str, typer.Argument(help="A revision by any of its names.", autocompletion=complete_revision)],
    as_json: AsJson = False,
) -> None:
    """Show one migration in full, and what was changed since it was applied."""
    from tokmigrate.errors import UnknownNameError  # noqa: PLC0415
    from tokmigrate.report.json import document, migration_content  # noqa: PLC0415
    from tokmigrate.report.text import migration_text  # noqa: PLC0415
    from tokmigrate.revision.history import History  # noqa: PLC0415
    from tokmigrate.runner.restore import edited_since  # noqa: PLC0415
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
    edited = edited_since(place, migration)
    if as_json:
        print_json(document("show", migration=migration_content(migration), edited=list(edited)))
        return
    show(migration_text(migration))
    if edited:
        say(f"edited since it was applied; `tokmigrate restore {migration.revision}` puts it back:")
        for line in edited:
            say(line)


def status(model: Models = None, here: Here = False, as_json: AsJson = False) -> None:
    """Show where each model stands: revision, pending migrations, rows, vocabulary tensors.

    Of each new token it says what became of its row since init: `untrained`, `moved` (as rows of tokens that no
    text had), `trained`, `partly` (on one side only), `given` (by `strategy: file`), or `unknown`. `change` is the
    norm of the change as a share of the row's norm at init, `likeness` the cosine of its movement with that of rows
    without occurrences.
    """
    from tokmigrate.report.json import status_content  # noqa: PLC0415
    from tokmigrate.report.text import status_text  # noqa: PLC0415
    from tokmigrate.runner import look  # noqa: PLC0415

    place = workspace()
    entries = selected(place, model)
    if here:
        entries = those_here(entries, as_json)
    act = partial(look.status, place)
    if as_json:
        document_each("status", entries, act, status_content)
    else:
        show_each(entries, act, lambda found: show(status_text(found)))


def verify(model: Models = None, as_json: AsJson = False) -> None:
    """Check each model against its stamp, byte by byte, and load it with the libraries; 4 where a file was changed.

    Undo data that is missing or damaged ends with 4 too, as with `tokmigrate check`.

    Training a model or saving it anew changes files too; whether it still
    means what its migrations left is what `tokmigrate check` asks.
    """
    from tokmigrate.report.check import undo_content, undo_lines  # noqa: PLC0415
    from tokmigrate.runner import look  # noqa: PLC0415

    place = workspace()
    entries = selected(place, model)
    act = partial(look.verify, place)

    def content(found: look.Verified) -> dict[str, Any]:
        changed = {"changed": list(found.changed), "same_meaning": found.same_meaning, "notes": list(found.notes)}
        undo = undo_content(found.undo)
        return {"model": found.name, "revision": found.revision, **changed, "undo": undo}

    def render(found: look.Verified) -> None:
        how = "saved again" if found.same_meaning else "changed"
        said = f"{how} since it was migrated: {', '.join(found.changed)}" if found.changed else "all as it should be"
        say(f"{found.name}: {found.revision or 'base'}, {said}")
        if found.changed and found.same_meaning:
            say("  it is equivalent to what its migrations left (`tokmigrate check`)")
        for line in undo_lines(found.undo):
            say(f"  {line}")
        for note in found.notes:
            say(f"  note: {note}")

    def code(found: look.Verified) -> int:
        return DriftError.exit_code if found.changed or found.undo.breaks else 0

    if as_json:
        document_each("verify", entries, act, content, code)
    else:
        show_each(entries, act, render, code)


def register(app: typer.Typer) -> None:
    """Add these commands to the application."""
    for command in (current, heads, history, status):
        app.command(rich_help_panel="Inspect")(command)
    app.command("show", rich_help_panel="Inspect")(show_revision)
    app.command(rich_help_panel="CI")(verify)

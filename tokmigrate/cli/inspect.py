"""Commands that show and compare, and change nothing: current, heads, history, show, status, verify, diff."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tokmigrate import settings
from tokmigrate.cli import console
from tokmigrate.cli.each import Command, exit_with, find_interrupted, print_documents, run_each
from tokmigrate.cli.options import (
    AsJson,
    Here,
    Models,
    complete_model,
    complete_revision,
    open_workspace,
    select_models,
    select_present,
)
from tokmigrate.cli.output import echo, echo_err, print_json
from tokmigrate.commands import current as current_revision
from tokmigrate.commands import diff as compare
from tokmigrate.commands import inspect as look
from tokmigrate.commands import restore
from tokmigrate.commands import tag as tags
from tokmigrate.errors import DriftError, UnknownNameError
from tokmigrate.files import exists, has_directory
from tokmigrate.model.documents import stamp as stamps
from tokmigrate.render import check as check_report
from tokmigrate.render import diff as diff_report
from tokmigrate.render import json as json_report
from tokmigrate.render import text
from tokmigrate.revision import history as histories

if TYPE_CHECKING:
    from tokmigrate.settings import ModelEntry, Workspace

NO_MIGRATIONS = 'no migrations yet: `tokmigrate revision -m "What it is for"` writes the first'


class CurrentCommand(Command[tuple[str, "str | None"]]):
    """`current` for one model: its name and its revision."""

    name = "current"

    def run(self, entry: ModelEntry) -> tuple[str, str | None]:
        """Read the revision of a model."""
        return entry.name, current_revision.current(entry)

    def render(self, result: tuple[str, str | None]) -> None:
        """Print the revision."""
        model, revision = result
        echo(f"{model}: {revision or 'base'}")

    def content(self, result: tuple[str, str | None]) -> dict[str, Any]:
        """Return the revision as JSON."""
        model, revision = result
        return {"model": model, "revision": revision}


def current(model: Models = None, as_json: AsJson = False) -> None:
    """Show the revision in each model's stamp.

    Exits with 1 if a model's directory is missing.
    """
    run_each(CurrentCommand(), select_models(open_workspace(), model), as_json)


def heads(as_json: AsJson = False) -> None:
    """Show the heads of the migration history.

    More than one head is a fork: `tokmigrate rebase` resolves it.
    """
    found = histories.History.read(open_workspace()).heads
    if as_json:
        print_json(
            json_report.document("heads", heads=[json_report.migration_content(migration) for migration in found])
        )
        return
    if not found:
        echo(NO_MIGRATIONS)
    for migration in found:
        echo(f"{migration.revision} {migration.message} ({migration.shown})")
    if len(found) > 1:
        echo_err("warning: more than one head; `tokmigrate rebase` puts one after the other")


def history(as_json: AsJson = False) -> None:
    """List migrations, newest first, with tags and models."""
    workspace = open_workspace()
    found = histories.History.read(workspace)
    tags_of: defaultdict[str, list[str]] = defaultdict(list)
    for name, revision in tags.list_tags(workspace).items():
        tags_of[revision].append(name)
    entries = tuple(workspace.models.values())
    interrupted = find_interrupted(entries)
    missing = [entry for entry in entries if not has_directory(entry.path)]
    models_at: defaultdict[str, list[str]] = defaultdict(list)
    for entry in entries:
        stamp = stamps.read_stamp(entry.path)
        if stamp:
            models_at[stamp.revision].append(entry.name)
    if as_json:
        migrations = [
            {
                **json_report.migration_content(migration),
                "models_here": models_at.get(migration.revision, []),
                "tags": tags_of.get(migration.revision, []),
            }
            for migration in found.ordered()
        ]
        names = [entry.name for entry in missing]
        print_documents("history", None, interrupted, migrations=migrations, missing=names)
        exit_with(interrupted, printed=True)
        return
    for entry in missing:
        echo_err(f"warning: {entry.name} is missing: there is no directory {entry.path}")
    if not found.migrations:
        echo(NO_MIGRATIONS)
    else:
        heads_of = [migration.revision for migration in found.heads]
        console.print_rich(text.history_table(found.ordered(), heads_of, dict(models_at), dict(tags_of)))
    exit_with(interrupted, printed=False)


def show(
    revision: Annotated[str, typer.Argument(help="A revision by any of its names.", autocompletion=complete_revision)],
    as_json: AsJson = False,
) -> None:
    """Show one migration, and edits since it was applied."""
    workspace = open_workspace()
    found = histories.History.read(workspace)
    target = found.resolve(revision, None, tags.list_tags(workspace))
    if target is None:
        raise UnknownNameError(
            "base is a model before any migration: there is no file of it",
            hint="`tokmigrate history` lists all migrations",
        )
    migration = found.get(target)
    edited = restore.diff_since_applied(workspace, migration)
    if as_json:
        print_json(
            json_report.document("show", migration=json_report.migration_content(migration), edited=list(edited))
        )
        return
    console.print_rich(text.migration_text(migration))
    if edited:
        echo(f"edited since it was applied; `tokmigrate restore {migration.revision}` restores it:")
        for line in edited:
            echo(line)


@dataclass(frozen=True)
class StatusCommand(Command["look.ModelStatus"]):
    """`status` for one model."""

    name = "status"

    workspace: Workspace

    def run(self, entry: ModelEntry) -> look.ModelStatus:
        """Read the status of a model."""
        return look.status(self.workspace, entry)

    def render(self, result: look.ModelStatus) -> None:
        """Print the status."""
        console.print_rich(text.status_text(result))

    def content(self, result: look.ModelStatus) -> dict[str, Any]:
        """Return the status as JSON."""
        return json_report.status_content(result)


def status(model: Models = None, here: Here = False, as_json: AsJson = False) -> None:
    """Show revision, pending migrations and rows of each model.

    Each new token has a state: `untrained`, `moved` (like rows of tokens that no text contained), `trained`,
    `partly` (on one side only), `given` (by `strategy: file`), or `unknown`. `change` is the norm of the change of its
    row relative to the norm at initialisation, `likeness` the cosine of its movement with that of rows without
    occurrences.
    """
    workspace = open_workspace()
    entries = select_models(workspace, model)
    if here:
        entries = select_present(entries, as_json)
    run_each(StatusCommand(workspace), entries, as_json)


@dataclass(frozen=True)
class VerifyCommand(Command["look.Verified"]):
    """`verify` for one model."""

    name = "verify"

    workspace: Workspace

    def run(self, entry: ModelEntry) -> look.Verified:
        """Compare a model with its stamp, and load it."""
        return look.verify(self.workspace, entry)

    def render(self, result: look.Verified) -> None:
        """Print what changed since the migration."""
        how = "saved again" if result.same_meaning else "changed"
        changes = f"{how} since it was migrated: {', '.join(result.changed)}" if result.changed else "no file changed"
        echo(f"{result.name}: {result.revision or 'base'}, {changes}")
        if result.changed and result.same_meaning:
            echo("  it is equivalent to what its migrations left (`tokmigrate check`)")
        for line in check_report.undo_lines(result.undo):
            echo(f"  {line}")
        for note in result.notes:
            echo(f"  note: {note}")

    def content(self, result: look.Verified) -> dict[str, Any]:
        """Return what changed since the migration as JSON."""
        return {
            "model": result.name,
            "revision": result.revision,
            "changed": list(result.changed),
            "same_meaning": result.same_meaning,
            "notes": list(result.notes),
            "undo": check_report.undo_content(result.undo),
        }

    def exit_code(self, result: look.Verified) -> int:
        """Return 4 if a file changed or undo data is damaged."""
        return DriftError.exit_code if result.changed or result.undo.breaks else 0


def verify(model: Models = None, as_json: AsJson = False) -> None:
    """Compare each model with its stamp byte for byte, and load it.

    Exits with 4 if a file changed, or if undo data is missing or damaged. Training or saving a model changes files
    too: `tokmigrate check` tells whether the content is still equivalent to what its migrations left.
    """
    workspace = open_workspace()
    run_each(VerifyCommand(workspace), select_models(workspace, model), as_json)


def diff(
    first: Annotated[
        str,
        typer.Argument(metavar="A", help="A directory, or a model of the workspace.", autocompletion=complete_model),
    ],
    second: Annotated[
        str,
        typer.Argument(
            metavar="B", help="A directory, a model, or a revision of model A.", autocompletion=complete_revision
        ),
    ],
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 1 if they differ.")] = False,
    as_json: AsJson = False,
) -> None:
    """Compare two tokenizers: tokens, ids, pipeline and templates.

    The comparison is semantic: it ignores how the files are written. With a revision, a model as it is now is compared
    with the planned model at that revision, or with the earlier one that its undo data describes.
    """
    found = compare.compare(*compare.choose_sides(_find_workspace(), first, second))
    if as_json:
        print_json(json_report.document("diff", **diff_report.comparison_content(found)))
    else:
        console.print_rich(diff_report.comparison_text(found))
    if exit_code and found.differences:
        raise typer.Exit(1)


def _find_workspace() -> Workspace | None:
    """Return the workspace of the current directory, None outside of one."""
    here = Path.cwd()
    if any(exists(directory / settings.FILE_NAME) for directory in (here, *here.parents)):
        return open_workspace()
    return None

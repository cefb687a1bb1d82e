"""Commands that show and compare, and change nothing: current, heads, history, show, status, verify, diff."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from tokmigrate.audit import run_status
from tokmigrate.cli.each import ModelResults, Result, find_failures, print_result
from tokmigrate.cli.options import (
    AsJson,
    Field,
    Here,
    Models,
    complete_model,
    complete_revision,
    open_workspace,
    open_workspace_if_present,
    select_models,
)
from tokmigrate.commands import current as current_revision
from tokmigrate.commands import diff as comparing
from tokmigrate.commands import inspect as look
from tokmigrate.commands import restore, vocabulary_audit
from tokmigrate.commands import tag as tags
from tokmigrate.errors import DriftError, UnknownNameError, UsageError
from tokmigrate.files import has_directory
from tokmigrate.model.documents import stamp as stamps
from tokmigrate.model.worker import corpora
from tokmigrate.render import check as check_report
from tokmigrate.render import diff as diff_report
from tokmigrate.render import status as status_report
from tokmigrate.render import terminal
from tokmigrate.revision import history as histories

if TYPE_CHECKING:
    from rich.console import RenderableType


NO_MIGRATIONS = 'no migrations yet: `tokmigrate revision -m "What it is for"` writes the first'


def current(model: Models = None, as_json: AsJson = False) -> None:
    """Show the revision in each model's stamp.

    Exits with 1 if a model's directory is missing.
    """
    results = ModelResults("current", select_models(open_workspace(), model), as_json)
    for entry in results.entries:
        with results.keep_error(entry):
            found = current_revision.current(entry)
            results.add(Result({"model": entry.name, "revision": found}, [f"{entry.name}: {found or 'base'}"]))
    results.finish()


def heads(as_json: AsJson = False) -> None:
    """Show the heads of the migration history.

    More than one head is a fork: `tokmigrate rebase` resolves it.
    """
    found = histories.History.read(open_workspace()).heads
    lines = [f"{migration.revision} {migration.message} ({migration.shown})" for migration in found]
    warnings = ["warning: more than one head; `tokmigrate rebase` puts one after the other"] if len(found) > 1 else []
    # The text needs none of what makes tables, which takes its time to import.
    content = {"heads": [status_report.migration_content(migration) for migration in found]} if as_json else {}
    print_result("heads", Result(content, lines or [NO_MIGRATIONS], warnings), as_json)


def history(as_json: AsJson = False) -> None:
    """List migrations, newest first, with tags and models."""
    workspace = open_workspace()
    found = histories.History.read(workspace)
    tags_of, models_at = defaultdict[str, list[str]](list), defaultdict[str, list[str]](list)
    for name, revision in tags.list_tags(workspace).items():
        tags_of[revision].append(name)
    entries = tuple(workspace.models.values())
    for entry in entries:
        stamp = stamps.read_stamp(entry.path)
        if stamp:
            models_at[stamp.revision].append(entry.name)
    missing = [entry for entry in entries if not has_directory(entry.path)]
    warnings = [f"warning: {entry.name} is missing: there is no directory {entry.path}" for entry in missing]
    content = {
        "migrations": status_report.history_content(found.order(), models_at, tags_of),
        "missing": [entry.name for entry in missing],
    }
    table = status_report.history_table(found, models_at, tags_of) if found.migrations else NO_MIGRATIONS
    interrupted = find_failures(entries, run_status.refuse_interrupted)
    print_result("history", Result(content, [table], warnings), as_json, interrupted)


def show(
    revision: Annotated[str, Argument(help="A revision by any of its names.", autocompletion=complete_revision)],
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
    parts: list[RenderableType] = [status_report.migration_text(migration)]
    if edited:
        parts += [f"edited since it was applied; `tokmigrate restore {migration.revision}` restores it:", *edited]
    content = {"migration": status_report.migration_content(migration), "edited": edited}
    print_result("show", Result(content, parts), as_json)


def status(model: Models = None, here: Here = False, as_json: AsJson = False) -> None:
    """Show revision, pending migrations and rows of each model.

    Each new token has a state: `untrained`, `moved` (like rows of tokens that no text contained), `trained`,
    `partly` (on one side only), `given` (by `strategy: file`), or `unknown`. `change` is the norm of the change of its
    row relative to the norm at initialisation, `likeness` the cosine of its movement with that of rows without
    occurrences.
    """
    workspace = open_workspace()
    results = ModelResults("status", select_models(workspace, model, here), as_json)
    for entry in results.entries:
        with results.keep_error(entry):
            found = look.status(workspace, entry)
            results.add(Result(status_report.status_content(found), [status_report.status_text(found)]))
    results.finish()


def verify(model: Models = None, as_json: AsJson = False) -> None:
    """Compare each model with its stamp byte for byte, and load it.

    Exits with 4 if a file changed, or if undo data is missing or damaged. Training or saving a model changes files
    too: `tokmigrate check` tells whether the content is still equivalent to what its migrations left.
    """
    workspace = open_workspace()
    results = ModelResults("verify", select_models(workspace, model), as_json)
    for entry in results.entries:
        with results.keep_error(entry):
            found = look.verify(workspace, entry)
            code = DriftError.exit_code if found.changed or found.undo.breaks else 0
            results.add(
                Result(check_report.verified_content(found), check_report.verified_lines(found), exit_code=code)
            )
    results.finish()


def diff(
    first: Annotated[
        str,
        Argument(metavar="A", help="A directory, or a model of the workspace.", autocompletion=complete_model),
    ],
    second: Annotated[
        str,
        Argument(metavar="B", help="A directory, a model, or a revision of model A.", autocompletion=complete_revision),
    ],
    corpus: Annotated[
        list[str] | None,
        Option("--corpus", help="Check B as a trim or extension of A on these texts; repeatable.", metavar="CORPUS"),
    ] = None,
    field: Field = None,
    exit_code: Annotated[bool, Option("--exit-code", help="Exit with 1 if they differ.")] = False,
    as_json: AsJson = False,
) -> None:
    """Compare two tokenizers: tokens, ids, pipeline and templates.

    The comparison is semantic: it ignores how the files are written. With a revision, a model as it is now is compared
    with the planned model at that revision, or with the earlier one that its undo data describes.

    `--corpus` audits B as a smaller or larger vocabulary of A: how many tokens of each script are kept and new, whether
    they have their order and, where both have weights, the same rows, and how many tokens text has before and after.
    """
    if field is not None and not corpus:
        raise UsageError("--field names a field of a corpus, and none is given", hint="add --corpus, or leave it out")
    sides = comparing.choose_sides(open_workspace_if_present(), first, second)
    found = comparing.compare(*sides)
    code = 1 if exit_code and found.differences else 0
    content, shown = diff_report.comparison_content(found), [diff_report.comparison_text(found)]
    if corpus:
        with corpora.open_corpus(corpus, field) as texts, terminal.progress() as on_progress:
            audited = vocabulary_audit.audit(*sides, texts, on_progress)
        content["audit"] = diff_report.audit_content(audited)
        shown += diff_report.audit_text(audited)
    print_result("diff", Result(content, shown, exit_code=code), as_json)

"""Commands for authors of migrations: init, revision, lock, rebase, squash, schema."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from tokmigrate.cli.each import Result, print_result
from tokmigrate.cli.options import AsJson, Models, complete_model, complete_revision, open_workspace_for_writing
from tokmigrate.cli.output import declare_changes, json_lines
from tokmigrate.commands import autogenerate as derivation
from tokmigrate.commands import diff as compare
from tokmigrate.commands import lock as locking
from tokmigrate.commands import rebase as rebasing
from tokmigrate.commands import squash as squashing
from tokmigrate.errors import UsageError
from tokmigrate.render import diff as diff_report
from tokmigrate.render import lock as lock_report
from tokmigrate.revision import lock_file, new_file
from tokmigrate.settings import workspace as new_workspace

if TYPE_CHECKING:
    from rich.console import RenderableType

    from tokmigrate.settings import Workspace


def init(
    directory: Annotated[Path, Argument(help="The directory of the new workspace.")] = Path(),
    as_json: AsJson = False,
) -> None:
    """Create a workspace with tokmigrate.yaml and migrations/."""
    declare_changes()
    created = new_workspace.create_workspace(directory)
    hint = 'next: list a model in tokmigrate.yaml, then `tokmigrate revision -m "What it is for"`'
    print_result("init", Result({"made": created}, [*(f"created {path}" for path in created), hint]), as_json)


def revision(
    message: Annotated[str, Option("--message", "-m", help="Set the message of the migration.")],
    python: Annotated[bool, Option("--python", help="Write a Python migration instead of YAML.")] = False,
    autogenerate: Annotated[
        bool, Option("--autogenerate", help="Derive the operations from the tokenizers of --from and --to.")
    ] = False,
    before: Annotated[
        str | None, Option("--from", metavar="DIR", help="Set the old tokenizer.", autocompletion=complete_model)
    ] = None,
    after: Annotated[
        str | None, Option("--to", metavar="DIR", help="Set the new tokenizer.", autocompletion=complete_model)
    ] = None,
    with_rows: Annotated[bool, Option("--with-rows", help="Give new tokens the rows that --to has for them.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a new migration file after the head.

    With `--autogenerate --from DIR --to DIR` the file holds the operations that turn one tokenizer into the other.
    Either may be a model of the workspace; the first is then taken as planned at the head. The migration is planned on
    the first tokenizer before it is written; long lists are in files beside it. Differences that no operation expresses
    are listed here and in the file. With `--with-rows` the second is a model, and new tokens get its rows, which are
    in safetensors files beside the migration.
    """
    new_file.check_message(message)
    workspace = open_workspace_for_writing()
    known = lock_file.read_lock(workspace)
    if autogenerate:
        if before is None or after is None or python:
            raise UsageError(
                "--autogenerate takes --from and --to, and writes YAML", hint="--autogenerate --from DIR --to DIR"
            )
        _autogenerate(workspace, message, before, after, with_rows, as_json)
        locking.lock_head(workspace, known)
        return
    if before is not None or after is not None or with_rows:
        raise UsageError("--from, --to and --with-rows need --autogenerate", hint="add --autogenerate")
    write = new_file.write_python_migration if python else new_file.write_yaml_migration
    path = write(workspace, message)
    locked = locking.lock_head(workspace, known)
    notes = [] if locked else ["note: the lock lacks earlier migrations; `tokmigrate lock` updates it"]
    lines = [f"wrote {path}", "next: fill in its operations, then `tokmigrate lock` and `tokmigrate plan`"]
    print_result("revision", Result({"file": path, "locked": locked}, lines, notes), as_json)


def _autogenerate(workspace: Workspace, message: str, before: str, after: str, with_rows: bool, as_json: bool) -> None:
    sides = compare.side_at_head(workspace, before), compare.resolve_side(workspace, after)
    done = derivation.autogenerate(workspace, message, *sides, with_rows=with_rows)
    names = [operation.name for operation in done.operations]
    if done.path:
        files = [str(done.path), *(path.name for path in (*done.list_files, *done.row_files))]
        line = f"wrote {', '.join(files)}: {', '.join(names)}"
    else:
        line = "no file was written" if done.left else "the tokenizers are equivalent: no file was written"
    notes: list[RenderableType] = []
    if done.left:
        are = "difference is" if len(done.left) == 1 else "differences are"
        notes = [
            f"warning: {len(done.left):,} {are} left, which no operation expresses:",
            *diff_report.difference_tables(done.left),
            *(f"tried, and refused: {reason}" for reason in done.refused),
        ]
    first, second = (side.model for side in sides)
    if done.path and first and second:
        notes.append(f"note: it is for {first}; name {second} under its `models:` to stamp that model with it")
    content = {
        "file": done.path,
        "list_files": done.list_files,
        "row_files": done.row_files,
        "operations": names,
        "left": done.left,
        "refused": done.refused,
    }
    print_result("revision", Result(content, [line], notes, exit_code=1 if done.left and not done.path else 0), as_json)


def lock(model: Models = None, as_json: AsJson = False) -> None:
    """Update tokmigrate.lock; run it after you edit a migration.

    The lock holds the checksums of the migrations and the ids that they give on the models that are present. Pinned ids
    stay as long as the migrations up to there are the same. A migration that a model has must not be edited. `upgrade`
    never writes the lock: it compares every id with it, and stops before anything is written if one differs.
    """
    workspace = open_workspace_for_writing()
    done = locking.update_lock(workspace, workspace.select(model or []), lock_file.read_lock(workspace))
    content = lock_report.lock_update_content(done, str(lock_file.lock_path(workspace)))
    lines = lock_report.lock_update_lines(done, lock_file.lock_shown(workspace))
    print_result("lock", Result(content, lines), as_json)


def rebase(
    revision: Annotated[
        str | None,
        Argument(
            help="A migration of the branch to move; by default the unpublished one.", autocompletion=complete_revision
        ),
    ] = None,
    onto: Annotated[
        str | None, Option("--onto", help="Set the head to move it after.", autocompletion=complete_revision)
    ] = None,
    model: Models = None,
    as_json: AsJson = False,
) -> None:
    """Move unapplied migrations after the new head; update the lock.

    In the moved file only the value of `down_revision` changes; file numbers that no longer fit are changed too. The
    branch that moves is the one that no model has and that, by Git, the upstream branch does not have; otherwise name
    it. The output names the tokens, ids, roles and tokenizer parts that both branches change: check that the new
    order is right for them.
    """
    workspace = open_workspace_for_writing()
    done = rebasing.rebase(workspace, workspace.select(model or []), revision, onto)
    content = lock_report.rebase_content(done, str(lock_file.lock_path(workspace)))
    lines = lock_report.rebase_lines(done, lock_file.lock_shown(workspace))
    print_result("rebase", Result(content, lines), as_json)


def squash(
    revisions: Annotated[str, Argument(metavar="FIRST:LAST", help="The first and the last revision of the range.")],
    message: Annotated[str | None, Option("--message", "-m", help="Set the message of the new migration.")] = None,
    model: Models = None,
    as_json: AsJson = False,
) -> None:
    """Replace a range of migrations with an equivalent one.

    The result is compared on the models that are present, as they are before the first migration: the same files, the
    same init of new rows from the same seeds, and the same defaults, or nothing is changed. For a model without weights
    tokenizer and config are enough: a dummy model is used, and the output says so. The new migration keeps the id of
    the last one. A model that has all of them counts as being at it, one that has none runs the new one; no model may
    be in between.
    """
    first, colon, last = revisions.partition(":")
    if not (first and colon and last):
        raise UsageError(f"'{revisions}' is not a range", hint="FIRST:LAST, for example 0002:0005")
    workspace = open_workspace_for_writing()
    done = squashing.squash(workspace, workspace.select(model or []), first, last, message)
    print_result("squash", Result(lock_report.squash_content(done), lock_report.squash_lines(done)), as_json)


def schema(as_json: AsJson = False) -> None:
    """Print the JSON Schema of a migration file.

    Editors use it to complete and check migrations. With --json it is inside a document like that of other commands.
    """
    content = new_file.json_schema()
    print_result("schema", Result({"schema": content}, json_lines(content)), as_json)

"""Commands for those who write migrations: init, revision, schema."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tokmigrate.cli.completion import complete_model
from tokmigrate.cli.options import AsJson, settled_workspace
from tokmigrate.cli.output import print_json, say, say_aside, show_aside
from tokmigrate.cli.streams import changes_something

if TYPE_CHECKING:
    from tokmigrate.settings import Workspace


def init(
    directory: Annotated[Path, typer.Argument(help="Where the workspace is made.")] = Path(),
    as_json: AsJson = False,
) -> None:
    """Make a workspace: tokmigrate.yaml, migrations/, and a .gitignore for what is not committed."""
    from tokmigrate.errors import UsageError  # noqa: PLC0415
    from tokmigrate.files import exists, read_if_present, storage_errors  # noqa: PLC0415
    from tokmigrate.report.json import document  # noqa: PLC0415
    from tokmigrate.settings import FILE_NAME, NEW_WORKSPACE  # noqa: PLC0415

    changes_something()
    settings = directory / FILE_NAME
    if exists(settings):
        raise UsageError(
            "there is a workspace already", where=str(settings), hint="list your models in it, or remove it first"
        )
    with storage_errors("make the workspace", directory):
        (directory / "migrations").mkdir(parents=True, exist_ok=True)
        settings.write_text(NEW_WORKSPACE, "utf-8")
    made = [str(settings), str(directory / "migrations")]
    ignored = directory / ".gitignore"
    lines = (read_if_present(ignored) or b"").decode("utf-8", "surrogateescape").splitlines()
    missing = [line for line in (".tokmigrate/", ".*.tokmigrate/") if line not in lines]
    if missing:
        with storage_errors("write the file", ignored):
            ignored.write_text("\n".join([*lines, *missing]) + "\n", "utf-8", "surrogateescape")
        made.append(str(ignored))
    if as_json:
        print_json(document("init", made=made))
        return
    for path in made:
        say(f"made {path}")
    say('next: list a model in tokmigrate.yaml, then `tokmigrate revision -m "What it is for"`')


def revision(
    message: Annotated[str, typer.Option("--message", "-m", help="What the migration is for.")],
    python: Annotated[bool, typer.Option("--python", help="Write a Python migration.")] = False,
    autogenerate: Annotated[
        bool, typer.Option("--autogenerate", help="Write what leads from one tokenizer to another.")
    ] = False,
    before: Annotated[
        str | None,
        typer.Option("--from", metavar="DIR", help="The tokenizer to begin with.", autocompletion=complete_model),
    ] = None,
    after: Annotated[
        str | None,
        typer.Option("--to", metavar="DIR", help="The tokenizer to arrive at.", autocompletion=complete_model),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write a new migration file behind the head.

    With `--autogenerate --from DIR --to DIR` it holds the operations that lead
    from one tokenizer to the other; either may be a model of the workspace, and
    the first is then taken as it is planned to be at the head. It is planned on
    the first before it is written, and what differs then still, because no
    operation expresses it, is listed here and in the file.
    """
    from tokmigrate.errors import UsageError  # noqa: PLC0415
    from tokmigrate.report.json import document  # noqa: PLC0415
    from tokmigrate.revision.lock_file import read_lock  # noqa: PLC0415
    from tokmigrate.revision.new_file import write_python_migration, write_yaml_migration  # noqa: PLC0415
    from tokmigrate.runner.team.relock import lock_head  # noqa: PLC0415

    place = settled_workspace()
    known = read_lock(place)
    if autogenerate:
        if before is None or after is None or python:
            raise UsageError(
                "--autogenerate takes --from and --to, and writes YAML", hint="--autogenerate --from DIR --to DIR"
            )
        _autogenerate(place, message, before, after, as_json)
        lock_head(place, known)
        return
    if before is not None or after is not None:
        raise UsageError("--from and --to go with --autogenerate", hint="add --autogenerate")
    path = (write_python_migration if python else write_yaml_migration)(place, message)
    locked = lock_head(place, known)
    if as_json:
        print_json(document("revision", file=str(path), locked=locked))
        return
    say(f"wrote {path}")
    if not locked:
        say_aside("note: the lock does not follow the migrations; `tokmigrate lock` brings it up to date")


def _autogenerate(place: Workspace, message: str, before: str, after: str, as_json: bool) -> None:
    from tokmigrate.report.diff import difference_contents, difference_tables  # noqa: PLC0415
    from tokmigrate.report.json import document  # noqa: PLC0415
    from tokmigrate.runner.autogenerate import autogenerate  # noqa: PLC0415
    from tokmigrate.runner.compare import named_side, side_at_head  # noqa: PLC0415

    done = autogenerate(place, message, side_at_head(place, before), named_side(place, after))
    if as_json:
        print_json(
            document(
                "revision",
                file=str(done.path) if done.path else None,
                operations=[operation.name for operation in done.operations],
                left=difference_contents(done.left),
                refused=list(done.refused),
            )
        )
    elif done.path:
        say(f"wrote {done.path}: {', '.join(operation.name for operation in done.operations)}")
    else:
        say("nothing was written" if done.left else "no difference in what they mean: nothing to write")
    if done.left and not as_json:
        count = "1 difference is left" if len(done.left) == 1 else f"{len(done.left):,} differences are left"
        say_aside(f"warning: {count}, which no operation expresses:")
        for table in difference_tables(done.left):
            show_aside(table)
        for reason in done.refused:
            say_aside(f"tried, and refused: {reason}")
    if done.left and not done.path:
        raise typer.Exit(1)


def schema(as_json: AsJson = False) -> None:
    """Print the JSON Schema of a migration file, for editors; with --json, inside a document like all others."""
    from tokmigrate.report.json import document  # noqa: PLC0415
    from tokmigrate.revision.schema import json_schema  # noqa: PLC0415

    print_json(document("schema", schema=json_schema()) if as_json else json_schema())


def register(app: typer.Typer) -> None:
    """Add these commands to the application."""
    for command in (init, revision, schema):
        app.command(rich_help_panel="Author")(command)

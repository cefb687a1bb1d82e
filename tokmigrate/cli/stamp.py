"""Commands that say where a model is: stamp, tag."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tokmigrate.cli.completion import complete_model, complete_revision, complete_tag
from tokmigrate.cli.options import AsJson, LockTimeout, Models, NoOwner, selected, workspace
from tokmigrate.cli.output import print_json, progress, say
from tokmigrate.cli.streams import changes_something


def stamp(
    revision: Annotated[
        str | None, typer.Argument(help="The revision that the model is at.", autocompletion=complete_revision)
    ] = None,
    other: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="Take it on as a copy of this one, trained or saved elsewhere.",
            metavar="DIR",
            autocompletion=complete_model,
        ),
    ] = None,
    model: Models = None,
    lock_timeout: LockTimeout = 0.0,
    no_owner: NoOwner = False,
    as_json: AsJson = False,
) -> None:
    """Take a model on at a revision without changing it, after checking by meaning that it is there.

    `--from DIR` takes on a fine-tuned copy of a model that this workspace
    migrated: it gets that model's revision and its way back. A wrong stamp is
    taken off by removing tokmigrate.json from the model: the file is all that
    a stamp is, and ledger and undo data stay.
    """
    from tokmigrate.errors import UsageError  # noqa: PLC0415
    from tokmigrate.report.check import tensors_named  # noqa: PLC0415
    from tokmigrate.report.json import document  # noqa: PLC0415
    from tokmigrate.report.training import training_content, training_lines  # noqa: PLC0415
    from tokmigrate.runner import stamp as runner_stamp  # noqa: PLC0415

    if (revision is None) == (other is None):
        raise UsageError("stamp takes a revision, or --from DIR", hint="tokmigrate stamp head --model NAME")
    place = workspace()
    entries = selected(place, model)
    if len(entries) != 1:
        raise UsageError("stamp takes on one model at a time", hint="--model NAME")
    changes_something()
    with progress() as listener:
        if other is not None:
            known = place.models.get(str(other))
            done = runner_stamp.stamp_copy(
                place, entries[0], known.path if known else other, lock_timeout, listener, not no_owner
            )
        else:
            done = runner_stamp.stamp_model(place, entries[0], str(revision), lock_timeout, listener, not no_owner)
    if as_json:
        print_json(
            document(
                "stamp",
                model=done.model,
                revision=done.revision,
                undoable=done.undoable,
                moved=list(done.moved),
                training=training_content(done.training),
            )
        )
        return
    back = "the way back is on record" if done.undoable else "there is no way back from it on record here"
    say(f"{done.model}: taken on at {done.revision}; {back}")
    if done.moved:
        say(f"changed since it was migrated: {tensors_named(done.moved)}")
        for line in training_lines(done.training):
            say(line)


def tag(
    name: Annotated[
        str | None, typer.Argument(help="The tag; without one, all are listed.", autocompletion=complete_tag)
    ] = None,
    revision: Annotated[
        str | None,
        typer.Argument(help="The revision that it stands for. By default head.", autocompletion=complete_revision),
    ] = None,
    delete: Annotated[
        str | None, typer.Option("--delete", help="Take this tag away.", metavar="NAME", autocompletion=complete_tag)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Give a revision a name, which every command takes in its place; without a name, list the tags.

    A tag that there is already is moved. Tags live in the state of the
    workspace, not in Git: who works with another state has others.
    """
    from tokmigrate.errors import UsageError  # noqa: PLC0415
    from tokmigrate.report.json import document  # noqa: PLC0415
    from tokmigrate.runner.tags import delete_tag, known_tags, set_tag  # noqa: PLC0415

    place = workspace()
    if name is not None or delete is not None:
        changes_something()
    if delete is not None:
        if name is not None:
            raise UsageError("--delete names the tag itself", hint=f"tokmigrate tag --delete {delete}")
        stood_for = delete_tag(place, delete)
        told: dict[str, Any] = {"tags": {}, "deleted": {delete: stood_for}}
        said = [f"{delete}: deleted, it stood for {stood_for}"]
    elif name is None:
        found = known_tags(place)
        told, said = {"tags": found}, [f"{each}: {stands_for}" for each, stands_for in found.items()]
    elif not name.strip():
        raise UsageError("a tag needs a name", hint="tokmigrate tag NAME")
    else:
        done = set_tag(place, name, revision or "head")
        told = {"tags": {name: done.revision}, "moved_from": done.before}
        said = [f"{name}: moved from {done.before} to {done.revision}" if done.before else f"{name}: {done.revision}"]
    if as_json:
        print_json(document("tag", **told))
        return
    for line in said:
        say(line)


def register(app: typer.Typer) -> None:
    """Add these commands to the application."""
    for command in (stamp, tag):
        app.command(rich_help_panel="Run")(command)

"""Commands that record where a model or a revision is: stamp, tag."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tokmigrate.cli import console
from tokmigrate.cli.options import (
    AsJson,
    LockTimeout,
    Models,
    NoOwner,
    complete_model,
    complete_revision,
    complete_tag,
    open_workspace,
    select_models,
)
from tokmigrate.cli.output import declare_changes, echo, print_json
from tokmigrate.commands import stamp as stamping
from tokmigrate.commands import tag as tags
from tokmigrate.errors import UsageError
from tokmigrate.render import check as check_report
from tokmigrate.render import json as json_report
from tokmigrate.render import training


def stamp(
    revision: Annotated[
        str | None, typer.Argument(help="The revision that the model is at.", autocompletion=complete_revision)
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="Adopt the model as a copy of this one, trained or saved elsewhere.",
            metavar="DIR",
            autocompletion=complete_model,
        ),
    ] = None,
    model: Models = None,
    lock_timeout: LockTimeout = 0.0,
    no_owner: NoOwner = False,
    as_json: AsJson = False,
) -> None:
    """Record that an existing model is at a revision.

    The model is compared semantically with what the migrations leave. `--from DIR` adopts a fine-tuned copy of a model
    that this workspace migrated: it gets that model's revision and undo data. To undo a stamp, delete tokmigrate.json
    from the model; ledger and undo data remain.
    """
    if (revision is None) == (source is None):
        raise UsageError("stamp takes a revision, or --from DIR", hint="tokmigrate stamp head --model NAME")
    workspace = open_workspace()
    entries = select_models(workspace, model)
    if len(entries) != 1:
        raise UsageError("stamp takes one model at a time", hint="--model NAME")
    declare_changes()
    with console.progress() as on_progress:
        if source is not None:
            known = workspace.models.get(str(source))
            origin = known.path if known else source
            done = stamping.stamp_copy(workspace, entries[0], origin, lock_timeout, on_progress, not no_owner)
        else:
            done = stamping.stamp_model(workspace, entries[0], str(revision), lock_timeout, on_progress, not no_owner)
    if as_json:
        print_json(
            json_report.document(
                "stamp",
                model=done.model,
                revision=done.revision,
                undoable=done.undoable,
                moved=list(done.moved),
                training=training.training_content(done.training),
            )
        )
        return
    undo = "undo data exists" if done.undoable else "there is no undo data here, so it cannot be downgraded"
    echo(f"{done.model}: stamped at {done.revision}; {undo}")
    if done.moved:
        echo(f"changed since it was migrated: {check_report.tensors_named(done.moved)}")
        for line in training.training_lines(done.training):
            echo(line)


def tag(
    name: Annotated[
        str | None, typer.Argument(help="The tag; without one, all are listed.", autocompletion=complete_tag)
    ] = None,
    revision: Annotated[
        str | None, typer.Argument(help="The revision to name. Default: head.", autocompletion=complete_revision)
    ] = None,
    delete: Annotated[
        str | None, typer.Option("--delete", help="Delete this tag.", metavar="NAME", autocompletion=complete_tag)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Give a revision a name, or list all tags.

    Every command accepts a tag in place of a revision. An existing tag is moved. Tags are stored in the state of the
    workspace, not in Git: a workspace with another state has other tags.
    """
    workspace = open_workspace()
    content: dict[str, Any]
    if name is not None or delete is not None:
        declare_changes()
    if delete is not None:
        if name is not None:
            raise UsageError("--delete names the tag itself", hint=f"tokmigrate tag --delete {delete}")
        before = tags.delete_tag(workspace, delete)
        content, lines = {"tags": {}, "deleted": {delete: before}}, [f"{delete}: deleted, it named {before}"]
    elif name is None:
        found = tags.list_tags(workspace)
        content, lines = {"tags": found}, [f"{each}: {target}" for each, target in found.items()]
    elif not name.strip():
        raise UsageError("a tag needs a name", hint="tokmigrate tag NAME")
    else:
        done = tags.set_tag(workspace, name, revision or "head")
        content = {"tags": {name: done.revision}, "moved_from": done.before}
        lines = [f"{name}: moved from {done.before} to {done.revision}" if done.before else f"{name}: {done.revision}"]
    if as_json:
        print_json(json_report.document("tag", **content))
        return
    for line in lines:
        echo(line)

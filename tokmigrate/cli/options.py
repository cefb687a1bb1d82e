"""The options that commands share, and the workspace that they speak of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tokmigrate.cli.completion import complete_model
from tokmigrate.cli.output import say_aside
from tokmigrate.cli.streams import changes_something
from tokmigrate.files import has_directory

if TYPE_CHECKING:
    from tokmigrate.settings import ModelEntry, Workspace

Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        "-M",
        help="A model's name or directory, once for each; by default all models.",
        metavar="NAME|PATH",
        autocompletion=complete_model,
    ),
]
Here = Annotated[bool, typer.Option("--here", help="Leave out models whose directory is not here, with a note.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, errors included.")]
AcceptDrift = Annotated[
    bool,
    typer.Option("--accept-drift", help="Go on from a model that is not what its migrations left."),
]
LockTimeout = Annotated[
    float, typer.Option("--lock-timeout", help="Seconds to wait for another process.", metavar="SECONDS", min=0)
]
NoOwner = Annotated[
    bool,
    typer.Option("--no-owner", help="Go on where owner, mode or attributes of files cannot be kept."),
]

SETTLED = {
    "nothing": "",
    "before": "a command was interrupted before it wrote any of them: they are as before it",
    "after": "a command was interrupted while it wrote them: they are as it was to leave them, and so is the lock",
}
"""What is said of the migrations, by what an interrupted command had left."""


def those_here(entries: tuple[ModelEntry, ...], as_json: bool) -> tuple[ModelEntry, ...]:
    """Return the models whose directory is here; where people read, the others are told.

    Args:
        entries: The models.
        as_json: Whether a program reads.
    """
    gone = [entry.name for entry in entries if not has_directory(entry.path)]
    if gone and not as_json:
        said = "is left out: it is" if len(gone) == 1 else "are left out: they are"
        say_aside(f"note: {', '.join(gone)} {said} not here")
    return tuple(entry for entry in entries if entry.name not in gone)


def workspace() -> Workspace:
    """Return the workspace that the current directory is in."""
    from tokmigrate.settings import find_workspace, read_workspace  # noqa: PLC0415

    return read_workspace(find_workspace(Path.cwd()))


def accepting(found: Workspace, accept_drift: bool) -> Workspace:
    """Return the workspace, with drift accepted where that is asked for."""
    return replace(found, drift="accept") if accept_drift else found


def settled_workspace() -> Workspace:
    """Return the workspace, with what an interrupted command left of its migrations finished first."""
    from tokmigrate.runner.team.file_transaction import finish_writing  # noqa: PLC0415

    changes_something()
    place = workspace()
    said = SETTLED[finish_writing(place).value]
    if said:
        say_aside(f"migrations: {said}")
    return place


def selected(found: Workspace, names: list[str] | None) -> tuple[ModelEntry, ...]:
    """Return the models that `--model` names; raises UsageError where the workspace has none."""
    from tokmigrate.errors import UsageError  # noqa: PLC0415

    entries = found.select(names or [])
    if not entries:
        raise UsageError("the workspace has no models", hint="list them under `models:` in tokmigrate.yaml")
    return entries

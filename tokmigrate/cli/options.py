"""The options that commands share, and the workspace that they speak of."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tokmigrate.cli.output import say_aside

if TYPE_CHECKING:
    from tokmigrate.settings import ModelEntry, Workspace

Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model", "-m", help="A model's name or directory; repeatable. Default: all models.", metavar="NAME|PATH"
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, errors included.")]
LockTimeout = Annotated[
    float, typer.Option("--lock-timeout", help="Seconds to wait for another process.", metavar="SECONDS", min=0)
]

SETTLED = {
    "nothing": "",
    "before": "a command was interrupted before it wrote any of them: they are as before it",
    "after": "a command was interrupted while it wrote them: they are as it was to leave them, and so is the lock",
}
"""What is said of the migrations, by what an interrupted command had left."""


def workspace() -> Workspace:
    """Return the workspace that the current directory is in."""
    from tokmigrate.settings import find_workspace, read_workspace  # noqa: PLC0415

    return read_workspace(find_workspace(Path.cwd()))


def settled_workspace() -> Workspace:
    """Return the workspace, with what an interrupted command left of its migrations finished first."""
    from tokmigrate.runner.rewriting import settle  # noqa: PLC0415

    place = workspace()
    said = SETTLED[settle(place).value]
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

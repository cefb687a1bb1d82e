"""The options that commands share, what a shell completes for them, and the workspace of a command."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from tokmigrate import settings
from tokmigrate.cli.output import declare_changes, echo_note
from tokmigrate.commands import completion as proposals
from tokmigrate.commands import file_transaction
from tokmigrate.errors import UsageError
from tokmigrate.files import has_directory

if TYPE_CHECKING:
    from tokmigrate.settings import ModelEntry, Workspace


def complete_model(incomplete: str) -> list[tuple[str, str]]:
    """Return the models whose names begin with a word."""
    return _complete(incomplete, proposals.propose_models)


def complete_revision(incomplete: str) -> list[tuple[str, str]]:
    """Return the names of revisions that begin with a word, tags included."""
    return _complete(incomplete, proposals.propose_revisions)


def complete_tag(incomplete: str) -> list[tuple[str, str]]:
    """Return the tags that begin with a word."""
    return _complete(incomplete, proposals.propose_tags)


def _complete(incomplete: str, propose: Callable[[Workspace], Iterator[proposals.Proposal]]) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    # The command reports what is wrong; a shell would print it in the middle of a line.
    with suppress(Exception):
        for word, meaning in propose(open_workspace()):
            if word.startswith(incomplete):
                found.append((word, meaning))
    return found


Models = Annotated[
    list[str] | None,
    Option(
        "--model",
        "-M",
        help="Select a model by name or path; repeatable; all models by default.",
        metavar="NAME|PATH",
        autocompletion=complete_model,
    ),
]
Model = Annotated[
    str | None,
    Option(
        "--model",
        "-M",
        help="Select the model by name or path; the only one by default.",
        metavar="NAME|PATH",
        autocompletion=complete_model,
    ),
]
Here = Annotated[bool, Option("--here", help="Skip models whose directory is missing.")]
MESSAGE = Option("--message", "-m", help="Set the message of the migration.")
Message = Annotated[str, MESSAGE]
AsJson = Annotated[bool, Option("--json", help="Print one JSON document to stdout, errors included.")]
AcceptDrift = Annotated[
    bool, Option("--accept-drift", help="Continue from a model that differs from what its migrations left.")
]
LockTimeout = Annotated[
    float, Option("--lock-timeout", help="Wait this long for another process.", metavar="SECONDS", min=0)
]
NoOwner = Annotated[
    bool, Option("--no-owner", help="Continue if owner, mode or attributes of files cannot be preserved.")
]
Corpus = Annotated[list[str], Argument(help="Read the texts of these files; directories and - too.", metavar="CORPUS…")]
Field = Annotated[
    str | None,
    Option("--field", help="Select the field of JSON Lines and Parquet with the text, not `text`.", metavar="NAME"),
]

REVISION_NAMES = "A revision id, a prefix of it, a file number, a tag, head, or +N."

RECOVERED = {
    "nothing": "",
    "before": "a command was interrupted before it wrote any file: they are unchanged",
    "after": "a command was interrupted while it wrote files: they are now as it intended, and so is the lock",
}
"""What is printed about the migrations, by what an interrupted command had left."""


def open_workspace(accept_drift: bool = False) -> Workspace:
    """Return the workspace that contains the current directory, perhaps with drift accepted whatever it says."""
    workspace = settings.read_workspace(settings.find_workspace(Path.cwd()))
    return replace(workspace, drift="accept") if accept_drift else workspace


def open_workspace_if_present() -> Workspace | None:
    """Return the workspace that contains the current directory; None outside of one."""
    try:
        file = settings.find_workspace(Path.cwd())
    except UsageError:
        return None
    return settings.read_workspace(file)


def open_workspace_for_writing() -> Workspace:
    """Return the workspace, and first finish what an interrupted command left of its migrations."""
    declare_changes()
    workspace = open_workspace()
    message = RECOVERED[file_transaction.finish_writing(workspace).value]
    if message:
        echo_note(f"migrations: {message}")
    return workspace


def select_models(workspace: Workspace, names: list[str] | None, here: bool = False) -> tuple[ModelEntry, ...]:
    """Return the models that `--model` names; with `--here` those that are there, and a note names the others."""
    entries = workspace.select(names or [])
    if not entries:
        raise UsageError("the workspace has no models", hint="list them under `models:` in tokmigrate.yaml")
    missing = [entry for entry in entries if here and not has_directory(entry.path)]
    if missing:
        echo_note(f"note: skipped, because the directory is missing: {', '.join(entry.name for entry in missing)}")
    return tuple(entry for entry in entries if entry not in missing)


def select_model(workspace: Workspace, name: str | None) -> ModelEntry:
    """Return the model that `--model` names, or the only one of the workspace; raises UsageError."""
    entries = select_models(workspace, [name] if name else None)
    if len(entries) != 1:
        raise UsageError("the workspace has several models", hint="name one: --model NAME")
    return entries[0]

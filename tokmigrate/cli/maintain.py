"""Commands that repair: recover, restore."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tokmigrate.cli import console
from tokmigrate.cli.each import Command, run_each
from tokmigrate.cli.options import (
    RECOVERED,
    AsJson,
    LockTimeout,
    Models,
    complete_revision,
    open_workspace,
    select_models,
)
from tokmigrate.cli.output import declare_changes, echo, print_json
from tokmigrate.commands import file_transaction
from tokmigrate.commands import recover as recovery
from tokmigrate.commands import restore as restoring
from tokmigrate.render import json as json_report

if TYPE_CHECKING:
    from tokmigrate.events import OnProgress
    from tokmigrate.settings import ModelEntry, Workspace

_OUTCOMES = {
    "nothing": "nothing to recover",
    "before": "the change was undone: the model is as before it",
    "after": "the change was finished: the model is as after it",
}


@dataclass(frozen=True)
class RecoverCommand(Command[tuple[str, str]]):
    """`recover` for one model: its name and the outcome.

    Args:
        workspace: The workspace.
        lock_timeout_s: How long to wait for another process.
        on_progress: Called with each event.
    """

    name = "recover"

    workspace: Workspace
    lock_timeout_s: float
    on_progress: OnProgress

    def run(self, entry: ModelEntry) -> tuple[str, str]:
        """Finish or undo an interrupted change of a model."""
        outcome = recovery.recover_model(self.workspace, entry, self.lock_timeout_s, self.on_progress)
        return entry.name, outcome.value

    def render(self, result: tuple[str, str]) -> None:
        """Print the outcome."""
        model, outcome = result
        echo(f"{model}: {_OUTCOMES[outcome]}")

    def content(self, result: tuple[str, str]) -> dict[str, Any]:
        """Return the outcome as JSON."""
        model, outcome = result
        return {"model": model, "found": outcome}


def recover(model: Models = None, lock_timeout: LockTimeout = 0.0, as_json: AsJson = False) -> None:
    """Finish or undo what an interrupted command left.

    Models end as before the interrupted upgrade or downgrade, or as after it; migrations as before the interrupted
    rebase or squash, or as after it. Commands that write recover first, without being asked.
    """
    declare_changes()
    workspace = open_workspace()
    migrations = file_transaction.finish_writing(workspace).value
    entries = select_models(workspace, model) if migrations == "nothing" else workspace.select(model or [])
    if RECOVERED[migrations] and not as_json:
        echo(f"migrations: {RECOVERED[migrations]}")
    with console.progress() as on_progress:
        more = {"migrations": migrations}
        run_each(RecoverCommand(workspace, lock_timeout, on_progress), entries, as_json, **more)


def restore(
    revision: Annotated[
        str, typer.Argument(help="A revision that was applied here.", autocompletion=complete_revision)
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be restored, without writing anything.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Restore a migration file as it was applied.

    The ledger keeps the text of each applied migration and the files that it refers to. The present file need not be
    valid, or exist; an edited one is kept beside it under a name that ends with .edited.
    """
    if not dry_run:
        declare_changes()
    done = restoring.restore(open_workspace(), revision, write=not dry_run)
    if as_json:
        content = {
            "revision": done.revision,
            "file": str(done.path),
            "diff": list(done.diff),
            "attachments": [str(path) for path in done.attachments],
            "kept_as": str(done.kept_as) if done.kept_as else None,
            "written": not dry_run and bool(done.diff or done.attachments),
        }
        print_json(json_report.document("restore", **content))
        return
    for line in done.diff:
        echo(line)
    if not done.diff and not done.attachments:
        echo(f"{done.path} is as it was applied")
        return
    for path in (*([done.path] if done.diff else []), *done.attachments):
        echo(f"{'would restore' if dry_run else 'restored'} {path}")
    if done.kept_as:
        echo(f"the edited file is kept as {done.kept_as}")

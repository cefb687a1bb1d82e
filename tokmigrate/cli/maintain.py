"""Commands that repair: recover, restore."""

from __future__ import annotations

from typing import Annotated

from typer import Argument, Option

from tokmigrate.cli.each import ModelResults, Result, print_result
from tokmigrate.cli.options import (
    RECOVERED,
    AsJson,
    LockTimeout,
    Models,
    complete_revision,
    open_workspace,
    select_models,
)
from tokmigrate.cli.output import declare_changes, echo
from tokmigrate.commands import file_transaction
from tokmigrate.commands import recover as recovery
from tokmigrate.commands import restore as restoring
from tokmigrate.render import terminal

_OUTCOMES = {
    "nothing": "nothing to recover",
    "before": "the change was undone: the model is as before it",
    "after": "the change was finished: the model is as after it",
}


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
    results = ModelResults("recover", entries, as_json)
    with terminal.progress() as on_progress:
        for entry in entries:
            with results.keep_error(entry):
                outcome = recovery.recover_model(workspace, entry, lock_timeout, on_progress).value
                content = {"model": entry.name, "found": outcome}
                results.add(Result(content, [f"{entry.name}: {_OUTCOMES[outcome]}"]))
    results.finish(migrations=migrations)


def restore(
    revision: Annotated[str, Argument(help="A revision that was applied here.", autocompletion=complete_revision)],
    dry_run: Annotated[
        bool, Option("--dry-run", help="Show what would be restored, without writing anything.")
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
    lines = list(done.diff)
    if done.diff or done.attachments:
        restored = (*([done.path] if done.diff else []), *done.attachments)
        lines += [f"{'would restore' if dry_run else 'restored'} {path}" for path in restored]
        lines += [f"the edited file is kept as {done.kept_as}"] if done.kept_as else []
    else:
        lines = [f"{done.path} is as it was applied"]
    content = {
        "revision": done.revision,
        "file": done.path,
        "diff": done.diff,
        "attachments": done.attachments,
        "kept_as": done.kept_as,
        "written": not dry_run and bool(done.diff or done.attachments),
    }
    print_result("restore", Result(content, lines), as_json)

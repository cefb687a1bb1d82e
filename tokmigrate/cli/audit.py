"""Commands on the ledger and on what a command left: log, blame, import, report, recover, restore."""

from __future__ import annotations

import sys
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from tokmigrate import settings
from tokmigrate.audit import blame as token_blame
from tokmigrate.audit import ledger_check, run_status
from tokmigrate.audit import runs as audit_runs
from tokmigrate.cli.each import ModelResults, Result, find_failures, print_result
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
from tokmigrate.commands import file_transaction, session
from tokmigrate.commands import report as reporting
from tokmigrate.commands import restore as restoring
from tokmigrate.errors import UsageError
from tokmigrate.files import storage_errors
from tokmigrate.render import html, terminal
from tokmigrate.render import ledger as ledger_report
from tokmigrate.state import database, transfer

if TYPE_CHECKING:
    from tokmigrate.settings import Workspace
    from tokmigrate.state.ledger import State

_OUTCOMES = {
    "nothing": "nothing to recover",
    "before": "the change was undone: the model is as before it",
    "after": "the change was finished: the model is as after it",
}


def log(
    model: Models = None,
    limit: Annotated[int | None, Option(help="Show at most this many runs.", min=1)] = None,
    imported: Annotated[bool, Option("--imported", help="Include the runs of imported ledgers.")] = False,
    verify_chain: Annotated[
        bool, Option("--verify-chain", help="Verify the hash chain over the runs; exit with 4 if it is broken.")
    ] = False,
    export: Annotated[
        Path | None, Option(help="Write the whole ledger to a file as JSON Lines; - is stdout.", metavar="FILE")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List all runs, newest first, failed and undone ones included.

    Each run is shown with its user, host, versions, the commit of the workspace, and its duration. --verify-chain shows
    a change that was made by accident or in part; it cannot show that a user with write access made a new
    chain.
    """
    if (export or verify_chain) and (model or limit or imported):
        raise UsageError(
            "--export and --verify-chain read the whole ledger", hint="leave --model, --limit and --imported out"
        )
    if export and verify_chain:
        raise UsageError("--export and --verify-chain exclude each other", hint="leave one of them out")
    if export:
        _export(export, as_json)
    elif verify_chain:
        _verify_chain(as_json)
    else:
        _log(model, limit, imported, as_json)


def _log(model: list[str] | None, limit: int | None, imported: bool, as_json: bool) -> None:
    workspace = open_workspace()
    entries = workspace.select(model or []) if imported else select_models(workspace, model)
    runs = audit_runs.runs(workspace, entries, limit)
    if imported:
        both = (*runs, *audit_runs.list_imported_runs(workspace, limit))
        runs = tuple(sorted(both, key=attrgetter("row.started"), reverse=True)[:limit])
    interrupted = find_failures(entries, run_status.refuse_interrupted)
    content = {"runs": [ledger_report.run_content(run) for run in runs]}
    print_result("log", Result(content, [ledger_report.log_text(runs)]), as_json, interrupted)


def _verify_chain(as_json: bool) -> None:
    workspace = open_workspace()
    unknown = ledger_check.check_ledger(workspace, _open_state(workspace))
    line = "the hash chain over the runs holds: none was edited or is missing"
    why = "the model was changed elsewhere, or the ledger is another or an older one"
    content = {"verified": True, "unaccounted": unknown}
    print_result("log", Result(content, [line], [f"note: {each}: {why}" for each in unknown]), as_json)


def _export(file: Path, as_json: bool) -> None:
    to_stdout = file == Path("-")
    if to_stdout and as_json:
        raise UsageError("--export - and --json both go to stdout", hint="name a file: --export FILE")
    ledger = transfer.export_ledger(_open_state(open_workspace()))
    if to_stdout:
        sys.stdout.writelines(ledger.json_lines())
        return
    declare_changes()
    with storage_errors("write the ledger", file), file.open("w", encoding="utf-8") as opened:
        opened.writelines(ledger.json_lines())
    rows = {table: len(held) for table, held in ledger.rows.items()}
    print_result("log", Result({"file": str(file), "rows": rows}, [f"wrote {file}"]), as_json)


def _open_state(workspace: Workspace) -> State:
    state = database.open_state_if_present(workspace.state, workspace.root)
    if state is None:
        raise UsageError("there is no ledger yet", where=str(workspace.root), hint="the first run creates it")
    return state


def blame(
    token: Annotated[
        str | None, Argument(help="A present or former token text; escapes such as \\n are understood.")
    ] = None,
    number: Annotated[int | None, Option("--id", help="Select the token by id instead.", min=0, metavar="ID")] = None,
    model: Models = None,
    as_json: AsJson = False,
) -> None:
    """Show a token's full history in each model.

    Each event is shown with the line of the migration, its author by Git, and the run of the ledger. A renamed token
    is followed under all its names.
    """
    workspace = open_workspace()
    entries = workspace.select(model or [])
    if token is not None and number is None:
        found = token_blame.blame_text(workspace, entries, token)
    elif number is not None and token is None:
        found = token_blame.blame_id(workspace, entries, number)
    else:
        raise UsageError("blame takes a token's text or --id", hint='for example: tokmigrate blame "<|im_start|>"')
    content = {"models": [ledger_report.blame_content(each) for each in found]}
    missing = find_failures(entries, settings.ModelEntry.here)
    print_result("blame", Result(content, map(ledger_report.format_blame, found)), as_json, missing)


def import_(
    source: Annotated[
        str, Argument(help="A workspace directory, a state.db, a state URL, or a JSONL export.", metavar="LEDGER")
    ],
    as_json: AsJson = False,
) -> None:
    """Import the ledger of another workspace.

    `log --imported` and `blame` show it too. Its hash chain is verified first. A second import of a ledger replaces the
    first, and must continue it. Models are distinguished by their ledger, and identified by their lineage.
    """
    declare_changes()
    workspace = open_workspace()
    ledger, name = audit_runs.read_ledger(source)
    new = transfer.import_ledger(database.open_state(workspace.state, workspace.root), ledger, name)
    counts = f"{new['runs']:,} runs, {new['applied']:,} applied revisions, {new['token_events']:,} token events"
    counts += f", {new['token_moves']:,} moves of several tokens" if new["token_moves"] else ""
    line = f"new or changed: {counts}; `tokmigrate log --imported` shows them"
    if not any(new.values()):
        line = "nothing is new since it was imported"
    content = {"ledger": ledger.ledger, "source": name, "new": dict(new)}
    print_result("import", Result(content, [f"{name}: {line}"]), as_json)


def report(
    model: Models = None,
    output: Annotated[
        Path | None,
        Option(
            "--output",
            "-o",
            help="Write to this directory or .html file; default: .tokmigrate/reports.",
            metavar="PATH",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write an HTML page about each model.

    The page shows its migrations, tokens, norms, nearest neighbours of new rows, untrained tokens and risks.
    """
    declare_changes()
    workspace = open_workspace()
    entries = select_models(workspace, model)
    paths = html.page_paths(workspace, entries, output)
    results = ModelResults("report", entries, as_json)
    with terminal.progress() as on_progress:
        for entry in entries:
            with results.keep_error(entry):
                path = paths[entry.name]
                with run_status.guard_reading(entry):
                    found = reporting.collect_report(workspace, entry, on_progress)
                html.write_page(path, html.format_page(found))
                results.add(Result({"page": str(path), **found.document}, [f"{entry.name}: {path}"]))
    results.finish()


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
                outcome = session.recover_model(workspace, entry, lock_timeout, on_progress).value
                content = {"model": entry.name, "found": outcome}
                results.add(Result(content, [f"{entry.name}: {_OUTCOMES[outcome]}"]))
    results.finish(migrations=migrations)


def restore(
    revision: Annotated[str, Argument(help="A revision that was applied here.", autocompletion=complete_revision)],
    as_json: AsJson = False,
) -> None:
    """Restore a migration file as it was applied.

    The ledger keeps the text of each applied migration and the files that it refers to. The present file need not be
    valid, or exist; an edited one is kept beside it under a name that ends with .edited. `tokmigrate show` prints how
    it differs.
    """
    declare_changes()
    done = restoring.restore(open_workspace(), revision)
    written = [*([done.file] if done.diff else []), *done.attachments]
    lines = [*done.diff, *(f"restored {path}" for path in written)]
    if done.kept_as:
        lines.append(f"the edited file is kept as {done.kept_as}")
    result = Result({**vars(done), "written": bool(written)}, lines or [f"{done.file} is as it was applied"])
    print_result("restore", result, as_json)

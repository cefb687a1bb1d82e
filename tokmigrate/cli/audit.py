"""Commands about what happened to models and tokens: log, blame, import, report, peft-config."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tokmigrate.audit import blame as token_blame
from tokmigrate.audit import ledger_check, lora, run_status
from tokmigrate.audit import runs as audit_runs
from tokmigrate.cli import console
from tokmigrate.cli.each import Command, exit_with, find_interrupted, find_missing, print_documents, run_each
from tokmigrate.cli.options import AsJson, Models, open_workspace, select_models
from tokmigrate.cli.output import declare_changes, echo, echo_err, print_json
from tokmigrate.commands.report import collect
from tokmigrate.errors import StorageError, UsageError
from tokmigrate.render import blame as blame_report
from tokmigrate.render import html, training
from tokmigrate.render import json as json_report
from tokmigrate.render import log as log_report
from tokmigrate.state import database, transfer

if TYPE_CHECKING:
    from datetime import datetime

    from tokmigrate.audit.lora import LoraRows
    from tokmigrate.audit.runs import Run
    from tokmigrate.commands.report.collect import Report
    from tokmigrate.events import OnProgress
    from tokmigrate.settings import ModelEntry, Workspace
    from tokmigrate.state.ledger import State


class ExportFormat(StrEnum):
    """How a ledger is exported."""

    JSONL = "jsonl"
    CSV = "csv"


def log(
    model: Models = None,
    limit: Annotated[int | None, typer.Option(help="Show at most this many runs.", min=1)] = None,
    imported: Annotated[bool, typer.Option("--imported", help="Include the runs of imported ledgers.")] = False,
    verify_chain: Annotated[
        bool, typer.Option("--verify-chain", help="Verify the hash chain over the runs; exit with 4 if it is broken.")
    ] = False,
    export: Annotated[
        ExportFormat | None, typer.Option(help="Write the whole ledger, every row with its hash.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write the export to this file instead of stdout.", metavar="FILE"),
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
    if output and not export:
        raise UsageError("-o is the file of --export", hint="add --export jsonl or --export csv")
    if export:
        _export(export, output, as_json)
        return
    if verify_chain:
        _verify_chain(as_json)
        return
    workspace = open_workspace()
    entries = workspace.select(model or []) if imported else select_models(workspace, model)
    runs = audit_runs.runs(workspace, entries, limit)
    if imported:
        both = (*runs, *audit_runs.list_imported_runs(workspace, limit))
        runs = tuple(sorted(both, key=_start_time, reverse=True)[:limit])
    interrupted = find_interrupted(entries)
    if as_json:
        print_documents("log", None, interrupted, runs=[log_report.run_content(run) for run in runs])
    else:
        console.print_rich(log_report.log_text(runs))
    exit_with(interrupted, printed=as_json)


def _start_time(run: Run) -> datetime:
    return run.row.started


def _verify_chain(as_json: bool) -> None:
    state = _open_state()
    unknown = ledger_check.check_ledger(open_workspace(), state)
    lengths = state.lengths()
    if as_json:
        content = [{"model": each.model, "revision": each.revision} for each in unknown]
        print_json(json_report.document("log", verified=True, rows=lengths, unaccounted=content))
        return
    for each in unknown:
        echo_err(f"note: {each}: the model was changed elsewhere, or the ledger is another or an older one")
    counts = ", ".join(f"{count:,} of '{table}'" for table, count in lengths.items())
    echo(f"the hash chain over the runs holds: none was edited or is missing; rows: {counts}")


def _export(form: ExportFormat, output: Path | None, as_json: bool) -> None:
    if as_json and output is None:
        raise UsageError("--json describes a file that was written", hint="name it: -o FILE; or leave --json out")
    ledger = transfer.export_ledger(_open_state())
    lines = ledger.json_lines() if form is ExportFormat.JSONL else ledger.csv_lines()
    if output is None:
        sys.stdout.writelines(lines)
        return
    declare_changes()
    try:
        with output.open("w", encoding="utf-8", newline="") as file:
            file.writelines(lines)
    except OSError as error:
        raise StorageError(f"cannot be written: {error.strerror}", where=str(output)) from error
    if as_json:
        rows = {table: len(held) for table, held in ledger.rows.items()}
        print_json(json_report.document("log", file=str(output), rows=rows))
    else:
        echo(f"wrote {output}")


def _open_state() -> State:
    workspace = open_workspace()
    state = database.open_state_if_present(workspace.state, workspace.root)
    if state is None:
        raise UsageError("there is no ledger yet", where=str(workspace.root), hint="the first run creates it")
    return state


def blame(
    token: Annotated[
        str | None, typer.Argument(help="A present or former token text; escapes such as \\n are understood.")
    ] = None,
    number: Annotated[
        int | None, typer.Option("--id", help="Select the token by id instead.", min=0, metavar="ID")
    ] = None,
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
    missing = find_missing(entries)
    if as_json:
        print_documents("blame", [blame_report.blame_content(each) for each in found], missing)
    else:
        for each in found:
            console.print_rich(blame_report.format_blame(each))
    exit_with(missing, printed=as_json)


def import_(
    source: Annotated[
        str,
        typer.Argument(help="A workspace directory, a state.db, a state URL, or a JSONL export.", metavar="LEDGER"),
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
    if as_json:
        print_json(json_report.document("import", ledger=ledger.ledger, source=name, new=dict(new)))
        return
    if not any(new.values()):
        echo(f"{name}: nothing is new since it was imported")
        return
    counts = f"{new['runs']:,} runs, {new['applied']:,} applied revisions, {new['token_events']:,} token events"
    counts += f", {new['token_moves']:,} moves of several tokens" if new["token_moves"] else ""
    echo(f"{name}: new or changed: {counts}; `tokmigrate log --imported` shows them")


@dataclass(frozen=True)
class ReportCommand(Command["tuple[Path, Report]"]):
    """`report` for one model: its page and the data on it.

    Args:
        workspace: The workspace.
        paths: The page of each model.
        on_progress: Called with each event.
    """

    name = "report"

    workspace: Workspace
    paths: Mapping[str, Path]
    on_progress: OnProgress

    def run(self, entry: ModelEntry) -> tuple[Path, Report]:
        """Write the page of a model."""
        with run_status.reading(entry):
            found = collect.collect_report(self.workspace, entry, self.on_progress)
        html.write_page(self.paths[entry.name], html.format_page(found))
        return self.paths[entry.name], found

    def render(self, result: tuple[Path, Report]) -> None:
        """Print the path of the page."""
        path, found = result
        echo(f"{found.document['model']}: {path}")

    def content(self, result: tuple[Path, Report]) -> dict[str, Any]:
        """Return the path of the page, and the data on it, as JSON."""
        path, found = result
        return {"page": str(path), **found.document}


def report(
    model: Models = None,
    output: Annotated[
        Path | None,
        typer.Option(
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
    with console.progress() as on_progress:
        run_each(ReportCommand(workspace, paths, on_progress), entries, as_json)


@dataclass(frozen=True)
class PeftConfigCommand(Command["LoraRows"]):
    """`peft-config` for one model."""

    name = "peft-config"

    workspace: Workspace

    def run(self, entry: ModelEntry) -> LoraRows:
        """Find the rows to train."""
        return lora.lora_rows(self.workspace, entry)

    def render(self, result: LoraRows) -> None:
        """Print an argument of LoraConfig, and which tokens it leaves out."""
        print_json({"trainable_token_indices": result.indices or None})
        if not result.indices:
            echo_err(f"note: {result.model}: no token is known to be untrained")
        if result.unknown:
            echo_err(
                f"warning: {result.model}: {result.unknown} tokens are left out, of which it is not known whether they"
                f" were trained: {result.why}; `tokmigrate status` names them, add their ids to train them"
            )
        if result.given:
            echo_err(f"note: {result.model}: {result.given} tokens are left out, whose rows a file gave")

    def content(self, result: LoraRows) -> dict[str, Any]:
        """Return the rows to train as JSON."""
        return training.lora_content(result)


def peft_config(model: Models = None, as_json: AsJson = False) -> None:
    """Print peft's trainable_token_indices for untrained tokens.

    The JSON is an argument of peft's LoraConfig: `LoraConfig(**json.load(file), r=16, …)`. Layers are named as peft
    finds them; a model without tied embeddings has its output layer listed too. With --json one document covers all
    models.
    """
    workspace = open_workspace()
    entries = select_models(workspace, model)
    if len(entries) > 1 and not as_json:
        names = ", ".join(entry.name for entry in entries)
        raise UsageError("a LoRA run is for one model", hint=f"name it: --model; there are {names}")
    run_each(PeftConfigCommand(workspace), entries, as_json)

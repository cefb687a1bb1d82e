"""Commands for those who ask what became of models and tokens: log, blame, import, peft-config."""

from __future__ import annotations

import sys
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tokmigrate.cli.each import document_each, failed_absent, failed_interrupted, leave_with, print_several
from tokmigrate.cli.options import AsJson, Models, selected, workspace
from tokmigrate.cli.output import print_json, say, say_aside, show
from tokmigrate.cli.streams import changes_something

if TYPE_CHECKING:
    from datetime import datetime

    from tokmigrate.audit.lora import LoraRows
    from tokmigrate.audit.runs import Run
    from tokmigrate.state.ledger import State


class ExportFormat(StrEnum):
    """How a ledger is written."""

    JSONL = "jsonl"
    CSV = "csv"


def log(
    model: Models = None,
    limit: Annotated[int | None, typer.Option(help="How many runs.", min=1)] = None,
    imported: Annotated[bool, typer.Option("--imported", help="Also the runs of ledgers that were imported.")] = False,
    verify_chain: Annotated[
        bool,
        typer.Option("--verify-chain", help="Check the hash chain over the runs, and the stamps against it; else 4."),
    ] = False,
    export: Annotated[
        ExportFormat | None, typer.Option(help="Write the whole ledger, every row as it is stored, with its hashes.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where --export writes to; default: stdout.", metavar="FILE")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show every run, the newest first: also those that failed or were undone.

    Each with user, host, versions, commit of the workspace and duration. --verify-chain shows a change that was made
    by accident or in part; it cannot show that somebody who can write the database made a new chain.
    """
    from tokmigrate.audit.runs import list_imported_runs, runs  # noqa: PLC0415
    from tokmigrate.errors import UsageError  # noqa: PLC0415
    from tokmigrate.report.log import log_text, run_content  # noqa: PLC0415

    if (export or verify_chain) and (model or limit or imported):
        raise UsageError("the chain goes through the whole ledger", hint="leave --model, --limit and --imported out")
    if export and verify_chain:
        raise UsageError("one of --export and --verify-chain at a time", hint="leave one of them out")
    if output and not export:
        raise UsageError("-o is where --export writes to", hint="add --export jsonl or --export csv")
    if export:
        _export(export, output, as_json)
        return
    if verify_chain:
        _verify_chain(as_json)
        return
    place = workspace()
    entries = place.select(model or []) if imported else selected(place, model)
    found = runs(place, entries, limit)
    if imported:
        found = tuple(sorted((*found, *list_imported_runs(place, limit)), key=_started, reverse=True)[:limit])
    interrupted = tuple(failed_interrupted(entries))
    if as_json:
        print_several("log", None, interrupted, runs=[run_content(run) for run in found])
    else:
        show(log_text(found))
    leave_with(interrupted, told=as_json)


def _started(run: Run) -> datetime:
    return run.row.started


def _verify_chain(as_json: bool) -> None:
    from tokmigrate.audit.ledger_check import check_ledger  # noqa: PLC0415
    from tokmigrate.report.json import document  # noqa: PLC0415

    state = _state()
    unknown = check_ledger(workspace(), state)
    lengths = state.lengths()
    if as_json:
        runs = [{"model": each.model, "revision": each.revision} for each in unknown]
        print_json(document("log", verified=True, rows=lengths, unaccounted=runs))
        return
    for each in unknown:
        say_aside(f"note: {each}: it was migrated elsewhere, or the ledger was recreated")
    counts = ", ".join(f"{count:,} of '{table}'" for table, count in lengths.items())
    say(f"the hash chain over the runs holds: none was edited or is missing; rows: {counts}")


def _export(form: ExportFormat, output: Path | None, as_json: bool) -> None:
    from tokmigrate.errors import StorageError, UsageError  # noqa: PLC0415
    from tokmigrate.report.json import document  # noqa: PLC0415
    from tokmigrate.state.transfer import export_ledger  # noqa: PLC0415

    if as_json and output is None:
        raise UsageError("--json tells of a file that was written", hint="name it: -o FILE; or leave --json out")
    ledger = export_ledger(_state())
    lines = ledger.json_lines() if form is ExportFormat.JSONL else ledger.csv_lines()
    rows = {table: len(held) for table, held in ledger.rows.items()}
    if output is None:
        sys.stdout.writelines(lines)
        return
    changes_something()
    try:
        with output.open("w", encoding="utf-8", newline="") as file:
            file.writelines(lines)
    except OSError as error:
        raise StorageError(f"cannot be written: {error.strerror}", where=str(output)) from error
    if as_json:
        print_json(document("log", file=str(output), rows=rows))
    else:
        say(f"wrote {output}")


def _state() -> State:
    from tokmigrate.errors import UsageError  # noqa: PLC0415
    from tokmigrate.state.database import open_state_if_present  # noqa: PLC0415

    place = workspace()
    state = open_state_if_present(place.state, place.root)
    if state is None:
        raise UsageError("there is no ledger yet", where=str(place.root), hint="the first run makes it")
    return state


def import_(
    source: Annotated[
        str,
        typer.Argument(
            help="A workspace's directory, a state.db, the URL of a state, or what `log --export jsonl` wrote.",
            metavar="LEDGER",
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Take the ledger of another workspace into this one's, so that `log --imported` and `blame` tell of it too.

    Its hash chain is checked first. Imported again, a ledger takes the place of what was imported before, and must go
    on from it. Models are told apart by the ledger that they come from, and known as the same by their lineage.
    """
    from tokmigrate.audit.sources import read_ledger  # noqa: PLC0415
    from tokmigrate.report.json import document  # noqa: PLC0415
    from tokmigrate.state.database import open_state  # noqa: PLC0415
    from tokmigrate.state.transfer import import_ledger  # noqa: PLC0415

    changes_something()
    place = workspace()
    ledger, name = read_ledger(source)
    new = import_ledger(open_state(place.state, place.root), ledger, name)
    if as_json:
        print_json(document("import", ledger=ledger.ledger, source=name, new=dict(new)))
        return
    if not any(new.values()):
        say(f"{name}: nothing is new since it was imported")
        return
    told = f"{new['runs']:,} runs, {new['applied']:,} applied revisions, {new['token_events']:,} token events"
    told += f", {new['token_moves']:,} moves of several tokens" if new["token_moves"] else ""
    say(f"{name}: new or changed: {told}; `tokmigrate log --imported` shows them")


def blame(
    token: Annotated[
        str | None, typer.Argument(help="A token's text, now or once; escapes such as \\n are understood.")
    ] = None,
    number: Annotated[int | None, typer.Option("--id", help="Ask by id instead.", min=0, metavar="ID")] = None,
    model: Models = None,
    as_json: AsJson = False,
) -> None:
    """Show the whole life of a token in each model: what befell it, by which line of which migration, who, when.

    It is followed under all its names. The line's author is Git's; the runs are those of the ledger.
    """
    from tokmigrate.audit.blame import blame_id, blame_text  # noqa: PLC0415
    from tokmigrate.errors import UsageError  # noqa: PLC0415
    from tokmigrate.report import blame as report  # noqa: PLC0415

    place = workspace()
    entries = place.select(model or [])
    if token is not None and number is None:
        found = blame_text(place, entries, token)
    elif number is not None and token is None:
        found = blame_id(place, entries, number)
    else:
        raise UsageError("blame takes a token's text or --id", hint='for example: tokmigrate blame "<|im_start|>"')
    failed = tuple(failed_absent(entries))
    if as_json:
        print_several("blame", [report.blame_content(each) for each in found], failed)
    else:
        for each in found:
            show(report.format_blame(each))
    leave_with(failed, told=as_json)


def peft_config(model: Models = None, as_json: AsJson = False) -> None:
    """Print the `trainable_token_indices` of a LoRA run that trains the rows of new tokens not trained yet.

    The JSON is an argument of peft's LoraConfig: `LoraConfig(**json.load(file), r=16, …)`. Layers are named as peft
    finds them; a model that does not tie its embeddings has its head listed too. With --json one document tells of
    all models.
    """
    from tokmigrate.audit.lora import lora_rows  # noqa: PLC0415
    from tokmigrate.errors import UsageError  # noqa: PLC0415
    from tokmigrate.report.training import lora_content  # noqa: PLC0415

    place = workspace()
    entries = selected(place, model)
    act = partial(lora_rows, place)
    if as_json:
        document_each("peft-config", entries, act, lora_content)
        return
    if len(entries) > 1:
        names = ", ".join(entry.name for entry in entries)
        raise UsageError("a LoRA run is for one model", hint=f"name it: --model; there are {names}")
    found = act(entries[0])
    print_json({"trainable_token_indices": found.indices or None})
    _say_left_out(found)


def _say_left_out(found: LoraRows) -> None:
    if not found.indices:
        say_aside(f"note: {found.model}: no token is known to be untrained")
    if found.unknown:
        say_aside(
            f"warning: {found.model}: {found.unknown} tokens are left out, of which it is not known whether they were"
            f" trained: {found.why}; `tokmigrate status` names them, add their ids to train them"
        )
    if found.given:
        say_aside(f"note: {found.model}: {found.given} tokens are left out, whose rows a file gave")


def register(app: typer.Typer) -> None:
    """Add these commands to the application."""
    app.command(rich_help_panel="Inspect")(log)
    app.command(rich_help_panel="Inspect")(blame)
    app.command("import", rich_help_panel="Maintain")(import_)
    app.command("peft-config", rich_help_panel="Run")(peft_config)

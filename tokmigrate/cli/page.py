"""The command that writes a page: report."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tokmigrate.cli.each import document_each, show_each
from tokmigrate.cli.options import AsJson, Models, selected, workspace
from tokmigrate.cli.output import progress, say
from tokmigrate.cli.streams import changes_something

if TYPE_CHECKING:
    from tokmigrate.events import Listener
    from tokmigrate.runner.reporting.collect import Report
    from tokmigrate.settings import ModelEntry, Workspace

Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        help="A directory, or a file .html. Default: .tokmigrate/reports.",
        metavar="PATH",
    ),
]


def report(model: Models = None, output: Output = None, as_json: AsJson = False) -> None:
    """Write an HTML page on each model: its migrations, tokens, norms, neighbours, what is untrained or risky."""
    from tokmigrate.report.html import page_paths  # noqa: PLC0415

    changes_something()
    place = workspace()
    entries = selected(place, model)
    paths = page_paths(place, entries, output)
    with progress() as listener:
        act = partial(_written, place, paths, listener)
        if as_json:
            document_each("report", entries, act, lambda done: {"page": str(done[0]), **done[1].document})
        else:
            show_each(entries, act, lambda done: say(f"{done[1].document['model']}: {done[0]}"))


def _written(place: Workspace, paths: dict[str, Path], listener: Listener, entry: ModelEntry) -> tuple[Path, Report]:
    from tokmigrate.audit.run_status import reading  # noqa: PLC0415
    from tokmigrate.report.html import format_page, write_page  # noqa: PLC0415
    from tokmigrate.runner.reporting.collect import collect_report  # noqa: PLC0415

    with reading(entry):
        found = collect_report(place, entry, listener)
    write_page(paths[entry.name], format_page(found))
    return paths[entry.name], found


def register(app: typer.Typer) -> None:
    """Add these commands to the application."""
    app.command(rich_help_panel="Inspect")(report)

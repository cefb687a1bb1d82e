"""Commands that compare: diff, test."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tokmigrate.cli.completion import complete_model, complete_revision
from tokmigrate.cli.each import document_each, show_each
from tokmigrate.cli.options import AcceptDrift, AsJson, Models, accepting, selected, workspace
from tokmigrate.cli.output import print_json, show

if TYPE_CHECKING:
    from tokmigrate.settings import ModelEntry, Workspace


def diff(
    first: Annotated[
        str,
        typer.Argument(metavar="A", help="A directory, or a model of the workspace.", autocompletion=complete_model),
    ],
    second: Annotated[
        str,
        typer.Argument(metavar="B", help="The same, or a revision of the model A.", autocompletion=complete_revision),
    ],
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 1 where they differ.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show in what two tokenizers differ: tokens, ids, flags, pipeline, special tokens, templates, sizes.

    They are compared by what they mean, not by how their files are written.
    With a revision, a model as it is stands against what it is planned to be
    there, or what it was according to the recorded way back.
    """
    from tokmigrate.report.diff import comparison_content, comparison_text  # noqa: PLC0415
    from tokmigrate.report.json import document  # noqa: PLC0415
    from tokmigrate.runner.compare import chosen_sides, compare  # noqa: PLC0415

    found = compare(*chosen_sides(_workspace_if_any(), first, second))
    if as_json:
        print_json(document("diff", **comparison_content(found)))
    else:
        show(comparison_text(found))
    if exit_code and found.differences:
        raise typer.Exit(1)


def _workspace_if_any() -> Workspace | None:
    from tokmigrate.files import exists  # noqa: PLC0415
    from tokmigrate.settings import FILE_NAME, find_workspace, read_workspace  # noqa: PLC0415

    here = Path.cwd()
    if not any(exists(directory / FILE_NAME) for directory in (here, *here.parents)):
        return None
    return read_workspace(find_workspace(here))


def try_migrations(
    model: Models = None,
    every: Annotated[bool, typer.Option("--all", help="Every migration from base on, not only pending ones.")] = False,
    copy: Annotated[bool, typer.Option("--copy", help="On a whole copy of the model, not on a stand-in.")] = False,
    accept_drift: AcceptDrift = False,
    as_json: AsJson = False,
) -> None:
    """Try migrations up, down and up again, and compare every byte; exits with 1 where a file comes out otherwise.

    They are tried on a stand-in that is made in a temporary directory: the
    model's own files and tensor names, with rows of four numbers, so that a
    model of any size is tested in seconds. The libraries load what comes out, as
    `upgrade` has them do (`verify:` in tokmigrate.yaml). The model is never
    touched, and its weights need not be here: then its config tells what shapes
    they have.
    """
    from tokmigrate.report.check import roundtrip_content, roundtrip_text  # noqa: PLC0415
    from tokmigrate.runner.roundtrip import RoundTrip, run_roundtrip  # noqa: PLC0415

    place = accepting(workspace(), accept_drift)
    entries = selected(place, model)

    def act(entry: ModelEntry) -> RoundTrip:
        return run_roundtrip(place, entry, "copy" if copy else "stand-in", from_base=every)

    def code(done: RoundTrip) -> int:
        return 1 if done.mismatches else 0

    if as_json:
        document_each("test", entries, act, roundtrip_content, code)
    else:
        show_each(entries, act, lambda done: show(roundtrip_text(done)), code)


def register(app: typer.Typer) -> None:
    """Add these commands to the application."""
    app.command(rich_help_panel="Inspect", context_settings={"ignore_unknown_options": True})(diff)
    app.command("test", rich_help_panel="CI")(try_migrations)

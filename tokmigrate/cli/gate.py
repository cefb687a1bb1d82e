"""Commands that CI asks: lint, check."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tokmigrate.cli.each import document_each, show_each
from tokmigrate.cli.options import AsJson, Here, Models, selected, those_here, workspace
from tokmigrate.cli.output import print_json, say, say_aside, show
from tokmigrate.errors import TokmigrateError, UsageError

if TYPE_CHECKING:
    from tokmigrate.runner.check import Checked

Codes = Annotated[
    list[str] | None, typer.Option(help="Ask these rules only, by codes or their beginnings.", metavar="CODES")
]
Ignored = Annotated[list[str] | None, typer.Option(help="Leave these rules out.", metavar="CODES")]
Format = Annotated[
    Literal["text", "json", "github", "sarif"] | None,
    typer.Option(
        "--format", help="text, json as with --json, annotations for GitHub's workflows, or SARIF 2.1.0. Default: text."
    ),
]


def lint(
    model: Models = None,
    select: Codes = None,
    ignore: Ignored = None,
    git_base: Annotated[
        str | None,
        typer.Option(help="Only migrations that changed since this branch left REV.", metavar="REV"),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="A warning fails too.")] = False,
    output: Format = None,
    as_json: AsJson = False,
) -> None:
    """Read migrations as a careful reviewer would; 1 where something has to change. Nothing is written.

    docs/rules.md leads to a page for each rule. Some rules need a model:
    pending migrations are tried on each model that is here. `# noqa: TM101`
    at the end of a line says that what is found there is meant; `lint:` in
    tokmigrate.yaml holds `select` and `ignore` for good.
    """
    from tokmigrate.lint.selection import Selection  # noqa: PLC0415
    from tokmigrate.report.json import document, error_document  # noqa: PLC0415
    from tokmigrate.report.lint import (  # noqa: PLC0415  # noqa: PLC0415
        findings_content,
        findings_text,
        problem_commands,
        sarif,
        workflow_commands,
    )
    from tokmigrate.runner.lint import lint as lint_workspace  # noqa: PLC0415
    from tokmigrate.runner.lint import settled  # noqa: PLC0415

    if as_json and output not in (None, "json"):
        raise UsageError(f"--json contradicts --format {output}", hint="leave one of them out")
    place = workspace()
    held = settled(place)
    asked = Selection.of(select or (), ignore or (), "the command line")
    selection = Selection(asked.select or held.select, (*asked.ignore, *held.ignore))
    try:
        linted = lint_workspace(place, place.select(model or []), selection, git_base)
    except TokmigrateError as error:
        if output == "github":
            sys.stdout.write(problem_commands(error, place.root))
        if output == "json" and not as_json:
            print_json(error_document(error))
            raise typer.Exit(error.exit_code) from error
        raise
    if as_json or output == "json":
        print_json(document("lint", **findings_content(linted)))
    elif output == "sarif":
        print_json(sarif(linted))
    elif output == "github":
        sys.stdout.write(workflow_commands(linted))
    else:
        for note in linted.notes:
            say_aside(f"note: {note}")
        show(findings_text(linted))
    if linted.errors or (strict and linted.warnings):
        raise typer.Exit(1)


def check(model: Models = None, here: Here = False, as_json: AsJson = False) -> None:
    """Say for CI where each model stands: 0 up to date, 3 pending migrations, 4 drift. Nothing is written.

    Trained weights and files that were saved anew with the same meaning are
    said, and are no drift. Drift is a token with another id, a rule, role or
    template that is not the migrations', a stamp that is missing, edited or
    of another model. Undo data that was lost ends with 4 as well, and what
    no downgrade from here can undo is said.
    """
    from tokmigrate.report.check import check_content, check_lines  # noqa: PLC0415
    from tokmigrate.runner.check import check as checked  # noqa: PLC0415

    place = workspace()
    entries = selected(place, model)
    if here:
        entries = those_here(entries, as_json)
    act = partial(checked, place)

    def render(found: Checked) -> None:
        for line in check_lines(found):
            say(line)

    if as_json:
        document_each("check", entries, act, check_content, lambda found: found.exit_code)
    else:
        show_each(entries, act, render, lambda found: found.exit_code)


def register(app: typer.Typer) -> None:
    """Add these commands to the application."""
    for command in (lint, check):
        app.command(rich_help_panel="CI")(command)

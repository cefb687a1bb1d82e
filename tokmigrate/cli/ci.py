"""Commands for CI: validate, lint, check, test."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from tokmigrate.cli import console
from tokmigrate.cli.each import Command, run_each
from tokmigrate.cli.options import (
    AcceptDrift,
    AsJson,
    Here,
    Models,
    open_workspace,
    select_models,
    select_present,
    with_drift_setting,
)
from tokmigrate.cli.output import echo, echo_err, print_json
from tokmigrate.commands import check as checking
from tokmigrate.commands import lint as linting
from tokmigrate.commands import roundtrip
from tokmigrate.errors import TokmigrateError, UsageError
from tokmigrate.lint import selection
from tokmigrate.render import check as check_report
from tokmigrate.render import json as json_report
from tokmigrate.render import lint as lint_report
from tokmigrate.render import lock as lock_report
from tokmigrate.revision import validate as validation

if TYPE_CHECKING:
    from tokmigrate.settings import ModelEntry, Workspace

Codes = Annotated[
    list[str] | None, typer.Option(help="Run only these rules, by code or prefix; repeatable.", metavar="CODES")
]
Ignored = Annotated[
    list[str] | None, typer.Option(help="Skip these rules, by code or prefix; repeatable.", metavar="CODES")
]
Format = Annotated[
    Literal["text", "json", "github", "sarif"] | None,
    typer.Option("--format", help="Set the output format; default: text."),
]


def validate(as_json: AsJson = False) -> None:
    """Check migration files and the lock; no model is needed.

    Checks the order of migrations, that there is one head, checksums, and pinned ids.
    """
    valid = validation.validate(open_workspace())
    if as_json:
        print_json(json_report.document("validate", **lock_report.valid_content(valid)))
        return
    for line in lock_report.valid_lines(valid):
        echo(line)


def lint(
    model: Models = None,
    select: Codes = None,
    ignore: Ignored = None,
    git_base: Annotated[
        str | None,
        typer.Option(help="Check only migrations that changed since the branch left this commit.", metavar="REV"),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 on warnings too.")] = False,
    output: Format = None,
    as_json: AsJson = False,
) -> None:
    """Check migrations against the lint rules.

    Exits with 1 on errors; writes nothing. docs/rules.md lists the rules. Some rules need a model: pending migrations
    are planned on each model that is present. `# noqa: TM101` at the end of a line accepts a finding; `lint:` in
    tokmigrate.yaml sets `select` and `ignore` permanently.
    """
    if as_json and output not in (None, "json"):
        raise UsageError(f"--json contradicts --format {output}", hint="leave one of them out")
    workspace = open_workspace()
    configured = linting.select_rules(workspace)
    asked = selection.Selection.of(select or (), ignore or (), "the command line")
    rules = selection.Selection(asked.select or configured.select, (*asked.ignore, *configured.ignore))
    try:
        linted = linting.lint(workspace, workspace.select(model or []), rules, git_base)
    except TokmigrateError as error:
        if output == "github":
            sys.stdout.write(lint_report.problem_commands(error, workspace.root))
        if output == "json" and not as_json:
            print_json(json_report.error_document(error))
            raise typer.Exit(error.exit_code) from error
        raise
    if as_json or output == "json":
        print_json(json_report.document("lint", **lint_report.findings_content(linted)))
    elif output == "sarif":
        print_json(lint_report.sarif(linted))
    elif output == "github":
        sys.stdout.write(lint_report.workflow_commands(linted))
    else:
        for note in linted.notes:
            echo_err(f"note: {note}")
        console.print_rich(lint_report.findings_text(linted))
    if linted.errors or (strict and linted.warnings):
        raise typer.Exit(1)


@dataclass(frozen=True)
class CheckCommand(Command["checking.Checked"]):
    """`check` for one model."""

    name = "check"

    workspace: Workspace

    def run(self, entry: ModelEntry) -> checking.Checked:
        """Compare a model with its migrations."""
        return checking.check(self.workspace, entry)

    def render(self, result: checking.Checked) -> None:
        """Print what is pending, what drifted and what was trained."""
        for line in check_report.check_lines(result):
            echo(line)

    def content(self, result: checking.Checked) -> dict[str, Any]:
        """Return what is pending, what drifted and what was trained as JSON."""
        return check_report.check_content(result)

    def exit_code(self, result: checking.Checked) -> int:
        """Return 0, 3 if migrations are pending, 4 on drift."""
        return result.exit_code


def check(model: Models = None, here: Here = False, as_json: AsJson = False) -> None:
    """Exit with 0 if up to date, 3 if pending, 4 on drift.

    Writes nothing. Retrained weights and re-saved but equivalent files are reported but are not drift. Drift is a token
    with another id, a rule, role or template that differs from the migrations, or a stamp that is missing, edited or of
    another model. Lost undo data exits with 4 too, and migrations that no downgrade can undo are listed.
    """
    workspace = open_workspace()
    entries = select_models(workspace, model)
    if here:
        entries = select_present(entries, as_json)
    run_each(CheckCommand(workspace), entries, as_json)


@dataclass(frozen=True)
class TestCommand(Command["roundtrip.RoundTrip"]):
    """`test` for one model.

    Args:
        workspace: The workspace.
        from_base: Whether to run every migration, not only pending ones.
        full_copy: Whether to use a full copy of the model.
    """

    name = "test"

    workspace: Workspace
    from_base: bool
    full_copy: bool

    def run(self, entry: ModelEntry) -> roundtrip.RoundTrip:
        """Run migrations up, down and up on a copy of a model."""
        subject: Literal["copy", "dummy"] = "copy" if self.full_copy else "dummy"
        return roundtrip.run_roundtrip(self.workspace, entry, subject, from_base=self.from_base)

    def render(self, result: roundtrip.RoundTrip) -> None:
        """Print the files that came out differently."""
        console.print_rich(check_report.roundtrip_text(result))

    def content(self, result: roundtrip.RoundTrip) -> dict[str, Any]:
        """Return the files that came out differently as JSON."""
        return check_report.roundtrip_content(result)

    def exit_code(self, result: roundtrip.RoundTrip) -> int:
        """Return 1 if a file came out differently."""
        return 1 if result.mismatches else 0


def test(
    model: Models = None,
    every: Annotated[bool, typer.Option("--all", help="Run every migration from base, not only pending ones.")] = False,
    copy: Annotated[bool, typer.Option("--copy", help="Use a full copy of the model, weights included.")] = False,
    accept_drift: AcceptDrift = False,
    as_json: AsJson = False,
) -> None:
    """Run migrations up, down and up on a copy, and compare bytes.

    Exits with 1 if a file comes out differently. By default the copy is a dummy model in a temporary directory, with
    the model's own files and tensor names but rows of four numbers, so that a model of any size takes seconds. The
    libraries load the result as in `upgrade` (`verify:` in tokmigrate.yaml). The model is never changed. If its weights
    are not present, config.json gives their shapes.
    """
    workspace = with_drift_setting(open_workspace(), accept_drift)
    run_each(TestCommand(workspace, every, copy), select_models(workspace, model), as_json)

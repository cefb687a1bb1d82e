"""Commands for CI: validate, lint, check, test."""

from __future__ import annotations

import sys
from typing import Annotated, Literal

import typer
from typer import Option

from tokmigrate.cli.each import ModelResults, Result, print_result
from tokmigrate.cli.options import AcceptDrift, AsJson, Here, Models, open_workspace, select_models
from tokmigrate.cli.output import print_json
from tokmigrate.commands import check as checking
from tokmigrate.commands import check_target as checking_target
from tokmigrate.commands import lint as linting
from tokmigrate.commands import roundtrip
from tokmigrate.errors import TokmigrateError, UsageError
from tokmigrate.lint import linter
from tokmigrate.render import check as check_report
from tokmigrate.render import lint as lint_report
from tokmigrate.render import lock as lock_report
from tokmigrate.revision import lock_file

Codes = Annotated[
    list[str] | None, Option(help="Run only these rules, by code or prefix; repeatable.", metavar="CODES")
]
Ignored = Annotated[list[str] | None, Option(help="Skip these rules, by code or prefix; repeatable.", metavar="CODES")]
Format = Annotated[
    Literal["github", "gitlab", "sarif"] | None,
    Option("--format", help="Print what GitHub or GitLab shows at a line, or a SARIF log."),
]


def validate(as_json: AsJson = False) -> None:
    """Check migration files and the lock; no model is needed.

    Checks the order of migrations, that there is one head, checksums, and pinned ids.
    """
    valid = lock_file.validate(open_workspace())
    print_result("validate", Result(lock_report.valid_content(valid), lock_report.valid_lines(valid)), as_json)


def lint(
    model: Models = None,
    select: Codes = None,
    ignore: Ignored = None,
    git_base: Annotated[
        str | None, Option(help="Check only migrations that changed since the branch left this commit.", metavar="REV")
    ] = None,
    strict: Annotated[bool, Option("--strict", help="Exit with 1 on warnings too.")] = False,
    output: Format = None,
    as_json: AsJson = False,
) -> None:
    """Check migrations against the lint rules.

    Exits with 1 on errors; writes nothing. `tokmigrate explain` lists the rules. Some rules need a model: pending
    migrations are planned on each model that is present. `# noqa: TM101` at the end of a line accepts a finding;
    `lint:` in tokmigrate.yaml sets `select` and `ignore` permanently.
    """
    if as_json and output:
        raise UsageError(f"--json contradicts --format {output}", hint="leave one of them out")
    workspace = open_workspace()
    configured = linting.select_rules(workspace)
    asked = linter.Selection.of(select or (), ignore or (), "the command line")
    rules = linter.Selection(asked.select or configured.select, (*asked.ignore, *configured.ignore))
    try:
        linted = linting.lint(workspace, workspace.select(model or []), rules, git_base)
    except TokmigrateError as error:
        if output == "github":
            sys.stdout.write(lint_report.problem_commands(error, workspace.root))
        raise
    code = 1 if linted.errors or (strict and linted.warnings) else 0
    if output == "github":
        sys.stdout.write(lint_report.workflow_commands(linted))
        raise typer.Exit(code)
    if output is not None:
        print_json(lint_report.sarif(linted) if output == "sarif" else lint_report.code_quality(linted))
        raise typer.Exit(code)
    text, notes = lint_report.findings_text(linted), [f"note: {note}" for note in linted.notes]
    print_result("lint", Result(lint_report.findings_content(linted), [text], notes, code), as_json)


def check(
    model: Models = None,
    here: Here = False,
    copies: Annotated[bool, Option("--copies", help="Exit with 1 if a copy of a model is not current.")] = False,
    target: Annotated[
        Literal["gguf", "vllm", "tgi", "onnx"] | None, Option(help="Check what this program would read instead.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Exit with 0 if up to date, 3 if pending, 4 on drift.

    Writes nothing. Retrained weights and re-saved but equivalent files are reported but are not drift. Drift is a token
    with another id, a rule, role or template that differs from the migrations, or a stamp that is missing, edited or of
    another model. Lost undo data exits with 4 too, and migrations that no downgrade can undo are listed. Copies that
    tokmigrate.yaml lists are compared, and a stale one is a warning; `--copies` makes it an error.

    With `--target` it says what llama.cpp's converter, vLLM, text-generation-inference or ONNX Runtime would read of
    each model and its adapters, and what would differ from transformers; it exits with 1 on errors. The rules are
    listed on tokmigrate.github.io/tokmigrate/servers.html.
    """
    workspace = open_workspace()
    results = ModelResults("check", select_models(workspace, model, here), as_json)
    if target and copies:
        raise UsageError("--copies contradicts --target", hint="run `tokmigrate check` twice")
    for entry in results.entries:
        with results.keep_error(entry):
            if target:
                read = checking_target.check_target(entry, target)
                content, shown = check_report.target_content(read), check_report.target_lines(read)
                results.add(Result(content, shown, exit_code=int(read.errors > 0)))
                continue
            found = checking.check(workspace, entry)
            content, lines = check_report.check_content(found), check_report.check_lines(found)
            outdated = copies and any(copy.state != "current" for copy in found.copies)
            results.add(Result(content, lines, exit_code=found.exit_code or int(outdated)))
    results.finish()


def test(
    model: Models = None,
    every: Annotated[bool, Option("--all", help="Run every migration from base, not only pending ones.")] = False,
    accept_drift: AcceptDrift = False,
    as_json: AsJson = False,
) -> None:
    """Run migrations up, down and up on a copy, and compare bytes.

    Exits with 1 if a file comes out differently. The copy is a dummy model in a temporary directory, with the model's
    own files and tensor names but rows of four numbers, so that a model of any size takes seconds. The
    libraries load the result as in `upgrade` (`verify:` in tokmigrate.yaml). The model is never changed. If its weights
    are not present, config.json gives their shapes.
    """
    workspace = open_workspace(accept_drift)
    results = ModelResults("test", select_models(workspace, model), as_json)
    for entry in results.entries:
        with results.keep_error(entry):
            done = roundtrip.run_roundtrip(workspace, entry, from_base=every)
            content, lines = check_report.roundtrip_content(done), check_report.roundtrip_lines(done)
            results.add(Result(content, lines, exit_code=1 if done.mismatches else 0))
    results.finish()

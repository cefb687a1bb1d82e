"""The command plan."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from typer import Argument, Option

from tokmigrate import events
from tokmigrate.cli.each import ModelResults, Result
from tokmigrate.cli.options import (
    REVISION_NAMES,
    AcceptDrift,
    AsJson,
    Field,
    Here,
    Models,
    complete_revision,
    open_workspace,
    select_models,
)
from tokmigrate.cli.output import declare_changes, echo, echo_err, print_json
from tokmigrate.commands import plan as planning
from tokmigrate.errors import UsageError
from tokmigrate.model.worker import corpus_files
from tokmigrate.plan import corpus as plan_corpus
from tokmigrate.render import impact, plan_markdown, terminal
from tokmigrate.render import plan as plan_report

if TYPE_CHECKING:
    from tokmigrate.commands.plan import BoundPlan
    from tokmigrate.render.plan_markdown import PlannedModel


def plan(
    revision: Annotated[str, Argument(help=REVISION_NAMES, autocompletion=complete_revision)] = "head",
    model: Models = None,
    here: Here = False,
    corpus: Annotated[
        Path | None,
        Option(
            help="Count how the plan changes the tokenization of this file, line by line.",
            metavar="FILE",
            exists=True,
            dir_okay=False,
            readable=True,
        ),
    ] = None,
    field: Field = None,
    output: Annotated[
        Path | None,
        Option("--output", "-o", help="Write the plan to a file for `upgrade --plan`; - is stdout.", metavar="FILE"),
    ] = None,
    form: Annotated[
        Literal["markdown"] | None, Option("--format", help="Print Markdown for the comment under a pull request.")
    ] = None,
    accept_drift: AcceptDrift = False,
    as_json: AsJson = False,
) -> None:
    """Show what an upgrade would change, without writing anything.

    The plan begins with its figures, then lists tokens, rows, files and risks; --json lists all of them. With
    `--corpus FILE` (a text in each line, JSON Lines or Parquet) it also counts the texts that are tokenized
    differently, those that get other ids, tokens, unknown tokens, and texts longer than the model takes, and shows the
    texts that change most. Texts are counted as a model gets them, with the special tokens around them. The longest
    text is given by `model_max_length`, or else by the positions in config.json. If nothing in the plan changes
    tokenization, the file is not read.

    `-o FILE` writes a plan that is bound to the migrations, the files and the state that it was made from:
    `upgrade --plan FILE` applies it and nothing else. With `-o -` it goes to stdout, and all else to stderr.

    `--format markdown` prints one document for all models, short enough for a comment on GitHub.
    """
    to_stdout = output == Path("-")
    for flag, is_given in (("--json", as_json), ("--format markdown", form)):
        if to_stdout and is_given:
            raise UsageError(f"-o - and {flag} both go to stdout", hint="name a file: -o FILE")
    if as_json and form:
        raise UsageError(f"--json contradicts --format {form}", hint="leave one of them out")
    workspace = open_workspace(accept_drift)
    entries = select_models(workspace, model, here)
    bounds: list[BoundPlan] = []
    planned: dict[str, PlannedModel] = {}
    results = ModelResults("plan", entries, as_json)
    with terminal.progress() as on_progress:
        for entry in entries:
            with results.keep_error(entry):
                made = planning.plan(workspace, entry, to=revision)
                for warning in made.warnings:
                    on_progress(events.Warned(entry.name, warning))
                if output is not None:
                    bounds.append(planning.bind_plan(workspace, made))
                # Of a large vocabulary the document is made only where it is printed.
                content = plan_report.plan_content(made) if as_json else {}
                counted = None
                if corpus:
                    measured = plan_corpus.measure(made, corpus, on_progress, field=field or corpus_files.FIELD)
                    content["impact"], counted = impact.impact_content(measured), impact.impact_text(measured)
                if form:
                    planned[entry.name] = plan_markdown.PlannedModel(entry.name, made, counted)
                else:
                    parts = [plan_report.plan_text(made), *([counted] if counted is not None else [])]
                    if entry is not entries[0]:
                        parts.insert(0, "")
                    results.add(Result(content, notes=parts) if to_stdout else Result(content, parts))
    if form:
        failed = {name: plan_markdown.PlannedModel(name, error) for name, error in results.failures.items()}
        sys.stdout.write(plan_markdown.format_markdown([(planned | failed)[entry.name] for entry in entries]))
    results.finish()
    if to_stdout:
        print_json(planning.format_plans(bounds))
    elif output is not None:
        declare_changes()
        planning.write_plans(output, bounds)
        if not as_json:
            file = shlex.quote(str(output))
            tell = echo_err if form else echo
            tell(f"wrote {file}: `tokmigrate upgrade --plan {file}` applies it")

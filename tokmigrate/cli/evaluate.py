"""The command that measures a model on text."""

from __future__ import annotations

from typing import Annotated

from typer import Option

from tokmigrate.cli.each import Result, print_result
from tokmigrate.cli.options import AsJson, Field, Model, complete_revision, open_workspace, select_model
from tokmigrate.commands import evaluations
from tokmigrate.errors import StorageError, UsageError
from tokmigrate.model.worker import corpus_files
from tokmigrate.render import evaluation as report
from tokmigrate.render import terminal
from tokmigrate.training import evaluate as measuring


def evaluate(
    corpus: Annotated[
        list[str], Option("--corpus", help="Measure on these texts; repeatable; directories and - too.", metavar="FILE")
    ],
    model: Model = None,
    old: Annotated[
        str | None,
        Option(
            "--old",
            help="Compare with this revision, or with the model in a directory.",
            metavar="REV|DIR",
            show_default="base",
            autocompletion=complete_revision,
        ),
    ] = None,
    to: Annotated[
        str | None,
        Option(
            "--to",
            help="Compare with what an upgrade to this revision would leave.",
            metavar="REV",
            autocompletion=complete_revision,
        ),
    ] = None,
    field: Field = None,
    limit: Annotated[
        int | None, Option("--limit", help="Read so much text, the last one whole.", metavar="BYTES", min=1)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure a model on text, before and after its migrations.

    A model that predicts tokens is measured in nats per byte, since a loss per token says nothing where the tokens
    differ, and in tokens per byte; on text without new tokens also by how far the predictions are from those before
    (KL). A model that embeds texts is measured by the cosine of each embedding with the one before.

    Each text is tokenized whole, and read in windows of as many tokens as the model takes, at most 1,024 (512 of a
    model that embeds), which begin and end at the same places of the text on both sides. The first token of a window is
    context and does not count, unless the tokenizer puts a token before the text.

    Nothing of the model is changed. With `--to head` pending migrations are measured before they are applied; all else
    is kept for `tokmigrate report`.
    """
    if old is not None and to is not None:
        raise UsageError("--old and --to both say what to compare with", hint="give one of them")
    workspace = open_workspace()
    entry = select_model(workspace, model)
    with corpus_files.open_corpus(corpus, field) as texts, terminal.progress() as on_progress:
        found = measuring.evaluate(workspace, entry, texts, old=old, to=to, limit=limit, on_progress=on_progress)
    content, notes = report.evaluation_content(found), []
    if to is None:
        try:
            evaluations.keep_evaluation(workspace, entry.name, found.contents, content)
        except StorageError as error:
            notes.append(f"note: it is not kept for `tokmigrate report`: {error}")
    print_result("evaluate", Result(content, report.evaluation_text(content), notes), as_json)

"""The command that distils the rows of new tokens."""

from __future__ import annotations

from typing import Annotated

from typer import Option

from tokmigrate.cli import train as training
from tokmigrate.cli.each import Result, print_result
from tokmigrate.cli.options import AsJson, Field, Models
from tokmigrate.commands import models
from tokmigrate.model.worker import corpus_files
from tokmigrate.render import distil as report
from tokmigrate.render import terminal
from tokmigrate.training import distil as distilling


def distil(
    corpus: Annotated[
        list[str], Option("--corpus", help="Choose snippets from these texts; repeatable.", metavar="FILE|DIR")
    ],
    message: Annotated[str, Option("--message", "-m", help="Set the message of the migration.")],
    model: Models = None,
    field: Field = None,
    tokens: Annotated[
        str, Option("--tokens", help="Distil these: untrained, new, or a file with a token in each line.")
    ] = "untrained",
    steps: Annotated[int, Option("--steps", help="Learn for so many steps.", metavar="N", min=1)] = 100,
    rate: Annotated[
        float,
        Option("--lr", help="Set the learning rate, relative to the size of the rows.", metavar="RATE", min=0.0),
    ] = 0.1,
    as_json: AsJson = False,
) -> None:
    """Distil the rows of new tokens from the model before them.

    The model reads a text with the tokenizer from before the tokens, and with its own; the rows of the new tokens learn
    until it makes the same of both, and all other weights stay. The texts are snippets of the corpus, up to a hundred
    for each token. A tenth of them is held out, and the distance is measured there before and after: of a decoder, how
    much of the last hidden states differs; of an encoder, one minus the cosine of the embeddings. The migration gives
    the tokens the rows that were learned (reinit_tokens with files beside it).
    """
    with (
        training.open_for_training(model, message) as (workspace, entry),
        corpus_files.open_corpus(corpus, field) as texts,
        terminal.progress() as on_progress,
    ):
        done = distilling.distil_rows(workspace, entry, texts, message, tokens, steps, rate, on_progress=on_progress)
    path = models.format_path(workspace, done.path)
    content, text = report.distil_content(entry.name, done, path), report.distil_text(entry.name, done, path)
    print_result("distil", Result(content, text), as_json)

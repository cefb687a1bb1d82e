"""The command that distils the rows of new tokens."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Annotated

from typer import Option

from tokmigrate.cli import train as training
from tokmigrate.cli.each import Result, print_result
from tokmigrate.cli.options import AsJson, Field, Model
from tokmigrate.commands import models
from tokmigrate.model.worker import corpus_files
from tokmigrate.render import distil as report
from tokmigrate.render import terminal
from tokmigrate.training import distil as distilling
from tokmigrate.training.run_settings import UNTRAINED, DistilSettings


def distil(
    corpus: Annotated[
        list[str] | None,
        Option("--corpus", help="Choose snippets from these texts; repeatable.", metavar="FILE|DIR"),
    ] = None,
    message: Annotated[
        str, Option("--message", "-m", help="Set the message of the migration.")
    ] = "Distil the rows of new tokens",
    model: Model = None,
    field: Field = None,
    tokens: Annotated[
        str,
        Option("--tokens", help="Distil these: untrained, new, or a file with one in each line.", metavar="WHICH"),
    ] = UNTRAINED,
    token: Annotated[
        list[str] | None, Option("--token", help="Distil this token; repeatable.", metavar="TOKEN")
    ] = None,
    steps: Annotated[int, Option("--steps", help="Train so many steps.", metavar="N", min=1)] = DistilSettings.steps,
    rate: Annotated[
        float | None,
        Option("--lr", help="Set the learning rate, not 0.03 (of an encoder 0.1).", metavar="RATE"),
    ] = None,
    batch_size: Annotated[
        int, Option("--batch-size", help="Use so many snippets in a step.", metavar="N", min=1)
    ] = DistilSettings.batch_size,
    snippets: Annotated[
        int, Option("--snippets", help="Choose at most so many snippets for a token.", metavar="N", min=1)
    ] = DistilSettings.snippets,
    seed: Annotated[int, Option("--seed", help="Set which snippets, and their order.", metavar="N", min=0)] = 0,
    as_json: AsJson = False,
) -> None:
    """Distil the rows of new tokens from the model before them.

    The model reads a text with the tokenizer from before the tokens, and with its own; the rows of the new tokens learn
    until it makes the same of both, and all other weights stay. The output rows of a decoder learn to predict the
    tokens. The texts are snippets of the corpus; of tokens that it does not have, or without one, a decoder writes them
    itself, with the tokens from before. Special tokens stand for no text and are left out unless they are named. The
    migration gives the tokens the rows that were learned (reinit_tokens with files beside it), and `tokmigrate upgrade`
    applies it.

    A tenth of the snippets is held out, and the distance is measured there before and after: of a decoder, how much of
    the last hidden states differs from the first new token on; of an encoder, one minus the cosine of the embeddings.
    The learning rate is a share of the size of the embeddings' numbers, as in `train`.
    """
    chosen = DistilSettings(training.choose_tokens(tokens, token or []), steps, rate, batch_size, snippets, seed)
    with (
        training.open_for_training(model, message) as (workspace, entry),
        corpus_files.open_corpus(corpus, field) if corpus else nullcontext() as texts,
        terminal.progress() as on_progress,
    ):
        done = distilling.distil_rows(workspace, entry, texts, message, chosen, on_progress)
    path = models.format_path(workspace, done.path)
    content, text = report.distil_content(entry.name, done, path), report.distil_text(entry.name, done, path)
    print_result("distil", Result(content, text), as_json)

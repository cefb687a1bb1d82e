"""Commands that train or distil the rows of new tokens, bake those that an adapter holds, or measure a model."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from typer import Argument, Option

from tokmigrate import files
from tokmigrate.cli.each import Result, print_result
from tokmigrate.cli.options import (
    MESSAGE,
    AsJson,
    Field,
    Message,
    Model,
    complete_revision,
    open_workspace,
    open_workspace_for_writing,
    select_model,
)
from tokmigrate.commands import bake as baking
from tokmigrate.commands import evaluations, models
from tokmigrate.commands import lock as locking
from tokmigrate.errors import StorageError, UsageError
from tokmigrate.model.worker import corpora
from tokmigrate.operations import token_lists
from tokmigrate.render import evaluation, terminal
from tokmigrate.render import train as report
from tokmigrate.revision import history, lock_file, new_file
from tokmigrate.settings import workspace as paths
from tokmigrate.training import adapter as adapters
from tokmigrate.training import distil as distilling
from tokmigrate.training import evaluate as measuring
from tokmigrate.training import train as training
from tokmigrate.training.run_settings import NEW, UNTRAINED, DistilSettings, TrainSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tokmigrate.settings import ModelEntry, Workspace


Steps = Annotated[int, Option("--steps", help="Train so many steps.", metavar="N", min=1)]


def train(
    data: Annotated[list[str], Option("--data", help="Train on these texts or chats; repeatable.", metavar="FILE|DIR")],
    message: Message = "Train the rows of new tokens",
    model: Model = None,
    field: Field = None,
    tokens: Annotated[
        str,
        Option("--tokens", help="Train these: untrained, new, or a file with one in each line.", metavar="WHICH"),
    ] = UNTRAINED,
    token: Annotated[list[str] | None, Option("--token", help="Train this token; repeatable.", metavar="TOKEN")] = None,
    steps: Steps = TrainSettings.steps,
    rate: Annotated[
        float,
        Option("--lr", help="Set the learning rate, relative to the size of the rows.", metavar="RATE"),
    ] = TrainSettings.learning_rate,
    batch_size: Annotated[
        int, Option("--batch-size", help="Use so many texts in a step.", metavar="N", min=1)
    ] = TrainSettings.batch_size,
    max_length: Annotated[
        int | None,
        Option(
            "--max-length",
            help="Set the most tokens of a text; longer ones are divided.",
            metavar="N",
            min=2,
            show_default="what the model takes, at most 512",
        ),
    ] = None,
    seed: Annotated[int, Option("--seed", help="Set the order of the texts.", metavar="N", min=0)] = 0,
    with_lora: Annotated[
        Path | None,
        Option("--with-lora", help="Train a LoRA too, with these fields in JSON.", metavar="CONFIG"),
    ] = None,
    output: Annotated[
        Path | None,
        Option("--output", help="Write the adapter there, with --with-lora.", metavar="DIR", show_default="MODEL-lora"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train the rows of new tokens; write a migration with them.

    All other weights stay. The texts are lines, JSON Lines or Parquet; records with `messages` are chats, which the
    model's chat template turns into text. A token that does not occur in them keeps its row. The migration gives the
    tokens the rows that were learned (reinit_tokens with files beside it), and `tokmigrate upgrade` applies it.

    The learning rate is a share of the root mean square of the embeddings' numbers: 0.1 changes a number by 10 % of
    that in a step. An interrupted run continues where the same command is given again.

    With `--with-lora` the rows and a LoRA are trained together. CONFIG holds fields of peft's LoraConfig, and the
    LoRA's own `learning_rate`. The result is an adapter; the command prints the lines that list it in tokmigrate.yaml.
    """
    if with_lora is None and output is not None:
        raise UsageError("--output is for an adapter", hint="give --with-lora CONFIG, or leave out --output")
    lora = None if with_lora is None else adapters.read_lora(with_lora)
    chosen = TrainSettings(choose_tokens(tokens, token or []), steps, rate, batch_size, max_length, seed, lora)
    with (
        open_for_training(model, message) as (workspace, entry),
        corpora.open_corpus(data, field) as texts,
        terminal.progress() as on_progress,
    ):
        if lora is not None and output is None:
            output = entry.path.with_name(f"{entry.path.name}-lora")
        done = training.train_rows(workspace, entry, texts, message, chosen, output, on_progress)
    path = models.format_path(workspace, Path.cwd() / done.path)
    text = report.train_text(entry, done, path, is_adapter=lora is not None)
    print_result("train", Result(report.rows_content(entry, done, path), text), as_json)


def distil(
    corpus: Annotated[
        list[str] | None,
        Option("--corpus", help="Choose snippets from these texts; repeatable.", metavar="FILE|DIR"),
    ] = None,
    message: Message = "Distil the rows of new tokens",
    model: Model = None,
    field: Field = None,
    tokens: Annotated[
        str,
        Option("--tokens", help="Distil these: untrained, new, or a file with one in each line.", metavar="WHICH"),
    ] = UNTRAINED,
    token: Annotated[
        list[str] | None, Option("--token", help="Distil this token; repeatable.", metavar="TOKEN")
    ] = None,
    steps: Steps = DistilSettings.steps,
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
    chosen = DistilSettings(choose_tokens(tokens, token or []), steps, rate, batch_size, snippets, seed)
    with (
        open_for_training(model, message) as (workspace, entry),
        corpora.open_corpus(corpus, field) if corpus else nullcontext() as texts,
        terminal.progress() as on_progress,
    ):
        done = distilling.distil_rows(workspace, entry, texts, message, chosen, on_progress)
    path = models.format_path(workspace, done.path)
    text = report.distil_text(entry, done, path)
    print_result("distil", Result(report.rows_content(entry, done, path), text), as_json)


def choose_tokens(tokens: str, named: list[str]) -> str | list[str]:
    """Return what `choose_rows` takes: a word, or the tokens of a file and those that are named."""
    if tokens not in (UNTRAINED, NEW):
        if not files.has_file(Path(tokens)):
            hint = "give `untrained`, `new`, or a file with a token in each line; --token TEXT names one"
            raise UsageError("there is no such file of tokens", where=tokens, hint=hint)
        return list(dict.fromkeys([*token_lists.read_tokens(tokens, files.read_file(Path(tokens))), *named]))
    if named and tokens == NEW:
        raise UsageError("--tokens new and --token name other tokens", hint="leave out one, or list all in a file")
    return named or tokens


def bake(
    adapter: Annotated[Path, Argument(help="Use this adapter of peft.", metavar="ADAPTER")],
    message: Annotated[str | None, MESSAGE] = None,
    model: Model = None,
    output: Annotated[
        Path | None,
        Option("--output", "-o", help="Write the plain LoRA there, not to ADAPTER-plain.", metavar="DIR"),
    ] = None,
    rows: Annotated[
        Literal["all", "new"] | None,
        Option("--rows", help="Choose all rows that differ, or those of new tokens only."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write an adapter's token rows into a migration of its model.

    Servers such as vLLM and llama.cpp load low-rank factors only. The rows of tokens that peft keeps beside them
    (trainable_token_indices, modules_to_save, matrices that were resized) become a migration of the base, and the
    factors are written into a new directory. Adapter and model stay as they are.
    """
    directory = paths.absolute(Path.cwd(), str(adapter))
    message = message or f"Bake the rows of {directory.name}"
    target = paths.absolute(Path.cwd(), str(output or f"{directory}-plain"))
    with open_for_training(model, message) as (workspace, entry):
        baked = baking.bake_adapter(workspace, entry, directory, message, target, rows)
    print_result("bake", Result(report.bake_content(baked), report.bake_text(baked, workspace, entry)), as_json)


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
    with corpora.open_corpus(corpus, field) as texts, terminal.progress() as on_progress:
        found = measuring.evaluate(workspace, entry, texts, old=old, to=to, limit=limit, on_progress=on_progress)
    content, notes = evaluation.evaluation_content(found), []
    if to is None:
        try:
            evaluations.keep_evaluation(workspace, entry.name, found.contents, content)
        except StorageError as error:
            notes.append(f"note: it is not kept for `tokmigrate report`: {error}")
    print_result("evaluate", Result(content, evaluation.evaluation_text(content), notes), as_json)


@contextmanager
def open_for_training(model: str | None, message: str) -> Iterator[tuple[Workspace, ModelEntry]]:
    """Give the workspace and the model to train; lock the migration that is written for it, with the ids it gives."""
    new_file.check_message(message)
    workspace = open_workspace_for_writing()
    entry = select_model(workspace, model)
    if workspace.models.get(entry.name) != entry:
        hint = "list it under `models:` in tokmigrate.yaml"
        raise UsageError("a migration is written for a model of the workspace", where=entry.name, hint=hint)
    known = lock_file.read_lock(workspace)
    yield workspace, entry
    if history.History.read(workspace).chain() and locking.lock_head(workspace, known):
        locking.update_lock(workspace, [entry], lock_file.read_lock(workspace))

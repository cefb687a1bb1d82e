"""Commands that run a model: they measure it, and train its new rows."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from typer import Argument, Option

from tokmigrate.cli.each import Result, print_result
from tokmigrate.cli.options import AsJson, Field, Models, open_workspace_for_writing, select_models
from tokmigrate.commands import bake as baking
from tokmigrate.commands import lock as locking
from tokmigrate.errors import UsageError
from tokmigrate.model.worker import corpus_files
from tokmigrate.render import bake as bake_report
from tokmigrate.render import terminal
from tokmigrate.revision import lock_file, new_file
from tokmigrate.settings import workspace as paths
from tokmigrate.training import train as training

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tokmigrate.settings import ModelEntry, Workspace


def train(
    data: Annotated[list[str], Option("--data", help="Train on these texts; repeatable.", metavar="FILE|DIR")],
    message: Annotated[str, Option("--message", "-m", help="Set the message of the migration.")],
    model: Models = None,
    field: Field = None,
    tokens: Annotated[
        str, Option("--tokens", help="Train these: untrained, new, or a file with a token in each line.")
    ] = "untrained",
    steps: Annotated[int, Option("--steps", help="Train so many steps.", metavar="N", min=1)] = 100,
    learning_rate: Annotated[float, Option("--lr", help="Set the learning rate.", metavar="RATE", min=0.0)] = 1e-2,
    as_json: AsJson = False,
) -> None:
    """Train the rows of new tokens; write a migration with them."""
    with (
        open_for_training(model, message) as (workspace, entry),
        corpus_files.open_corpus(data, field) as texts,
        terminal.progress() as on_progress,
    ):
        done = training.train_rows(
            workspace, entry, texts, message, tokens, steps, learning_rate, on_progress=on_progress
        )
    lines = [f"wrote {done.path}", *(f"step {step}: {loss:.3f}" for step, loss in done.losses.items())]
    print_result("train", Result({"path": str(done.path)}, lines), as_json)


def bake(
    adapter: Annotated[Path, Argument(help="Use this adapter of peft.", metavar="ADAPTER")],
    message: Annotated[str | None, Option("--message", "-m", help="Set the message of the migration.")] = None,
    model: Models = None,
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
    print_result(
        "bake", Result(bake_report.bake_content(baked), bake_report.bake_lines(baked, workspace, entry.name)), as_json
    )


@contextmanager
def open_for_training(model: list[str] | None, message: str) -> Iterator[tuple[Workspace, ModelEntry]]:
    """Give the workspace and the model to train; lock the migration that is written for it, with the ids it gives."""
    new_file.check_message(message)
    workspace = open_workspace_for_writing()
    entries = select_models(workspace, model)
    if len(entries) != 1:
        raise UsageError("one model is trained at a time", hint="name it: --model NAME")
    known = lock_file.read_lock(workspace)
    yield workspace, entries[0]
    if locking.lock_head(workspace, known):
        locking.update_lock(workspace, entries, lock_file.read_lock(workspace))

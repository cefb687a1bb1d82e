"""Trains the rows of new tokens, and nothing else, on text; the result is a migration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blake3 import blake3

from tokmigrate.errors import UsageError
from tokmigrate.events import OnProgress, no_progress
from tokmigrate.model.worker.corpus_files import Corpus, read_blocks
from tokmigrate.revision.learned_rows import write_learned_rows
from tokmigrate.settings import ModelEntry, Workspace
from tokmigrate.training.loaded_model import LoadedModel, load_model
from tokmigrate.training.new_rows import NewRows, add_trainable_rows, choose_rows, read_rows
from tokmigrate.training.trainer import pad_ids, run_trainer

_LONGEST = 512
"""The tokens of a text that is trained on; longer ones are cut into several."""


@dataclass(frozen=True)
class TrainedRows:
    """What training did.

    Args:
        path: The migration that holds the rows.
        occurrences: How often the tokens occur in the data.
        losses: The loss by step, in nats per token.
    """

    path: Path
    tokens: tuple[str, ...]
    steps: int
    occurrences: int
    losses: Mapping[int, float]


def train_rows(
    workspace: Workspace,
    entry: ModelEntry,
    data: Corpus,
    message: str,
    tokens: str | Sequence[str],
    steps: int,
    learning_rate: float,
    *,
    batch_size: int = 8,
    seed: int = 0,
    on_progress: OnProgress = no_progress,  # noqa: ARG001
) -> TrainedRows:
    """Train the rows of new tokens on text, and write a migration that gives the model these rows.

    Raises:
        UsageError: There are no such tokens, or none occurs in the data.
        ModelError: The model cannot be loaded.
        LimitError: There is not enough memory for it.
    """
    rows = choose_rows(workspace, entry, tokens)
    loaded = load_model(entry.path)
    digest = blake3()
    examples = list(_tokenize(loaded, _read_texts(data, digest)))
    occurrences = sum(number in rows.tokens for example in examples for number in example)
    if not occurrences:
        hint = "train on text with the new tokens; chat messages have them from the template"
        raise UsageError("none of the tokens to train occurs in the data", where=data.name, hint=hint)
    losses = _run(loaded, rows, examples, steps, learning_rate, batch_size, seed)
    learned = read_rows(loaded.model, rows.ids)
    names = [rows.tokens[number] for number in rows.ids]
    provenance = {
        "command": "train",
        "data": digest.hexdigest(),
        "steps": steps,
        "learning_rate": learning_rate,
        "batch_size": batch_size,
        "seed": seed,
    }
    path = write_learned_rows(workspace, entry, message, names, learned, provenance)
    return TrainedRows(path, tuple(names), steps, occurrences, losses)


def _read_texts(data: Corpus, digest: Any) -> Iterator[str]:
    for file in data.files:
        for block in read_blocks(file):
            for _, text in block.texts:
                digest.update(text.encode() + b"\0")
                yield text


def _tokenize(loaded: LoadedModel, texts: Iterator[str]) -> Iterator[list[int]]:
    longest = min(loaded.longest or _LONGEST, _LONGEST)
    for text in texts:
        ids = loaded.tokenizer.encode(text).ids
        yield from (ids[start : start + longest] for start in range(0, len(ids), longest))


def _run(
    loaded: LoadedModel,
    rows: NewRows,
    examples: Sequence[list[int]],
    steps: int,
    learning_rate: float,
    batch_size: int,
    seed: int,
) -> dict[int, float]:
    """Train the rows in place, and return the loss by step."""
    import torch  # noqa: PLC0415

    def join(batch: Sequence[list[int]]) -> dict[str, Any]:
        ids, mask = pad_ids(batch)
        return {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100)}

    torch.manual_seed(seed)
    model = add_trainable_rows(loaded, rows)
    losses = run_trainer(
        model,
        examples,
        join,
        device=loaded.device,
        steps=steps,
        learning_rate=learning_rate,
        batch_size=batch_size,
        seed=seed,
    )
    model.merge_and_unload()
    return losses

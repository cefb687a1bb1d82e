"""Trains the rows of new tokens on texts and chats; the result is a migration, or with a LoRA an adapter."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from blake3 import blake3

from tokmigrate import __version__
from tokmigrate.commands.models import check_output
from tokmigrate.errors import ModelError, StoppedError, UsageError
from tokmigrate.events import OnProgress, no_progress, report_activity
from tokmigrate.formatting import format_count, format_list, format_quoted
from tokmigrate.init.file_strategy import LOSSES, find_provenance
from tokmigrate.model.worker.corpora import Corpus
from tokmigrate.revision.history import History
from tokmigrate.settings import ModelEntry, Workspace
from tokmigrate.training.adapter import LORA_RATE, RATE, read_adapter_provenance, save_adapter
from tokmigrate.training.examples import IGNORED, Example, Examples, collect_examples
from tokmigrate.training.loaded_model import LoadedModel, load_models
from tokmigrate.training.new_rows import (
    NewRows,
    add_trainable_rows,
    build_optimizer,
    check_installed,
    check_learning_rate,
    choose_rows,
    read_rows,
    write_rows,
)
from tokmigrate.training.run_settings import TrainSettings, build_provenance
from tokmigrate.training.trainer import find_checkpoint, pad_ids, run_trainer

_MODEL_FILES = (".safetensors", ".json", ".jinja")
_RECORDED = 200
"""Of about how many steps the provenance has the loss."""


@dataclass(frozen=True)
class TrainedRows:
    """What training did.

    Args:
        path: The migration that holds the rows, or the directory of the adapter.
        tokens: The tokens whose rows were trained.
        absent: Those that do not occur in what was used of the data, and keep their rows.
        texts: How many texts the data has.
        used: How many of them, or of their parts, have a token to train; `others` are those without that were used too.
        losses: The loss by step, in nats per token.
        resumed: The step from which an interrupted run went on, 0 for none.
        was_done: Whether the same run was done before; `texts`, `used` and `others` are 0 then.
    """

    path: Path
    tokens: tuple[str, ...]
    absent: tuple[str, ...]
    texts: int
    used: int
    others: int
    losses: Mapping[int, float] = field(repr=False)
    resumed: int = 0
    was_done: bool = False


def train_rows(
    workspace: Workspace,
    entry: ModelEntry,
    data: Corpus,
    message: str,
    settings: TrainSettings,
    output: Path | None = None,
    on_progress: OnProgress = no_progress,
) -> TrainedRows:
    """Train the rows of new tokens, and write a migration that gives the model these rows, or an adapter with them.

    A run that was interrupted goes on from its last checkpoint; the migration or the adapter is written at the end.

    Args:
        message: That of the migration.
        output: The directory of the adapter, where there is a LoRA.

    Raises:
        UsageError: There are no such tokens, none occurs in the data, or a library is missing.
        FileProblems: The data cannot be read.
        ModelError: The model cannot be loaded, or predicts no text.
        LimitError: There is not enough memory for it.
    """
    check_installed()
    check_learning_rate(settings.learning_rate)
    provenance = build_provenance("train", data, settings)
    run = _name_run(entry, data, {**provenance, "tokens": settings.tokens, "version": __version__})
    provenance["run"] = run
    done = _find_done(workspace, entry, run, output)
    if done is not None:
        return done
    if output is not None:
        check_output(output, entry.path)
    rows = choose_rows(workspace, entry, settings.tokens)
    (loaded,) = load_models(entry.path)
    if loaded.kind != "causal":
        hint = "`tokmigrate distil` trains the rows of a model that embeds texts"
        raise ModelError("it predicts no text", where=str(entry.path), hint=hint)
    with report_activity(on_progress, entry.name, "reading"):
        most = settings.steps * settings.batch_size
        examples = collect_examples(loaded, data, rows.ids, settings.max_length, most)
    if not examples.items:
        hint = f"give texts with {format_quoted(list(rows.tokens.values()))}; chats get those of the chat template"
        raise UsageError("none of the tokens to train occurs in the data", where=data.name, hint=hint)
    absent = tuple(rows.tokens[number] for number in rows.ids if number not in examples.found)
    rows = rows.only(examples.found)
    checkpoints = workspace.root / ".tokmigrate" / "training" / run
    saved = find_checkpoint(checkpoints)
    before = read_rows(loaded.model, rows.ids)
    model = _add_parameters(loaded, rows, settings)
    exact = _run(loaded, model, examples, settings, checkpoints, entry.name, on_progress)
    losses = {step: round(loss, 4) for step, loss in exact.items()}
    every = -(-len(losses) // _RECORDED)
    provenance[LOSSES] = {step: loss for step, loss in losses.items() if step % every == 0 or step == 1}
    if output is not None:
        save_adapter(model, output, {**provenance, "version": __version__, "tokens": rows.names})
        path = output
    else:
        model.merge_and_unload()
        remark = f"Trained in {format_count(settings.steps, 'step')} on {format_list(provenance['data'])}."
        path = write_rows(workspace, entry, message, rows, before, loaded.model, provenance, [remark])
    shutil.rmtree(checkpoints, ignore_errors=True)
    resumed = int(saved.name.rpartition("-")[2]) if saved else 0
    others = len(examples.items) - examples.used
    return TrainedRows(path, rows.names, absent, examples.texts, examples.used, others, losses, resumed)


def _add_parameters(loaded: LoadedModel, rows: NewRows, settings: TrainSettings) -> Any:
    """Return the model with the parameters that learn; those of a LoRA begin with random numbers."""
    import torch  # noqa: PLC0415 - seconds

    torch.manual_seed(settings.seed)
    lora = None if settings.lora is None else {key: value for key, value in settings.lora.items() if key != RATE}
    return add_trainable_rows(loaded, rows, lora)


def _run(
    loaded: LoadedModel,
    model: Any,
    examples: Examples,
    settings: TrainSettings,
    checkpoints: Path,
    name: str,
    on_progress: OnProgress,
) -> dict[int, float]:
    """Train the parameters in place, and return the loss by step."""

    def join(batch: Sequence[Example]) -> dict[str, Any]:
        ids, mask = pad_ids([each.ids for each in batch])
        labels, _ = pad_ids([each.labels for each in batch], IGNORED)
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}

    lora_rate = (settings.lora or {}).get(RATE, LORA_RATE)
    try:
        return run_trainer(
            model,
            examples.items,
            join,
            loaded=loaded,
            name=name,
            longest=max(len(example.ids) for example in examples.items),
            settings=settings,
            optimizer=build_optimizer(model, settings.learning_rate, lora_rate),
            on_progress=on_progress,
            checkpoints=checkpoints,
        )
    except KeyboardInterrupt as error:
        hint = "nothing was written; the same command continues from the last checkpoint"
        raise StoppedError("stopped", hint=hint if find_checkpoint(checkpoints) else None) from error


def _name_run(entry: ModelEntry, data: Corpus, settings: Mapping[str, Any]) -> str:
    """Return a name for a run by all that its result depends on; the model is the same as long as its files are."""
    files = [(path.name, path.stat()) for path in sorted(entry.here().iterdir()) if path.suffix in _MODEL_FILES]
    what = {
        **settings,
        "fields": [file.field for file in data.files],
        "model": [(name, status.st_size, status.st_mtime_ns) for name, status in files],
    }
    return blake3(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]


def _find_done(workspace: Workspace, entry: ModelEntry, run: str, output: Path | None) -> TrainedRows | None:
    """Return what a run made when it was done before, where that is the head, or the adapter; None else."""
    if output is not None:
        told, path = read_adapter_provenance(output), output
        tokens = told.get("tokens", ()) if told else ()
    else:
        chain = History.read(workspace).chain_for(entry)
        head = chain[-1] if chain else None
        told = find_provenance(head.attachments) if head else None
        path = head.path if head else Path()
        changes = head.operations[0].operation.token_changes() if head and told else None
        tokens = changes.reinitialised if changes else ()
    if not told or told.get("run") != run:
        return None
    losses = {int(step): loss for step, loss in told[LOSSES].items()}
    return TrainedRows(path, tuple(tokens), (), 0, 0, 0, losses, was_done=True)

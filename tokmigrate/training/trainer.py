"""The training loop that commands share: transformers' Trainer, quiet, and resumed where it was interrupted."""

from __future__ import annotations

import json
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from tokmigrate.errors import LimitError, ModelError, StorageError, in_one_line
from tokmigrate.events import OnProgress, report_activity
from tokmigrate.files import read_file, storage_errors
from tokmigrate.training.loaded_model import LoadedModel, find_free_memory, silence_libraries
from tokmigrate.training.run_settings import DistilSettings, TrainSettings

_CHECKPOINTS = 10
"""How many times a run is saved at least."""

_SAVE_AFTER_S = 60.0
"""It is also saved after so many seconds."""

_KEPT_PER_LAYER = 48
"""How many numbers a layer keeps for the backward pass, by token and number of the hidden state."""

T = TypeVar("T")


def choose_examples(examples: Sequence[T], find_tokens: Callable[[T], Collection[int]], most: int) -> list[T]:
    """Return a random sample of at most so many examples, in which each token occurs if they suffice for that."""
    if len(examples) <= most:
        return list(examples)
    seen: set[int] = set()
    first: list[T] = []
    others: list[T] = []
    for example in random.Random(0).sample(examples, len(examples)):  # noqa: S311 - a sample
        found = find_tokens(example)
        (others if seen.issuperset(found) else first).append(example)
        seen.update(found)
    return [*first, *others][:most]


def run_trainer(
    model: Any,
    examples: Sequence[Any],
    join: Callable[[Sequence[Any]], Mapping[str, Any]],
    *,
    loaded: LoadedModel,
    name: str,
    longest: int,
    settings: TrainSettings | DistilSettings,
    optimizer: Any,
    on_progress: OnProgress,
    checkpoints: Path | None = None,
) -> dict[int, float]:
    """Train the parameters of a module that learn, in place, and return the loss by step.

    Args:
        model: A module around that of `loaded`, whose `forward` takes what `join` makes of examples and returns `loss`.
        join: Makes a batch of examples.
        name: What a user calls the model.
        longest: The most tokens of an example.
        checkpoints: Where the run is saved from time to time, and resumed; nowhere by default.

    Raises:
        ModelError: The model cannot be trained, or the parameters became an infinity or a NaN.
        LimitError: There is not enough memory for it.
        StorageError: The run cannot be saved.
    """
    from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments  # noqa: PLC0415 - seconds

    class Progress(TrainerCallback):  # type: ignore[misc]
        saved = time.monotonic()

        def on_train_begin(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
            count_steps(state.global_step)

        def on_step_end(self, _args: Any, _state: Any, control: Any, **_: Any) -> None:
            count_steps(1)
            if checkpoints and time.monotonic() - self.saved > _SAVE_AFTER_S:
                control.should_save, self.saved = True, time.monotonic()

    steps, batch_size = settings.steps, settings.batch_size
    parts = divide_batch(loaded, longest, batch_size)
    with ExitStack() as stack:
        count_steps = stack.enter_context(report_activity(on_progress, name, "training", steps, "steps"))
        stack.enter_context(explain_errors(name, checkpoints))
        stack.enter_context(silence_libraries())
        folder = checkpoints or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tokmigrate-")))
        arguments = TrainingArguments(
            output_dir=str(folder),
            max_steps=steps,
            per_device_train_batch_size=batch_size // parts,
            gradient_accumulation_steps=parts,
            logging_steps=1,
            save_strategy="steps" if checkpoints else "no",
            save_steps=max(1, steps // _CHECKPOINTS),
            save_total_limit=2,
            report_to=[],
            seed=settings.seed,
            disable_tqdm=True,
            use_cpu=loaded.device.type == "cpu",
            remove_unused_columns=False,
            dataloader_pin_memory=False,
        )
        if arguments.n_gpu > 1:
            # The model is on one of them, and a copy on each would make the batch larger.
            arguments._n_gpu = 1
        trainer = Trainer(
            model=model,
            args=arguments,
            train_dataset=examples,
            data_collator=join,
            optimizers=(optimizer, None),
            callbacks=[Progress()],
        )
        trainer.remove_callback(PrinterCallback)
        saved = find_checkpoint(checkpoints) if checkpoints else None
        trainer.train(resume_from_checkpoint=str(saved) if saved else None)
    if not all(bool(each.isfinite().all()) for each in model.parameters() if each.requires_grad):
        if checkpoints:
            shutil.rmtree(checkpoints, ignore_errors=True)
        raise ModelError("training diverged: rows hold an infinity or a NaN", where=name, hint="lower --lr")
    return {each["step"]: each["loss"] for each in trainer.state.log_history if "loss" in each}


@contextmanager
def explain_errors(name: str, checkpoints: Path | None = None) -> Iterator[None]:
    """Raise what libraries say of training as run_trainer does; `name` is what a user calls the model."""
    import torch  # noqa: PLC0415 - seconds
    from safetensors import SafetensorError  # noqa: PLC0415

    try:
        with storage_errors("save the run", checkpoints):
            yield
    except torch.OutOfMemoryError as error:
        hint = "lower --batch-size, or --max-length where there is one"
        raise LimitError("the memory of the GPU does not suffice", where=name, hint=hint) from error
    except (ValueError, RuntimeError, SafetensorError) as error:
        said = in_one_line(str(error))
        # These errors of a full disk have no type of their own.
        if isinstance(error, SafetensorError) or "PytorchStreamWriter" in said or "unexpected pos" in said:
            raise StorageError(
                f"cannot save the run: {said}", where=str(checkpoints), hint="free disk space"
            ) from error
        hint = "train it with a trainer of your own: docs/trainers.md"
        raise ModelError(f"it cannot be trained: {said}", where=name, hint=hint) from error


def find_checkpoint(folder: Path) -> Path | None:
    """Return the last checkpoint that is complete, and remove those that are not; None where there is none."""
    found: dict[int, Path] = {}
    for path in folder.glob("checkpoint-*"):
        try:
            # It is written last.
            state = json.loads(read_file(path / "trainer_state.json"))
            found[int(state["global_step"])] = path
        except (StorageError, ValueError, KeyError, TypeError):
            shutil.rmtree(path, ignore_errors=True)
    return found[max(found)] if found else None


def pad_ids(sequences: Sequence[Sequence[int]], pad: int = 0) -> tuple[Any, Any]:
    """Return token ids as a tensor `(sequences, longest)`, and the mask that leaves out padding."""
    import torch  # noqa: PLC0415

    ids = torch.full((len(sequences), max(map(len, sequences))), pad, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for line, each in enumerate(sequences):
        ids[line, : len(each)], mask[line, : len(each)] = torch.tensor(each), 1
    return ids, mask


def divide_batch(loaded: LoadedModel, longest: int, batch_size: int) -> int:
    """Return into how many passes a batch is divided so that about half of the free memory suffices for one."""
    free = find_free_memory(loaded.device)
    config = loaded.model.config.get_text_config()
    # Logits with their gradient, and what each layer keeps for the backward pass, in float32.
    a_token = 4 * (4 * config.vocab_size + _KEPT_PER_LAYER * config.hidden_size * config.num_hidden_layers)
    fit = batch_size if free is None else max(1, free // 2 // (a_token * longest))
    return next(parts for parts in range(1, batch_size + 1) if batch_size % parts == 0 and batch_size // parts <= fit)

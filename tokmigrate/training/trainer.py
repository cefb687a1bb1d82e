"""The training loop that commands share: transformers' Trainer, quiet, and resumed where it was interrupted."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tokmigrate.commands.resources import free_memory
from tokmigrate.training.loaded_model import LoadedModel, silence_libraries

_CHECKPOINTS = 10
"""How many times a run is saved at least."""

_SAVE_AFTER_S = 60.0
"""It is also saved after so many seconds."""

_KEPT_PER_LAYER = 48
"""How many numbers a layer keeps for the backward pass, by token and number of the hidden state."""


def run_trainer(
    model: Any,
    examples: Sequence[Any],
    join: Callable[[Sequence[Any]], Mapping[str, Any]],
    *,
    device: Any,
    steps: int,
    learning_rate: float,
    batch_size: int,
    seed: int,
    optimizer: Any = None,
    parts: int = 1,
    checkpoints: Path | None = None,
    count_steps: Callable[[int], None] = lambda _: None,
) -> dict[int, float]:
    """Train the parameters of a module that learn, in place, and return the loss by step.

    Args:
        model: A module whose `forward` takes what `join` makes of examples, and returns `loss`.
        join: Makes a batch of examples.
        optimizer: What updates the parameters, AdamW with `learning_rate` by default.
        parts: How many passes a batch is divided into; they divide `batch_size`.
        checkpoints: Where the run is saved from time to time, and resumed; nowhere by default.
        count_steps: Called with how many more steps are done.
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

    with ExitStack() as stack:
        stack.enter_context(silence_libraries())
        folder = checkpoints or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tokmigrate-")))
        arguments = TrainingArguments(
            output_dir=str(folder),
            max_steps=steps,
            learning_rate=learning_rate,
            per_device_train_batch_size=batch_size // parts,
            gradient_accumulation_steps=parts,
            logging_steps=1,
            save_strategy="steps" if checkpoints else "no",
            save_steps=max(1, steps // _CHECKPOINTS),
            save_total_limit=2,
            report_to=[],
            seed=seed,
            disable_tqdm=True,
            use_cpu=device.type == "cpu",
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
    return {each["step"]: each["loss"] for each in trainer.state.log_history if "loss" in each}


def find_checkpoint(folder: Path) -> Path | None:
    """Return the last checkpoint that is complete, and remove those that are not; None where there is none."""
    found: dict[int, Path] = {}
    for path in folder.glob("checkpoint-*"):
        try:
            # It is written last.
            state = json.loads((path / "trainer_state.json").read_bytes())
            found[int(state["global_step"])] = path
        except (OSError, ValueError, KeyError, TypeError):
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
    import torch  # noqa: PLC0415

    free = torch.cuda.mem_get_info()[0] if loaded.device.type == "cuda" else free_memory()
    config = loaded.model.config.get_text_config()
    # Logits with their gradient, and what each layer keeps for the backward pass, in float32.
    a_token = 4 * (4 * config.vocab_size + _KEPT_PER_LAYER * config.hidden_size * config.num_hidden_layers)
    fit = batch_size if free is None else max(1, free // 2 // (a_token * longest))
    return next(parts for parts in range(1, batch_size + 1) if batch_size % parts == 0 and batch_size // parts <= fit)

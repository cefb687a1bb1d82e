"""The training loop that commands share: transformers' Trainer, quiet and without checkpoints."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tokmigrate.training.loaded_model import silence_libraries


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
) -> dict[int, float]:
    """Train the parameters of a module that learn, in place, and return the loss by step.

    Args:
        model: A module whose `forward` takes what `join` makes of examples, and returns `loss`.
        join: Makes a batch of examples.
    """
    from transformers import PrinterCallback, Trainer, TrainingArguments  # noqa: PLC0415 - seconds

    with tempfile.TemporaryDirectory(prefix="tokmigrate-") as folder, silence_libraries():
        arguments = TrainingArguments(
            output_dir=folder,
            max_steps=steps,
            learning_rate=learning_rate,
            per_device_train_batch_size=batch_size,
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            seed=seed,
            disable_tqdm=True,
            use_cpu=device.type == "cpu",
            remove_unused_columns=False,
            dataloader_pin_memory=False,
        )
        trainer = Trainer(model=model, args=arguments, train_dataset=examples, data_collator=join)
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return {each["step"]: each["loss"] for each in trainer.state.log_history if "loss" in each}


def pad_ids(sequences: Sequence[Sequence[int]], pad: int = 0) -> tuple[Any, Any]:
    """Return token ids as a tensor `(sequences, longest)`, and the mask that leaves out padding."""
    import torch  # noqa: PLC0415

    ids = torch.full((len(sequences), max(map(len, sequences))), pad, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for line, each in enumerate(sequences):
        ids[line, : len(each)], mask[line, : len(each)] = torch.tensor(each), 1
    return ids, mask

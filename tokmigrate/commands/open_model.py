"""Open a model, or, where its weights are missing, a dummy model."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tokmigrate.model.dummy_model import lacks_weights, make_dummy_without_weights
from tokmigrate.settings import ModelEntry


@dataclass(frozen=True)
class OpenedModel:
    """What something was tried on.

    Args:
        model: The model's name.
        subject: The model itself, or a dummy model of it.
    """

    model: str
    subject: Literal["model", "dummy"]


def trial_of(entry: ModelEntry) -> OpenedModel:
    """Return what `open_model_or_dummy` gives for a model."""
    return OpenedModel(entry.name, "dummy" if lacks_weights(entry.path) else "model")


@contextmanager
def open_model_or_dummy(entry: ModelEntry) -> Iterator[ModelEntry]:
    """Give the model itself, or a dummy model where its weights are not here and its configuration is.

    The dummy model has the model's files, ids, number of rows and stamp, and so the same states before and after a
    migration; its rows hold nothing, and it is gone afterwards.

    Raises:
        WeightsError: The weights are not here, and what shapes they have is not known.
    """
    if not lacks_weights(entry.path):
        yield entry
        return
    with tempfile.TemporaryDirectory(prefix="tokmigrate-") as folder:
        yield make_dummy_without_weights(entry, Path(folder, "model"))

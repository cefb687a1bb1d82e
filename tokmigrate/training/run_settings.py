"""What a training run is given, and what the files of its migration say of that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from blake3 import blake3

from tokmigrate.files import open_for_reading
from tokmigrate.model.worker.corpora import Corpus

UNTRAINED, NEW = "untrained", "new"

_LIBRARIES = ("torch", "transformers", "peft", "tokenizers")
_NAMED = 20
"""How many files of the data the provenance names; its digest is of all."""


@dataclass(frozen=True)
class TrainSettings:
    """How rows are trained.

    Args:
        tokens: Which ones, as `choose_rows` takes them.
        learning_rate: As a share of the size of the embeddings' numbers, see `build_optimizer`.
        batch_size: The texts of a step.
        max_length: The most tokens of a text, None for what the model takes, at most 512.
        lora: Fields of a LoraConfig, and `learning_rate`, its own; None to train rows alone.
    """

    tokens: str | Sequence[str] = UNTRAINED
    steps: int = 100
    learning_rate: float = 0.1
    batch_size: int = 8
    max_length: int | None = None
    seed: int = 0
    lora: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class DistilSettings:
    """How rows are distilled.

    Args:
        tokens: Which ones, as `choose_rows` takes them.
        learning_rate: As a share of the size of the embeddings' numbers, see `build_optimizer`; the one of the kind
            of model if None.
        batch_size: The snippets of a step.
        snippets: How many a token gets at most.
    """

    tokens: str | Sequence[str] = UNTRAINED
    steps: int = 100
    learning_rate: float | None = None
    batch_size: int = 16
    snippets: int = 100
    seed: int = 0


def build_provenance(command: str, data: Corpus | None, settings: TrainSettings | DistilSettings) -> dict[str, Any]:
    """Return what is known before a run: its data by name and digest, if any, its settings, and the libraries."""
    files = data.files if data else ()
    return {
        "command": command,
        "data": [Path(file.name).name for file in files[:_NAMED]],
        "data_digest": _digest_data(data) if data else None,
        **{name: value for name, value in asdict(settings).items() if name != "tokens"},
        "libraries": {name: version(name) for name in _LIBRARIES},
    }


def _digest_data(data: Corpus) -> str:
    digest = blake3()
    for file in data.files:
        with open_for_reading(Path(file.path)) as held:
            while block := held.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()

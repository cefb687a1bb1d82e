"""How near the embedding of a text stays to what it was before a migration, of an encoder."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokmigrate.errors import ModelError
from tokmigrate.files import read_if_present
from tokmigrate.model.documents.state import MODULES
from tokmigrate.training.aligned_windows import Window
from tokmigrate.training.loaded_model import LoadedModel
from tokmigrate.training.token_match import TokenMatch
from tokmigrate.training.trainer import pad_ids

_BATCH = 64
_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""The fields that said how sentence-transformers pools, each with what `pooling_mode` has in their place today."""


def read_pooling(directory: Path) -> tuple[str, ...]:
    """Return how a directory of sentence-transformers pools, in the order of what it concatenates; else the mean.

    Raises:
        ModelError: It pools in a way that is not known.
    """
    data = read_if_present(directory / MODULES)
    for module in json.loads(data) if data else ():
        if module.get("type", "").rpartition(".")[2] == "Pooling":
            path = directory / module.get("path", "") / "config.json"
            held = json.loads(read_if_present(path) or b"{}")
            wanted = held.get("pooling_mode") or [mode for name, mode in _FLAGS.items() if held.get(name)] or "mean"
            modes = (wanted,) if isinstance(wanted, str) else tuple(wanted)
            unknown = set(modes) - set(_FLAGS.values())
            if unknown:
                hint = f"known are {', '.join(_FLAGS.values())}"
                raise ModelError(f"'{min(unknown)}' is a pooling that is not known", where=str(path), hint=hint)
            return modes
    return ("mean",)


def pool(states: Any, mask: Any, modes: Sequence[str]) -> Any:
    """Return the embeddings of texts, `(texts, hidden)`, and several of them one after the other.

    Args:
        states: The last hidden states, `(texts, tokens, hidden)`, filled up on the right.
        mask: Which tokens there are, `(texts, tokens)`.
    """
    import torch  # noqa: PLC0415

    there = mask[:, :, None].to(states.dtype)
    places = torch.arange(1, states.shape[1] + 1, device=states.device, dtype=states.dtype)[None, :, None] * there
    made: Mapping[str, Any] = {
        "cls": lambda: states[:, 0],
        "max": lambda: states.masked_fill(there == 0, -torch.inf).amax(1),
        "mean": lambda: (states * there).sum(1) / there.sum(1),
        "mean_sqrt_len_tokens": lambda: (states * there).sum(1) / there.sum(1).sqrt(),
        "weightedmean": lambda: (states * places).sum(1) / places.sum(1),
        "lasttoken": lambda: states[torch.arange(len(states)), mask.sum(1) - 1],
    }
    return torch.cat([made[mode]() for mode in modes], 1)


@dataclass
class Cosines:
    """The cosines of embeddings before and after: how many texts, their sum and the least one."""

    texts: int = 0
    total: float = 0.0
    least: float = 1.0

    @property
    def mean(self) -> float | None:
        """The mean; None of no text."""
        return self.total / self.texts if self.texts else None


@dataclass
class Embeddings:
    """What was measured of an encoder, on texts without new tokens and on the others."""

    pooling: tuple[str, ...]
    same: Cosines = field(default_factory=Cosines)
    other: Cosines = field(default_factory=Cosines)

    @property
    def sums(self) -> tuple[float, ...]:
        """All that was added up, in which a NaN stays."""
        return self.same.total, self.other.total


class EncoderMeasure:
    """Measures two encoders on texts, in batches."""

    def __init__(
        self, before: LoadedModel, after: LoadedModel, match: TokenMatch, count_bytes: Callable[[int], None]
    ) -> None:
        """Prepare to measure; `count_bytes` is called with how much of the corpus was measured."""
        import torch  # noqa: PLC0415

        self.found = Embeddings(read_pooling(after.directory))
        self._torch, self._sides, self._match, self._count_bytes = torch, (before, after), match, count_bytes
        self._waiting: list[Window] = []
        self._read = 0

    def add(self, window: Window, read: int) -> None:
        """Measure a text by its first window, together with others; `read` bytes of the corpus were read for it."""
        self._waiting.append(window)
        self._read += read
        if len(self._waiting) >= _BATCH:
            self.finish()

    def finish(self) -> None:
        """Measure all texts that were added."""
        if not self._waiting:
            return
        with self._torch.inference_mode():
            old, new = (self._compute_embeddings(side) for side in (0, 1))
            cosines = self._torch.nn.functional.cosine_similarity(old.double(), new.double()).tolist()
        for window, cosine in zip(self._waiting, cosines, strict=True):
            kind = self.found.same if self._match.is_same(*window.ids) else self.found.other
            kind.texts += 1
            kind.total += cosine
            kind.least = min(kind.least, cosine)
        self._waiting.clear()
        self._count_bytes(self._read)
        self._read = 0

    def _compute_embeddings(self, side: int) -> Any:
        loaded = self._sides[side]
        ids, mask = (tensor.to(loaded.device) for tensor in pad_ids([window.ids[side] for window in self._waiting]))
        states = loaded.run(ids, mask).last_hidden_state.float()
        return pool(states, mask, self.found.pooling)

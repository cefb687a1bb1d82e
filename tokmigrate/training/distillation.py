"""How far a model that reads new tokens is from itself reading the earlier ones, as a loss of the new rows.

Teacher and student are one model: the teacher's rows are not those that learn.

- A decoder: the mean square between the last hidden states of both, as a share of the teacher's, where the same text
  was read, from the first new token on. That has no gradient for the output side, whose rows learn what the model
  predicted before: a new token as likely as its pieces one after the other, and no other new token. The hidden states
  are held fixed for that, so neither side disturbs the other.
- An encoder: one minus the cosine between the two embeddings of a text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from tokmigrate.errors import ModelError
from tokmigrate.training.embeddings import pool, read_pooling
from tokmigrate.training.loaded_model import LoadedModel
from tokmigrate.training.trainer import pad_ids

_SMALL = 1e-6
"""Probabilities are kept as far from 0 and 1."""


@dataclass(frozen=True)
class Pair:
    """One text as both tokenizers tokenize it, in rows of the model.

    Args:
        places: Where the same text was read, as places in `student` and in `teacher`.
        predicted: The places in `student` before a new token: each with the places of the teacher's tokens before the
            first and before the last of its pieces.
    """

    student: Sequence[int]
    teacher: Sequence[int]
    places: Sequence[tuple[int, int]]
    predicted: Mapping[int, tuple[int, int]]


def join_pairs(pairs: Sequence[Pair], pad: int) -> dict[str, Any]:
    """Return a batch as `Distillation.forward` takes it."""
    student, student_mask = pad_ids([pair.student for pair in pairs], pad)
    teacher, teacher_mask = pad_ids([pair.teacher for pair in pairs], pad)
    places = [(line, *both) for line, pair in enumerate(pairs) for both in pair.places]
    steps: list[tuple[int, int]] = []
    pieces: list[tuple[int, int, int]] = []
    for line, pair in enumerate(pairs):
        for place in range(len(pair.student) - 1):
            first, last = pair.predicted.get(place, (0, -1))
            pieces += [(len(steps), line, piece) for piece in range(first, last + 1)]
            steps.append((line, place))
    return {
        "student": student,
        "student_mask": student_mask,
        "teacher": teacher,
        "teacher_mask": teacher_mask,
        "places": torch.tensor(places, dtype=torch.long).reshape(-1, 3),
        "steps": torch.tensor(steps, dtype=torch.long).reshape(-1, 2),
        "pieces": torch.tensor(pieces, dtype=torch.long).reshape(-1, 3),
    }


class Distillation(torch.nn.Module):  # type: ignore[misc]
    """A model whose loss is its distance from the earlier tokenization.

    Args:
        trained: The model of `loaded` with the rows that learn, as peft wraps it.
        ids: These rows.
    """

    def __init__(self, loaded: LoadedModel, trained: torch.nn.Module, ids: Sequence[int]) -> None:
        super().__init__()
        self.trained = trained
        self._model = [loaded.model]  # not a module of its own a second time
        self._is_decoder = loaded.kind == "causal"
        self._directory = loaded.directory
        self._pooling = read_pooling(loaded.directory)
        self._ids = list(ids)

    def train(self, mode: bool = True) -> Distillation:  # noqa: ARG002
        """Stay in evaluation mode: dropout would be noise between teacher and student."""
        super().train(False)
        return self

    def forward(
        self,
        student: Any,
        student_mask: Any,
        teacher: Any,
        teacher_mask: Any,
        places: Any,
        steps: Any,
        pieces: Any,
    ) -> dict[str, torch.Tensor]:
        """Return the `loss`, and the `distance` that is a part of it."""
        if not self._is_decoder:
            return self._compare_embeddings(student, student_mask, teacher, teacher_mask)
        with torch.no_grad():
            wanted, logits = self._predict(teacher, teacher_mask, pieces[:, 1], pieces[:, 2])
            following = teacher[pieces[:, 1], pieces[:, 2] + 1]
            likelihoods = logits.log_softmax(-1).gather(1, following[:, None])[:, 0]
            likely = likelihoods.new_zeros(len(steps)).index_add(0, pieces[:, 0], likelihoods).exp()
        states, logits = self._predict(student, student_mask, steps[:, 0], steps[:, 1])
        wanted = wanted[places[:, 0], places[:, 2]].float()
        distance = (states[places[:, 0], places[:, 1]].float() - wanted).square().sum() / wanted.square().sum()
        loss = self._compare_predictions(logits, student[steps[:, 0], steps[:, 1] + 1], pieces[:, 0], likely)
        return {"loss": distance + loss, "distance": distance}

    def _predict(self, ids: Any, mask: Any, line: Any, place: Any) -> tuple[Any, Any]:
        """Return the last hidden states, and the logits `(places, rows)` at some places, without gradient to them."""
        found: list[Any] = []

        def take(_: Any, given: tuple[Any, ...]) -> tuple[Any, ...]:
            found.append(given[0])
            return (given[0][line, place].detach()[None], *given[1:])

        # What a model does to its logits is kept so.
        hook = self._model[0].get_output_embeddings().register_forward_pre_hook(take)
        try:
            logits = self._model[0](input_ids=ids, attention_mask=mask).logits
        finally:
            hook.remove()
        if not found:
            hint = "train the rows instead: `tokmigrate train`"
            raise ModelError("it computes logits without its output layer", where=str(self._directory), hint=hint)
        return found[0], logits[0].float()

    def _compare_predictions(self, logits: Any, following: Any, with_pieces: Any, likely: Any) -> Any:
        """Return how far the chances of new tokens are from those of their pieces, as two means over places.

        Where no new token follows, none is to be likely. Where one follows whose pieces do not begin and end with it,
        nothing is learned.
        """
        whole = logits.logsumexp(-1)
        new = torch.zeros(logits.shape[-1], dtype=torch.bool, device=logits.device)
        new[self._ids] = True
        none = whole - logits.masked_fill(new, -torch.inf).logsumexp(-1)
        at = with_pieces.unique()
        wanted = likely[at].clamp(_SMALL, 1 - _SMALL)
        chance = (logits[at, following[at]] - whole[at]).exp().clamp(_SMALL, 1 - _SMALL)
        apart = wanted * (wanted / chance).log() + (1 - wanted) * ((1 - wanted) / (1 - chance)).log()
        none = none[~new[following]]
        return sum(each.sum() / max(1, len(each)) for each in (none, apart))

    def _compare_embeddings(self, student: Any, student_mask: Any, teacher: Any, teacher_mask: Any) -> dict[str, Any]:
        body = self._model[0].base_model
        with torch.no_grad():
            wanted = body(input_ids=teacher, attention_mask=teacher_mask).last_hidden_state
        states = body(input_ids=student, attention_mask=student_mask).last_hidden_state
        both = (
            pool(states.float(), student_mask, self._pooling),
            pool(wanted.float(), teacher_mask, self._pooling),
        )
        distance = (1 - torch.nn.functional.cosine_similarity(*both, dim=-1)).mean()
        return {"loss": distance, "distance": distance}


def measure_distance(
    distillation: Distillation, pairs: Sequence[Pair], batch_size: int, pad: int, device: Any
) -> tuple[float, float]:
    """Return the mean distance over batches of texts, and what the predictions add to the loss; 0 of an encoder."""
    found: list[tuple[float, float]] = []
    with torch.inference_mode():
        for start in range(0, len(pairs), batch_size):
            batch = join_pairs(pairs[start : start + batch_size], pad)
            loss = distillation(**{name: each.to(device) for name, each in batch.items()})
            found.append((float(loss["distance"]), float(loss["loss"] - loss["distance"])))
    distances, predictions = zip(*found, strict=True)
    return sum(distances) / len(found), sum(predictions) / len(found)

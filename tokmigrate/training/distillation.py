"""How far a model that reads new tokens is from itself reading the earlier ones, as a loss of the new rows.

Teacher and student are one model: the teacher's rows are not those that learn.

- A decoder: the mean square between the last hidden states of both, as a share of the teacher's, where the same text
  was read, from the first new token on. The output side has no gradient from that. It learns by cross-entropy of the
  next token, with the hidden states held fixed: so neither side disturbs the other.
- An encoder: one minus the cosine between the two embeddings of a text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch

from tokmigrate.training.loaded_model import LoadedModel
from tokmigrate.training.trainer import pad_ids

Pooling = Literal["mean", "cls"]


@dataclass(frozen=True)
class Pair:
    """One text as both tokenizers tokenize it, in rows of the model.

    Args:
        places: Where the same text was read, as places in `student` and in `teacher`.
    """

    student: Sequence[int]
    teacher: Sequence[int]
    places: Sequence[tuple[int, int]]


def join_pairs(pairs: Sequence[Pair], pad: int) -> dict[str, Any]:
    """Return a batch as `Distillation.forward` takes it."""
    student, student_mask = pad_ids([pair.student for pair in pairs], pad)
    teacher, teacher_mask = pad_ids([pair.teacher for pair in pairs], pad)
    places = [(line, *both) for line, pair in enumerate(pairs) for both in pair.places]
    return {
        "student": student,
        "student_mask": student_mask,
        "teacher": teacher,
        "teacher_mask": teacher_mask,
        "places": torch.tensor(places, dtype=torch.long).reshape(-1, 3),
    }


class Distillation(torch.nn.Module):  # type: ignore[misc]
    """A model whose loss is its distance from the earlier tokenization.

    Args:
        trained: The model of `loaded` with the rows that learn, as peft wraps it.
    """

    def __init__(self, loaded: LoadedModel, trained: torch.nn.Module, pooling: Pooling) -> None:
        super().__init__()
        self.trained = trained
        self._model = [loaded.model]  # not a module of its own a second time
        self._distance: Callable[..., Any] = self._decoder if loaded.kind == "causal" else self._encoder
        self._pooling = pooling

    def train(self, mode: bool = True) -> Distillation:  # noqa: ARG002
        """Stay in evaluation mode: dropout would be noise between teacher and student."""
        super().train(False)
        return self

    def forward(
        self, student: Any, student_mask: Any, teacher: Any, teacher_mask: Any, places: Any
    ) -> Mapping[str, torch.Tensor]:
        """Return the `loss`, and the `distance` that is a part of it."""
        with torch.no_grad():
            wanted = self._body(input_ids=teacher, attention_mask=teacher_mask).last_hidden_state
        return self._distance(student, student_mask, wanted, teacher_mask, places)  # type: ignore[no-any-return]

    def _decoder(self, student: Any, mask: Any, wanted: Any, _: Any, places: Any) -> dict[str, Any]:
        with self._hold_output_side() as states:
            logits = self._model[0](input_ids=student, attention_mask=mask).logits
        line, here, there = places.unbind(1)
        wanted = wanted[line, there].float()
        distance = (states[0][line, here].float() - wanted).square().sum() / wanted.square().sum()
        labels = student.masked_fill(mask == 0, -100)[:, 1:]
        likelihood = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels.flatten())
        return {"loss": distance + likelihood, "distance": distance}

    def _encoder(self, student: Any, mask: Any, wanted: Any, wanted_mask: Any, _: Any) -> dict[str, Any]:
        found = self._pool(self._body(input_ids=student, attention_mask=mask).last_hidden_state, mask)
        alike = torch.nn.functional.cosine_similarity(found, self._pool(wanted, wanted_mask), dim=-1)
        distance = (1 - alike).mean()
        return {"loss": distance, "distance": distance}

    @property
    def _body(self) -> Any:
        return self._model[0].base_model

    @contextmanager
    def _hold_output_side(self) -> Iterator[list[Any]]:
        """Give the hidden states that the output side reads, and let no gradient through it to them."""
        states: list[Any] = []

        def hold(_: Any, given: tuple[Any, ...]) -> tuple[Any, ...]:
            states.append(given[0])
            return (given[0].detach(), *given[1:])

        hook = self._model[0].get_output_embeddings().register_forward_pre_hook(hold)
        try:
            yield states
        finally:
            hook.remove()

    def _pool(self, states: Any, mask: Any) -> Any:
        if self._pooling == "cls":
            return states[:, 0].float()
        weights = mask[:, :, None].float()
        return (states.float() * weights).sum(1) / weights.sum(1)


def measure_distance(distillation: Distillation, batches: Sequence[Sequence[Pair]], pad: int, device: Any) -> float:
    """Return the mean distance over batches of texts."""
    found = []
    with torch.inference_mode():
        for batch in batches:
            given = {name: each.to(device) for name, each in join_pairs(batch, pad).items()}
            found.append(float(distillation(**given)["distance"]))
    return sum(found) / len(found)

"""Which rows of two models are the same token, and whether the models are otherwise the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from tokmigrate.training.loaded_model import LoadedModel

_BLOCK_BYTES = 64 << 20
"""The bytes of rows that are compared at once."""


@dataclass(frozen=True)
class TokenMatch:
    """The rows that two models share, and what differs.

    Args:
        shared: The row after of each row before that is the same token, or the same row without a token.
        outputs: Those of them that both models predict, as pairs.
        added: The other rows after that the model predicts; `removed` those before.
        removed_tokens: How many of those had a token.
        new: The tokens after that were none before, or whose rows are the only weights that differ.
        same_body: Whether all weights but those of rows are equal.
        is_migrated: Whether migrations lead from one to the other, so that their configurations differ in ids alone.
    """

    shared: Mapping[int, int]
    outputs: Sequence[tuple[int, int]]
    added: Sequence[int]
    removed: Sequence[int]
    removed_tokens: int
    new: frozenset[int]
    same_body: bool
    is_migrated: bool

    def is_same(self, before: Sequence[int], after: Sequence[int]) -> bool:
        """Return whether two sequences of ids are the same tokens, none of them new."""
        return (
            len(before) == len(after)
            and self.new.isdisjoint(after)
            and all(self.shared.get(old) == new for old, new in zip(before, after, strict=True))
        )


def match_tokens(before: LoadedModel, after: LoadedModel, rows: Mapping[int, int] | None = None) -> TokenMatch:
    """Return which rows of two models are the same.

    Args:
        rows: The row after of each row before that migrations keep, where that is known. All others are the same
            token if they have the same text; where it is not known, rows without a token that have the same id too.
    """
    old, new = (side.tokenizer.get_vocab(with_added_tokens=True) for side in (before, after))
    shared = dict(rows or {})
    taken = set(shared.values())
    for token, number in old.items():
        found = new.get(token)
        if number not in shared and found is not None and found not in taken:
            shared[number] = found
            taken.add(found)
    if rows is None:
        used = {*old.values(), *new.values()}
        spare = range(min(len(before.input_rows), len(after.input_rows)))
        shared |= {number: number for number in spare if number not in used}
    same_body, changed = _compare_weights(before, after, shared)
    # A token that takes a row without one has no meaning before.
    known = {shared[number] for number in old.values() if number in shared}
    outputs = [(o, n) for o, n in sorted(shared.items()) if o < _count_outputs(before) and n < _count_outputs(after)]
    removed = sorted({*range(_count_outputs(before))} - {o for o, _ in outputs})
    return TokenMatch(
        shared=shared,
        outputs=outputs,
        added=sorted({*range(_count_outputs(after))} - {n for _, n in outputs}),
        removed=removed,
        removed_tokens=len({*old.values()}.intersection(removed)),
        new=frozenset({*new.values()} - known | (changed if same_body else set())),
        same_body=same_body,
        is_migrated=rows is not None or before is after,
    )


def _count_outputs(side: LoadedModel) -> int:
    return 0 if side.output_rows is None else len(side.output_rows)


def _compare_weights(before: LoadedModel, after: LoadedModel, shared: Mapping[int, int]) -> tuple[bool, set[int]]:
    """Return whether all weights but those of rows are equal, and the shared rows after that have other values."""
    import torch  # noqa: PLC0415

    bodies = [dict(_body(side)) for side in (before, after)]
    same_body = bodies[0].keys() == bodies[1].keys() and all(
        torch.equal(tensor, bodies[1][name]) for name, tensor in bodies[0].items()
    )
    for name, tensor in bodies[0].items() if same_body else ():
        # One copy in memory suffices.
        tensor.data = bodies[1][name].data
    changed: set[int] = set()
    for old, new in zip(_row_tensors(before), _row_tensors(after), strict=False):
        if old.shape[1:] != new.shape[1:]:
            continue
        pairs = [(o, n) for o, n in shared.items() if o < len(old) and n < len(new)]
        places = torch.tensor(pairs, dtype=torch.long, device=old.device).reshape(len(pairs), 2)
        # A copy of a matrix can take as much memory as all other weights.
        for part in places.split(max(1, _BLOCK_BYTES // old[:1].nbytes)):
            differs = (old[part[:, 0]] != new[part[:, 1]]).reshape(len(part), -1).any(1)
            changed |= set(part[differs, 1].tolist())
    return same_body, changed


def _row_tensors(side: LoadedModel) -> list[Any]:
    layers = [side.model.get_input_embeddings(), side.model.get_output_embeddings()]
    tensors = [getattr(layer, name, None) for layer in layers for name in ("weight", "bias")]
    return [tensor for tensor in tensors if tensor is not None]


def _body(side: LoadedModel) -> Iterator[tuple[str, Any]]:
    rows = {id(tensor) for tensor in _row_tensors(side)}
    named = chain(side.model.named_parameters(), side.model.named_buffers())
    return ((name, tensor) for name, tensor in named if id(tensor) not in rows)

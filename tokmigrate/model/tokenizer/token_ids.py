"""tokenizer.json with chosen ids: written so that the library that loads it gives exactly those."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from tokmigrate.errors import OperationError
from tokmigrate.model.formats.json_text import Json
from tokmigrate.model.tokenizer.ids_on_loading import check_can_be_inside, with_tokens_inside
from tokmigrate.model.tokenizer.tokenizer_json import FILE, Tokenizer


def with_token_ids(tokenizer: Tokenizer, ids: Mapping[str, int]) -> Tokenizer:
    """Return a view of the file in which each token has the id that `ids` gives it.

    An added token whose place in the list does not lead to its id goes into the model's vocabulary, where ids
    are read. Merges and all else stay as they are.

    Args:
        tokenizer: The tokenizer before.
        ids: Every token that shall be there, with its id; others go.

    Raises:
        OperationError: The tokenizer's kind cannot hold these ids.
        OutOfStepError: Loading would give other ids.
    """
    plain = {content: ids[content] for content in tokenizer.vocabulary if content in ids}
    entries = [
        {**entry, "id": ids[entry["content"]]}
        for entry in tokenizer.document.get("added_tokens") or []
        if entry["content"] in ids
    ]
    # The library adds in the order of the list; it writes the list in the order of ids.
    entries.sort(key=lambda entry: int(entry["id"]))
    vocabulary = tokenizer.document["model"]["vocab"]
    if isinstance(vocabulary, list):
        placed: Json = _listed(tokenizer.document["model"], plain, entries)
    else:
        placed = _in_order(vocabulary, with_tokens_inside(plain, entries, tokenizer.document["model"]))
    model = {**tokenizer.document["model"], "vocab": placed}
    document: dict[str, Any] = {**tokenizer.document, "model": model}
    if "added_tokens" in document:
        document["added_tokens"] = entries
    return Tokenizer(document).checked()


def _in_order(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    """Return `after` in rising order of ids where `before` was, else in the order that it has."""
    held = list(before.values())
    if all(first < second for first, second in pairwise(held)):
        return dict(sorted(after.items(), key=lambda item: item[1]))
    return dict(after)


def _listed(model: Mapping[str, Json], plain: Mapping[str, int], entries: list[dict[str, Any]]) -> list[Json]:
    """Return a Unigram vocabulary, in which the position is the id."""
    scores = dict(model["vocab"])
    # The lowest score keeps what an unknown piece costs, and lets no text prefer the token to its pieces.
    lowest = min(scores.values(), default=0.0)
    size = max(plain.values(), default=-1) + 1
    at = {number: [content, scores[content]] for content, number in plain.items()}
    for entry in entries:
        if entry["id"] < size and entry["id"] not in at:
            check_can_be_inside(entry, model)
            at[entry["id"]] = [entry["content"], lowest]
    hole = next((number for number in range(size) if number not in at), None)
    if hole is not None:
        raise OperationError(
            f"a Unigram vocabulary is a list and cannot leave id {hole} without a token",
            where=FILE,
            hint="move another token there in the same operation",
        )
    return [at[number] for number in range(size)]

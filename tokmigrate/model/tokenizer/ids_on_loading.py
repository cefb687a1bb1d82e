"""The ids that the tokenizers library gives when it loads a tokenizer.json.

A token whose text is in the model's vocabulary has the id it has there. Any other gets the next id: until tokenizers
0.22 the one after all that added tokens have, from 0.23 on the one after the vocabulary and those outside of it
(`AddedVocabulary::add_tokens`; both were tried). The `id` in `added_tokens` is not read. So all three must agree.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from tokmigrate.errors import OperationError

_BYTE = re.compile("<0x[0-9A-F]{2}>")


def given_ids(vocabulary: Mapping[str, int], added: Iterable[str]) -> Iterator[tuple[str, frozenset[int]]]:
    """Yield each added token with the ids that versions of the library give it.

    Args:
        vocabulary: The ids of the tokenizer's model.
        added: The added tokens, in the order of the file.
    """
    after_all = after_outside = len(vocabulary)
    for content in added:
        known = vocabulary.get(content)
        if known is None:
            yield content, frozenset({after_all, after_outside})
            after_all, after_outside = after_all + 1, after_outside + 1
        else:
            yield content, frozenset({known})
            after_all = max(after_all, known + 1)


def with_tokens_inside(
    vocabulary: Mapping[str, int], entries: Sequence[Mapping[str, Any]], model: Mapping[str, Any]
) -> dict[str, int]:
    """Return the vocabulary with the added tokens in it that loading would otherwise give another id.

    Args:
        vocabulary: The ids of the tokenizer's model.
        entries: `added_tokens`, in its order.
        model: The tokenizer's model, whose vocabulary that is.

    Raises:
        OperationError: One of them cannot be inside.
    """
    inside = dict(vocabulary)
    written = {entry["content"]: entry for entry in entries}
    # Each that goes in makes the vocabulary larger, and moves those that are still outside.
    while wrong := next((text for text, given in given_ids(inside, written) if given != {written[text]["id"]}), None):
        check_can_be_inside(written[wrong], model)
        inside[wrong] = written[wrong]["id"]
    return inside


def check_can_be_inside(entry: Mapping[str, Any], model: Mapping[str, Any]) -> None:
    """Raise OperationError for an added token that the model would find where it is not matched as an added token."""
    if entry.get("single_word") and _can_make(model, entry["content"]):
        raise OperationError(
            f"'{entry['content']}' matches whole words only, and can have id {entry['id']} only as a plain token",
            where="tokenizer.json",
            hint="leave out `single_word`, or leave the token where it is, or close the gap before it",
        )


def _can_make(model: Mapping[str, Any], token: str) -> bool:
    """Return whether a tokenizer's model could make a token of a part of a longer word, were it in the vocabulary."""
    if "merges" not in model or model.get("ignore_merges") or token == model.get("unk_token"):
        return True
    # A BPE makes single letters, bytes, and what its merges make: no merge makes a token that is not in the vocabulary.
    letter = token.removeprefix(model.get("continuing_subword_prefix") or "")
    letter = letter.removesuffix(model.get("end_of_word_suffix") or "")
    return len(letter) <= 1 or bool(model.get("byte_fallback") and _BYTE.fullmatch(token))

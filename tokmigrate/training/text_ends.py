"""Where tokens end in a text: what two tokenizations of one text have in common.

Behind a token with such an end a model has read the same text, whichever tokens it was given. A token that ends inside
a letter has none: byte-level tokenizers divide letters, and give each part the whole letter as its place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokmigrate.model.tokenizer.library import text_alone


@dataclass(frozen=True)
class TokenizedText:
    """The ids of a text with the special tokens around it, and by each end of text the place of the token before it."""

    ids: list[int]
    ends: Mapping[int, int]


def tokenize_texts(tokenizer: Any, texts: Sequence[str]) -> Iterator[TokenizedText]:
    """Yield texts as a tokenizer of the library tokenizes them."""
    with text_alone(tokenizer):
        # A post-processor may take spaces out of the places of tokens.
        alone = tokenizer.encode_batch(texts)
    for whole, bare in zip(tokenizer.encode_batch(texts), alone, strict=True):
        places = [place for place, is_special in enumerate(whole.special_tokens_mask) if not is_special]
        # A template may repeat a text, or leave it out.
        fits = [whole.ids[place] for place in places] == bare.ids
        ends = find_text_ends(bare.offsets) if fits else {}
        yield TokenizedText(whole.ids, {end: places[token] for end, token in ends.items()})


def find_text_ends(offsets: Sequence[tuple[int, int]]) -> dict[int, int]:
    """Return by each end of text the token behind which exactly that much text was read.

    Args:
        offsets: Where each token begins and ends in the text.
    """
    ends: dict[int, int] = {}
    later = float("inf")
    for token in range(len(offsets) - 1, -1, -1):
        start, stop = offsets[token]
        if stop <= later and start < stop:
            ends.setdefault(stop, token)
        later = min(later, start)
    return ends

"""How the tokenizers library cuts lines, and what is counted of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Cut:
    """A line as a model gets it.

    Args:
        encoding: The library's.
        ids: Its ids, with those of the special tokens around the text.
    """

    encoding: Any
    ids: list[int]

    @property
    def text_ids(self) -> list[int]:
        """The ids without those of the special tokens around the text."""
        special = self.encoding.special_tokens_mask
        return [number for number, is_around in zip(self.ids, special, strict=True) if not is_around]


@dataclass(frozen=True)
class Library:
    """A tokenizer of the tokenizers library.

    Args:
        tokenizer: It, with neither padding nor truncation.
        texts: The text of each id, as the vocabulary has it.
    """

    tokenizer: Any
    texts: Mapping[int, str]

    def cuts(self, texts: Sequence[str]) -> list[Cut]:
        """Return the lines as a model gets them."""
        return [Cut(encoding, encoding.ids) for encoding in self.tokenizer.encode_batch_fast(texts)]

    def tokens(self, ids: Sequence[int]) -> list[str]:
        """Return the tokens of ids, as the vocabulary has them."""
        return [self.texts[number] for number in ids]


def loaded(document: Mapping[str, Any]) -> Library:
    """Return the tokenizer of a tokenizer.json; raises whatever the library raises, also a panic."""
    from tokenizers import Tokenizer  # noqa: PLC0415 - only the child pays for it

    tokenizer = Tokenizer.from_str(json.dumps(document))
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    return Library(tokenizer, {number: text for text, number in vocabulary.items()})


@dataclass
class Tally:
    """What one tokenizer makes of a corpus.

    Args:
        limit: The most tokens that a text may have.
        unknown: The id of the unknown token.
        byte_tokens: The ids of tokens for single bytes.
        tokens: All tokens, with the special ones around each line.
        longest: The most tokens of a line.
        beyond: The lines with more than `limit`.
        unknowns: How often the unknown token stands.
        bytes: How often a token for a single byte stands.
    """

    limit: int | None
    unknown: int | None
    byte_tokens: frozenset[int]
    tokens: int = 0
    longest: int = 0
    beyond: int = 0
    unknowns: int = 0
    bytes: int = 0

    def add(self, cut: Cut) -> None:
        """Count one line."""
        length = len(cut.ids)
        self.tokens += length
        self.longest = max(self.longest, length)
        if self.limit is not None and length > self.limit:
            self.beyond += 1
        if self.unknown is not None:
            self.unknowns += cut.ids.count(self.unknown)
        if self.byte_tokens:
            self.bytes += sum(map(self.byte_tokens.__contains__, cut.ids))

    def to_json(self) -> dict[str, int | None]:
        """Return the counts; null is what cannot be there."""
        return {
            "tokens": self.tokens,
            "longest": self.longest,
            "beyond": None if self.limit is None else self.beyond,
            "unknown": None if self.unknown is None else self.unknowns,
            "byte_tokens": self.bytes if self.byte_tokens else None,
        }

"""How the tokenizers library cuts lines, and what is counted of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokmigrate.model.tokenizer.library import open_tokenizer, text_alone


@dataclass(frozen=True)
class Cut:
    """A line as a model gets it.

    Args:
        text_ids: The ids of the text alone.
        ids: Those that the model gets, with the special tokens around the text.
    """

    text_ids: list[int]
    ids: list[int]


@dataclass(frozen=True)
class Library:
    """A tokenizer of the tokenizers library.

    Args:
        tokenizer: It, without padding, truncation and dropout.
        texts: The text of each id, as the vocabulary has it.
    """

    tokenizer: Any
    texts: Mapping[int, str]

    def cuts(self, texts: Sequence[str]) -> list[Cut]:
        """Return the lines as a model gets them."""
        post_processor = self.tokenizer.post_processor
        with text_alone(self.tokenizer):
            encodings = self.tokenizer.encode_batch_fast(texts)
        if post_processor is None:
            return [Cut(encoding.ids, encoding.ids) for encoding in encodings]
        return [Cut(encoding.ids, post_processor.process(encoding).ids) for encoding in encodings]

    def encoding(self, text: str) -> Any:
        """Return the library's encoding of a text alone."""
        with text_alone(self.tokenizer):
            return self.tokenizer.encode(text, add_special_tokens=False)

    def tokens(self, ids: Sequence[int]) -> list[str]:
        """Return the tokens of ids, as the vocabulary has them."""
        return [self.texts[number] for number in ids]


def loaded(document: Mapping[str, Any]) -> Library:
    """Return the tokenizer of a tokenizer.json; raises whatever the library raises, also a panic."""
    tokenizer = open_tokenizer(document)
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

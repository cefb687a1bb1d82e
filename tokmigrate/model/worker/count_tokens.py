"""How often each token is in a corpus.

Request: `files`, those of the corpus, as `Corpus.request` gives them; `document`, a tokenizer.json.

Streamed answer, progress in bytes read: `counts`, for each weight that a file has the weight, and `[id, count]` of each
token that occurs in the texts to learn from; `text_bytes` of these texts. Every tenth text of a file is held out and
not counted.

Where the tokenizer separates words, as `text_parts` finds out, each is tokenized once for all places.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from tokmigrate.model.tokenizer.library import open_tokenizer, text_alone
from tokmigrate.model.worker.corpus_files import CorpusFile, read_blocks
from tokmigrate.model.worker.text_parts import Separator, count_ids, count_parts
from tokmigrate.model.worker.worker_main import Tell, run_streaming_worker

HELD_OUT = 10
"""One text of so many is held out."""

_PARTS, _LETTERS = 2**18, 2**24
"""With more parts, or parts with so many letters, they are tokenized and forgotten."""


def answer(request: Mapping[str, Any], tell: Tell) -> dict[str, Any]:
    tokenizer = open_tokenizer(request["document"])
    separator = Separator(tokenizer)
    counters: dict[float, TokenCounter] = {}
    text_bytes = 0
    with text_alone(tokenizer):
        for file in (CorpusFile(**each) for each in request["files"]):
            counter = counters.setdefault(file.weight, TokenCounter(tokenizer, separator))
            for block in read_blocks(file):
                texts = [text for number, text in block.texts if not is_held_out(number)]
                text_bytes += len("".join(texts).encode())
                counter.add(texts)
                tell(block.read)
        counts = [[weight, sorted(counter.counts().items())] for weight, counter in counters.items()]
    return {"counts": counts, "text_bytes": text_bytes}


def is_held_out(number: int) -> bool:
    """Return whether a text, by its number from 1, is held out to measure what was learned from the others."""
    return number % HELD_OUT == 0


class TokenCounter:
    """Counts the tokens of texts; memory does not grow with them."""

    def __init__(self, tokenizer: Any, separator: Separator) -> None:
        self._tokenizer, self._separator = tokenizer, separator
        self._counts: Counter[int] = Counter()
        self._parts: Counter[str] = Counter()
        self._letters = 0

    def add(self, texts: Sequence[str]) -> None:
        """Count the tokens of further texts."""
        separation = self._separator.find(texts)
        if separation is None:
            self._counts += count_ids(self._tokenizer, texts)
            return
        whole, others = separation.set_apart(texts)
        self._counts += count_ids(self._tokenizer, whole)
        self._parts.update(chain.from_iterable(map(separation.cut.split, others)))
        self._letters += sum(map(len, others))
        if self._letters > _LETTERS:
            self._letters = sum(map(len, self._parts))
        if len(self._parts) > _PARTS or self._letters > _LETTERS:
            self._tokenize_parts()

    def counts(self) -> Counter[int]:
        """Return how often each token id is in all texts."""
        self._tokenize_parts()
        return self._counts

    def _tokenize_parts(self) -> None:
        if self._parts and (separation := self._separator.found):
            self._counts += count_parts(self._tokenizer, self._parts, separation.cut)
        self._parts, self._letters = Counter(), 0


if __name__ == "__main__":
    run_streaming_worker(answer)

"""How often each token is in a corpus.

Request: `files`, those of the corpus, as `Corpus.request` gives them; `document`, a tokenizer.json.

Streamed answer, progress in bytes read: `counts`, `[id, count]` of each token that occurs in the texts to learn from,
as often as the weights of their files say; `text_bytes` of these texts. Every tenth text of a file is held out and not
counted.

Most tokenizers separate words at single spaces, and then a word has the same tokens wherever it stands: it is tokenized
once for all places. Whether a tokenizer does is asked of the library, with pairs of letters, the added tokens, and the
first texts. Where it does not, whole texts are tokenized.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from tokmigrate.model.tokenizer.library import open_tokenizer, text_alone
from tokmigrate.model.worker.corpus_files import CorpusFile, read_blocks
from tokmigrate.model.worker.worker_main import Tell, run_streaming_worker

HELD_OUT = 10
"""One text of so many is held out."""

_MARK = r"[!-~\w]"
_EDGE = re.compile(rf"(?<={_MARK})(?= {_MARK})")
"""Where a text is taken apart: before a single space between letters or punctuation. The space goes to the right."""
_INNER = re.compile(rf" {_MARK}(.*{_MARK})?", re.DOTALL)
"""A part from the inside of a text: many of them in a row are tokenized like each alone."""
_CROSSING = re.compile(rf"{_MARK}[ \u2581]{_MARK}|[!-~]\u0120[!-~]")
"""A token of two words, as vocabularies write it."""
_ASCII = [chr(number) for number in range(0x21, 0x7F)]
_OTHERS = [*"e1.", *"\u00e9\u00df\u0131\u03c2\u044f\u05d0\u0627\u0915\u0e01\u3042\u4e2d\ud55c\u00b2\u0661"]

_PARTS, _LETTERS = 2**18, 2**24
"""With more parts, or parts of texts with so many letters, they are tokenized and forgotten."""
_TOGETHER = 256
"""How many parts make a text, and how many texts are tokenized at a time: what the library returns is large."""


def answer(request: Mapping[str, Any], tell: Tell) -> dict[str, Any]:
    tokenizer = open_tokenizer(request["document"])
    counts: dict[int, float] = defaultdict(int)
    text_bytes = 0
    with text_alone(tokenizer):
        for file in (CorpusFile(**each) for each in request["files"]):
            of_file = TokenCounter(tokenizer)
            for block in read_blocks(file):
                texts = [text for number, text in block.texts if not is_held_out(number)]
                text_bytes += sum(len(text.encode()) for text in texts)
                of_file.add(texts)
                tell(block.read)
            for number, count in of_file.counts().items():
                counts[number] += count * file.weight
    return {"counts": sorted(counts.items()), "text_bytes": text_bytes}


def is_held_out(number: int) -> bool:
    """Return whether a text, by its number from 1, is held out to measure what was learned from the others."""
    return number % HELD_OUT == 0


class TokenCounter:
    """Counts the tokens of texts; memory does not grow with them."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._has_words: bool | None = None
        self._counts: Counter[int] = Counter()
        self._parts: Counter[str] = Counter()
        self._letters = 0

    def add(self, texts: Sequence[str]) -> None:
        """Count the tokens of further texts."""
        if self._has_words is None and texts:
            self._has_words = _separates_words(self._tokenizer, texts)
        if not self._has_words:
            self._counts += _count(self._tokenizer, texts)
            return
        for text in texts:
            self._parts.update(_EDGE.split(text))
            self._letters += len(text)
        if len(self._parts) > _PARTS or self._letters > _LETTERS:
            self._tokenize_parts()

    def counts(self) -> Counter[int]:
        """Return how often each token id is in all texts."""
        self._tokenize_parts()
        return self._counts

    def _tokenize_parts(self) -> None:
        self._counts += _count_parts(self._tokenizer, self._parts)
        self._parts, self._letters = Counter(), 0


def _count(tokenizer: Any, texts: Sequence[str]) -> Counter[int]:
    found: Counter[int] = Counter()
    for start in range(0, len(texts), _TOGETHER):
        some = texts[start : start + _TOGETHER]
        for encoding in tokenizer.encode_batch_fast(some, add_special_tokens=False):
            found.update(encoding.ids)
    return found


def _count_parts(tokenizer: Any, parts: Counter[str]) -> Counter[int]:
    """Return the tokens of parts, each as often as it is there."""
    groups: dict[int, tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
    for part, times in parts.items():
        groups[times][_INNER.fullmatch(part) is not None].append(part)
    found: Counter[int] = Counter()
    for times, (alone, inner) in groups.items():
        rows = ("".join(inner[start : start + _TOGETHER]) for start in range(0, len(inner), _TOGETHER))
        for number, count in _count(tokenizer, [*alone, *rows]).items():
            found[number] += count * times
    return found


def _separates_words(tokenizer: Any, texts: Sequence[str]) -> bool:
    """Return whether texts have the tokens of their parts."""
    added = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    if any(map(_CROSSING.search, tokenizer.get_vocab(with_added_tokens=False).keys() - added)):
        return False
    pairs = [*product(_ASCII, _ASCII), *product(_OTHERS, _ASCII), *product(_ASCII, _OTHERS), *product(_OTHERS, _OTHERS)]
    probes = [f"{left} {right}" for left, right in pairs]
    probes += [text for token in sorted(added) for text in (f"a{token} b", f"a {token}b", f"a {token} b")]
    parts = [_EDGE.split(probe) for probe in probes]
    known = dict.fromkeys(part for each in parts for part in each)
    encodings = tokenizer.encode_batch_fast([*known], add_special_tokens=False)
    ids = {part: encoding.ids for part, encoding in zip(known, encodings, strict=True)}
    whole = tokenizer.encode_batch_fast(probes, add_special_tokens=False)
    return all(
        encoding.ids == [number for part in each for number in ids[part]]
        for encoding, each in zip(whole, parts, strict=True)
    ) and _count(tokenizer, texts) == _count_parts(
        tokenizer, Counter(part for text in texts for part in _EDGE.split(text))
    )


if __name__ == "__main__":
    run_streaming_worker(answer)

"""How often each token is in a corpus.

Request: `files`, those of the corpus, as `Corpus.request` gives them; `document`, a tokenizer.json.

Streamed answer, progress in bytes read: `counts`, for each weight that a file has the weight, and `[id, count]` of each
token that occurs in the texts to learn from; `text_bytes` of these texts. Every tenth text of a file is held out and
not counted.

Most tokenizers separate words at single spaces, many also before punctuation, and then a word has the same tokens
wherever it stands: it is tokenized once for all places. Whether a tokenizer does is asked of the library, with pairs
of letters, the added tokens, and the first texts. Where it does not, whole texts are tokenized.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, product
from typing import Any

from tokmigrate.model.tokenizer.library import open_tokenizer, text_alone
from tokmigrate.model.worker.corpus_files import CorpusFile, read_blocks
from tokmigrate.model.worker.worker_main import Tell, run_streaming_worker

HELD_OUT = 10
"""One text of so many is held out."""

_MARK, _LETTER, _PUNCTUATION = r"[!-~\w]", "[A-Za-z]", r"[!-/:-@\[-`{-~]"


@dataclass(frozen=True)
class _Cut:
    """Where texts are taken apart, in regular expressions.

    Args:
        edge: Where they are.
        rows: Parts from the inside of texts: many of one kind in a row are tokenized like each alone.
        crossing: A token over an edge, as vocabularies write it.
    """

    edge: str
    rows: tuple[str, ...]
    crossing: str

    @cached_property
    def split(self) -> Callable[[str], list[str]]:
        """Return the parts of a text."""
        return re.compile(self.edge).split

    @cached_property
    def match_row(self) -> Callable[[str], re.Match[str] | None]:
        """Return a match of a part, whose `lastgroup` says which of `rows` it is of; None for none."""
        names = [f"(?P<row{place}>{row})" for place, row in enumerate(self.rows)]
        return re.compile("|".join(names), re.DOTALL).fullmatch


# Before a single space between letters or punctuation. The space goes to the right.
_SPACES = _Cut(
    edge=rf"(?<={_MARK})(?= {_MARK})",
    rows=(rf" {_MARK}(?:.*{_MARK})?",),
    crossing=rf"{_MARK}[ \u2581]{_MARK}|[!-~]\u0120[!-~]",
)
# And between a letter and punctuation behind it.
_WORDS = _Cut(
    edge=rf"{_SPACES.edge}|(?<={_LETTER})(?={_PUNCTUATION})",
    rows=(*_SPACES.rows, rf"{_PUNCTUATION}.*{_LETTER}"),
    crossing=rf"{_SPACES.crossing}|{_LETTER}{_PUNCTUATION}",
)
_ASCII = [chr(number) for number in range(0x21, 0x7F)]
_MARKS = [mark for mark in _ASCII if not mark.isalnum()]
_CONTRACTIONS = [f"{letter}'{end}b" for letter in "aZ" for end in ("s", "t", "re", "ve", "m", "ll", "d")]
_OTHERS = [*"e1.", *"\u00e9\u00df\u0131\u03c2\u044f\u05d0\u0627\u0915\u0e01\u3042\u4e2d\ud55c\u00b2\u0661"]

_PARTS, _LETTERS = 2**18, 2**24
"""With more parts, or parts with so many letters, they are tokenized and forgotten."""
_TOGETHER = 256
"""How many parts make a text, and how many texts are tokenized at a time: what the library returns is large."""


def answer(request: Mapping[str, Any], tell: Tell) -> dict[str, Any]:
    tokenizer = open_tokenizer(request["document"])
    counters: dict[float, TokenCounter] = {}
    text_bytes = 0
    with text_alone(tokenizer):
        for file in (CorpusFile(**each) for each in request["files"]):
            counter = counters.setdefault(file.weight, TokenCounter(tokenizer))
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

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._cut: _Cut | None = None
        self._whole: list[str] = []
        self._is_asked = False
        self._counts: Counter[int] = Counter()
        self._parts: Counter[str] = Counter()
        self._letters = 0

    def add(self, texts: Sequence[str]) -> None:
        """Count the tokens of further texts."""
        if not self._is_asked and texts:
            self._is_asked = True
            self._cut = next((cut for cut in (_WORDS, _SPACES) if _is_separated(self._tokenizer, texts, cut)), None)
            self._whole = _find_whole(self._tokenizer, self._cut) if self._cut else []
        if self._cut is None:
            self._counts += _count(self._tokenizer, texts)
            return
        whole, others = _set_apart(texts, self._whole)
        self._counts += _count(self._tokenizer, whole)
        self._parts.update(chain.from_iterable(map(self._cut.split, others)))
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
        if self._cut is not None:
            self._counts += _count_parts(self._tokenizer, self._parts, self._cut)
        self._parts, self._letters = Counter(), 0


def _find_whole(tokenizer: Any, cut: _Cut) -> list[str]:
    """Return the added tokens that have an edge inside: a text with one is tokenized as a whole."""
    added = sorted(token.content for token in tokenizer.get_added_tokens_decoder().values())
    return [token for token in added if len(cut.split(token)) > 1]


def _set_apart(texts: Sequence[str], words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the texts that have one of these words, and the others."""
    joined = "\n".join(texts)
    held = [word for word in words if word in joined]
    if not held:
        return [], list(texts)
    whole = [text for text in texts if any(word in text for word in held)]
    return whole, [text for text in texts if not any(word in text for word in held)]


def _count(tokenizer: Any, texts: Sequence[str]) -> Counter[int]:
    found: Counter[int] = Counter()
    for start in range(0, len(texts), _TOGETHER):
        some = texts[start : start + _TOGETHER]
        encodings = tokenizer.encode_batch_fast(some, add_special_tokens=False)
        found.update(chain.from_iterable(encoding.ids for encoding in encodings))
    return found


def _count_parts(tokenizer: Any, parts: Counter[str], cut: _Cut) -> Counter[int]:
    """Return the tokens of parts, each as often as it is there."""
    groups: dict[int, dict[str | None, list[str]]] = defaultdict(lambda: defaultdict(list))
    match_row = cut.match_row
    for part, times in parts.items():
        matched = match_row(part)
        groups[times][matched.lastgroup if matched else None].append(part)
    found: Counter[int] = Counter()
    for times, rows in groups.items():
        texts = rows.pop(None, [])
        for row in rows.values():
            texts += ("".join(row[start : start + _TOGETHER]) for start in range(0, len(row), _TOGETHER))
        for number, count in _count(tokenizer, texts).items():
            found[number] += count * times
    return found


def _is_separated(tokenizer: Any, texts: Sequence[str], cut: _Cut) -> bool:
    """Return whether texts have the tokens of their parts."""
    added = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    if any(map(re.compile(cut.crossing).search, tokenizer.get_vocab(with_added_tokens=False).keys() - added)):
        return False
    whole = _find_whole(tokenizer, cut)
    # A normalizer may make one of another text, which is then not set apart.
    if whole and tokenizer.normalizer is not None:
        return False
    known_added = sorted(added.difference(whole))
    pairs = [*product(_ASCII, _ASCII), *product(_OTHERS, _ASCII), *product(_ASCII, _OTHERS), *product(_OTHERS, _OTHERS)]
    probes = [f"{left} {right}" for left, right in pairs]
    probes += [text for token in known_added for text in (f"a{token} b", f"a {token}b", f"a {token} b")]
    of_words = [f"{left}{mark}{right}" for left in "aZ" for mark, right in product(_MARKS, _ASCII)]
    of_words += [text for token in known_added for text in (f"a{token}", f"{token}.", f"a{token}.")]
    for some in ([*_CONTRACTIONS, *of_words] if cut is _WORDS else [], probes):
        if not _have_tokens_of_parts(tokenizer, _set_apart(some, whole)[1], cut):
            return False
    _, others = _set_apart(texts, whole)
    return _count(tokenizer, others) == _count_parts(
        tokenizer, Counter(chain.from_iterable(map(cut.split, others))), cut
    )


def _have_tokens_of_parts(tokenizer: Any, texts: Sequence[str], cut: _Cut) -> bool:
    parts = [cut.split(text) for text in texts]
    known = dict.fromkeys(chain.from_iterable(parts))
    encodings = tokenizer.encode_batch_fast([*known], add_special_tokens=False)
    ids = {part: encoding.ids for part, encoding in zip(known, encodings, strict=True)}
    return all(
        encoding.ids == [number for part in each for number in ids[part]]
        for encoding, each in zip(tokenizer.encode_batch_fast(texts, add_special_tokens=False), parts, strict=True)
    )


if __name__ == "__main__":
    run_streaming_worker(answer)

"""Where the texts of a corpus can be taken apart, so that each part is tokenized once for all places.

Most tokenizers separate words at single spaces, many also before punctuation, and then a word has the same tokens
wherever it stands. Whether a tokenizer does is asked of the library, with pairs of letters, the added tokens, and the
first texts. Where it does not, whole texts are tokenized.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, chain, product
from typing import Any

_MARK, _LETTER, _PUNCTUATION = r"[!-~\w]", "[A-Za-z]", r"[!-/:-@\[-`{-~]"


@dataclass(frozen=True)
class Cut:
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
SPACES = Cut(
    edge=rf"(?<={_MARK})(?= {_MARK})",
    rows=(rf" {_MARK}(?:.*{_MARK})?",),
    crossing=rf"{_MARK}[ \u2581]{_MARK}|[!-~]\u0120[!-~]",
)
# And between a letter and punctuation behind it.
WORDS = Cut(
    edge=rf"{SPACES.edge}|(?<={_LETTER})(?={_PUNCTUATION})",
    rows=(*SPACES.rows, rf"{_PUNCTUATION}.*{_LETTER}"),
    crossing=rf"{SPACES.crossing}|{_LETTER}{_PUNCTUATION}",
)
_ASCII = [chr(number) for number in range(0x21, 0x7F)]
_MARKS = [mark for mark in _ASCII if not mark.isalnum()]
_CONTRACTIONS = [f"{letter}'{end}b" for letter in "aZ" for end in ("s", "t", "re", "ve", "m", "ll", "d")]
_OTHERS = [*"e1.", *"\u00e9\u00df\u0131\u03c2\u044f\u05d0\u0627\u0915\u0e01\u3042\u4e2d\ud55c\u00b2\u0661"]

_TRIED = 2**17
"""How many letters of the first texts are tokenized to try whether texts can be taken apart."""
_TOGETHER = 256
"""How many parts make a text, and how many texts are tokenized at a time: what the library returns is large."""


@dataclass(frozen=True)
class Separation:
    """Where texts have the tokens of their parts.

    Args:
        whole: Added tokens that have an edge inside: a text with one is tokenized as a whole.
    """

    cut: Cut
    whole: tuple[str, ...]

    def set_apart(self, texts: Sequence[str]) -> tuple[list[str], list[str]]:
        """Return the texts that are tokenized as a whole, and those that are taken apart."""
        joined = "\n".join(texts)
        held = [word for word in self.whole if word in joined]
        if not held:
            return [], list(texts)
        whole = [text for text in texts if any(word in text for word in held)]
        return whole, [text for text in texts if not any(word in text for word in held)]


class Separator:
    """Finds out where texts can be taken apart for some tokenizers of the library, all without a post-processor."""

    def __init__(self, *tokenizers: Any) -> None:
        self._tokenizers = tokenizers
        self._is_asked = False
        self.found: Separation | None = None

    def find(self, texts: Sequence[str]) -> Separation | None:
        """Return it, None where they cannot; the first texts are tried, and the answer holds for all others."""
        if texts and not self._is_asked:
            self._is_asked, self.found = True, _find_separation(self._tokenizers, texts)
        return self.found


def _find_separation(tokenizers: Sequence[Any], texts: Sequence[str]) -> Separation | None:
    for cut in (WORDS, SPACES):
        found = [_separate(tokenizer, cut) for tokenizer in tokenizers]
        if all(_is_separated(tokenizer, texts, each) for tokenizer, each in zip(tokenizers, found, strict=True)):
            return Separation(cut, tuple(sorted({word for each in found for word in each.whole})))
    return None


def _separate(tokenizer: Any, cut: Cut) -> Separation:
    added = sorted(token.content for token in tokenizer.get_added_tokens_decoder().values())
    return Separation(cut, tuple(token for token in added if len(cut.split(token)) > 1))


def count_ids(tokenizer: Any, texts: Sequence[str]) -> Counter[int]:
    """Return how often each token id is in texts."""
    found: Counter[int] = Counter()
    for start in range(0, len(texts), _TOGETHER):
        some = texts[start : start + _TOGETHER]
        encodings = tokenizer.encode_batch_fast(some, add_special_tokens=False)
        found.update(chain.from_iterable(encoding.ids for encoding in encodings))
    return found


def count_parts(tokenizer: Any, parts: Counter[str], cut: Cut) -> Counter[int]:
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
        for number, count in count_ids(tokenizer, texts).items():
            found[number] += count * times
    return found


def _is_separated(tokenizer: Any, texts: Sequence[str], separation: Separation) -> bool:
    """Return whether texts have the tokens of their parts."""
    cut, whole = separation.cut, separation.whole
    added = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    if any(map(re.compile(cut.crossing).search, tokenizer.get_vocab(with_added_tokens=False).keys() - added)):
        return False
    # A normalizer may make one of another text, which is then not set apart.
    if whole and tokenizer.normalizer is not None:
        return False
    known_added = sorted(added.difference(whole))
    pairs = [*product(_ASCII, _ASCII), *product(_OTHERS, _ASCII), *product(_ASCII, _OTHERS), *product(_OTHERS, _OTHERS)]
    probes = [f"{left} {right}" for left, right in pairs]
    probes += [text for token in known_added for text in (f"a{token} b", f"a {token}b", f"a {token} b")]
    of_words = [f"{left}{mark}{right}" for left in "aZ" for mark, right in product(_MARKS, _ASCII)]
    of_words += [text for token in known_added for text in (f"a{token}", f"{token}.", f"a{token}.")]
    for some in ([*_CONTRACTIONS, *of_words] if cut is WORDS else [], probes):
        if not _have_tokens_of_parts(tokenizer, separation.set_apart(some)[1], cut):
            return False
    _, others = separation.set_apart(_take_first(texts))
    parts = Counter(chain.from_iterable(map(cut.split, others)))
    return count_ids(tokenizer, others) == count_parts(tokenizer, parts, cut)


def _take_first(texts: Sequence[str]) -> Sequence[str]:
    """Return the first texts, as many as are worth the time to tokenize them twice."""
    sizes = accumulate(map(len, texts))
    return [text for text, size in zip(texts, sizes, strict=True) if size - len(text) < _TRIED]


def _have_tokens_of_parts(tokenizer: Any, texts: Sequence[str], cut: Cut) -> bool:
    parts = [cut.split(text) for text in texts]
    known = dict.fromkeys(chain.from_iterable(parts))
    encodings = tokenizer.encode_batch_fast([*known], add_special_tokens=False)
    ids = {part: encoding.ids for part, encoding in zip(known, encodings, strict=True)}
    return all(
        encoding.ids == [number for part in each for number in ids[part]]
        for encoding, each in zip(tokenizer.encode_batch_fast(texts, add_special_tokens=False), parts, strict=True)
    )

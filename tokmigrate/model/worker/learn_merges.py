"""Which merges save the most tokens in a corpus, learned behind those that a BPE has.

Request: `files`, those of the corpus, as `Corpus.request` gives them; `document`, a tokenizer.json whose model is a
BPE; `added`, the ids of its added tokens; `tokens`, how many new tokens are wanted; `min_count`, how often a merge must
apply; `max_length`, the most letters of a token, as the vocabulary spells it; `scripts`, those that a product must be
of, empty for any.

Streamed answer, progress in bytes read: `merges`, each `[left, right, saved]` in the order of their ranks, with the
tokens that it saves in the texts that were held out; `text_bytes` of all texts.

The text of the corpus is tokenized, and neighbouring tokens of a word are joined, the most frequent pair first; of
equal ones the first by text, so that every machine learns the same. What the pre-tokenizer separates is never joined,
nor are bytes that stand for a character, nor tokens before a `▁`. Every tenth text of a file is held out.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from tokmigrate.model.tokenizer.library import open_tokenizer, text_alone
from tokmigrate.model.tokenizer.token_meaning import SPACE, TokenTexts
from tokmigrate.model.tokenizer.tokenizer_json import BYTE, continuing_prefix, product
from tokmigrate.model.worker.corpus_files import CorpusFile, read_blocks
from tokmigrate.model.worker.count_tokens import is_held_out
from tokmigrate.model.worker.worker_main import Tell, run_streaming_worker
from tokmigrate.vocabulary.scripts import ScriptFilter

Pair = tuple[int, int]


@dataclass
class _Word:
    """The tokens of a word, and how often it is in the texts to learn from and in those that are held out."""

    tokens: list[int]
    count: int
    held: int


@dataclass
class _Corpus:
    """The words of a corpus, and the bytes of its texts."""

    words: Counter[tuple[int, ...]] = field(default_factory=Counter)
    held: Counter[tuple[int, ...]] = field(default_factory=Counter)
    text_bytes: int = 0


def answer(request: Mapping[str, Any], tell: Tell) -> dict[str, Any]:
    tokenizer = open_tokenizer(request["document"])
    corpus = _read(tokenizer, request, tell)
    words = [_Word(list(word), corpus.words[word], corpus.held[word]) for word in sorted({*corpus.words, *corpus.held})]
    merges = _Merges(request["document"], words)
    return {
        "merges": list(merges.learn(request["tokens"], request["min_count"], _find_wanted(request))),
        "text_bytes": corpus.text_bytes,
    }


def _find_wanted(request: Mapping[str, Any]) -> Callable[[str], bool]:
    """Return what says whether a token may be learned."""
    longest = request["max_length"]
    if not request["scripts"]:
        return lambda token: len(token) <= longest
    texts, scripts = TokenTexts(request["document"]), ScriptFilter(request["scripts"])
    return lambda token: len(token) <= longest and scripts.matches(texts.find_bytes(token))


def _read(tokenizer: Any, request: Mapping[str, Any], tell: Tell) -> _Corpus:
    texts = {number: text for text, number in tokenizer.get_vocab(with_added_tokens=True).items()}
    alone = {*request["added"], *(number for number, text in texts.items() if BYTE.fullmatch(text))}
    # A word begins with it where no pre-tokenizer separates words.
    first = {number for number, text in texts.items() if text.startswith(SPACE)}
    corpus = _Corpus()
    for file in request["files"]:
        for block in read_blocks(CorpusFile(**file)):
            with text_alone(tokenizer):
                encodings = tokenizer.encode_batch([text for _, text in block.texts], add_special_tokens=False)
            for (number, _), encoding in zip(block.texts, encodings, strict=True):
                (corpus.held if is_held_out(number) else corpus.words).update(_words(encoding, alone, first))
            corpus.text_bytes += block.text_bytes
            tell(block.read)
    return corpus


def _words(encoding: Any, alone: set[int], first: set[int]) -> Iterator[tuple[int, ...]]:
    """Yield the words of a line, each as its tokens; a token that is never joined is a word."""
    word: list[int] = []
    reached = None
    for number, place in zip(encoding.ids, encoding.word_ids, strict=True):
        if word and (place != reached or number in first or number in alone or word[-1] in alone):
            yield tuple(word)
            word = []
        word.append(number)
        reached = place
    if word:
        yield tuple(word)


class _Merges:
    """Pairs of neighbouring tokens with their counts, kept up to date while they are joined."""

    def __init__(self, document: Mapping[str, Any], words: Sequence[_Word]) -> None:
        model = document["model"]
        added = {entry["content"]: entry["id"] for entry in document.get("added_tokens") or []}
        self._prefix = continuing_prefix(model)
        self._ids: dict[str, int] = dict(model["vocab"])
        self._texts = {number: text for text, number in {**self._ids, **added}.items()}
        self._next = max(self._texts) + 1
        self._never = set(added)
        self._words = words
        self._counts: dict[Pair, int] = defaultdict(int)
        self._places: dict[Pair, set[int]] = defaultdict(set)
        for place, word in enumerate(words):
            for pair in pairwise(word.tokens):
                self._counts[pair] += word.count
                self._places[pair].add(place)
        self._queue = [self._entry(pair) for pair in self._counts]
        heapq.heapify(self._queue)

    def learn(self, tokens: int, min_count: int, is_wanted: Callable[[str], bool]) -> Iterator[tuple[str, str, int]]:
        """Yield merges with the tokens that they save in what is held out, until there are so many new tokens."""
        made = 0
        while self._queue and made < tokens:
            count, left, right, pair = heapq.heappop(self._queue)
            if -count != self._counts.get(pair, 0):
                continue
            if -count < min_count:
                return
            text = product((left, right), self._prefix)
            if text in self._never or not is_wanted(text):
                continue
            if text not in self._ids:
                self._ids[text] = self._next
                self._texts[self._next] = text
                self._next += 1
                made += 1
            yield left, right, self._join(pair, self._ids[text])

    def _entry(self, pair: Pair) -> tuple[int, str, str, Pair]:
        return -self._counts[pair], self._texts[pair[0]], self._texts[pair[1]], pair

    def _join(self, pair: Pair, number: int) -> int:
        """Join a pair in all words, and return the tokens that this saves in what is held out."""
        saved = 0
        changed: set[Pair] = set()
        for place in self._places.pop(pair):
            word = self._words[place]
            before = word.tokens
            word.tokens = _join_pair(before, pair, number)
            saved += (len(before) - len(word.tokens)) * word.held
            for step, tokens in ((-word.count, before), (word.count, word.tokens)):
                for each in pairwise(tokens):
                    self._counts[each] += step
                    changed.add(each)
            for each in pairwise(word.tokens):
                self._places[each].add(place)
        self._counts.pop(pair, None)
        for each in changed:
            if self._counts.get(each, 0) > 0:
                heapq.heappush(self._queue, self._entry(each))
        return saved


def _join_pair(tokens: Sequence[int], pair: Pair, number: int) -> list[int]:
    """Return a word with each occurrence of a pair joined, from the left."""
    made: list[int] = []
    place = 0
    while place < len(tokens):
        if place + 1 < len(tokens) and (tokens[place], tokens[place + 1]) == pair:
            made.append(number)
            place += 2
        else:
            made.append(tokens[place])
            place += 1
    return made


if __name__ == "__main__":
    run_streaming_worker(answer)

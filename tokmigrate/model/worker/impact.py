"""How several tokenizers tokenize a corpus, line by line, and how that changes from one to the next.

Request: `corpus`, the path, and `field`, the one that has the text of a record; `tokenizers`, each with its `document`
(a tokenizer.json), its `limit` of tokens or null, the id of its `unknown` token or null, and the ids of its
`byte_tokens`, empty where it does not fall back on bytes; `pairs`, places of two tokenizers each, of which the first
pair is the one whose worst lines are wanted.

Streamed answer, progress in bytes read: `lines` with text, `empty` ones, `text_bytes`; for each of `tokenizers` its
counts, as `Tally` gives them; for each of `pairs` `tokenized_differently` and `other_ids`; and the `worst` lines, as
`example` gives them. Or `fault`, `{tokenizer, line, cause}`, where a
tokenizer cannot be loaded (line is null) or fails at a line.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

from tokmigrate.model.tokenizer.library import open_tokenizer, text_alone
from tokmigrate.model.worker.corpus_files import Block, CorpusFile, read_blocks
from tokmigrate.model.worker.worker_main import Tell, run_streaming_worker


@dataclass(frozen=True)
class Segmentation:
    """The ids of a line's text, and `ids` with the special tokens around them, as a model gets them."""

    text_ids: list[int]
    ids: list[int]


@dataclass(frozen=True)
class Library:
    """A tokenizer of the library without padding, truncation and dropout, and the text of each id."""

    tokenizer: Any
    texts: Mapping[int, str]

    def segmentations(self, texts: Sequence[str]) -> list[Segmentation]:
        post_processor = self.tokenizer.post_processor
        with text_alone(self.tokenizer):
            encodings = self.tokenizer.encode_batch_fast(texts)
        if post_processor is None:
            return [Segmentation(encoding.ids, encoding.ids) for encoding in encodings]
        return [Segmentation(encoding.ids, post_processor.process(encoding).ids) for encoding in encodings]

    def encode(self, text: str) -> Any:
        with text_alone(self.tokenizer):
            return self.tokenizer.encode(text, add_special_tokens=False)

    def tokens(self, ids: Sequence[int]) -> list[str]:
        return [self.texts[number] for number in ids]


@dataclass
class Tally:
    """What one tokenizer makes of a corpus.

    Args:
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

    def add(self, line: Segmentation) -> None:
        length = len(line.ids)
        self.tokens += length
        self.longest = max(self.longest, length)
        if self.limit is not None and length > self.limit:
            self.beyond += 1
        if self.unknown is not None:
            self.unknowns += line.ids.count(self.unknown)
        if self.byte_tokens:
            self.bytes += sum(map(self.byte_tokens.__contains__, line.ids))

    def to_json(self) -> dict[str, int | None]:
        """Return the counts; null is what cannot be there."""
        return {
            "tokens": self.tokens,
            "longest": self.longest,
            "beyond": None if self.limit is None else self.beyond,
            "unknown": None if self.unknown is None else self.unknowns,
            "byte_tokens": self.bytes if self.byte_tokens else None,
        }


EXAMPLES = 10
"""How many of the worst lines are kept."""

_AROUND = 3
"""How many tokens of an example are shown before the first that differs, and after the last."""

_SHOWN = 40
"""How many tokens of an example are shown at most."""


@dataclass(order=True)
class _Changed:
    """A line that is tokenized differently; the greater, the worse.

    Args:
        growth: How many tokens more it has; 0 where it has fewer.
        difference: How many tokens of either side the other has not.
        earliness: Its number, negative.
    """

    growth: int
    difference: int
    earliness: int
    text: str = field(compare=False)


@dataclass
class Comparison:
    """How the tokenization of a corpus changes from one tokenizer to another.

    `tokenized_differently` counts lines whose text becomes other tokens, `other_ids` those with other ids, also around.
    """

    before: Library
    after: Library
    tokenized_differently: int = 0
    other_ids: int = 0
    _worst: list[_Changed] = field(default_factory=list)

    def __post_init__(self) -> None:
        old, new = self.before.texts, self.after.texts
        self._moved = {number for number in old.keys() | new.keys() if old.get(number) != new.get(number)}

    def add(self, number: int, text: str, old: Segmentation, new: Segmentation) -> None:
        self.other_ids += old.ids != new.ids
        before, after = old.text_ids, new.text_ids
        if before == after and self._moved.isdisjoint(before):
            return
        if self._moved and self.before.tokens(before) == self.after.tokens(after):
            return
        self.tokenized_differently += 1
        self._keep(number, text, before, after)

    def _keep(self, number: int, text: str, before: list[int], after: list[int]) -> None:
        growth = max(0, len(after) - len(before))
        full = len(self._worst) == EXAMPLES
        if full and growth < self._worst[0].growth:
            return
        # The same text again shows nothing new.
        if any(kept.text == text for kept in self._worst):
            return
        old, new = Counter(self.before.tokens(before)), Counter(self.after.tokens(after))
        changed = _Changed(growth, ((old - new) + (new - old)).total(), -number, text)
        if full:
            heapq.heappushpop(self._worst, changed)
        else:
            heapq.heappush(self._worst, changed)

    def worst(self) -> list[tuple[int, str]]:
        """Return the worst lines with their numbers, the worst first."""
        return [(-changed.earliness, changed.text) for changed in sorted(self._worst, reverse=True)]


def example(number: int, text: str, before: Library, after: Library) -> dict[str, Any]:
    """Return a line as two tokenizers tokenize it, from before the first token that differs to after the last.

    Returns:
        `line`; `skipped`, the tokens left out before; `text`, the part of the line that is shown; `before` and `after`,
        each with all its `tokens` counted as a model gets them, those `shown` as the vocabulary has them, and `more`,
        how many of the text are left out after them.
    """
    sides = (before, after)
    encodings = [side.encode(text) for side in sides]
    tokens = [side.tokens(encoding.ids) for side, encoding in zip(sides, encodings, strict=True)]
    same_first = _same(*tokens)
    same_last = _same(*(made[same_first:][::-1] for made in tokens))
    start = max(0, same_first - _AROUND)
    stops = [min(len(made) - max(0, same_last - _AROUND), start + _SHOWN) for made in tokens]
    offsets = [place for encoding, stop in zip(encodings, stops, strict=True) for place in encoding.offsets[start:stop]]
    begin = min(place[0] for place in offsets) if start else 0
    is_whole = all(stop == len(made) for made, stop in zip(tokens, stops, strict=True))
    end = len(text) if is_whole else max(place[1] for place in offsets)
    found: dict[str, Any] = {"line": number, "skipped": start, "text": text[begin:end]}
    for name, side, made, stop in zip(("before", "after"), sides, tokens, stops, strict=True):
        found[name] = {
            "tokens": len(side.segmentations([text])[0].ids),
            "shown": made[start:stop],
            "more": len(made) - stop,
        }
    return found


def _same(first: Sequence[str], second: Sequence[str]) -> int:
    """Return how many tokens two segmentations begin with alike."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))


class _FaultError(Exception):
    """A tokenizer, by its place, cannot be loaded, or fails at a line."""

    def __init__(self, tokenizer: int, line: int | None, cause: str) -> None:
        super().__init__(cause)
        self.answer = {"tokenizer": tokenizer, "line": line, "cause": cause}


def answer(request: Mapping[str, Any], tell: Tell) -> dict[str, Any]:
    try:
        return _measure(request, tell)
    except _FaultError as fault:
        return {"fault": fault.answer}


def _measure(request: Mapping[str, Any], tell: Tell) -> dict[str, Any]:
    asked = request["tokenizers"]
    libraries = [_library(place, each["document"]) for place, each in enumerate(asked)]
    tallies = [Tally(each["limit"], each["unknown"], frozenset(each["byte_tokens"])) for each in asked]
    pairs = [(first, second, Comparison(libraries[first], libraries[second])) for first, second in request["pairs"]]
    lines = empty = text_bytes = 0
    corpus = CorpusFile(request["corpus"], request["corpus"], request["field"])
    for block in read_blocks(corpus):
        lines, empty, text_bytes = lines + len(block.texts), empty + block.empty, text_bytes + block.text_bytes
        segmentations = [_segmentations(place, library, block) for place, library in enumerate(libraries)]
        for tally, made in zip(tallies, segmentations, strict=True):
            for line in made:
                tally.add(line)
        for first, second, comparison in pairs:
            for (number, text), old, new in zip(block.texts, segmentations[first], segmentations[second], strict=True):
                comparison.add(number, text, old, new)
        tell(block.read)
    first, second, whole = pairs[0]
    return {
        "lines": lines,
        "empty": empty,
        "text_bytes": text_bytes,
        "tokenizers": [tally.to_json() for tally in tallies],
        "pairs": [
            {"tokenized_differently": each.tokenized_differently, "other_ids": each.other_ids} for *_, each in pairs
        ],
        "worst": [example(number, text, libraries[first], libraries[second]) for number, text in whole.worst()],
    }


def _library(place: int, document: Mapping[str, Any]) -> Library:
    try:
        tokenizer = open_tokenizer(document)
        vocabulary = tokenizer.get_vocab(with_added_tokens=True)
        return Library(tokenizer, {number: text for text, number in vocabulary.items()})
    # A panic of the library is not an Exception.
    except BaseException as error:
        raise _FaultError(place, None, str(error)) from error


def _segmentations(place: int, library: Library, block: Block) -> list[Segmentation]:
    try:
        return library.segmentations([text for _, text in block.texts])
    except BaseException as error:
        for number, text in block.texts:
            try:
                library.segmentations([text])
            except BaseException as at_line:
                raise _FaultError(place, number, str(at_line)) from at_line
        raise _FaultError(place, block.texts[0][0], str(error)) from error


if __name__ == "__main__":
    run_streaming_worker(answer)

"""How several tokenizers tokenize a corpus, line by line, and how that changes from one to the next.

Request: `corpus`, the path; `tokenizers`, each with its `document` (a tokenizer.json), its `limit` of tokens or null,
the id of its `unknown` token or null, and the ids of its `byte_tokens`, empty where it does not fall back on bytes;
`pairs`, places of two tokenizers each, of which the first pair is the one whose worst lines are wanted.

Streamed answer, progress in bytes read: `lines` with text, `empty` ones, `text_bytes`; for each of `tokenizers` its
counts, as `Tally` gives them; for each of `pairs` `tokenized_differently` and `other_ids`; and the `worst` lines, as
`example` gives them. Or `fault`, `{tokenizer, line, cause}`, where a
tokenizer cannot be loaded (line is null) or fails at a line.

A line ends with `\\n` or `\\r\\n`, the last one also without; a byte order mark before the first is not a text. Lines
without text are counted and passed over.
"""

from __future__ import annotations

import codecs
import heapq
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any

from tokmigrate.errors import FileProblems, Problem, StorageError, UsageError
from tokmigrate.files import open_for_reading
from tokmigrate.model.tokenizer.library import open_tokenizer, text_alone
from tokmigrate.model.worker.worker_main import Tell, run_streaming_worker

BLOCK = 2**19
"""About how many bytes of lines are held at once."""

LONGEST_LINE = 2**23
"""The bytes that a line may have; a tokenizer needs about 130 times as much memory to tokenize one."""


@dataclass(frozen=True)
class Block:
    """Lines that follow each other: those with text and their numbers from 1, and how many have none.

    `text_bytes` leaves out line ends; `read` are all bytes that were read for it.
    """

    lines: tuple[tuple[int, str], ...]
    empty: int
    text_bytes: int
    read: int


def corpus_bytes(path: Path) -> int:
    """Return the size of a corpus; raises UsageError where it is not a file that can be read."""
    try:
        with open_for_reading(path) as file:
            return os.fstat(file.fileno()).st_size
    except StorageError as error:
        raise UsageError(error.message, where=str(path), hint="give a text file, a line for each text") from error


def blocks(path: Path) -> Iterator[Block]:
    """Yield the lines in blocks; raises FileProblems where one is not UTF-8, or longer than `LONGEST_LINE`."""
    lines: list[tuple[int, str]] = []
    empty = text_bytes = read = number = 0
    with open_for_reading(path) as file:
        while line := file.readline(LONGEST_LINE + len(b"\r\n")):
            number += 1
            read += len(line)
            held = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
            held = held.removesuffix(b"\n").removesuffix(b"\r") if held.endswith(b"\n") else held
            if held:
                lines.append((number, _text(path, number, held)))
                text_bytes += len(held)
            else:
                empty += 1
            if read >= BLOCK:
                yield Block(tuple(lines), empty, text_bytes, read)
                lines, empty, text_bytes, read = [], 0, 0, 0
    if read:
        yield Block(tuple(lines), empty, text_bytes, read)


def _text(path: Path, number: int, line: bytes) -> str:
    if len(line) > LONGEST_LINE:
        what = f"the line is longer than {LONGEST_LINE:,} bytes"
        raise FileProblems([Problem(str(path), number, 1, what, "break the text into lines")])
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        column = len(line[: error.start].decode("utf-8")) + 1
        what = f"the byte 0x{line[error.start]:02x} is not UTF-8"
        raise FileProblems([Problem(str(path), number, column, what, "convert the file to UTF-8")]) from error


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
    for block in blocks(Path(request["corpus"])):
        lines, empty, text_bytes = lines + len(block.lines), empty + block.empty, text_bytes + block.text_bytes
        segmentations = [_segmentations(place, library, block) for place, library in enumerate(libraries)]
        for tally, made in zip(tallies, segmentations, strict=True):
            for line in made:
                tally.add(line)
        for first, second, comparison in pairs:
            for (number, text), old, new in zip(block.lines, segmentations[first], segmentations[second], strict=True):
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
        return library.segmentations([text for _, text in block.lines])
    except BaseException as error:
        for number, text in block.lines:
            try:
                library.segmentations([text])
            except BaseException as at_line:
                raise _FaultError(place, number, str(at_line)) from at_line
        raise _FaultError(place, block.lines[0][0], str(error)) from error


if __name__ == "__main__":
    run_streaming_worker(answer)

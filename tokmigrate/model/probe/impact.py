"""What several tokenizers make of a corpus, line by line, and what becomes of it from one to the other.

Request: `corpus`, the path; `tokenizers`, each with its `document` (a tokenizer.json), its `limit` of tokens or null,
the id of its `unknown` token or null, and the ids of its `byte_tokens`, empty where it does not fall back on bytes;
`pairs`, places of two tokenizers each, of which the first pair is the one whose worst lines are wanted.

Answer at length, told in bytes read: `lines` with text, `empty` ones, `text_bytes`; for each of `tokenizers` its
counts, as `Tally` gives them; for each of `pairs` `tokenized_differently` and `other_ids`; and the `worst` lines, as
`example` gives them. Or `problem`, where the corpus is not text; or `fault`, `{tokenizer, line, cause}`, where a
tokenizer cannot be loaded (line is null) or fails at a line.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tokmigrate.errors import FileProblems
from tokmigrate.model.probe.answering import Tell, answering_at_length
from tokmigrate.model.probe.comparison import Comparison, example
from tokmigrate.model.probe.corpus import Block, blocks
from tokmigrate.model.probe.cuts import Cut, Library, Tally, loaded


class _FaultError(Exception):
    """A tokenizer, by its place, cannot be loaded, or fails at a line."""

    def __init__(self, tokenizer: int, line: int | None, cause: str) -> None:
        super().__init__(cause)
        self.answer = {"tokenizer": tokenizer, "line": line, "cause": cause}


def answer(request: Mapping[str, Any], tell: Tell) -> dict[str, Any]:
    """Load the tokenizers, read the corpus once, and answer."""
    try:
        return _measured(request, tell)
    except FileProblems as error:
        return {"problem": asdict(error.problems[0])}
    except _FaultError as fault:
        return {"fault": fault.answer}


def _measured(request: Mapping[str, Any], tell: Tell) -> dict[str, Any]:
    asked = request["tokenizers"]
    libraries = [_library(place, each["document"]) for place, each in enumerate(asked)]
    tallies = [Tally(each["limit"], each["unknown"], frozenset(each["byte_tokens"])) for each in asked]
    pairs = [(first, second, Comparison(libraries[first], libraries[second])) for first, second in request["pairs"]]
    lines = empty = text_bytes = 0
    for block in blocks(Path(request["corpus"])):
        lines, empty, text_bytes = lines + len(block.lines), empty + block.empty, text_bytes + block.text_bytes
        cuts = [_cuts(place, library, block) for place, library in enumerate(libraries)]
        for tally, made in zip(tallies, cuts, strict=True):
            for cut in made:
                tally.add(cut)
        for first, second, comparison in pairs:
            for (number, text), old, new in zip(block.lines, cuts[first], cuts[second], strict=True):
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
        return loaded(document)
    # A panic of the library is no Exception.
    except BaseException as error:
        raise _FaultError(place, None, str(error)) from error


def _cuts(place: int, library: Library, block: Block) -> list[Cut]:
    try:
        return library.cuts([text for _, text in block.lines])
    except BaseException as error:
        for number, text in block.lines:
            try:
                library.cuts([text])
            except BaseException as at_line:
                raise _FaultError(place, number, str(at_line)) from at_line
        raise _FaultError(place, block.lines[0][0], str(error)) from error


if __name__ == "__main__":
    answering_at_length(answer)

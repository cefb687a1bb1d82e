"""How many tokens texts have with two tokenizers, by file and by script.

Request: `files`, those of the corpus, as `Corpus.request` gives them; `before` and `after`, each a tokenizer.json;
`held_out_alone`, whether only the texts that are held out are compared.

Streamed answer, progress in bytes read: `groups`, each a file, a main script of its texts, and what `Growth` holds of
these; `unexpected`, the file and the number of the first text that holds no removed token and becomes more tokens, or
as many others, null without one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

from tokmigrate.model.tokenizer.library import open_tokenizer, text_alone
from tokmigrate.model.worker.corpus_files import CorpusFile, read_blocks
from tokmigrate.model.worker.count_tokens import is_held_out
from tokmigrate.model.worker.text_parts import Separator
from tokmigrate.model.worker.worker_main import Tell, run_streaming_worker
from tokmigrate.vocabulary.scripts import find_main_script

_COUNTS = ("texts", "bytes", "tokens_before", "tokens_after", "tokenized_differently", "with_removed_tokens")

_PARTS, _LETTERS = 2**16, 2**22
"""With more parts, or parts with so many letters, they are forgotten."""
_TOGETHER = 2048
"""How many parts are tokenized at a time: what the library returns is large."""


class Change(NamedTuple):
    """How many tokens a text has before and after.

    Args:
        differs: Whether it becomes other tokens.
        has_removed: Whether one of those before is removed.
    """

    before: int
    after: int
    differs: bool = False
    has_removed: bool = False

    @property
    def is_unexpected(self) -> bool:
        """Whether it becomes more tokens without a reason, or as many others."""
        return self.differs and not self.has_removed and self.after >= self.before


def answer(request: Mapping[str, Any], tell: Tell) -> dict[str, Any]:
    before, after = (open_tokenizer(request[side]) for side in ("before", "after"))
    groups: dict[tuple[str, str], dict[str, int]] = defaultdict(lambda: dict.fromkeys(_COUNTS, 0))
    unexpected: tuple[str, int] | None = None
    held_out_alone = request["held_out_alone"]
    with text_alone(before), text_alone(after):
        comparison = Comparison(before, after)
        for file in (CorpusFile(**each) for each in request["files"]):
            for block in read_blocks(file):
                texts = [each for each in block.texts if not held_out_alone or is_held_out(each[0])]
                changes = comparison.compare([text for _, text in texts])
                for (number, text), change in zip(texts, changes, strict=True):
                    group = groups[file.name, find_main_script(text)]
                    group["texts"] += 1
                    group["bytes"] += len(text.encode())
                    group["tokens_before"] += change.before
                    group["tokens_after"] += change.after
                    group["tokenized_differently"] += change.differs
                    group["with_removed_tokens"] += change.has_removed
                    if change.is_unexpected and unexpected is None:
                        unexpected = file.name, number
                tell(block.read)
    return {"groups": [[*names, counts] for names, counts in groups.items()], "unexpected": unexpected}


class Comparison:
    """Tokenizes texts with two tokenizers of the library; each part once, as long as it is remembered."""

    def __init__(self, before: Any, after: Any) -> None:
        self._before, self._after = before, after
        ids = after.get_vocab(with_added_tokens=True)
        self._new = {number: ids.get(token) for token, number in before.get_vocab(with_added_tokens=True).items()}
        self._separator = Separator(before, after)
        self._known: dict[str, Change] = {}
        self._letters = 0

    def compare(self, texts: Sequence[str]) -> list[Change]:
        """Return the change of each text."""
        separation = self._separator.find(texts)
        if separation is None:
            return self._tokenize(texts)
        whole = {*separation.set_apart(texts)[0]}
        parts = [[text] if text in whole else separation.cut.split(text) for text in texts]
        self._learn(chain.from_iterable(parts))
        return [self._add_up(text, each) for text, each in zip(texts, parts, strict=True)]

    def _learn(self, parts: Iterable[str]) -> None:
        if len(self._known) > _PARTS or self._letters > _LETTERS:
            self._known, self._letters = {}, 0
        unknown = [part for part in dict.fromkeys(parts) if part not in self._known]
        self._letters += sum(map(len, unknown))
        self._known.update(zip(unknown, self._tokenize(unknown), strict=True))

    def _add_up(self, text: str, parts: Sequence[str]) -> Change:
        changes = [self._known[part] for part in parts]
        before, after, differs, has_removed = map(sum, zip(*changes, strict=True))
        found = Change(before, after, bool(differs), bool(has_removed))
        # Parts that differ may be equal when they are joined.
        return self._tokenize([text])[0] if found.is_unexpected else found

    def _tokenize(self, texts: Sequence[str]) -> list[Change]:
        found: list[Change] = []
        for start in range(0, len(texts), _TOGETHER):
            some = texts[start : start + _TOGETHER]
            sides = (side.encode_batch_fast(some, add_special_tokens=False) for side in (self._before, self._after))
            for was, now in zip(*sides, strict=True):
                expected, reached = [self._new[token] for token in was.ids], now.ids
                differs = expected != reached
                found.append(Change(len(expected), len(reached), differs, differs and None in expected))
        return found


if __name__ == "__main__":
    run_streaming_worker(answer)

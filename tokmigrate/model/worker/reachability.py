"""Which tokens text can produce with one tokenizer, and can no longer produce with another.

Request: `before` and `after`, each the text of a tokenizer.json; `tokens`, `{text before: text after}` of those in
question, each in the vocabulary of the tokenizer's model. Where `before` is null, all of them could be produced before.

Answer: `unreachable`, the texts after of the tokens that text can produce before and cannot produce after.

A token is reachable if a text is found that produces it: its own, alone or next to another letter. One without a text
of its own, as the first bytes of a letter, is reachable if the tokenizer's model makes it of its own letters.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

from tokmigrate.model.formats.json_text import Json
from tokmigrate.model.tokenizer.library import open_tokenizer
from tokmigrate.model.tokenizer.token_meaning import TokenTexts
from tokmigrate.model.worker.worker_main import run_worker
from tokmigrate.vocabulary.ids import is_tombstone

_LETTERS = ("(", "0", "a", "x")
"""What a token's text is tried next to; of these one keeps it from being merged with what is before it."""

_UNKNOWN = "\U0010fffd"
"""A letter of the last private area, which no vocabulary has."""

_STARTERS, _BATCH = 8, 4096


class _Tokenizer:
    """A tokenizer.json, and what the library makes of it."""

    def __init__(self, text: str) -> None:
        self._text = text
        self.document: Mapping[str, Json] = json.loads(text)
        self.model: Mapping[str, Json] = self.document["model"]
        self.texts = TokenTexts(self.document)

    @cached_property
    def _whole(self) -> Any:
        return open_tokenizer(self._text)

    @cached_property
    def _merging(self) -> Any:
        """The tokenizer with a model that never gives a whole token without merging its letters."""
        if not self.model.get("ignore_merges"):
            return self._whole
        return open_tokenizer({**self.document, "model": {**self.model, "ignore_merges": False}})

    def makes(self, token: str) -> bool:
        """Return whether the model makes a token of its own letters, wherever text has these."""
        is_first = not (self.texts.prefix and token.startswith(self.texts.prefix))
        is_last = not self.texts.suffix or token.endswith(self.texts.suffix)
        if not is_first and "merges" not in self.model:
            # A word piece takes any rest that it is: what can stand before it only a text shows.
            return False
        own = self.texts.without_affixes(token)
        text = f"{'' if is_first else _UNKNOWN}{own}{'' if is_last else _UNKNOWN}"
        number = self._merging.token_to_id(token)
        try:
            return any(piece.id == number for piece in self._merging.model.tokenize(text))
        except Exception:
            # It has letters that the model does not know, and no token for what is unknown.
            return False

    def find_produced(self, texts: Mapping[str, str]) -> Iterator[str]:
        """Yield the tokens that are found in their texts, alone or next to other letters."""
        missing = dict(texts)
        for before, after in self._contexts():
            tokens = list(missing)
            for start in range(0, len(tokens), _BATCH):
                some = tokens[start : start + _BATCH]
                for token, ids in zip(
                    some, self._ids([f"{before}{missing[each]}{after}" for each in some]), strict=True
                ):
                    if self._whole.token_to_id(token) in ids:
                        del missing[token]
                        yield token

    def _contexts(self) -> Iterator[tuple[str, str]]:
        starters = [letter for letter in self.model["vocab"] if len(letter) == 1] if self.texts.prefix else []
        yield from ((before, "") for before in ("", *_LETTERS, *starters[:_STARTERS]))
        if self.texts.suffix:
            yield from (("", after) for after in _LETTERS)

    def _ids(self, texts: list[str]) -> list[list[int]]:
        try:
            return [each.ids for each in self._whole.encode_batch_fast(texts, add_special_tokens=False)]
        except Exception:
            # One of them has a letter that the model does not know, and there is no token for what is unknown.
            if len(texts) < 2:
                return [[] for _ in texts]
            middle = len(texts) // 2
            return [*self._ids(texts[:middle]), *self._ids(texts[middle:])]


def answer(request: Mapping[str, Any]) -> dict[str, Any]:
    after = _Tokenizer(request["after"])
    tokens: Mapping[str, str] = request["tokens"]
    if request["before"] is None:
        spoken = {token for token in tokens if after.texts.find_text(token) is not None}
        lost = {token for token in tokens if token not in spoken and not after.makes(token)}
        lost |= _not_produced(spoken, after, after)
        return {"unreachable": [token for token in tokens if token in lost]}
    before = _Tokenizer(request["before"])
    if _is_same_pipeline(before.document, after.document):
        # What the model still makes is found in a text in which it was found before.
        tokens = {old: new for old, new in tokens.items() if old != new or not after.makes(new)}
    texts = {old: before.texts.find_text(old) for old in tokens}
    silent = [old for old, text in texts.items() if text is None]
    lost = {tokens[old] for old in silent if before.makes(old) and not after.makes(tokens[old])}
    found = before.find_produced({old: text for old, text in texts.items() if text is not None})
    lost |= _not_produced({tokens[old] for old in found}, before, after)
    return {"unreachable": [new for new in tokens.values() if new in lost]}


def _not_produced(tokens: set[str], before: _Tokenizer, after: _Tokenizer) -> set[str]:
    """Return the tokens that are found in no text, whether that is read off them as before or as after."""
    texts = {token: text for token in tokens if (text := before.texts.find_text(token)) is not None}
    tokens = tokens.difference(after.find_produced(texts))
    if before.texts.is_byte_level and not after.texts.is_byte_level:
        # Letters for bytes, typed as such, do not occur in real text.
        return tokens
    others = {token: text for token in tokens if (text := after.texts.find_text(token)) not in (None, texts.get(token))}
    return tokens.difference(after.find_produced(others))


def _is_same_pipeline(before: Mapping[str, Json], after: Mapping[str, Json]) -> bool:
    """Return whether text comes to the model as before, but for added tokens that went."""
    if any(before.get(part) != after.get(part) for part in ("normalizer", "pre_tokenizer")):
        return False
    old, new = (
        {json.dumps({**entry, "id": None}, sort_keys=True) for entry in document.get("added_tokens") or []}
        for document in (before, after)
    )
    return all(is_tombstone(json.loads(entry)["content"]) for entry in new - old)


if __name__ == "__main__":
    run_worker(answer)

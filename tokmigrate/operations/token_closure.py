"""What a tokenizer needs besides the tokens that are to stay: the parts of these, letters, and what files name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Literal

from tokmigrate.model.documents.pipeline_overrides import part_defaults
from tokmigrate.model.documents.state import ModelState
from tokmigrate.model.references.references import ids_by_field
from tokmigrate.model.tokenizer.tokenizer_json import FILE, Merge, Tokenizer, continuing_prefix, merges_of, product
from tokmigrate.operations.token_checks import find_letters, find_uses


@dataclass(frozen=True)
class MergeTrees:
    """How the BPE of a tokenizer makes its tokens of letters; the tokens of other models have no parts."""

    tokenizer: Tokenizer

    def find_parts(self, tokens: Iterable[str]) -> set[str]:
        """Return the tokens that a BPE merges on its way to each of `tokens`, these included.

        If these stay, each merge on the way stays, and the way stays the same: a BPE applies the first of its merges
        that fits, and one that did not apply before is not missed. So text that is made of them is tokenized as before.
        """
        found = set(tokens)
        for token in list(found):
            found.update(self._find_way(token)[0])
        return found & self.tokenizer.ids.keys()

    def halves(self, token: str) -> Merge | None:
        """Return the two tokens that a BPE merges last on its way to a token, None where it does not make it."""
        return self._find_way(token)[1]

    def _find_way(self, token: str) -> tuple[list[str], Merge | None]:
        """Return the letters of a token, what merges make of them, and the last merge; nothing if it is not made."""
        if not self._ranks or token in self.tokenizer.added:
            return [], None
        made, last = self._merge_letters(token)
        return (made, last) if made[-1:] == [token] else ([], None)

    @cached_property
    def _ranks(self) -> Mapping[Merge, int]:
        return {merge: rank for rank, merge in enumerate(merges_of(self.tokenizer.document["model"]))}

    @cached_property
    def _affixes(self) -> tuple[str, str]:
        model = self.tokenizer.document["model"]
        return continuing_prefix(model), model.get("end_of_word_suffix") or ""

    def _letters(self, token: str) -> list[str]:
        """Return the letters that a BPE begins with, as its vocabulary spells them."""
        prefix, suffix = self._affixes
        is_continued = bool(prefix) and token.startswith(prefix)
        letters = list(token.removeprefix(prefix).removesuffix(suffix) if prefix or suffix else token)
        if letters and suffix and token.endswith(suffix):
            letters[-1] += suffix
        return [letter if place == 0 and not is_continued else prefix + letter for place, letter in enumerate(letters)]

    def _merge_letters(self, token: str) -> tuple[list[str], Merge | None]:
        """Return the letters of a token and all that merges make of them, and the merge that applies last."""
        pieces = self._letters(token)
        made, last = list(pieces), None
        while True:
            possible = [
                (rank, place)
                for place, pair in enumerate(pairwise(pieces))
                if (rank := self._ranks.get(pair)) is not None
            ]
            if not possible:
                return made, last
            place = min(possible)[1]
            last = pieces[place], pieces[place + 1]
            pieces[place : place + 2] = [product(last, self._affixes[0])]
            made.append(pieces[place])


def required_tokens(state: ModelState) -> dict[str, Literal["structural", "role"]]:
    """Return the tokens that stay whatever is removed, each with the reason.

    Returns:
        `structural` for letters, bytes, added tokens, the unknown token and, of a Unigram, one with the lowest score;
        `role` for a token that a file names.
    """
    tokenizer, is_letter = state.tokenizer, find_letters(state.documents[FILE])
    found: dict[str, Literal["structural", "role"]] = {
        token: "structural" for token in tokenizer.vocabulary if is_letter(token)
    }
    found |= dict.fromkeys(tokenizer.added, "structural")
    if tokenizer.unknown is not None:
        found[tokenizer.unknown] = "structural"
    vocabulary = state.documents[FILE]["model"]["vocab"]
    if isinstance(vocabulary, list) and vocabulary:
        # What a Unigram makes of an unknown letter is scored by the lowest score of all.
        found.setdefault(min(vocabulary, key=lambda entry: entry[1])[0], "structural")
    named = {token for _, _, token in find_uses(state, frozenset()) if token is not None}
    named |= {tokenizer.texts[number] for number in _configured_ids(state) if number in tokenizer.texts}
    return {**dict.fromkeys(sorted(named & tokenizer.ids.keys()), "role"), **found}


def _configured_ids(state: ModelState) -> Iterator[int]:
    """Yield the ids that the configurations hold, and those that transformers takes where they say nothing."""
    for _, _, ids in ids_by_field(state):
        yield from ids
    for _, _, defaults in part_defaults(state):
        for value in defaults.values():
            yield from value if isinstance(value, list) else [value]

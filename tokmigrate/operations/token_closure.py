"""What a tokenizer needs besides the tokens that are to stay: the parts of these, letters, and what files name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise

from tokmigrate.model.documents.pipeline_overrides import part_defaults
from tokmigrate.model.documents.state import ModelState
from tokmigrate.model.formats.json_text import Json
from tokmigrate.model.references.references import ids_by_field
from tokmigrate.model.tokenizer.tokenizer_json import FILE, Merge, Tokenizer, merges_of, product
from tokmigrate.operations.token_checks import find_uses, is_letter


def find_parts(tokenizer: Tokenizer, tokens: Iterable[str]) -> set[str]:
    """Return the tokens that a BPE merges on its way to each of `tokens`, these included.

    If these stay, each merge on the way stays, and the way stays the same: a BPE applies the first of its merges that
    fits, and one that did not apply before is not missed. So text that is made of them is tokenized as before.
    For other models of tokenizers a token has no parts.
    """
    model: Mapping[str, Json] = tokenizer.document["model"]
    ranks: dict[Merge, int] = {}
    for rank, merge in enumerate(merges_of(model)):
        ranks[merge] = rank
    prefix, suffix = model.get("continuing_subword_prefix") or "", model.get("end_of_word_suffix") or ""
    found: set[str] = set()
    for token in tokens:
        found.add(token)
        if ranks and token not in tokenizer.added:
            found.update(_merge_letters(_letters(token, prefix, suffix), ranks, prefix))
    return found & tokenizer.ids.keys()


def _letters(token: str, prefix: str, suffix: str) -> list[str]:
    """Return the letters that a BPE begins with, as its vocabulary spells them."""
    is_continued = bool(prefix) and token.startswith(prefix)
    letters = list(token.removeprefix(prefix).removesuffix(suffix) if prefix or suffix else token)
    if letters and suffix and token.endswith(suffix):
        letters[-1] += suffix
    return [letter if number == 0 and not is_continued else prefix + letter for number, letter in enumerate(letters)]


def _merge_letters(pieces: list[str], ranks: Mapping[Merge, int], prefix: str) -> list[str]:
    """Return the letters, and all that merges make of them."""
    made = list(pieces)
    while True:
        possible = [
            (rank, place) for place, pair in enumerate(pairwise(pieces)) if (rank := ranks.get(pair)) is not None
        ]
        if not possible:
            return made
        place = min(possible)[1]
        pieces[place : place + 2] = [product((pieces[place], pieces[place + 1]), prefix)]
        made.append(pieces[place])


def required_tokens(state: ModelState) -> dict[str, str]:
    """Return the tokens that stay whatever is removed, each with the reason.

    Returns:
        `structural` for letters, bytes, added tokens and the unknown token; `role` for a token that a file names.
    """
    document, tokenizer = state.documents[FILE], state.tokenizer
    found = {token: "structural" for token in tokenizer.vocabulary if is_letter(token, document)}
    found |= dict.fromkeys(tokenizer.added, "structural")
    if tokenizer.unknown is not None:
        found[tokenizer.unknown] = "structural"
    named = {token for _, _, token in find_uses(state, frozenset()) if token is not None}
    named |= {tokenizer.texts[number] for number in _configured_ids(state) if number in tokenizer.texts}
    return dict.fromkeys(sorted(named & tokenizer.ids.keys()), "role") | found


def _configured_ids(state: ModelState) -> Iterator[int]:
    """Yield the ids that the configurations hold, and those that transformers takes where they say nothing."""
    for _, _, ids in ids_by_field(state):
        yield from ids
    for _, part, defaults in part_defaults(state):
        for name, value in defaults.items():
            if name not in part:
                yield from value if isinstance(value, list) else [value]

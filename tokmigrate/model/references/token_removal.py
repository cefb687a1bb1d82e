"""The files of a model without some of its tokens: their ids close up, or placeholders hold them."""

from __future__ import annotations

from collections.abc import Mapping

from tokmigrate.model.documents.other_vocabularies import with_vocabularies_in_step
from tokmigrate.model.documents.roles import with_added_tokens, without_listed_specials
from tokmigrate.model.documents.state import (
    MERGES,
    TOKENIZER_CONFIG,
    ModelState,
)
from tokmigrate.model.formats.json_text import Json
from tokmigrate.model.references.token_texts import SKIPPED, skipped_words, with_keys, with_renamed_in_lists
from tokmigrate.model.tokenizer.merges import without
from tokmigrate.model.tokenizer.tokenizer_json import FILE
from tokmigrate.vocabulary.renumbering import Renumbering
from tokmigrate.vocabulary.tokens import AddedToken


def without_mentions(state: ModelState, gone: frozenset[str]) -> ModelState:
    """Return the state without merges and lists of special tokens that name a token of `gone`.

    Args:
        state: The state before.
        gone: The texts of the tokens that go.
    """
    model = state.documents[FILE]["model"]
    prefix = model.get("continuing_subword_prefix") or ""
    if model.get("merges"):
        state = state.with_value(FILE, ("model", "merges"), without(model["merges"], gone, prefix))
    if MERGES in state.documents:
        lines = str(state.documents[MERGES]).split("\n")
        kept = [line for line in lines if not _is_merge(line) or without([line], gone, prefix)]
        state = state.with_document(MERGES, "\n".join(kept))
    state = without_listed_specials(state, tuple(gone))
    for file, words in list(skipped_words(state)):
        state = state.with_value(file, (SKIPPED,), [word for word in words if word not in gone])
    return state


def with_placeholders(state: ModelState, names: Mapping[str, str]) -> ModelState:
    """Return the state in which placeholders have the ids of tokens that go.

    Args:
        state: The state before, without mentions of those tokens.
        names: The placeholder of each token that goes.
    """
    before = state
    document = state.documents[FILE]
    vocabulary = document["model"]["vocab"]
    if isinstance(vocabulary, list):
        lowest = min(entry[1] for entry in vocabulary)
        renamed: Json = [[names[entry[0]], lowest] if entry[0] in names else entry for entry in vocabulary]
    else:
        renamed = with_keys(vocabulary, names)
    entries = [
        {**entry, **_PLAIN, "content": names[entry["content"]]} if entry["content"] in names else entry
        for entry in document.get("added_tokens") or []
    ]
    state = state.with_value(FILE, ("model", "vocab"), renamed).with_value(FILE, ("added_tokens",), entries)
    decoder = (state.documents.get(TOKENIZER_CONFIG) or {}).get("added_tokens_decoder")
    if isinstance(decoder, dict):
        held = {
            number: {**entry, **_PLAIN, "content": names[entry["content"]]} if entry["content"] in names else entry
            for number, entry in decoder.items()
        }
        state = state.with_value(TOKENIZER_CONFIG, ("added_tokens_decoder",), held)
    state = with_renamed_in_lists(state, names)
    plain = [placeholder for placeholder in names.values() if placeholder not in state.tokenizer.added]
    state = with_added_tokens(state, [AddedToken(placeholder, special=True) for placeholder in plain])
    state.tokenizer.checked()
    return with_vocabularies_in_step(before, state, Renumbering({}))


_PLAIN = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}


def _is_merge(line: str) -> bool:
    return not line.startswith("#version") and len(line.split(" ")) == 2

"""Every place that says a token's text: how a token is renamed in all of them, and how it is removed from them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tokmigrate.model.documents.config_fields import shape_of
from tokmigrate.model.documents.roles import (
    text_of,
    with_added_tokens,
    with_added_tokens_decoder,
    without_listed_specials,
)
from tokmigrate.model.documents.slow_tokenizer_files import with_slow_files_in_step
from tokmigrate.model.documents.state import (
    ADDED_TOKENS,
    GENERATION,
    MERGES,
    PREPROCESSOR,
    PROCESSOR,
    SPECIAL_TOKENS_MAP,
    TOKENIZER_CONFIG,
    VOCAB_JSON,
    VOCAB_TXT,
    ModelState,
)
from tokmigrate.model.formats.json_text import Json, replace_at
from tokmigrate.model.references.references import configurations
from tokmigrate.model.tokenizer.tokenizer_json import FILE, without
from tokmigrate.vocabulary.ids import AddedToken, Renumbering

Names = Mapping[str, str]
"""New texts by the old ones."""

SKIPPED = "skiplist_words"
_LISTS = ("additional_special_tokens", "extra_special_tokens", "model_specific_special_tokens", "added_tokens_decoder")


Entry = tuple[str, tuple[str | int, ...], Json]
"""A file, a place in it, and what stands for a token there: its text, or an object with it."""


def find_named_tokens(state: ModelState) -> Iterator[Entry]:
    """Yield what stands for a token in any file but tokenizer.json and those that list the whole vocabulary."""
    for name in (TOKENIZER_CONFIG, SPECIAL_TOKENS_MAP):
        yield from ((name, path, entry) for path, entry in token_entries(state.documents.get(name) or {}))
    for name in (PROCESSOR, PREPROCESSOR):
        yield from ((name, path, entry) for path, entry in _nested_entries(state.documents.get(name)))


def find_skipped_words(state: ModelState) -> Iterator[tuple[str, list[Json]]]:
    """Yield the list of tokens that a multi-vector model of sentence-transformers skips, with its file."""
    for name, document in configurations(state.documents).items():
        if isinstance(document.get(SKIPPED), list):
            yield name, document[SKIPPED]


def _nested_entries(part: Json, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Json]]:
    for key, value in part.items() if isinstance(part, dict) else ():
        if key.endswith("_token") and text_of(value) is not None:
            yield (*path, key), value
        else:
            yield from _nested_entries(value, (*path, key))


def token_entries(document: Json) -> Iterator[tuple[tuple[str | int, ...], Json]]:
    """Yield each text or object that stands for a token in tokenizer_config.json or special_tokens_map.json."""
    for key, value in document.items():
        if key.endswith("_token") and text_of(value) is not None:
            yield (key,), value
        elif key in _LISTS:
            steps = value.items() if isinstance(value, dict) else enumerate(value or [])
            yield from (((key, step), entry) for step, entry in steps if text_of(entry) is not None)


def with_renamed_tokens(state: ModelState, names: Names) -> ModelState:
    """Return the state in which every file calls each token by its new text.

    Args:
        state: The state before.
        names: New texts, none of which is a token yet, by the old ones.
    """
    before = state
    state = state.with_document(FILE, _tokenizer(state.documents[FILE], names))
    for name, path, entry in list(find_named_tokens(state)):
        new = names.get(text_of(entry) or "")
        if new is not None:
            state = state.with_value(name, (*path, "content") if isinstance(entry, dict) else path, new)
    for name, words in list(find_skipped_words(state)):
        state = state.with_value(name, (SKIPPED,), [_rename(word, names) for word in words])
    for name, document in configurations(state.documents).items():
        state = state.with_document(name, _with_maps(document, names))
    state = with_renamed_in_lists(state, names)
    stops = (state.documents.get(GENERATION) or {}).get("stop_strings")
    if stops is not None:
        renamed = [_rename(stop, names) for stop in stops] if isinstance(stops, list) else _rename(stops, names)
        state = state.with_value(GENERATION, ("stop_strings",), renamed)
    return with_added_tokens_decoder(with_slow_files_in_step(before, state, Renumbering({})))


def with_renamed_in_lists(state: ModelState, names: Names) -> ModelState:
    """Return the state in which added_tokens.json, vocab.json and vocab.txt call each token by its new text.

    Args:
        state: The state before.
        names: New texts by the old ones.
    """
    for name in (ADDED_TOKENS, VOCAB_JSON):
        if name in state.documents:
            state = state.with_document(name, with_keys(state.documents[name], names))
    if VOCAB_TXT in state.documents:
        lines = str(state.documents[VOCAB_TXT]).split("\n")
        state = state.with_document(VOCAB_TXT, "\n".join(names.get(line, line) for line in lines))
    return state


def _with_maps(part: Json, names: Names) -> Json:
    """Return a configuration in which maps of tokens to ids have the new texts."""
    if isinstance(part, list):
        changed: Json = [_with_maps(item, names) for item in part]
    elif isinstance(part, dict):
        changed = {
            name: with_keys(held, names)
            if shape_of(name) == "map" and isinstance(held, dict)
            else _with_maps(held, names)
            for name, held in part.items()
        }
    else:
        return part
    return part if changed == part else changed


def _tokenizer(document: Json, names: Names) -> Json:
    added = [{**entry, "content": _rename(entry["content"], names)} for entry in document.get("added_tokens") or []]
    if added:
        document = replace_at(document, ("added_tokens",), added)
    vocabulary = document["model"]["vocab"]
    if isinstance(vocabulary, list):
        renamed: Json = [[_rename(entry[0], names), *entry[1:]] for entry in vocabulary]
    else:
        renamed = with_keys(vocabulary, names)
    document = replace_at(document, ("model", "vocab"), renamed)
    for path in (("model", "unk_token"), ("padding", "pad_token")):
        held = (document.get(path[0]) or {}).get(path[1])
        if held is not None:
            document = replace_at(document, path, _rename(held, names))
    for section, renaming in (("post_processor", _post_processor), ("decoder", _decoder)):
        if document.get(section):
            document = replace_at(document, (section,), renaming(document[section], names))
    return document


def _post_processor(part: Json, names: Names) -> Json:
    part = _inside(part, "processors", _post_processor, names)
    for name in ("sep", "cls"):
        if isinstance(part.get(name), list):
            part[name] = [_rename(part[name][0], names), *part[name][1:]]
    if part.get("special_tokens"):
        part["special_tokens"] = {
            _rename(key, names): {
                **special,
                "id": _rename(special["id"], names),
                "tokens": [_rename(token, names) for token in special["tokens"]],
            }
            for key, special in part["special_tokens"].items()
        }
        for side in ("single", "pair"):
            part[side] = [_piece(piece, names) for piece in part.get(side) or []]
    return part


def _piece(piece: Json, names: Names) -> Json:
    special = piece.get("SpecialToken")
    return {"SpecialToken": {**special, "id": _rename(special["id"], names)}} if special else piece


def _decoder(part: Json, names: Names) -> Json:
    part = _inside(part, "decoders", _decoder, names)
    for name in ("pad_token", "word_delimiter_token"):
        if name in part:
            part[name] = _rename(part[name], names)
    return part


def _inside(part: Json, key: str, renaming: Any, names: Names) -> dict[str, Json]:
    """Return a copy of `part` whose inner parts are renamed."""
    inner = part.get(key)
    return {**part, key: [renaming(each, names) for each in inner]} if isinstance(inner, list) else dict(part)


def with_keys(mapping: Mapping[str, Json], names: Names) -> dict[str, Json]:
    """Return a map of texts with the new texts of tokens in the place of the old ones."""
    return {_rename(key, names): value for key, value in mapping.items()}


def _rename(text: Json, names: Names) -> Json:
    return names.get(text, text) if isinstance(text, str) else text


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
    for file, words in list(find_skipped_words(state)):
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
    return with_slow_files_in_step(before, state, Renumbering({}))


_PLAIN = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}


def _is_merge(line: str) -> bool:
    return not line.startswith("#version") and len(line.split(" ")) == 2

"""Every place that says a token's text: how a token is renamed in all of them, and how it is removed from them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set

from tokmigrate.model.documents.config_fields import Path, Shape
from tokmigrate.model.documents.roles import (
    LISTS,
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
    ModelState,
)
from tokmigrate.model.formats.json_text import Json, replace_at, walk
from tokmigrate.model.references.config_references import with_fields
from tokmigrate.model.references.references import Names, map_post_processor, with_vocabulary_files
from tokmigrate.model.tokenizer.tokenizer_json import FILE, continuing_prefix, without
from tokmigrate.vocabulary.ids import AddedToken, Renumbering

_ALL_STAY = Renumbering({})
SKIPPED = "skiplist_words"
_LISTS = (*LISTS, "model_specific_special_tokens", "added_tokens_decoder")


Entry = tuple[str, tuple[str | int, ...], Json]
"""A file, a place in it, and what stands for a token there: its text, or an object with it."""


def find_named_tokens(state: ModelState) -> Iterator[Entry]:
    """Yield what stands for a token in any file but tokenizer.json and those that list the whole vocabulary."""
    for name in (TOKENIZER_CONFIG, SPECIAL_TOKENS_MAP):
        yield from ((name, path, entry) for path, entry in token_entries(state.documents.get(name) or {}))
    for name in (PROCESSOR, PREPROCESSOR):
        for path, entry in walk(state.documents.get(name)):
            if path and str(path[-1]).endswith("_token") and text_of(entry) is not None:
                yield name, path, entry


def find_skipped_words(state: ModelState) -> Iterator[tuple[str, list[Json]]]:
    """Yield the list of tokens that a multi-vector model of sentence-transformers skips, with its file."""
    for name, document in state.configurations.items():
        if isinstance(document.get(SKIPPED), list):
            yield name, document[SKIPPED]


def token_entries(document: Json) -> Iterator[tuple[tuple[str | int, ...], Json]]:
    """Yield each text or object that stands for a token in tokenizer_config.json or special_tokens_map.json."""
    for key, value in document.items():
        if key.endswith("_token") and text_of(value) is not None:
            yield (key,), value
        elif key in _LISTS:
            steps = value.items() if isinstance(value, dict) else enumerate(value or [])
            yield from (((key, step), entry) for step, entry in steps if text_of(entry) is not None)


def with_renamed_tokens(state: ModelState, names: Names) -> ModelState:
    """Return the state in which every file calls each token by its new text; none of these is a token yet."""

    def rename_map(_: Path, held: Json, shape: Shape) -> Json:
        return _with_keys(held, names) if shape == "map" and isinstance(held, dict) else held

    before = state
    state = state.with_document(FILE, _tokenizer(state.documents[FILE], names))
    for name, path, entry in list(find_named_tokens(state)):
        new = names.get(text_of(entry) or "")
        if new is not None:
            state = state.with_value(name, (*path, "content") if isinstance(entry, dict) else path, new)
    for name, words in list(find_skipped_words(state)):
        state = state.with_value(name, (SKIPPED,), [_rename(word, names) for word in words])
    for name, document in state.configurations.items():
        state = state.with_document(name, with_fields(document, rename_map, state.vocab_size, state.traits.id_fields))
    state = with_vocabulary_files(state, _ALL_STAY, names)
    stops = (state.documents.get(GENERATION) or {}).get("stop_strings")
    if stops is not None:
        renamed = [_rename(stop, names) for stop in stops] if isinstance(stops, list) else _rename(stops, names)
        state = state.with_value(GENERATION, ("stop_strings",), renamed)
    return with_added_tokens_decoder(with_slow_files_in_step(before, state, _ALL_STAY))


def _tokenizer(document: Json, names: Names) -> Json:
    added = [{**entry, "content": _rename(entry["content"], names)} for entry in document.get("added_tokens") or []]
    if added:
        document = replace_at(document, ("added_tokens",), added)
    vocabulary = document["model"]["vocab"]
    if isinstance(vocabulary, list):
        renamed: Json = [[_rename(entry[0], names), *entry[1:]] for entry in vocabulary]
    else:
        renamed = _with_keys(vocabulary, names)
    document = replace_at(document, ("model", "vocab"), renamed)
    for path in (("model", "unk_token"), ("padding", "pad_token")):
        held = (document.get(path[0]) or {}).get(path[1])
        if held is not None:
            document = replace_at(document, path, _rename(held, names))
    if document.get("post_processor"):
        changed = map_post_processor(document["post_processor"], lambda text: names.get(text, text), int)
        document = replace_at(document, ("post_processor",), changed)
    if document.get("decoder"):
        document = replace_at(document, ("decoder",), _decoder(document["decoder"], names))
    return document


def _decoder(part: Json, names: Names) -> Json:
    changed = dict(part)
    if part.get("decoders"):
        changed["decoders"] = [_decoder(inner, names) for inner in part["decoders"]]
    for name in ("pad_token", "word_delimiter_token"):
        if name in part:
            changed[name] = _rename(part[name], names)
    return changed


def _with_keys(mapping: Mapping[str, Json], names: Names) -> dict[str, Json]:
    return {_rename(key, names): value for key, value in mapping.items()}


def _rename(text: Json, names: Names) -> Json:
    return names.get(text, text) if isinstance(text, str) else text


def without_mentions(state: ModelState, gone: frozenset[str]) -> ModelState:
    """Return the state without merges and lists of special tokens that name a token of `gone`, their texts."""
    model = state.documents[FILE]["model"]
    prefix = continuing_prefix(model)
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


def with_placeholders(state: ModelState, names: Names) -> ModelState:
    """Return the state in which each token that goes, and that nothing mentions, has its placeholder instead."""
    before = state
    state = state.with_document(FILE, _tokenizer(state.documents[FILE], names))
    placeholders = {*names.values()}
    vocabulary = state.documents[FILE]["model"]["vocab"]
    if isinstance(vocabulary, list):
        lowest = min(entry[1] for entry in vocabulary)
        lowered = [[entry[0], lowest] if entry[0] in placeholders else entry for entry in vocabulary]
        state = state.with_value(FILE, ("model", "vocab"), lowered)
    entries = [
        {**entry, **_PLAIN} if entry["content"] in placeholders else entry
        for entry in state.documents[FILE].get("added_tokens") or []
    ]
    state = state.with_value(FILE, ("added_tokens",), entries)
    decoder = (state.documents.get(TOKENIZER_CONFIG) or {}).get("added_tokens_decoder")
    if isinstance(decoder, dict):
        held = {
            number: {**entry, **_PLAIN, "content": names[entry["content"]]} if entry["content"] in names else entry
            for number, entry in decoder.items()
        }
        state = state.with_value(TOKENIZER_CONFIG, ("added_tokens_decoder",), held)
    state = with_vocabulary_files(state, _ALL_STAY, names)
    plain = [placeholder for placeholder in names.values() if placeholder not in state.tokenizer.added]
    state = with_added_tokens(state, [AddedToken(placeholder, special=True) for placeholder in plain])
    state.tokenizer.check()
    return with_slow_files_in_step(before, state, _ALL_STAY)


def without_placeholders(state: ModelState, gone: Set[str]) -> ModelState:
    """Return the state whose files list some placeholders of a BPE no more, so that their ids are free."""
    document = state.documents[FILE]
    entries = [entry for entry in document.get("added_tokens") or [] if entry["content"] not in gone]
    state = state.with_value(FILE, ("added_tokens",), entries)
    state = state.with_value(FILE, ("model", "vocab"), _drop(document["model"]["vocab"], gone))
    if VOCAB_JSON in state.documents:
        state = state.with_document(VOCAB_JSON, _drop(state.documents[VOCAB_JSON], gone))
    return without_added_tokens(state, gone)


def without_added_tokens(state: ModelState, gone: Set[str]) -> ModelState:
    """Return the state in which the files beside tokenizer.json list some added tokens no more."""
    if ADDED_TOKENS in state.documents:
        state = state.with_document(ADDED_TOKENS, _drop(state.documents[ADDED_TOKENS], gone))
    decoder = (state.documents.get(TOKENIZER_CONFIG) or {}).get("added_tokens_decoder")
    if isinstance(decoder, dict):
        left = {number: entry for number, entry in decoder.items() if text_of(entry) not in gone}
        state = state.with_value(TOKENIZER_CONFIG, ("added_tokens_decoder",), left)
    return state


def _drop(ids: Json, gone: Set[str]) -> Json:
    return {text: number for text, number in ids.items() if text not in gone}


_PLAIN = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}


def _is_merge(line: str) -> bool:
    return not line.startswith("#version") and len(line.split(" ")) == 2

"""Which files say what the special tokens are, and how they are kept in step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from operator import itemgetter
from typing import Any, Literal

from tokmigrate.model.documents.config_fields import parts_of
from tokmigrate.model.documents.slow_tokenizer_files import is_read_without_added_tokens, is_read_without_flags
from tokmigrate.model.documents.state import (
    ADDED_TOKENS,
    CONFIG,
    GENERATION,
    SPECIAL_TOKENS_MAP,
    TOKENIZER_CONFIG,
    ModelState,
)
from tokmigrate.model.formats.json_text import Json
from tokmigrate.model.tokenizer.tokenizer_json import FILE
from tokmigrate.vocabulary.ids import AddedToken

Role = Literal["bos", "eos", "unk", "sep", "pad", "cls", "mask"]
ROLES: tuple[Role, ...] = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")

LISTS = ("additional_special_tokens", "extra_special_tokens")
"""The fields that list special tokens without a role of their own."""


def text_of(entry: Json) -> str | None:
    """Return the text of a token that a file gives as text or as an object."""
    if isinstance(entry, dict):
        entry = entry.get("content")
    return entry if isinstance(entry, str) else None


def list_specials(documents: Mapping[str, Json]) -> tuple[str, ...]:
    """Return the special tokens that are listed, with or without a role, each once."""
    found: list[str] = []
    for name in (TOKENIZER_CONFIG, SPECIAL_TOKENS_MAP):
        for key in LISTS:
            held = (documents.get(name) or {}).get(key)
            found += [text for entry in held if (text := text_of(entry))] if isinstance(held, list) else []
    return tuple(dict.fromkeys(found))


def special_token(state: ModelState, role: Role) -> str | None:
    """Return the text of the token that has `role`, as tokenizer_config.json or special_tokens_map.json says."""
    for name in (TOKENIZER_CONFIG, SPECIAL_TOKENS_MAP):
        found = text_of((state.documents.get(name) or {}).get(f"{role}_token"))
        if found is not None:
            return found
    return None


def with_role(state: ModelState, role: Role, content: str) -> ModelState:
    """Return the state in which every file says that the token `content` has `role`."""
    number = state.tokenizer.ids[content]
    state = with_special_flag(state, content)
    state = state.with_value(TOKENIZER_CONFIG, (f"{role}_token",), content)
    if SPECIAL_TOKENS_MAP in state.documents:
        state = state.with_value(SPECIAL_TOKENS_MAP, (f"{role}_token",), content)
    if role == "unk":
        model = state.documents[FILE]["model"]
        for key, value in (("unk_token", content), ("unk_id", number)):
            if model.get(key) is not None:
                state = state.with_value(FILE, ("model", key), value)
        return state
    key = f"{role}_token_id"
    config = state.documents[CONFIG]
    holders = [(path, part) for path, part in parts_of(config, state.vocab_size) if key in part] or [((), config)]
    for path, part in holders:
        state = state.with_value(CONFIG, (*path, key), with_id(part.get(key), number))
    generation = state.documents.get(GENERATION)
    if generation is not None:
        state = state.with_value(GENERATION, (key,), with_id(generation.get(key), number))
    # The token that had the role before may be special by that alone.
    return with_added_tokens_decoder(state)


def with_special_flag(state: ModelState, content: str) -> ModelState:
    """Return the state in which `content` is an added special token, as transformers makes it on loading."""
    if content in state.tokenizer.added:
        return with_added_tokens_decoder(state)
    return with_added_tokens(state, (AddedToken(content, special=True),))


def with_listed_specials(state: ModelState, contents: Sequence[str]) -> ModelState:
    """Return the state in which the files that list special tokens list `contents` too, each where its id puts it.

    Whisper takes the id after the last one that is listed for its first timestamp.
    """
    ids = state.tokenizer.ids
    for name in (TOKENIZER_CONFIG, SPECIAL_TOKENS_MAP):
        key = list_of_specials(state, name)
        if key is None:
            continue
        # A list in tokenizer_config.json hides the one in special_tokens_map.json.
        listed = list(state.documents[name].get(key) or (state.documents.get(SPECIAL_TOKENS_MAP) or {}).get(key) or [])
        for content in contents:
            if content not in map(text_of, listed):
                lower = [place for place, entry in enumerate(listed) if ids.get(text_of(entry) or "", 0) < ids[content]]
                listed.insert(lower[-1] + 1 if lower else 0, content)
        state = state.with_value(name, (key,), listed)
    return state


def without_listed_specials(state: ModelState, contents: Sequence[str]) -> ModelState:
    """Return the state in which no file lists `contents` as special tokens; a role that one has stays."""
    for name in (TOKENIZER_CONFIG, SPECIAL_TOKENS_MAP):
        for key in LISTS:
            held = (state.documents.get(name) or {}).get(key)
            if isinstance(held, list):
                state = state.with_value(name, (key,), [entry for entry in held if text_of(entry) not in contents])
    return state


def list_of_specials(state: ModelState, name: str) -> str | None:
    """Return the field of a file in which special tokens are listed, None where the file has no list.

    transformers 5 writes `extra_special_tokens`; older releases wrote `additional_special_tokens`, and a map under the
    other name. tokenizer_config.json gets one where it has none, special_tokens_map.json does not.
    """
    document = state.documents.get(name)
    if document is None:
        return None
    found = next((key for key in LISTS if isinstance(document.get(key), list)), None)
    if found is not None or name == SPECIAL_TOKENS_MAP:
        return found
    # Releases before 5, which write a map file, cannot load a list under the new name; 5 loads both.
    is_old = isinstance(document.get(LISTS[1]), dict) or SPECIAL_TOKENS_MAP in state.documents
    return LISTS[0] if is_old else LISTS[1]


def with_added_tokens(state: ModelState, tokens: Sequence[AddedToken]) -> ModelState:
    """Return the state with `tokens` in tokenizer.json and in the files that repeat its added tokens.

    They are in the order of their ids, and no text occurs twice.
    """
    tokenizer = state.tokenizer.with_tokens(tokens)
    state = state.with_document(FILE, tokenizer.document)
    decoder = (state.documents.get(TOKENIZER_CONFIG) or {}).get("added_tokens_decoder")
    if decoder is not None:
        entries = {str(tokenizer.ids[token.content]): _decoder_entry(token) for token in tokens}
        state = state.with_value(TOKENIZER_CONFIG, ("added_tokens_decoder",), {**decoder, **entries})
    if ADDED_TOKENS in state.documents:
        listed = {token.content: tokenizer.ids[token.content] for token in tokens}
        state = state.with_document(ADDED_TOKENS, {**state.documents[ADDED_TOKENS], **listed})
    return with_added_tokens_decoder(state)


def with_added_tokens_decoder(state: ModelState) -> ModelState:
    """Return the state whose tokenizer_config.json lists the added tokens, where llama.cpp's converter needs that.

    The converter reads tokenizer.model and `added_tokens_decoder`, which transformers 5 does not write. It
    still reads that, and then no special_tokens_map.json, so what only the map says is copied.
    Of a BPE that falls back to bytes it reads tokenizer.json, and no flags: what is special has a role or is listed.
    """
    config = state.documents.get(TOKENIZER_CONFIG) or {}
    if is_read_without_flags(state):
        known = {*list_specials(state.documents), *(special_token(state, role) for role in ROLES)}
        flagged = (text for text, (token, _) in state.tokenizer.added.items() if token.special)
        missing = [text for text in flagged if text not in known]
        return with_listed_specials(state, missing) if missing else state
    if "added_tokens_decoder" in config or not is_read_without_added_tokens(state):
        return state
    for key, held in (state.documents.get(SPECIAL_TOKENS_MAP) or {}).items():
        if isinstance(held, list):
            if not any(isinstance(config.get(name), list) for name in LISTS):
                state = state.with_value(TOKENIZER_CONFIG, (key,), [text_of(entry) for entry in held])
        elif text_of(held) is not None and text_of(held) != text_of(config.get(key)):
            state = state.with_value(TOKENIZER_CONFIG, (key,), text_of(held))
    added = sorted(state.tokenizer.added.values(), key=itemgetter(1))
    entries = {str(number): _decoder_entry(token) for token, number in added}
    return state.with_value(TOKENIZER_CONFIG, ("added_tokens_decoder",), entries)


def _decoder_entry(token: AddedToken) -> dict[str, Any]:
    return dict(sorted(asdict(token).items()))


def with_id(held: Json, number: int) -> Json:
    """Return what stands where `held` stood: a list keeps its other ids after the new one."""
    if isinstance(held, list):
        return [number, *(other for other in held if other != number)]
    return number

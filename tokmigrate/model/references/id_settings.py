"""Fields of configurations that name tokens by their ids, set to other tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tokmigrate.errors import OperationError, suggest
from tokmigrate.model.documents.config_fields import NESTED, Path, Shape, role_of, shape_of
from tokmigrate.model.documents.pipeline_overrides import part_defaults
from tokmigrate.model.documents.roles import text_of, with_id, with_special_flag
from tokmigrate.model.documents.state import CONFIG, GENERATION, SPECIAL_TOKENS_MAP, TOKENIZER_CONFIG, ModelState
from tokmigrate.model.formats.json_text import Json
from tokmigrate.model.references.config_references import known_fields, with_fields
from tokmigrate.model.references.token_texts import find_named_tokens

_OF_GENERATION = {
    "decoder_start": "decoder_start_token_id",
    "forced_bos": "forced_bos_token_id",
    "forced_eos": "forced_eos_token_id",
    **{name: name for name in ("suppress_tokens", "begin_suppress_tokens", "bad_words_ids", "force_words_ids")},
}
"""The fields that transformers reads of every generation_config.json, by what sets them."""

_SEQUENCES = ("bad_words_ids", "force_words_ids")
"""The lists whose items are ids of several tokens in a row."""


@dataclass(frozen=True)
class ListChange:
    """Tokens that come to a list, and those that go from it."""

    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()


Setting = str | tuple[str, ...] | ListChange | Mapping[str, str]
"""What a field is set to: a token, a list of tokens, a change of the list, or tokens by name."""


def tokens_in(setting: Setting) -> tuple[str, ...]:
    """Return the tokens that a setting names."""
    match setting:
        case str():
            return (setting,)
        case ListChange():
            return (*setting.add, *setting.remove)
        case Mapping():
            return tuple(setting.values())
    return setting


def with_setting(state: ModelState, name: str, setting: Setting) -> ModelState:
    """Return the state in which every field that `name` means names other tokens, and each file that gives their text.

    The name is a role, such as `image`, or that of a field; the tokens are in the vocabulary.

    Raises:
        OperationError: The model has no such field, or the field cannot hold that.
    """
    ids = state.tokenizer.ids
    reached, found = _with_fields_set(state, name, setting, are_empty=False)
    if not found:
        reached, found = _with_fields_set(state, name, setting, are_empty=True)
    for path, part, defaults in part_defaults(state):
        # What transformers takes by default counts as said, unless the part says it by another name.
        for field, held in defaults.items():
            if _means(name, field) and not any(_means(name, known) for known in part):
                value = _change_field(field, held, setting, ids, shape_of(field) or "ids")
                reached, found = reached.with_value(CONFIG, (*path, field), value), True
    generation = _OF_GENERATION.get(name)
    if generation is not None and (not found or GENERATION in state.documents):
        file = GENERATION if GENERATION in state.documents else CONFIG
        if generation not in state.documents[file]:
            value = _change_field(generation, None, setting, ids, shape_of(generation) or "ids")
            reached, found = reached.with_value(file, (generation,), value), True
    if isinstance(setting, str):
        reached, named = _with_texts(reached, name, setting)
        found = found or named
    if not found:
        raise OperationError(
            f"no configuration of this model has a field that names the {name} token",
            hint=suggest(name, _names(state)) or f"it has fields for {', '.join(_names(state))}",
        )
    return reached


def _means(name: str, field: str) -> bool:
    return name in (field, role_of(field))


def _with_fields_set(state: ModelState, name: str, setting: Setting, *, are_empty: bool) -> tuple[ModelState, bool]:
    """Return the state with the fields set that hold something, or those that do not, and whether there are any."""
    places: list[Path] = []

    def change(place: Path, value: Json, shape: Shape) -> Json:
        field = str(place[-1])
        # Old files list all fields in every part, also in those that are no language model.
        fits = not are_empty or all(part in NESTED for part in place[:-1])
        if not fits or (value is None) is not are_empty or not _means(name, field):
            return value
        places.append(place)
        return _change_field(field, value, setting, state.tokenizer.ids, shape)

    reached = state
    for file, document in state.configurations.items():
        reached = reached.with_document(file, with_fields(document, change, state.vocab_size, state.traits.id_fields))
    return reached, bool(places)


def _with_texts(state: ModelState, name: str, content: str) -> tuple[ModelState, bool]:
    """Return the state in which the files that give the token's text give the new one, and whether any does."""
    named = [entry for entry in find_named_tokens(state) if entry[1][-1] == f"{name}_token"]
    for file, path, entry in named:
        if text_of(entry) != content:
            state = state.with_value(file, (*path, "content") if isinstance(entry, dict) else path, content)
        # transformers makes it special when it loads these files.
        if file in (TOKENIZER_CONFIG, SPECIAL_TOKENS_MAP):
            state = with_special_flag(state, content)
    return state, bool(named)


def _names(state: ModelState) -> list[str]:
    """Return what can be set of a model, by the fields that its configurations have."""
    fields = (
        (str(place[-1]), shape)
        for document in state.configurations.values()
        for place, _, shape in known_fields(document, state.vocab_size, state.traits.id_fields)
    )
    return list(dict.fromkeys((*(role_of(name) for name, shape in fields if shape != "bias"), *_OF_GENERATION)))


def _change_field(field: str, held: Json, setting: Setting, ids: Mapping[str, int], shape: Shape) -> Json:
    """Return what a field holds afterwards; raises OperationError where it cannot hold that."""
    match shape, setting:
        case "ids", str():
            return with_id(held, ids[setting])
        case "ids", tuple() | ListChange():
            return _change([] if held is None else held if isinstance(held, list) else [held], setting, ids.__getitem__)
        case "ids", _:
            expected = "one token or a list of them"
        case "list", tuple() | ListChange():
            in_lists = field in _SEQUENCES or any(isinstance(item, list) for item in held or [])
            return _change(held or [], setting, (lambda token: [ids[token]]) if in_lists else ids.__getitem__)
        case "list", _:
            expected = "a list: give a list of tokens, or {add: […], remove: […]}"
        case "map", ListChange():
            gone = {ids[token] for token in setting.remove}
            kept = {key: number for key, number in (held or {}).items() if number not in gone}
            return {**kept, **{token: ids[token] for token in setting.add}}
        case "map", tuple():
            return {token: ids[token] for token in setting}
        case "map", Mapping():
            return {**(held or {}), **{key: ids[token] for key, token in setting.items()}}
        case "map", _:
            expected = "a map: give {name: token}, or {add: […], remove: […]}"
        case "positions", tuple():
            return [[position, ids[token]] for position, token in enumerate(setting, 1)]
        case "positions", _:
            expected = "the tokens that a text begins with: give all of them as a list"
        case _:
            expected = "tokens with numbers, which a migration cannot set"
    raise OperationError(f"'{field}' holds {expected}", hint="give it that, or leave the field out")


def _change(held: list[Json], setting: tuple[str, ...] | ListChange, item: Callable[[str], Json]) -> list[Json]:
    if isinstance(setting, tuple):
        return [item(token) for token in setting]
    gone = [item(token) for token in setting.remove]
    kept = [each for each in held if each not in gone]
    return [*kept, *(new for new in map(item, setting.add) if new not in kept)]

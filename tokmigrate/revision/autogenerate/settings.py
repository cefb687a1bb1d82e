"""What differs besides the tokens: the pipeline, lengths, roles and the chat template."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokmigrate.model.documents.config_fields import role_of, shape_of
from tokmigrate.model.documents.declared import (
    ID_FILES,
    Documents,
    list_specials,
    read_declared_ids,
    read_declared_roles,
    read_declared_settings,
    read_declared_templates,
)
from tokmigrate.model.documents.roles import ROLES
from tokmigrate.model.documents.semantic_diff import canonical_part
from tokmigrate.model.formats.json_text import Json
from tokmigrate.model.tokenizer.tokenizer_json import FILE
from tokmigrate.operations.pipeline import SetDecoder, SetNormalizer, SetPostProcessor, SetPreTokenizer
from tokmigrate.operations.set_chat_template import SetChatTemplate
from tokmigrate.operations.set_padding import SetPadding
from tokmigrate.operations.set_special_tokens import SetSpecialTokens
from tokmigrate.operations.set_truncation import SetTruncation
from tokmigrate.revision.autogenerate.builder import Way


def set_parts(way: Way) -> None:
    """Normalizer, pre-tokenizer, decoder and post-processor."""
    old, new = way.state.documents[FILE], way.documents[FILE]
    if canonical_part(old.get("normalizer")) != canonical_part(new.get("normalizer")):
        way.go(SetNormalizer(normalizer=new.get("normalizer")))
    if canonical_part(old.get("pre_tokenizer")) != canonical_part(new.get("pre_tokenizer")):
        way.go(SetPreTokenizer(pre_tokenizer=new.get("pre_tokenizer")))
    if canonical_part(old.get("decoder")) != canonical_part(new.get("decoder")):
        way.go(SetDecoder(decoder=new.get("decoder")))
    wanted = _with_ids(new.get("post_processor"), way.state.tokenizer.ids)
    if canonical_part(old.get("post_processor")) != canonical_part(wanted):
        way.take(SetPostProcessor(post_processor=wanted))


def _with_ids(part: Json, ids: dict[str, int]) -> Json:
    """Return a post-processor with the ids that its tokens have now; the right ones come with their moves."""
    if not isinstance(part, dict):
        return part
    changed = dict(part)
    if part.get("processors"):
        changed["processors"] = [_with_ids(inner, ids) for inner in part["processors"]]
    for name in ("sep", "cls"):
        if isinstance(part.get(name), list):
            changed[name] = [part[name][0], ids.get(part[name][0], part[name][1])]
    specials: dict[str, Json] = {}
    for name, held in (part.get("special_tokens") or {}).items():
        numbers = [ids.get(token, number) for token, number in zip(held["tokens"], held["ids"], strict=True)]
        specials[name] = {**held, "ids": numbers}
    if specials:
        changed["special_tokens"] = specials
    return changed


def set_padding(way: Way) -> None:
    """How texts are filled up to one length."""
    old, new = (section(documents, "padding") for documents in (way.state.documents, way.documents))
    sides = [read_declared_settings(documents)["padding_side"] for documents in (way.state.documents, way.documents)]
    fields: dict[str, Any] = {}
    if new.get("pad_token") != old.get("pad_token") and new.get("pad_token") in way.state.tokenizer.ids:
        fields["token"] = new["pad_token"]
    if sides[0] != sides[1] or (new and new["direction"] != old.get("direction", "Right")):
        fields["side"] = sides[1]
    if new.get("pad_to_multiple_of") not in (None, old.get("pad_to_multiple_of")):
        fields["pad_to_multiple_of"] = new["pad_to_multiple_of"]
    if new and new["strategy"] != old.get("strategy", "BatchLongest"):
        fixed = new["strategy"]
        fields["max_length"] = fixed["Fixed"] if isinstance(fixed, dict) else "longest"
    if not new and (old or fields):
        fields["max_length"] = "off"
    if fields:
        way.go(SetPadding(**fields))


def set_truncation(way: Way) -> None:
    """Set the length limit of a text, and the side of truncation."""
    old, new = (section(documents, "truncation") for documents in (way.state.documents, way.documents))
    settings = [read_declared_settings(documents) for documents in (way.state.documents, way.documents)]
    lengths = [each["model_max_length"] for each in settings]
    fields: dict[str, Any] = {}
    if old and not new:
        fields["max_length"] = "off"
    elif new != old:
        fields["max_length"] = new["max_length"]
        if new["strategy"] != old.get("strategy", "LongestFirst"):
            fields["strategy"] = _SHORTENED[new["strategy"]]
        if new["stride"] != old.get("stride", 0):
            fields["stride"] = new["stride"]
    if new and settings[0]["truncation_side"] != settings[1]["truncation_side"]:
        fields["direction"] = settings[1]["truncation_side"]
    follows = new["max_length"] if new and "max_length" in fields else lengths[0]
    if lengths[1] != follows:
        fields["model_max_length"] = "keep" if lengths[1] == lengths[0] else lengths[1] or "none"
    if fields:
        way.go(SetTruncation(**fields))


_SHORTENED = {"LongestFirst": "longest_first", "OnlyFirst": "only_first", "OnlySecond": "only_second"}


def section(documents: Documents, name: str) -> dict[str, Any]:
    """Return a part of tokenizer.json in its plain spelling, empty where it is not there."""
    return canonical_part(documents[FILE].get(name)) or {}


def set_roles(way: Way) -> None:
    """Roles that other tokens have, and the list of special tokens."""
    old, new = read_declared_roles(way.state.documents), read_declared_roles(way.documents)
    known = {role: new[role] for role in ROLES if new.get(role) in way.state.tokenizer.ids}
    if "pad" in known and section(way.documents, "padding").get("pad_token") == known["pad"]:
        # set_padding gives that role too.
        del known["pad"]
    changed: dict[str, Any] = {role: content for role, content in known.items() if content != old.get(role)}
    listed = list_specials(way.documents)
    if set(listed) != set(list_specials(way.state.documents)) and way.state.tokenizer.ids.keys() >= set(listed):
        changed["additional"] = listed
    if changed and not way.take(SetSpecialTokens(**changed)):
        for role, content in changed.items():
            way.take(SetSpecialTokens.model_validate({role: content}))


def set_role_ids(way: Way) -> None:
    """Roles whose token is the same, but not the id that config.json or generation_config.json gives it."""
    roles = read_declared_roles(way.documents)
    for role in ROLES:
        if roles.get(role) in way.state.tokenizer.ids and _has_other_id(way, role):
            way.go(SetSpecialTokens.model_validate({role: roles[role]}))


def _has_other_id(way: Way, role: str) -> bool:
    """Return whether config.json or generation_config.json gives a role an id that the other's file does not."""
    for name in ID_FILES:
        old, new = read_declared_ids(way.state.documents, name), read_declared_ids(way.documents, name)
        if any(old.get(place) != new.get(place) for place in {*old, *new} if place.endswith(f"{role}_token_id")):
            return True
    return False


def set_other_ids(way: Way) -> None:
    """Fields beside those of the roles that name other tokens by their ids."""
    settings: dict[str, Any] = {}
    for name in ID_FILES:
        old, new = read_declared_ids(way.state.documents, name), read_declared_ids(way.documents, name)
        for place, held in new.items():
            field = place.rpartition(".")[2]
            setting = _setting(field, held, way.state.tokenizer.texts) if old.get(place) != held else None
            if setting is not None and role_of(field) not in ROLES:
                settings[role_of(field)] = setting
    for role, setting in settings.items():
        way.go(SetSpecialTokens.model_validate({role: setting}))


def _setting(field: str, held: Json, texts: Mapping[int, str]) -> Any:
    """Return what set_special_tokens sets a field to, None where it cannot be said in tokens."""
    shape = shape_of(field)
    if shape == "positions":
        is_whole = isinstance(held, list) and [pair[0] for pair in held] == list(range(1, len(held) + 1))
        held = [pair[1] for pair in held] if is_whole else None
    if shape == "map":
        named = held.items() if isinstance(held, dict) else ()
        return {key: texts[number] for key, number in named if number in texts} or None
    if shape == "ids" and isinstance(held, int):
        return texts.get(held)
    numbers = [item[0] if isinstance(item, list) and len(item) == 1 else item for item in _list(held)]
    is_said = bool(numbers) and all(isinstance(number, int) and number in texts for number in numbers)
    return [texts[number] for number in numbers] if is_said else None


def _list(held: Json) -> list[Json]:
    return held if isinstance(held, list) else [] if held is None else [held]


def set_template(way: Way) -> None:
    """The chat template."""
    template = read_declared_templates(way.documents).get("default")
    if template is not None and template != read_declared_templates(way.state.documents).get("default"):
        way.go(SetChatTemplate(template=template))

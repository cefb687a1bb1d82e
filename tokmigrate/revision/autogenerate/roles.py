"""What tokens are for: roles, their ids in configurations, the chat template."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokmigrate.model.documents.config_fields import role_of, shape_of
from tokmigrate.model.documents.roles import ROLES
from tokmigrate.model.formats.json_text import Json
from tokmigrate.model.semantics.declared import (
    ID_FILES,
    list_specials,
    read_declared_ids,
    read_declared_roles,
    read_declared_templates,
)
from tokmigrate.operations.set_chat_template import SetChatTemplate
from tokmigrate.operations.set_special_tokens import SetSpecialTokens
from tokmigrate.revision.autogenerate.builder import Way
from tokmigrate.revision.autogenerate.pipeline import section


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

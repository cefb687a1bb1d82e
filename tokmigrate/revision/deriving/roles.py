"""What tokens are for: roles, their ids in configurations, the chat template."""

from __future__ import annotations

from typing import Any

from tokmigrate.model.documents.roles import ROLES
from tokmigrate.model.meaning.stated import (
    ID_FILES,
    stated_ids,
    stated_roles,
    stated_specials,
    stated_templates,
)
from tokmigrate.operations.set_chat_template import SetChatTemplate
from tokmigrate.operations.set_special_tokens import SetSpecialTokens
from tokmigrate.revision.deriving.pipeline import section
from tokmigrate.revision.deriving.way import Way


def set_roles(way: Way) -> None:
    """Roles that other tokens have, and the list of special tokens."""
    old, new = stated_roles(way.state.documents), stated_roles(way.documents)
    known = {role: new[role] for role in ROLES if new.get(role) in way.state.tokenizer.ids}
    if "pad" in known and section(way.documents, "padding").get("pad_token") == known["pad"]:
        # set_padding gives that role too.
        del known["pad"]
    changed: dict[str, Any] = {role: content for role, content in known.items() if content != old.get(role)}
    listed = stated_specials(way.documents)
    if set(listed) != set(stated_specials(way.state.documents)) and way.state.tokenizer.ids.keys() >= set(listed):
        changed["additional"] = listed
    if changed and not way.take(SetSpecialTokens(**changed)):
        for role, content in changed.items():
            way.take(SetSpecialTokens.model_validate({role: content}))


def set_role_ids(way: Way) -> None:
    """Roles whose token is the same, but not the id that config.json or generation_config.json gives it."""
    roles = stated_roles(way.documents)
    for role in ROLES:
        if roles.get(role) in way.state.tokenizer.ids and _has_other_id(way, role):
            way.go(SetSpecialTokens.model_validate({role: roles[role]}))


def _has_other_id(way: Way, role: str) -> bool:
    """Return whether config.json or generation_config.json gives a role an id that the other's file does not."""
    for name in ID_FILES:
        old, new = stated_ids(way.state.documents, name), stated_ids(way.documents, name)
        if any(old.get(place) != new.get(place) for place in {*old, *new} if place.endswith(f"{role}_token_id")):
            return True
    return False


def set_template(way: Way) -> None:
    """The chat template."""
    template = stated_templates(way.documents).get("default")
    if template is not None and template != stated_templates(way.state.documents).get("default"):
        way.go(SetChatTemplate(template=template))

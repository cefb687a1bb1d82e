"""The operations that lead from one tokenizer to another, derived from what they differ in.

Each is tried on the state that the ones before it left. So what is returned can be applied, and what differs at the
end is what no operation expresses.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tokmigrate.errors import TokmigrateError
from tokmigrate.model.documents.roles import ROLES
from tokmigrate.model.documents.state import ModelState
from tokmigrate.model.documents.tombstones import tombstone
from tokmigrate.model.formats.json_text import Json
from tokmigrate.model.meaning.difference import differences
from tokmigrate.model.meaning.plain_parts import plain_part
from tokmigrate.model.meaning.stated import (
    ID_FILES,
    Documents,
    stated_ids,
    stated_roles,
    stated_rows,
    stated_settings,
    stated_specials,
    stated_templates,
)
from tokmigrate.model.tokenizer.merges import merges_of, product
from tokmigrate.model.tokenizer.tokenizer_json import FILE, FLAGS, Tokenizer
from tokmigrate.operations.add_tokens import AddTokens, NewToken
from tokmigrate.operations.base import Context, Operation
from tokmigrate.operations.move_tokens import MoveTokens
from tokmigrate.operations.remove_tokens import RemoveTokens
from tokmigrate.operations.rename_tokens import RenameTokens
from tokmigrate.operations.resize_vocab import ResizeVocab
from tokmigrate.operations.set_chat_template import SetChatTemplate
from tokmigrate.operations.set_decoder import SetDecoder
from tokmigrate.operations.set_normalizer import SetNormalizer
from tokmigrate.operations.set_padding import SetPadding
from tokmigrate.operations.set_post_processor import SetPostProcessor
from tokmigrate.operations.set_pre_tokenizer import SetPreTokenizer
from tokmigrate.operations.set_special_tokens import SetSpecialTokens
from tokmigrate.operations.set_token_flags import SetTokenFlags
from tokmigrate.operations.set_truncation import SetTruncation
from tokmigrate.vocabulary.tokens import AddedToken


@dataclass(frozen=True)
class Derived:
    """What leads from one tokenizer to another.

    Args:
        operations: What to do, in order.
        refused: Why operations that were tried could not be applied.
    """

    operations: tuple[Operation, ...]
    refused: tuple[str, ...]


def derive(before: ModelState, after: Documents, revision: str) -> Derived:
    """Return the operations that lead from a state to a tokenizer, or as near to it as operations can.

    Args:
        before: The state to begin with.
        after: The parsed files of the tokenizer to arrive at.
        revision: The id of the migration that is to hold them.
    """
    way = _Way(before, after, Context(revision))
    for go in _STRETCHES:
        go(way)
    return Derived(tuple(way.operations), tuple(dict.fromkeys(way.refused)))


class _Way:
    """How far it is gone, and with which operations."""

    def __init__(self, state: ModelState, after: Documents, context: Context) -> None:
        self.state = state
        self.documents = after
        self.target = Tokenizer(after[FILE])
        self.operations: list[Operation] = []
        self.refused: list[str] = []
        self._context = context

    def go(self, operation: Operation) -> None:
        """Take a step if it can be taken and leads nearer."""
        reached = self.tried(operation)
        if reached is not None and self._distance(reached) < self._distance(self.state):
            self._arrive(reached, operation)

    def take(self, operation: Operation) -> bool:
        """Take a step if it can be taken, also where ids will be right only when tokens have moved."""
        reached = self.tried(operation)
        if reached is not None:
            self._arrive(reached, operation)
        return reached is not None

    def tried(self, operation: Operation) -> ModelState | None:
        """Return where a step would lead, None with the reason noted where it cannot be taken."""
        try:
            return operation.apply(self.state, self._context)
        except TokmigrateError as error:
            self.refused.append(f"{operation.name}: {error.message}")
            return None

    def _arrive(self, state: ModelState, operation: Operation) -> None:
        self.state = state
        self.operations.append(operation)

    def _distance(self, state: ModelState) -> int:
        return len(differences(state.documents, self.documents))

    @property
    def gone(self) -> dict[str, int]:
        """The tokens that the other tokenizer does not have, with their ids, in rising order."""
        ordered = sorted(self.state.tokenizer.ids.items(), key=lambda item: item[1])
        return {content: number for content, number in ordered if content not in self.target.ids}


def _bury(way: _Way) -> None:
    """Tokens in whose place the other tokenizer has a placeholder."""
    buried = [content for content, number in way.gone.items() if way.target.texts.get(number) == tombstone(number)]
    if buried:
        way.go(RemoveTokens(tokens=tuple(buried), ids="tombstone", acknowledge="breaking"))


def _rename(way: _Way) -> None:
    """Tokens that have another text under the same id, where no merge is made of the old one."""
    model = way.state.documents[FILE]["model"]
    prefix = model.get("continuing_subword_prefix") or ""
    merged = {part for merge in merges_of(model) for part in (*merge, product(merge, prefix))}
    names = {
        content: way.target.texts[number]
        for content, number in way.gone.items()
        if content not in merged
        and number in way.target.texts
        and way.target.texts[number] not in way.state.tokenizer.ids
        and way.target.texts[number] != tombstone(number)
    }
    if names:
        way.go(RenameTokens(tokens=names))


def _remove(way: _Way) -> None:
    """Tokens that are not there any more: the ids above close up, or stay where the tokens first go to the end."""
    gone, ids = way.gone, way.state.tokenizer.ids
    if not gone:
        return
    below = sorted(gone.values())
    stay = move_up = 0
    for content in ids.keys() - gone.keys():
        stay += way.target.ids[content] == ids[content]
        move_up += way.target.ids[content] == ids[content] - bisect(below, ids[content])
    removal = RemoveTokens(tokens=tuple(gone), ids="compact", acknowledge="breaking")
    if way.tried(removal) is None:
        return
    behind = max(ids.values()) + 1
    if stay > move_up and behind + len(gone) <= way.state.rows:
        way.take(MoveTokens(tokens={content: behind + place for place, content in enumerate(gone)}))
    way.take(removal)


def _add(way: _Way) -> None:
    """Added tokens that are new; a token of the tokenizer's model cannot be added as one."""
    new = [token for token, _ in sorted(way.target.added.values(), key=lambda held: held[1])]
    tokens = tuple(_new_token(token) for token in new if token.content not in way.state.tokenizer.ids)
    if tokens:
        way.take(AddTokens(tokens=tokens))


def _new_token(token: AddedToken) -> NewToken:
    flags: dict[str, bool] = {name: True for name in FLAGS if name != "normalized" and getattr(token, name)}
    if token.normalized == token.special:
        flags["normalized"] = token.normalized
    return NewToken(content=token.content, **flags)


def _set_roles(way: _Way) -> None:
    old, new = stated_roles(way.state.documents), stated_roles(way.documents)
    known = {role: new[role] for role in ROLES if new.get(role) in way.state.tokenizer.ids}
    if "pad" in known and _section(way.documents, "padding").get("pad_token") == known["pad"]:
        # set_padding gives that role too.
        del known["pad"]
    changed: dict[str, Any] = {role: content for role, content in known.items() if content != old.get(role)}
    listed = stated_specials(way.documents)
    if set(listed) != set(stated_specials(way.state.documents)) and way.state.tokenizer.ids.keys() >= set(listed):
        changed["additional"] = listed
    if changed and not way.take(SetSpecialTokens(**changed)):
        for role, content in changed.items():
            way.take(SetSpecialTokens.model_validate({role: content}))


def _set_role_ids(way: _Way) -> None:
    """Roles whose token is the same, but not the id that config.json or generation_config.json gives it."""
    roles = stated_roles(way.documents)
    for role in ROLES:
        if roles.get(role) in way.state.tokenizer.ids and _has_other_id(way, role):
            way.go(SetSpecialTokens.model_validate({role: roles[role]}))


def _has_other_id(way: _Way, role: str) -> bool:
    """Return whether config.json or generation_config.json gives a role an id that the other's file does not."""
    for name in ID_FILES:
        old, new = stated_ids(way.state.documents, name), stated_ids(way.documents, name)
        if any(old.get(place) != new.get(place) for place in {*old, *new} if place.endswith(f"{role}_token_id")):
            return True
    return False


def _set_template(way: _Way) -> None:
    template = stated_templates(way.documents).get("default")
    if template is not None and template != stated_templates(way.state.documents).get("default"):
        way.go(SetChatTemplate(template=template))


def _set_parts(way: _Way) -> None:
    old, new = way.state.documents[FILE], way.documents[FILE]
    if plain_part(old.get("normalizer")) != plain_part(new.get("normalizer")):
        way.go(SetNormalizer(normalizer=new.get("normalizer")))
    if plain_part(old.get("pre_tokenizer")) != plain_part(new.get("pre_tokenizer")):
        way.go(SetPreTokenizer(pre_tokenizer=new.get("pre_tokenizer")))
    if plain_part(old.get("decoder")) != plain_part(new.get("decoder")):
        way.go(SetDecoder(decoder=new.get("decoder")))
    wanted = _with_ids(new.get("post_processor"), way.state.tokenizer.ids)
    if plain_part(old.get("post_processor")) != plain_part(wanted):
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


def _set_padding(way: _Way) -> None:
    old, new = (_section(documents, "padding") for documents in (way.state.documents, way.documents))
    sides = [stated_settings(documents)["padding_side"] for documents in (way.state.documents, way.documents)]
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


def _set_truncation(way: _Way) -> None:
    old, new = (_section(documents, "truncation") for documents in (way.state.documents, way.documents))
    settings = [stated_settings(documents) for documents in (way.state.documents, way.documents)]
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


def _section(documents: Documents, name: str) -> dict[str, Any]:
    return plain_part(documents[FILE].get(name)) or {}


def _make_room(way: _Way) -> None:
    """Rows for ids that the tokens of the other tokenizer have; only a stated size can be changed."""
    needed = max(way.target.texts, default=-1) + 1
    if needed > way.state.rows:
        way.take(ResizeVocab(rows=max(needed, _size(way.documents) or 0)))


def _size(documents: Documents) -> int | None:
    return next(iter(stated_rows(documents).values()), None)


def _move(way: _Way) -> None:
    """Tokens that have another id, unless one that cannot go is there."""
    ids, rows = way.state.tokenizer.ids, way.state.rows
    moves = {content: number for content, number in way.target.ids.items() if ids.get(content, number) != number}
    while True:
        staying = {number for content, number in ids.items() if content not in moves}
        possible = {content: number for content, number in moves.items() if number not in staying and number < rows}
        if len(possible) == len(moves):
            break
        moves = possible
    if moves:
        way.take(MoveTokens(tokens=dict(sorted(moves.items(), key=lambda move: move[1]))))


def _set_flags(way: _Way) -> None:
    """Flags that differ, for the tokens together that differ in the same ones."""
    changes: dict[tuple[tuple[str, Any], ...], list[str]] = {}
    for content, (token, _) in way.target.added.items():
        if content not in way.state.tokenizer.ids:
            continue
        held = way.state.tokenizer.token(content)
        begun = held or AddedToken(content, special=token.special, normalized=not token.special)
        flags = {name: getattr(token, name) for name in FLAGS if getattr(token, name) != getattr(begun, name)}
        if held is None:
            flags["special"] = token.special
        if flags:
            changes.setdefault(tuple(sorted(flags.items())), []).append(content)
    for changed, contents in changes.items():
        way.go(SetTokenFlags(tokens=tuple(contents), **dict(changed)))


def _resize(way: _Way) -> None:
    size = _size(way.documents)
    if size is not None and size != way.state.vocab_size:
        way.go(ResizeVocab(rows=size))


_STRETCHES: tuple[Callable[[_Way], None], ...] = (
    _bury,
    _rename,
    _remove,
    _add,
    # A token that is listed as special cannot become another one afterwards.
    _set_flags,
    _set_roles,
    _set_template,
    _set_parts,
    _set_padding,
    _set_truncation,
    # What was in use before is not any more.
    _bury,
    _remove,
    _make_room,
    _move,
    _set_flags,
    _set_padding,
    _set_role_ids,
    _resize,
)

"""The operations that lead from one tokenizer to another, tried one after the other."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Collection, Mapping
from typing import Any

from tokmigrate.init import InitSpec
from tokmigrate.model.documents.architecture_quirks import LANGUAGES, ordered_tail
from tokmigrate.model.documents.chat_template import read_chat_templates
from tokmigrate.model.documents.config_fields import read_declared_sizes, role_of, shape_of
from tokmigrate.model.documents.declared import (
    ID_FILES,
    Documents,
    read_declared_ids,
    read_declared_roles,
    read_declared_settings,
)
from tokmigrate.model.documents.roles import ROLES, list_specials
from tokmigrate.model.documents.semantic_diff import canonical_part
from tokmigrate.model.documents.state import CONFIG, GENERATION, ModelState
from tokmigrate.model.formats.json_text import Json
from tokmigrate.model.references.references import map_post_processor
from tokmigrate.model.tokenizer.tokenizer_json import FILE, FLAGS, Merge, merges_of, model_kind
from tokmigrate.operations.add_tokens import AddTokens
from tokmigrate.operations.add_words import AddWords
from tokmigrate.operations.chat import SetChatTemplate
from tokmigrate.operations.extend_vocab import SUBTOKENS, ExtendVocab
from tokmigrate.operations.move_tokens import MoveTokens
from tokmigrate.operations.operation import Context, NewToken, Operation
from tokmigrate.operations.padding_and_truncation import STRATEGIES, SetPadding, SetTruncation
from tokmigrate.operations.pipeline import SetDecoder, SetNormalizer, SetPostProcessor, SetPreTokenizer
from tokmigrate.operations.remove_tokens import RemoveTokens
from tokmigrate.operations.rename_tokens import RenameTokens, find_merges
from tokmigrate.operations.row_operations import ResizeVocab
from tokmigrate.operations.set_special_tokens import SetSpecialTokens
from tokmigrate.operations.set_token_flags import SetTokenFlags
from tokmigrate.operations.token_lists import LONG
from tokmigrate.revision.draft import Draft
from tokmigrate.vocabulary.ids import AddedToken, tombstone

_SUBTOKENS = InitSpec.model_validate(SUBTOKENS)
_PARTS: tuple[type[Operation], ...] = (SetNormalizer, SetPreTokenizer, SetDecoder)
_STRATEGIES = {in_file: name for name, in_file in STRATEGIES.items()}


def derive(before: ModelState, after: Documents, revision: str) -> Draft:
    """Return the operations of a migration that leads to the files of a tokenizer, or as near as operations can."""
    draft = Draft(before, after, Context(revision))
    for add_some in (*_TOKENS, *_SETTINGS, *_REST):
        add_some(draft)
    return draft


def _tombstone(draft: Draft) -> None:
    removed = [content for content, number in draft.lost.items() if draft.target.texts.get(number) == tombstone(number)]
    if removed:
        draft.add_if_nearer(RemoveTokens(tokens=tuple(removed), ids="tombstone", acknowledge="breaking"))


def _replace(draft: Draft) -> None:
    """Remove tokens whose ids are those of new merges, where all others keep theirs."""
    target = draft.target
    if any(target.ids.get(content, number) != number for content, number in draft.ids.items()):
        return
    new = {token: number for token, number in target.vocabulary.items() if token not in draft.ids}
    numbers = {number for token, number in new.items() if token not in target.added}
    gone = tuple(content for content, number in draft.lost.items() if number in numbers)
    merges = _find_new_merges(draft) if gone and len(gone) == len(draft.lost) else ()
    if merges:
        removal = RemoveTokens(tokens=gone, ids="tombstone", acknowledge="breaking")
        draft.add_if_nearer(removal, ExtendVocab(merges=merges, reuse="placeholders", init=_SUBTOKENS))


def _rename(draft: Draft) -> None:
    """Rename tokens that have another text under the same id, where no merge is made of the old one."""
    merged = find_merges(draft.state.documents[FILE]["model"])
    names: dict[str, str] = {}
    for content, number in draft.lost.items():
        new = draft.target.texts.get(number)
        if new is not None and new not in draft.ids and new != tombstone(number) and content not in merged:
            names[content] = new
    if names:
        draft.add_if_nearer(RenameTokens(tokens=names))


def _remove(draft: Draft) -> None:
    """Remove tokens: the ids above close up, or stay where the tokens are moved to the end before."""
    lost, ids = draft.lost, draft.ids
    if not lost:
        return
    below = sorted(lost.values())
    stay = move_up = 0
    for content in ids.keys() - lost.keys():
        stay += draft.target.ids[content] == ids[content]
        move_up += draft.target.ids[content] == ids[content] - bisect(below, ids[content])
    kept = sorted(ids.keys() - lost.keys(), key=ids.__getitem__)
    # Of two long lists the shorter one is written.
    listed = {"keep_tokens": kept} if len(lost) > max(LONG, len(kept)) else {"tokens": list(lost)}
    removal = RemoveTokens.model_validate(
        {**listed, "ids": "compact", "acknowledge": "breaking", **_shrink(draft, lost)}
    )
    reached = draft.try_apply(removal)
    if reached is None:
        return
    end = max(ids.values()) + 1
    if stay > move_up and end + len(lost) <= draft.state.rows:
        draft.add_if_possible(MoveTokens(tokens={content: end + place for place, content in enumerate(lost)}))
        draft.add_if_possible(removal)
    else:
        draft.add(removal, reached)


def _shrink(draft: Draft, lost: Collection[str]) -> dict[str, Any]:
    """Return the field of a removal that drops the rows of the tokens, or these and all spare ones; or none."""
    size = _size(draft.documents)
    if size == draft.state.vocab_size - len(lost):
        return {"shrink": True}
    return {"shrink": "exact"} if size == len(draft.ids) - len(lost) else {}


def _grow(draft: Draft) -> None:
    """Add tokens, and merges or words to the tokenizer's model, in the order of their ids in the other tokenizer."""
    new = min(draft.target.ids.keys() - draft.ids.keys(), key=draft.target.ids.__getitem__, default="")
    for add_some in (_add, _extend) if new in draft.target.added else (_extend, _add):
        add_some(draft)


def _extend(draft: Draft) -> None:
    """Append the merges that only the other tokenizer has; add the words if it has no merges."""
    target = draft.target
    if model_kind(draft.documents[FILE]) == "BPE":
        merges = _find_new_merges(draft)
        if merges:
            draft.add_if_nearer(ExtendVocab(merges=merges, init=_SUBTOKENS))
        return
    words = tuple(word for word in target.vocabulary if word not in draft.ids and word not in target.added)
    if words:
        draft.add_if_nearer(AddWords(words=words, init=_SUBTOKENS))


def _find_new_merges(draft: Draft) -> tuple[Merge, ...]:
    """Return the merges that only the other tokenizer has, nothing where they are not its last."""
    held, wanted = draft.read_both(lambda documents: merges_of(documents[FILE]["model"]))
    known = set(held)
    new = tuple(merge for merge in wanted if merge not in known)
    if new and wanted[-len(new) :] != [*new]:
        draft.refused.append("extend_vocab: a new merge stands before an old one, so old text is tokenized differently")
        return ()
    return new


def _add(draft: Draft) -> None:
    """Add tokens; one of the tokenizer's model cannot be added."""
    languages = (draft.documents.get(GENERATION) or {}).get(LANGUAGES) or {} if ordered_tail(draft.state) else {}
    tokens: list[NewToken] = []
    for token, _ in sorted(draft.target.added.values(), key=lambda held: held[1]):
        if token.content not in draft.ids:
            flags = {name: True for name in FLAGS if name != "normalized" and getattr(token, name)}
            if token.content in languages:
                flags["language"] = True
            if token.normalized == token.special:
                flags["normalized"] = token.normalized
            tokens.append(NewToken(content=token.content, **flags))
    if tokens:
        draft.add_if_possible(AddTokens(tokens=tuple(tokens)))


def _make_room(draft: Draft) -> None:
    """Grow to as many rows as ids need; only a stated size can be changed."""
    needed = draft.target.highest + 1
    if needed > draft.state.rows:
        draft.add_if_possible(ResizeVocab(rows=max(needed, _size(draft.documents) or 0)))


def _resize(draft: Draft) -> None:
    size = _size(draft.documents)
    if size is not None and size != draft.state.vocab_size:
        draft.add_if_nearer(ResizeVocab(rows=size))


def _size(documents: Documents) -> int | None:
    return next((size for _, size in read_declared_sizes(documents.get(CONFIG) or {})), None)


def _move(draft: Draft) -> None:
    """Move tokens that have another id, unless one that cannot be moved has it."""
    ids, rows = draft.ids, draft.state.rows
    moves = {content: number for content, number in draft.target.ids.items() if ids.get(content, number) != number}
    count = len(moves) + 1
    while len(moves) < count:
        count = len(moves)
        staying = {number for content, number in ids.items() if content not in moves}
        moves = {content: number for content, number in moves.items() if number not in staying and number < rows}
    if moves:
        draft.add_if_possible(MoveTokens(tokens=dict(sorted(moves.items(), key=lambda move: move[1]))))


def _set_flags(draft: Draft) -> None:
    """Set flags that differ, for the tokens together that differ in the same ones."""
    changes: dict[tuple[tuple[str, Any], ...], list[str]] = {}
    for content, (token, _) in draft.target.added.items():
        if content not in draft.ids:
            continue
        held = draft.state.tokenizer.token(content)
        token_before = held or AddedToken(content, special=token.special, normalized=not token.special)
        flags = {name: getattr(token, name) for name in FLAGS if getattr(token, name) != getattr(token_before, name)}
        if held is None:
            flags["special"] = token.special
        if flags:
            changes.setdefault(tuple(sorted(flags.items())), []).append(content)
    for changed, contents in changes.items():
        draft.add_if_nearer(SetTokenFlags(tokens=tuple(contents), **dict(changed)))


def _set_parts(draft: Draft) -> None:
    old, new = draft.state.documents[FILE], draft.documents[FILE]
    for kind in _PARTS:
        name = kind.name.removeprefix("set_")
        if canonical_part(old.get(name)) != canonical_part(new.get(name)):
            draft.add_if_nearer(kind.model_validate({name: new.get(name)}))
    wanted = new.get("post_processor")
    if isinstance(wanted, dict):
        # With the ids that its tokens have now; the right ones come with their moves.
        ids, texts = draft.ids, draft.target.texts
        wanted = map_post_processor(wanted, str, lambda number: ids.get(texts.get(number, ""), number))
    if canonical_part(old.get("post_processor")) != canonical_part(wanted):
        draft.add_if_possible(SetPostProcessor(post_processor=wanted))


def _set_padding(draft: Draft) -> None:
    old, new = draft.read_both(_section, "padding")
    old_side, side = (each["padding_side"] for each in draft.read_both(read_declared_settings))
    fields: dict[str, Any] = {}
    if new.get("pad_token") != old.get("pad_token") and new.get("pad_token") in draft.ids:
        fields["token"] = new["pad_token"]
    if old_side != side or (new and new["direction"] != old.get("direction", "Right")):
        fields["side"] = side
    if new.get("pad_to_multiple_of") not in (None, old.get("pad_to_multiple_of")):
        fields["pad_to_multiple_of"] = new["pad_to_multiple_of"]
    if new and new["strategy"] != old.get("strategy", "BatchLongest"):
        fixed = new["strategy"]
        fields["max_length"] = fixed["Fixed"] if isinstance(fixed, dict) else "longest"
    if not new and (old or fields):
        fields["max_length"] = "off"
    if fields:
        draft.add_if_nearer(SetPadding(**fields))


def _set_truncation(draft: Draft) -> None:
    old, new = draft.read_both(_section, "truncation")
    old_settings, settings = draft.read_both(read_declared_settings)
    old_length, length = old_settings["model_max_length"], settings["model_max_length"]
    fields: dict[str, Any] = {}
    if old and not new:
        fields["max_length"] = "off"
    elif new != old:
        fields["max_length"] = new["max_length"]
        if new["strategy"] != old.get("strategy", "LongestFirst"):
            fields["strategy"] = _STRATEGIES[new["strategy"]]
        if new["stride"] != old.get("stride", 0):
            fields["stride"] = new["stride"]
    if new and old_settings["truncation_side"] != settings["truncation_side"]:
        fields["direction"] = settings["truncation_side"]
    follows = new["max_length"] if new and "max_length" in fields else old_length
    if length != follows:
        fields["model_max_length"] = "keep" if length == old_length else length or "none"
    if fields:
        draft.add_if_nearer(SetTruncation(**fields))


def _section(documents: Documents, name: str) -> dict[str, Any]:
    """Return a part of tokenizer.json in its plain spelling, empty where it is not there."""
    return canonical_part(documents[FILE].get(name)) or {}


def _set_roles(draft: Draft) -> None:
    old, new = draft.read_both(read_declared_roles)
    changed: dict[str, Any] = {
        role: new[role] for role in ROLES if new.get(role) in draft.ids and new[role] != old.get(role)
    }
    if changed.get("pad") == _section(draft.documents, "padding").get("pad_token"):
        # set_padding gives that role too.
        changed.pop("pad", None)
    old_listed, listed = draft.read_both(list_specials)
    if set(listed) != set(old_listed) and draft.ids.keys() >= set(listed):
        changed["additional"] = listed
    if changed and not draft.add_if_possible(SetSpecialTokens(**changed)):
        for role, content in changed.items():
            draft.add_if_possible(SetSpecialTokens.model_validate({role: content}))


def _set_role_ids(draft: Draft) -> None:
    """Set roles whose token is the same, but not the id that config.json or generation_config.json gives it."""
    roles = read_declared_roles(draft.documents)
    for role in ROLES:
        pairs = (draft.read_both(read_declared_ids, name) for name in ID_FILES)
        differing = {place for old, new in pairs for place in {*old, *new} if old.get(place) != new.get(place)}
        if roles.get(role) in draft.ids and any(place.endswith(f"{role}_token_id") for place in differing):
            draft.add_if_nearer(SetSpecialTokens.model_validate({role: roles[role]}))


def _set_other_ids(draft: Draft) -> None:
    """Set fields beside those of the roles that name other tokens by their ids."""
    settings: dict[str, Any] = {}
    for name in ID_FILES:
        old, new = draft.read_both(read_declared_ids, name)
        for place, held in new.items():
            field = place.rpartition(".")[2]
            setting = _name_tokens(field, held, draft.state.tokenizer.texts) if old.get(place) != held else None
            if setting is not None and role_of(field) not in ROLES:
                settings[role_of(field)] = setting
    for role, setting in settings.items():
        draft.add_if_nearer(SetSpecialTokens.model_validate({role: setting}))


def _name_tokens(field: str, held: Json, texts: Mapping[int, str]) -> Any:
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
    items = held if isinstance(held, list) else [] if held is None else [held]
    numbers = [item[0] if isinstance(item, list) and len(item) == 1 else item for item in items]
    is_said = bool(numbers) and all(isinstance(number, int) and number in texts for number in numbers)
    return [texts[number] for number in numbers] if is_said else None


def _set_template(draft: Draft) -> None:
    old, new = (each.get("default") for each in draft.read_both(read_chat_templates))
    if new is not None and new != old:
        draft.add_if_nearer(SetChatTemplate(template=new))


# Flags are set before roles: a token that is listed as special cannot become another one afterwards.
_TOKENS = (_tombstone, _replace, _rename, _remove, _grow, _set_flags)
_SETTINGS = (_set_roles, _set_template, _set_parts, _set_padding, _set_truncation)
# What was in use before may be removed now.
_REST = (_tombstone, _remove, _make_room, _move, _set_flags, _set_padding, _set_role_ids, _set_other_ids, _resize)

"""The tokens themselves: gone, renamed, new, elsewhere."""

from __future__ import annotations

from bisect import bisect
from typing import Any

from tokmigrate.model.documents.architecture_quirks import LANGUAGES, ordered_tail
from tokmigrate.model.documents.declared import Documents, read_declared_rows
from tokmigrate.model.documents.state import GENERATION
from tokmigrate.model.tokenizer.tokenizer_json import FILE, FLAGS, merges_of, product
from tokmigrate.operations.add_tokens import AddTokens
from tokmigrate.operations.base import NewToken
from tokmigrate.operations.move_tokens import MoveTokens
from tokmigrate.operations.remove_tokens import RemoveTokens
from tokmigrate.operations.rename_tokens import RenameTokens
from tokmigrate.operations.resize_vocab import ResizeVocab
from tokmigrate.operations.set_token_flags import SetTokenFlags
from tokmigrate.revision.autogenerate.builder import Way
from tokmigrate.vocabulary.ids import AddedToken, tombstone


def bury(way: Way) -> None:
    """Tokens in whose place the other tokenizer has a placeholder."""
    removed = [content for content, number in way.gone.items() if way.target.texts.get(number) == tombstone(number)]
    if removed:
        way.go(RemoveTokens(tokens=tuple(removed), ids="tombstone", acknowledge="breaking"))


def rename(way: Way) -> None:
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


def remove(way: Way) -> None:
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
    if way.try_step(removal) is None:
        return
    behind = max(ids.values()) + 1
    if stay > move_up and behind + len(gone) <= way.state.rows:
        way.take(MoveTokens(tokens={content: behind + place for place, content in enumerate(gone)}))
    way.take(removal)


def add(way: Way) -> None:
    """Added tokens that are new; a token of the tokenizer's model cannot be added as one."""
    new = [token for token, _ in sorted(way.target.added.values(), key=lambda held: held[1])]
    languages = (way.documents.get(GENERATION) or {}).get(LANGUAGES) or {} if ordered_tail(way.state) else {}
    tokens = tuple(
        _new_token(token, is_language=token.content in languages)
        for token in new
        if token.content not in way.state.tokenizer.ids
    )
    if tokens:
        way.take(AddTokens(tokens=tokens))


def _new_token(token: AddedToken, *, is_language: bool) -> NewToken:
    flags: dict[str, bool] = {"language": True} if is_language else {}
    flags |= {name: True for name in FLAGS if name != "normalized" and getattr(token, name)}
    if token.normalized == token.special:
        flags["normalized"] = token.normalized
    return NewToken(content=token.content, **flags)


def make_room(way: Way) -> None:
    """Rows for ids that the tokens of the other tokenizer have; only a stated size can be changed."""
    needed = max(way.target.texts, default=-1) + 1
    if needed > way.state.rows:
        way.take(ResizeVocab(rows=max(needed, _size(way.documents) or 0)))


def _size(documents: Documents) -> int | None:
    return next(iter(read_declared_rows(documents).values()), None)


def move(way: Way) -> None:
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


def set_flags(way: Way) -> None:
    """Flags that differ, for the tokens together that differ in the same ones."""
    changes: dict[tuple[tuple[str, Any], ...], list[str]] = {}
    for content, (token, _) in way.target.added.items():
        if content not in way.state.tokenizer.ids:
            continue
        held = way.state.tokenizer.token(content)
        token_before = held or AddedToken(content, special=token.special, normalized=not token.special)
        flags = {name: getattr(token, name) for name in FLAGS if getattr(token, name) != getattr(token_before, name)}
        if held is None:
            flags["special"] = token.special
        if flags:
            changes.setdefault(tuple(sorted(flags.items())), []).append(content)
    for changed, contents in changes.items():
        way.go(SetTokenFlags(tokens=tuple(contents), **dict(changed)))


def resize(way: Way) -> None:
    """The size of the vocabulary, where the other tokenizer states one."""
    size = _size(way.documents)
    if size is not None and size != way.state.vocab_size:
        way.go(ResizeVocab(rows=size))

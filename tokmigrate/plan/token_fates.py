"""What becomes of each token from now to the end of a plan, whatever its migrations do to it on the way."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from typing import Literal

from tokmigrate.model.documents.state import ModelState
from tokmigrate.model.documents.tombstones import is_tombstone
from tokmigrate.model.meaning.stated import stated_roles
from tokmigrate.model.tokenizer.tokenizer_json import FLAGS, Tokenizer
from tokmigrate.plan.steps import Step, row_of_new
from tokmigrate.vocabulary.rows import RowEdit
from tokmigrate.vocabulary.windows import WHOLE, Window

FateOfRow = Literal["kept", "new", "spare", "anew"]


@dataclass(frozen=True)
class FlagChange:
    """A flag of an added token that a token has otherwise; `added` says whether it is one."""

    flag: str
    before: bool
    after: bool


@dataclass(frozen=True, slots=True)
class TokenFate:
    """What a plan makes of one token.

    Args:
        token: Its text at the end, None where it is removed.
        id: Its id at the end, None where it is removed.
        old_token: Its text now, None where it is new.
        old_id: Its id now, None where it is new.
        row: Its input row is kept, begins anew, makes the matrix grow, or is a spare one; None where it is removed.
        output_row: The same of its output row; None also where it has none.
        placeholder: The text of what holds the id of a removed one, None where nothing does.
        flags: The flags that it has otherwise; none of a new one.
        gains: The special roles that it gets.
        loses: The special roles that another token has from then on, or none.
    """

    token: str | None
    id: int | None
    old_token: str | None
    old_id: int | None
    row: FateOfRow | None = None
    output_row: FateOfRow | None = None
    placeholder: str | None = None
    flags: tuple[FlagChange, ...] = ()
    gains: tuple[str, ...] = ()
    loses: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Way:
    """Which tokens there are at the end of some operations.

    A token that is there now goes by its id now, one that comes later by a number below zero.

    Args:
        at: By each id at the end the token that has it.
        buried: By each removed token the placeholder that came in its place.
    """

    at: Mapping[int, int]
    buried: Mapping[int, int]


def fates_of(steps: Sequence[Step], edit: RowEdit) -> tuple[TokenFate, ...]:
    """Return what becomes of the tokens that a plan touches, each once, by the ids at the end.

    Args:
        steps: The steps of the plan.
        edit: The rows at the end in terms of the rows on disk.
    """
    if not steps:
        return ()
    before, after = steps[0].before, steps[-1].after
    way = _way(before.tokenizer.texts, (each for step in steps for each in _states(step)))
    fates = [*_kept(before, after, edit, way), *_removed(before, after, way)]
    return tuple(sorted(fates, key=_place))


def _place(fate: TokenFate) -> tuple[int, bool]:
    return fate.id if fate.id is not None else fate.old_id or 0, fate.token is not None


def _states(step: Step) -> Iterator[tuple[Tokenizer, Tokenizer]]:
    for applied in step.applied:
        yield applied.before.tokenizer, applied.after.tokenizer


def _way(start: Iterable[int], states: Iterable[tuple[Tokenizer, Tokenizer]]) -> _Way:
    at = {number: number for number in start}
    buried: dict[int, int] = {}
    later = (-number for number in count(1))
    for before, after in states:
        if before.document is after.document:
            continue
        moves = _moves(before, after)
        held = {number: at.pop(number) for number in moves}
        at |= {new: held[number] for number, new in moves.items() if new is not None}
        for token, number in after.ids.items():
            if number in at or before.ids.get(token) == number:
                continue
            at[number] = next(later)
            if number in held and moves[number] is None and is_tombstone(token):
                buried[held[number]] = at[number]
    return _Way(at, buried)


def _moves(before: Tokenizer, after: Tokenizer) -> dict[int, int | None]:
    """Return where one operation leads the ids whose token is gone from there; a renamed token keeps its id."""
    found: dict[int, int | None] = {}
    for token, number in before.ids.items():
        new = after.ids.get(token)
        if new is not None:
            if new != number:
                found[number] = new
            continue
        now = after.texts.get(number)
        renamed = now is not None and now not in before.ids and not is_tombstone(now)
        found[number] = number if renamed else None
    return found


@dataclass(frozen=True)
class _Side:
    """The rows of the input or the output embeddings."""

    window: Window
    edit: RowEdit
    before: ModelState
    after: ModelState

    @cached_property
    def _fresh(self) -> frozenset[int]:
        return frozenset(row for row, _ in self.window.of(self.edit).fresh())

    def row(self, number: int, who: int) -> FateOfRow | None:
        """Return what becomes of the row of a token, None where it has none.

        Args:
            number: The token's id at the end.
            who: Its id now, below zero for a new token.
        """
        if number >= self.window.ids(self.edit.new_rows):
            return None
        if number not in self._fresh:
            return "kept"
        had = self.window.ids(self.edit.old_rows)
        if who >= 0:
            return "anew" if who < had else "new"
        return "new" if number >= had else row_of_new(self.before, self.after, number)


def _kept(before: ModelState, after: ModelState, edit: RowEdit, way: _Way) -> Iterator[TokenFate]:
    """Yield what becomes of the tokens that are there at the end, as far as something does."""
    inputs = _Side(WHOLE, edit, before, after)
    outputs = _Side(Window(short=after.traits.short), edit, before, after)
    old_roles, new_roles = stated_roles(before.documents), stated_roles(after.documents)
    old_ids, new_ids = before.tokenizer.ids, after.tokenizer.ids
    had = {role: old_ids.get(token) for role, token in old_roles.items()}
    has = {role: way.at.get(new_ids.get(token, -1)) for role, token in new_roles.items()}
    graves = set(way.buried.values())
    for number, token in after.tokenizer.texts.items():
        who = way.at[number]
        gains = tuple(role for role, holder in has.items() if holder == who and had.get(role) != who)
        rows = inputs.row(number, who), outputs.row(number, who)
        if who < 0:
            # A placeholder is told of where its token is.
            if who not in graves or not is_tombstone(token):
                yield TokenFate(token, number, None, None, *rows, gains=gains)
            continue
        was = before.tokenizer.texts[who]
        loses = tuple(role for role, holder in had.items() if holder == who and has.get(role) != who)
        flags = _flags(before.tokenizer, was, after.tokenizer, token)
        is_kept = rows[0] == "kept" and rows[1] in ("kept", None)
        if (token, number) != (was, who) or not is_kept or flags or gains or loses:
            yield TokenFate(token, number, was, who, *rows, flags=flags, gains=gains, loses=loses)


def _removed(before: ModelState, after: ModelState, way: _Way) -> Iterator[TokenFate]:
    reached = {who: number for number, who in way.at.items()}
    for number, token in before.tokenizer.texts.items():
        if number in reached:
            continue
        held = after.tokenizer.texts.get(reached.get(way.buried.get(number, -1), -1))
        yield TokenFate(None, None, token, number, placeholder=held if held and is_tombstone(held) else None)


def _flags(before: Tokenizer, old: str, after: Tokenizer, new: str) -> tuple[FlagChange, ...]:
    was, now = before.token(old), after.token(new)
    if was is None or now is None:
        return () if was is now else (FlagChange("added", was is not None, now is not None),)
    return tuple(
        FlagChange(flag, getattr(was, flag), getattr(now, flag))
        for flag in FLAGS
        if getattr(was, flag) != getattr(now, flag)
    )

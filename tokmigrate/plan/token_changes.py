"""What a plan does to each token from now to its end, whatever its migrations do to it on the way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from typing import Literal

from tokmigrate.model.documents.declared import read_declared_roles
from tokmigrate.model.documents.state import ModelState
from tokmigrate.model.tokenizer.tokenizer_json import FLAGS, Tokenizer
from tokmigrate.plan.steps import Step, row_of_new
from tokmigrate.vocabulary.ids import is_tombstone
from tokmigrate.vocabulary.row_edit import WHOLE, RowEdit, Window

RowChange = Literal["kept", "new", "spare", "reinitialised"]


@dataclass(frozen=True)
class FlagChange:
    """A changed flag of an added token; `added` says whether it is one."""

    flag: str
    before: bool
    after: bool


@dataclass(frozen=True, slots=True)
class TokenChange:
    """What a plan does to one token.

    Args:
        token: Its text at the end, None where it is removed.
        id: Its id at the end, None where it is removed.
        old_token: Its text now, None where it is new.
        old_id: Its id now, None where it is new.
        row: Its input row is kept, initialised again, an additional one, or a spare one; None where it is removed.
        output_row: The same of its output row; None also where it has none.
        placeholder: The text of what holds the id of a removed one, None where nothing does.
        flags: The flags that change; none of a new one.
        gains: The special roles that it gets.
        loses: The special roles that another token has from then on, or none.
    """

    token: str | None
    id: int | None
    old_token: str | None
    old_id: int | None
    row: RowChange | None = None
    output_row: RowChange | None = None
    placeholder: str | None = None
    flags: tuple[FlagChange, ...] = ()
    gains: tuple[str, ...] = ()
    loses: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Trace:
    """Which tokens there are at the end of some operations.

    A token that is there now goes by its id now, one that comes later by a number below zero.

    Args:
        at: By each id at the end the token that has it.
        placeholders: By each removed token the placeholder that came in its place.
    """

    at: Mapping[int, int]
    placeholders: Mapping[int, int]


def token_changes(steps: Sequence[Step], edit: RowEdit) -> tuple[TokenChange, ...]:
    """Return what happens to the tokens that a plan touches, each once, by the ids at the end.

    Args:
        steps: The steps of the plan.
        edit: The rows at the end in terms of the rows on disk.
    """
    if not steps:
        return ()
    before, after = steps[0].before, steps[-1].after
    trace = _trace(steps)
    changes = [*_remaining(before, after, edit, trace), *_list_removed(before, after, trace)]
    return tuple(sorted(changes, key=_position))


def _position(change: TokenChange) -> tuple[int, bool]:
    return change.id if change.id is not None else change.old_id or 0, change.token is not None


def _trace(steps: Sequence[Step]) -> _Trace:
    at = {number: number for number in steps[0].before.tokenizer.texts}
    placeholders: dict[int, int] = {}
    later = (-number for number in count(1))
    for applied in (each for step in steps for each in step.applied):
        after, delta = applied.after.tokenizer, applied.delta
        moved = {new: at.pop(old) for old, new in delta.moved.values()}
        removed = {token: at.pop(number) for token, number in delta.removed.items()}
        at |= moved
        at |= {number: next(later) for number in delta.added.values()}
        for token, placeholder in delta.placeholders.items():
            placeholders[removed[token]] = at[after.ids[placeholder]] = next(later)
    return _Trace(at, placeholders)


@dataclass(frozen=True)
class _Side:
    """The rows of the input or the output embeddings."""

    window: Window
    edit: RowEdit
    before: ModelState
    after: ModelState

    @cached_property
    def _fresh(self) -> frozenset[int]:
        return frozenset(row for row, _ in self.window.of(self.edit).recipes())

    def row(self, number: int, who: int) -> RowChange | None:
        """Return what happens to the row of a token, None where it has none.

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
            return "reinitialised" if who < had else "new"
        return "new" if number >= had else row_of_new(self.before, self.after, number)


def _remaining(before: ModelState, after: ModelState, edit: RowEdit, trace: _Trace) -> Iterator[TokenChange]:
    """Yield what happens to the tokens that are there at the end, as far as something does."""
    inputs = _Side(WHOLE, edit, before, after)
    outputs = _Side(Window(short=after.traits.short), edit, before, after)
    old_roles, new_roles = read_declared_roles(before.documents), read_declared_roles(after.documents)
    old_ids, new_ids = before.tokenizer.ids, after.tokenizer.ids
    had = {role: old_ids.get(token) for role, token in old_roles.items()}
    has = {role: trace.at.get(new_ids.get(token, -1)) for role, token in new_roles.items()}
    placeholders = set(trace.placeholders.values())
    for number, token in after.tokenizer.texts.items():
        who = trace.at[number]
        gains = tuple(role for role, holder in has.items() if holder == who and had.get(role) != who)
        rows = inputs.row(number, who), outputs.row(number, who)
        if who < 0:
            # A placeholder is reported with its token.
            if who not in placeholders or not is_tombstone(token):
                yield TokenChange(token, number, None, None, *rows, gains=gains)
            continue
        was = before.tokenizer.texts[who]
        loses = tuple(role for role, holder in had.items() if holder == who and has.get(role) != who)
        flags = _flags(before.tokenizer, was, after.tokenizer, token)
        is_kept = rows[0] == "kept" and rows[1] in ("kept", None)
        if (token, number) != (was, who) or not is_kept or flags or gains or loses:
            yield TokenChange(token, number, was, who, *rows, flags=flags, gains=gains, loses=loses)


def _list_removed(before: ModelState, after: ModelState, trace: _Trace) -> Iterator[TokenChange]:
    reached = {who: number for number, who in trace.at.items()}
    for number, token in before.tokenizer.texts.items():
        if number in reached:
            continue
        held = after.tokenizer.texts.get(reached.get(trace.placeholders.get(number, -1), -1))
        yield TokenChange(None, None, token, number, placeholder=held if held and is_tombstone(held) else None)


def _flags(before: Tokenizer, old: str, after: Tokenizer, new: str) -> tuple[FlagChange, ...]:
    was, now = before.token(old), after.token(new)
    if was is None or now is None:
        return () if was is now else (FlagChange("added", was is not None, now is not None),)
    return tuple(
        FlagChange(flag, getattr(was, flag), getattr(now, flag))
        for flag in FLAGS
        if getattr(was, flag) != getattr(now, flag)
    )

"""What a plan does to each token from now to its end, whatever its migrations do to it on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
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
        token: Its text at the end, None where it is removed; `id` likewise.
        old_token: Its text now, None where it is new; `old_id` likewise.
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

    A token that is there now goes by its id now, one that comes later by a number below zero. `at` has the token of
    each id at the end, `placeholders` what came in the place of each removed token.
    """

    at: Mapping[int, int]
    placeholders: Mapping[int, int]


def token_changes(steps: Sequence[Step], edit: RowEdit) -> tuple[TokenChange, ...]:
    """Return what happens to the tokens that a plan touches, each once, by the ids at the end.

    `edit` is the rows at the end in terms of the rows on disk.
    """
    if not steps:
        return ()
    before, after = steps[0].before, steps[-1].after
    trace = _trace(steps)
    changes = [*_list_removed(before, after, trace), *_list_remaining(before, after, edit, trace)]
    # A removed token stands before the one that has its id now.
    return tuple(sorted(changes, key=lambda each: each.id if each.id is not None else each.old_id or 0))


def _trace(steps: Sequence[Step]) -> _Trace:
    at = {number: number for number in steps[0].before.tokenizer.texts}
    placeholders: dict[int, int] = {}
    later = (-number for number in count(1))
    for effect in (each for step in steps for each in step.effects):
        before, after, delta = effect.before.tokenizer, effect.after.tokenizer, effect.delta
        renamed = ((before.ids[old], after.ids[new]) for old, new in delta.renamed.items())
        moved = {new: at.pop(old) for old, new in (*delta.moved.values(), *renamed)}
        removed = {token: at.pop(number) for token, number in delta.removed.items()}
        at |= moved
        at |= {number: next(later) for number in delta.added.values()}
        for token, placeholder in delta.placeholders.items():
            placeholders[removed[token]] = at[after.ids[placeholder]] = next(later)
    return _Trace(at, placeholders)


def _row_changes(
    window: Window, edit: RowEdit, before: ModelState, after: ModelState
) -> Callable[[int, int], RowChange | None]:
    """Return what says what happens to a row of the input or output embeddings.

    It takes the id of a token at the end, and its id now, below zero for a new token; it is None where it has no row.
    """
    had, has = window.ids(edit.old_rows), window.ids(edit.new_rows)
    fresh = frozenset(row for row, _ in window.of(edit).recipes())

    def change(number: int, who: int) -> RowChange | None:
        if number >= has:
            return None
        if number not in fresh:
            return "kept"
        if who >= 0:
            return "reinitialised" if who < had else "new"
        return "new" if number >= had else row_of_new(before, after, number)

    return change


def _list_remaining(before: ModelState, after: ModelState, edit: RowEdit, trace: _Trace) -> Iterator[TokenChange]:
    """Yield what happens to the tokens that are there at the end, as far as something does."""
    windows = WHOLE, Window(short=after.traits.short)
    of_input, of_output = (_row_changes(window, edit, before, after) for window in windows)
    old_roles, new_roles = read_declared_roles(before.documents), read_declared_roles(after.documents)
    old, new = before.tokenizer, after.tokenizer
    old_ids, new_ids, old_texts = old.ids, new.ids, old.texts
    had = {role: old_ids.get(token) for role, token in old_roles.items()}
    has = {role: trace.at.get(new_ids.get(token, -1)) for role, token in new_roles.items()}
    placeholders = set(trace.placeholders.values())
    # Nothing happens to any other token that has its old text, id and row.
    in_question = {old_ids.get(token) for token in (*old.added, *new.added)}
    in_question |= {*had.values(), *has.values(), *(row for each in windows for row, _ in each.of(edit).recipes())}
    rows_after = edit.new_rows
    for number, token in new.texts.items():
        who = trace.at[number]
        if who == number < rows_after and number not in in_question and old_texts[who] == token:
            continue
        gains = tuple(role for role, holder in has.items() if holder == who and had.get(role) != who)
        rows = of_input(number, who), of_output(number, who)
        if who < 0:
            # A placeholder is reported with its token.
            if who not in placeholders or not is_tombstone(token):
                yield TokenChange(token, number, None, None, *rows, gains=gains)
            continue
        was = old_texts[who]
        loses = tuple(role for role, holder in had.items() if holder == who and has.get(role) != who)
        flags = _flags(old, was, new, token)
        is_kept = rows[0] == "kept" and rows[1] in ("kept", None)
        if (token, number) != (was, who) or not is_kept or flags or gains or loses:
            yield TokenChange(token, number, was, who, *rows, flags=flags, gains=gains, loses=loses)


def _list_removed(before: ModelState, after: ModelState, trace: _Trace) -> Iterator[TokenChange]:
    reached = {who: number for number, who in trace.at.items()}
    new_texts = after.tokenizer.texts
    for number, token in before.tokenizer.texts.items():
        if number in reached:
            continue
        held = new_texts.get(reached.get(trace.placeholders.get(number, -1), -1))
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

"""Which tokens a migration adds, renames or begins anew, read off the states before and after it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from tokmigrate.model.documents.state import ModelState
from tokmigrate.model.documents.tombstones import is_tombstone
from tokmigrate.vocabulary.recipes import Begun
from tokmigrate.vocabulary.rows import RowEdit
from tokmigrate.vocabulary.windows import WHOLE


@dataclass(frozen=True)
class BegunToken:
    """A token that a migration adds, renames or begins anew.

    Args:
        kind: Which of these.
        token: Its text, after a rename the new one.
        id: Its id.
        old_token: Before a rename the old text.
        init: How its row starts, as JSON; None where the row stays.
        row_digest: The marks of its fresh row, as `model.birth_marks` writes them.
        old_id: Its id before, None where it was not there.
    """

    kind: Literal["added", "renamed", "reinitialised"]
    token: str
    id: int
    old_token: str | None = None
    init: Any = None
    row_digest: str | None = None
    old_id: int | None = None


def renamed(before: ModelState, after: ModelState) -> dict[str, str]:
    """Return the new text of every token that has another one, under its id or under the one that its row moved to."""
    old, new = before.tokenizer, after.tokenizer
    gone = {token: number for token, number in old.ids.items() if token not in new.ids}
    positions = WHOLE.of(after.edit).positions() if gone else {}
    return {
        token: now
        for token, number in gone.items()
        if (now := new.texts.get(positions.get(number, number))) is not None
        and now not in old.ids
        and not is_tombstone(now)
    }


def begun_tokens(
    before: ModelState, after: ModelState, reached: RowEdit, digest: Callable[[Begun], str]
) -> tuple[BegunToken, ...]:
    """Return the tokens that a step adds, renames or begins anew.

    Args:
        before: The state before it.
        after: The state after it, with the step's own edit.
        reached: The rows after it in terms of the rows on disk.
        digest: Gives the marks of a fresh row.
    """
    old_texts = {new: old for old, new in renamed(before, after).items()}
    fresh = {row for row, _ in after.edit.fresh()}
    found: list[BegunToken] = []
    for token, number in after.tokenizer.ids.items():
        recipe = reached.row(number) if number in fresh else None
        init = row_digest = None
        if isinstance(recipe, Begun):
            init, row_digest = _init(recipe), digest(recipe)
        old_id = before.tokenizer.ids.get(token)
        if token in old_texts:
            was = old_texts[token]
            found.append(BegunToken("renamed", token, number, was, init, row_digest, before.tokenizer.ids[was]))
        elif init is not None:
            kind: Literal["added", "reinitialised"] = "added" if old_id is None else "reinitialised"
            found.append(BegunToken(kind, token, number, None, init, row_digest, old_id))
    return tuple(found)


def _init(recipe: Begun) -> dict[str, Any]:
    return {"input": recipe.input.strategy.described(), "output": recipe.output.strategy.described()}

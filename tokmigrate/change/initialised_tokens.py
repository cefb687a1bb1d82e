"""The tokens that a migration adds, renames or reinitialises, with how their rows are initialised."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from tokmigrate.plan.steps import Step
from tokmigrate.vocabulary.recipes import Begun
from tokmigrate.vocabulary.rows import RowEdit
from tokmigrate.vocabulary.token_delta import TokenDelta


@dataclass(frozen=True)
class InitialisedToken:
    """A token that a migration adds, renames or reinitialises.

    Args:
        kind: Which of these.
        token: Its text, after a rename the new one.
        id: Its id.
        old_token: Before a rename the old text.
        init: How its row is initialised, as JSON; None where the row stays.
        row_digest: The marks of its new row, as `model.birth_marks` writes them.
        old_id: Its id before, None where it was not there.
    """

    kind: Literal["added", "renamed", "reinitialised"]
    token: str
    id: int
    old_token: str | None = None
    init: Any = None
    row_digest: str | None = None
    old_id: int | None = None


def initialised_tokens(
    step: Step, delta: TokenDelta, reached: RowEdit, digest: Callable[[Begun], str]
) -> tuple[InitialisedToken, ...]:
    """Return the tokens that a step adds, renames or reinitialises.

    Args:
        step: The step.
        delta: What it does to tokens.
        reached: The rows after it in terms of the rows on disk.
        digest: Gives the marks of a new row.
    """
    old_texts = {new: old for old, new in delta.renamed.items()}
    old_ids = step.before.tokenizer.ids
    fresh = {row for row, _ in step.after.edit.fresh()}
    found: list[InitialisedToken] = []
    for token, number in step.after.tokenizer.ids.items():
        recipe = reached.row(number) if number in fresh else None
        init = row_digest = None
        if isinstance(recipe, Begun):
            init, row_digest = _init(recipe), digest(recipe)
        if token in old_texts:
            was = old_texts[token]
            found.append(InitialisedToken("renamed", token, number, was, init, row_digest, old_ids[was]))
        elif init is not None:
            kind: Literal["added", "reinitialised"] = "reinitialised" if token in old_ids else "added"
            found.append(InitialisedToken(kind, token, number, None, init, row_digest, old_ids.get(token)))
    return tuple(found)


def _init(recipe: Begun) -> dict[str, Any]:
    return {"input": recipe.input.strategy.described(), "output": recipe.output.strategy.described()}

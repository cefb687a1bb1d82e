"""Whether a model meets what a migration asks of it, before and after."""

from __future__ import annotations

from tokmigrate.model.documents.state import ModelState
from tokmigrate.revision.conditions import Check, ModelType, Precondition, SingleToken, TokenAbsent


def unmet(condition: Precondition, state: ModelState) -> str | None:
    """Return why a precondition does not hold in `state`, None where it does."""
    if isinstance(condition, ModelType):
        found = state.traits.model_type
        return (
            None if found == condition.model_type else f"the model is of type '{found}', not '{condition.model_type}'"
        )
    number = state.tokenizer.ids.get(condition.token)
    if isinstance(condition, TokenAbsent):
        return None if number is None else f"the token '{condition.token}' is there, with id {number}"
    return None if number is not None else f"there is no token '{condition.token}'"


def broken(check: Check, tokens: tuple[str, ...]) -> str | None:
    """Return why a `verify:` case does not hold for the tokens that its text was cut into, None where it does."""
    wanted = (check.text,) if isinstance(check, SingleToken) else check.tokens
    if tokens == wanted:
        return None
    return f"'{check.text}' is cut into {list(tokens)}, not {list(wanted)}"

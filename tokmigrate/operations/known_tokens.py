"""Tokens that an operation refers to must be in the vocabulary."""

from __future__ import annotations

from tokmigrate.errors import OperationError, nearest
from tokmigrate.model.documents.state import ModelState
from tokmigrate.operations.base import Risk, RiskLevel


def id_of(state: ModelState, content: str) -> int:
    """Return the id of the token `content`; raises OperationError, with the nearest one, where it is none."""
    found = state.tokenizer.ids.get(content)
    if found is None:
        near = nearest(content, state.tokenizer.ids)
        raise OperationError(
            f"'{content}' is no token of this tokenizer",
            hint=f"{near} If not, add it first with add_tokens" if near else "add it first with add_tokens",
        )
    return found


def cut_out(before: ModelState, after: ModelState) -> Risk | None:
    """Return the risk of tokens that text is made of and that became added ones, None where there are none."""
    old = before.tokenizer
    cut = [token for token in after.tokenizer.added if token in old.vocabulary and token not in old.added]
    if not cut:
        return None
    named = ", ".join(f"'{token}'" for token in cut[:3])
    return Risk(RiskLevel.CAUTION, f"text that contains {named} is cut otherwise: a token with a role stands alone")

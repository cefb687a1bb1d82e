"""The operation `set_special_tokens`."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from tokmigrate.errors import OperationError
from tokmigrate.model.documents.roles import ROLES, special_token, with_role, with_special_flag
from tokmigrate.model.documents.state import SPECIAL_TOKENS_MAP, TOKENIZER_CONFIG, ModelState
from tokmigrate.model.tokenizer.tokenizer_json import FILE, post_processor_tokens
from tokmigrate.operations.base import AsTuple, Context, Operation, Risk, RiskLevel
from tokmigrate.operations.known_tokens import cut_out, id_of
from tokmigrate.operations.set_padding import with_pad_token


class SetSpecialTokens(Operation):
    """Say which token begins, ends, pads, masks … a text, in every file that says so.

    Where a file holds a list of ids (the ends of a generation), the new id goes first and the others stay.
    """

    name: ClassVar[str] = "set_special_tokens"

    bos: str | None = Field(default=None, description="Begins a text.")
    eos: str | None = Field(default=None, description="Ends a text or a turn.")
    unk: str | None = Field(default=None, description="Stands for what has no token.")
    sep: str | None = Field(default=None, description="Stands between two texts.")
    pad: str | None = Field(default=None, description="Fills a batch; as `set_padding: {token: …}`.")
    cls: str | None = Field(default=None, description="Stands for the whole text.")
    mask: str | None = Field(default=None, description="Stands for a hidden token.")
    additional: Annotated[tuple[str, ...] | None, AsTuple] = Field(
        default=None, description="All further special tokens; replaces the list."
    )

    def apply(self, state: ModelState, context: Context) -> ModelState:  # noqa: ARG002
        """Return the state with the roles given."""
        given = {role: getattr(self, role) for role in ROLES if getattr(self, role) is not None}
        if not given and self.additional is None:
            raise OperationError("set_special_tokens names no token", hint="give one of " + ", ".join(ROLES))
        for role, content in given.items():
            id_of(state, content)
            state = with_pad_token(state, content) if role == "pad" else with_role(state, role, content)
        if self.additional is not None:
            state = _with_additional(state, self.additional)
        return state

    def risk(self, before: ModelState, after: ModelState) -> Risk:
        """Say what a changed role does."""
        if (cut := cut_out(before, after)) is not None:
            return cut
        around = set(post_processor_tokens(before.documents[FILE]))
        for role in ("bos", "eos", "sep", "cls"):
            old, new = special_token(before, role), getattr(self, role)
            if new is not None and old in around and old != new:
                return Risk(
                    RiskLevel.CAUTION,
                    f"the post-processor of tokenizer.json still puts '{old}' around a text, and not '{new}'",
                )
        if self.eos is not None:
            return Risk(RiskLevel.CAUTION, "generation ends at another token, which the model must have learnt")
        return Risk(RiskLevel.CAUTION, "the model must have learnt what the tokens stand for")


def _with_additional(state: ModelState, contents: tuple[str, ...]) -> ModelState:
    for content in contents:
        id_of(state, content)
        state = with_special_flag(state, content)
    for name in (TOKENIZER_CONFIG, SPECIAL_TOKENS_MAP):
        document = state.documents.get(name)
        if document is None and name == SPECIAL_TOKENS_MAP:
            continue
        # transformers 5 writes extra_special_tokens, older releases additional_special_tokens.
        old_name = "additional_special_tokens"
        key = old_name if old_name in (document or {}) or name == SPECIAL_TOKENS_MAP else "extra_special_tokens"
        state = state.with_value(name, (key,), list(contents))
    return state

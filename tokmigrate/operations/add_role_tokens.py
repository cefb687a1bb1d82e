"""The operation `add_role_tokens`."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from tokmigrate.errors import OperationError
from tokmigrate.initialise import InitSpec
from tokmigrate.model.documents.architecture_quirks import tail_move
from tokmigrate.model.documents.chat_template import with_chat_template
from tokmigrate.model.documents.roles import with_role
from tokmigrate.model.documents.state import ModelState
from tokmigrate.operations.add_tokens import NewToken, reused, with_new_tokens
from tokmigrate.operations.base import Context, Operation, Risk, RiskLevel
from tokmigrate.operations.chat_presets import PRESETS, ChatForm, role_form
from tokmigrate.operations.known_tokens import cut_out
from tokmigrate.operations.token_list import quoted


class AddRoleTokens(Operation):
    """Add the tokens of a chat, make one of them the end token, and set the chat template, in one go.

    Either a `preset`, or `roles` of one's own with the token that ends a turn.
    """

    name: ClassVar[str] = "add_role_tokens"
    shorthand: ClassVar[str | None] = "preset"

    preset: Literal["chatml", "llama3", "gemma", "phi", "mistral"] | None = Field(
        default=None, description="A published form of chat."
    )
    roles: dict[str, str] | None = Field(default=None, description="The token that opens each role's turn.")
    end: str | None = Field(default=None, description="The token that ends a turn.")
    template: Literal["set", "keep"] = Field(default="set", description="Whether the chat template is set.")
    existing: Literal["refuse", "reuse"] = Field(
        default="refuse", description="What happens with a token that the tokenizer has already."
    )
    init: InitSpec | None = Field(default=None, description="How the rows start.")

    def form(self) -> ChatForm:
        """Return the form of chat that is asked for."""
        if (self.preset is None) == (self.roles is None):
            raise OperationError("add_role_tokens takes one of `preset:` and `roles:`")
        if self.preset is not None:
            form = PRESETS[self.preset]
            if self.end not in (None, form.end):
                raise OperationError(f"the preset '{self.preset}' ends a turn with '{form.end}'")
            return form
        if not self.roles or self.end is None:
            raise OperationError("`roles:` needs at least one role, and `end:` the token that ends a turn")
        return role_form(self.roles, self.end)

    def apply(self, state: ModelState, context: Context) -> ModelState:
        """Return the state with tokens, end token and template."""
        form = self.form()
        known = state.tokenizer.ids
        wanted = [token for token in form.tokens if self.existing == "refuse" or token not in known]
        if wanted:
            new = tuple(NewToken(content=token, special=True) for token in wanted)
            state = with_new_tokens(state, context, new, self.init)
        if form.end is not None:
            state = with_role(state, "eos", form.end)
        return state if self.template == "keep" else with_chat_template(state, form.template)

    def risk(self, before: ModelState, after: ModelState) -> Risk:
        """Old text is safe; the chat works after training."""
        if (cut := cut_out(before, after)) is not None:
            return cut
        form = self.form()
        new = [token for token in form.tokens if token not in before.tokenizer.ids]
        if form.end in new:
            reasons = ["old text is cut as before, but chats end at a token whose row is not trained yet"]
        else:
            reasons = ["old text is cut as before", *([f"{quoted(new)} is not trained yet"] if new else [])]
        if len(new) < len(form.tokens):
            reasons.append(reused([token for token in form.tokens if token not in new]))
        reasons += [move] if (move := tail_move(before, after)) else []
        return Risk(RiskLevel.CAUTION, "; ".join(reasons))

    def references(self) -> tuple[str, ...]:
        """Return the files that the strategy reads."""
        return self.init.references() if self.init else ()

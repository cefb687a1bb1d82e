"""The operation `set_padding`."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from tokmigrate.errors import OperationError, in_one_line
from tokmigrate.model.documents.architecture_quirks import POSITION_IDS_FROM_PAD
from tokmigrate.model.documents.roles import special_token, with_role
from tokmigrate.model.documents.state import CONFIG, TOKENIZER_CONFIG, ModelState
from tokmigrate.model.tokenizer.tokenizer_json import FILE
from tokmigrate.operations.base import Context, Footprint, Operation, Risk, RiskLevel, TokenChanges, name_tokens
from tokmigrate.operations.token_checks import id_of, risk_of_added


class SetPadding(Operation):
    """Set how batches are padded, in tokenizer.json, tokenizer_config.json, config.json and generation_config.json.

    What is not given stays as it is. The token must be in the vocabulary. With `max_length: off` the tokenizer itself
    does not pad; transformers still gets the padding token and side.
    """

    name: ClassVar[str] = "set_padding"

    token: str | None = Field(default=None, description="The padding token; by default the current one.")
    side: Literal["left", "right"] | None = Field(default=None, description="Where it is put.")
    pad_to_multiple_of: int | None = Field(default=None, ge=1, description="Round lengths up to a multiple.")
    max_length: int | Literal["longest", "off"] | None = Field(
        default=None, description="Pad to that many tokens, or to the longest text of the batch; `off` ends it."
    )

    def apply(self, state: ModelState, context: Context) -> ModelState:  # noqa: ARG002
        """Return the state with padding set."""
        if self.max_length == "off":
            return self._without_section(state)
        token = self.token or pad_token(state)
        if token is None:
            raise OperationError("the model has no pad token yet", hint="give `token:`")
        id_of(state, token)
        if self.token is not None or special_token(state, "pad") != token:
            state = with_pad_token(state, token)
        section = padding_section(state, token)
        if self.side is not None:
            section["direction"] = self.side.capitalize()
            state = state.with_value(TOKENIZER_CONFIG, ("padding_side",), self.side)
        if self.pad_to_multiple_of is not None:
            section["pad_to_multiple_of"] = self.pad_to_multiple_of
        if self.max_length is not None:
            fixed = {"Fixed": self.max_length}
            section["strategy"] = "BatchLongest" if self.max_length == "longest" else fixed
        return state.with_value(FILE, ("padding",), section)

    def _without_section(self, state: ModelState) -> ModelState:
        if self.pad_to_multiple_of is not None:
            raise OperationError("set_padding is off and rounds lengths up at once", hint="leave one of them out")
        if state.documents[FILE].get("padding") is not None:
            state = state.with_value(FILE, ("padding",), None)
        if self.token is not None:
            id_of(state, self.token)
            state = with_pad_token(state, self.token)
        if self.side is not None:
            state = state.with_value(TOKENIZER_CONFIG, ("padding_side",), self.side)
        return state

    def risk(self, before: ModelState, after: ModelState) -> Risk:
        """Say whether a special token is touched."""
        if (risk := risk_of_added(before, after)) is not None:
            return risk
        old, new = pad_token(before), pad_token(after)
        if old != new and old is not None:
            return Risk(RiskLevel.CAUTION, f"padding is '{new}' instead of '{old}'; masks made by id change")
        if new == special_token(after, "eos"):
            return Risk(RiskLevel.CAUTION, "padding is the end token; training must not mask real ends")
        return Risk(RiskLevel.SAFE, "no token that text is made of changes")

    def token_changes(self) -> TokenChanges:
        """Return the role of the pad token."""
        return TokenChanges(roles={"pad": (self.token,)} if self.token else {})

    def footprint(self) -> Footprint:
        """Return padding, and the pad token where one is given."""
        named = [self.token] if self.token else []
        return Footprint.of(["padding"], name_tokens(named), ["the pad token" for _ in named])


def pad_token(state: ModelState) -> str | None:
    """Return the text of the pad token, or None."""
    section = state.documents[FILE].get("padding") or {}
    return special_token(state, "pad") or section.get("pad_token")


def padding_section(state: ModelState, token: str) -> dict[str, object]:
    """Return the `padding` section of tokenizer.json as it is, or as the library would make one."""
    default = {
        "strategy": "BatchLongest",
        "direction": (state.documents.get(TOKENIZER_CONFIG) or {}).get("padding_side", "right").capitalize(),
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": token,
    }
    present = state.documents[FILE].get("padding") or default
    return {**present, "pad_id": state.tokenizer.ids[token], "pad_token": token}


def with_pad_token(state: ModelState, token: str) -> ModelState:
    """Return the state in which `token` pads, in every file; raises OperationError where that breaks the model."""
    number = id_of(state, token)
    held = state.documents[CONFIG].get("pad_token_id")
    if state.traits.model_type in POSITION_IDS_FROM_PAD and held not in (None, number):
        raise OperationError(
            f"a {state.traits.model_type} model counts its positions from pad_token_id {held}; "
            f"padding with '{token}' (id {number}) would shift every position",
            hint=f"keep the pad token '{in_one_line(state.tokenizer.texts.get(held, str(held)))}'",
        )
    state = with_role(state, "pad", token)
    if state.documents[FILE].get("padding"):
        state = state.with_value(FILE, ("padding",), padding_section(state, token))
    return state

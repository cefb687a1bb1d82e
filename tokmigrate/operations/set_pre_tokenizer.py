"""The operation `set_pre_tokenizer`."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from tokmigrate.model.documents.state import TOKENIZER_CONFIG, ModelState
from tokmigrate.operations.base import Context, Risk, RiskLevel
from tokmigrate.operations.inline_json import Part
from tokmigrate.operations.pipeline_part import SetPart


class SetPreTokenizer(SetPart):
    """Set how text is split before the tokenizer's model sees it.

    Takes a pre-tokenizer as it stands in a tokenizer.json, or `null` for none. JSON can be pasted as it is: unquoted
    `true`, `false`, `null` and numbers are typed, a quoted text stays text. Where tokenizer_config.json repeats
    the `add_prefix_space` of a ByteLevel pre-tokenizer, it follows.
    """

    name: ClassVar[str] = "set_pre_tokenizer"
    shorthand: ClassVar[str | None] = "pre_tokenizer"
    section: ClassVar[str] = "pre_tokenizer"

    pre_tokenizer: Part = Field(description="The pre-tokenizer as in tokenizer.json; null for none.")

    def apply(self, state: ModelState, context: Context) -> ModelState:
        """Return the state with the pre-tokenizer, after the library took it."""
        state = super().apply(state, context)
        part = self.part or {}
        for inner in (part, *(part.get("pretokenizers") or [])):
            repeated = "add_prefix_space" in (state.documents.get(TOKENIZER_CONFIG) or {})
            if inner.get("type") == "ByteLevel" and "add_prefix_space" in inner and repeated:
                state = state.with_value(TOKENIZER_CONFIG, ("add_prefix_space",), inner["add_prefix_space"])
        return state

    def effect(self, before: ModelState, after: ModelState) -> Risk:  # noqa: ARG002
        """All text may be cut otherwise."""
        return Risk(RiskLevel.BREAKING, "all text may be cut into other tokens than in training")

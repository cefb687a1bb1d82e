"""The operation `set_normalizer`."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from tokmigrate.errors import nearest
from tokmigrate.model.documents.state import TOKENIZER_CONFIG, ModelState
from tokmigrate.operations.base import Context, Risk, RiskLevel
from tokmigrate.operations.inline_json import part, typed
from tokmigrate.operations.pipeline_part import SetPart

FORMS = ("NFC", "NFD", "NFKC", "NFKD")

_IN_CONFIG = {
    "lowercase": "do_lower_case",
    "strip_accents": "strip_accents",
    "handle_chinese_chars": "tokenize_chinese_chars",
}
"""Fields of a BertNormalizer, by the names under which tokenizer_config.json repeats them."""


def _normalizer(value: Any) -> dict[str, Any] | None:
    value = typed(value)
    if isinstance(value, str):
        if value not in FORMS:
            hint = nearest(value, FORMS) or "known are " + ", ".join(FORMS)
            raise ValueError(f"unknown normalizer '{value}': {hint}")
        return {"type": value}
    return part(value)


class SetNormalizer(SetPart):
    """Set how text is normalised before it is cut.

    Takes `NFC`, `NFD`, `NFKC` or `NFKD`, or a normalizer as it stands in a tokenizer.json, or `null` for none. JSON
    can be pasted as it is: unquoted `true`, `false`, `null` and numbers are typed, a quoted text stays text.
    Where tokenizer_config.json repeats the fields of a `BertNormalizer`, it follows.
    """

    name: ClassVar[str] = "set_normalizer"
    shorthand: ClassVar[str | None] = "normalizer"
    section: ClassVar[str] = "normalizer"

    normalizer: Annotated[
        dict[str, Any] | None,
        BeforeValidator(
            _normalizer, json_schema_input_type=Literal["NFC", "NFD", "NFKC", "NFKD"] | dict[str, Any] | None
        ),
    ] = Field(description="The normalizer, by its short name or as in tokenizer.json; null for none.")

    def apply(self, state: ModelState, context: Context) -> ModelState:
        """Return the state with the normalizer, after the library took it."""
        state = super().apply(state, context)
        if self.part is None or self.part["type"] != "BertNormalizer":
            return state
        config = state.documents.get(TOKENIZER_CONFIG) or {}
        for field, key in _IN_CONFIG.items():
            if field in self.part and key in config:
                state = state.with_value(TOKENIZER_CONFIG, (key,), self.part[field])
        return state

    def effect(self, before: ModelState, after: ModelState) -> Risk:  # noqa: ARG002
        """Text that the two normalise differently gets other ids."""
        return Risk(RiskLevel.CAUTION, "text that is normalised otherwise now is cut otherwise than in training")

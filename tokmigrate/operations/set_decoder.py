"""The operation `set_decoder`."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from tokmigrate.model.documents.state import ModelState
from tokmigrate.operations.base import Risk, RiskLevel
from tokmigrate.operations.inline_json import Part
from tokmigrate.operations.pipeline_part import SetPart


class SetDecoder(SetPart):
    """Set how tokens become text again.

    Takes a decoder as it stands in a tokenizer.json, or `null` for none. JSON can be pasted as it is: unquoted
    `true`, `false`, `null` and numbers are typed, a quoted text stays text.
    """

    name: ClassVar[str] = "set_decoder"
    shorthand: ClassVar[str | None] = "decoder"
    section: ClassVar[str] = "decoder"

    decoder: Part = Field(description="The decoder as in tokenizer.json; null for none.")

    def effect(self, before: ModelState, after: ModelState) -> Risk:  # noqa: ARG002
        """No id changes, only what is read from ids."""
        return Risk(RiskLevel.CAUTION, "text gets the ids that it had; ids may become other text")

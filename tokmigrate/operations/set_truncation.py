"""The operation `set_truncation`."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from tokmigrate.errors import OperationError
from tokmigrate.model.documents.config_fields import NO_LIMIT
from tokmigrate.model.documents.state import CONFIG, TOKENIZER_CONFIG, ModelState
from tokmigrate.model.tokenizer.library import load_tokenizer
from tokmigrate.model.tokenizer.tokenizer_json import FILE
from tokmigrate.operations.operation import Context, Footprint, Operation, Risk, TokenChanges
from tokmigrate.operations.pipeline import refuse

STRATEGIES = {"longest_first": "LongestFirst", "only_first": "OnlyFirst", "only_second": "OnlySecond"}


class SetTruncation(Operation):
    """Set how long texts are truncated, in tokenizer.json and tokenizer_config.json; `off` ends it.

    What is not given stays as it is. A length given here is also the `model_max_length`, unless that is given apart;
    `off` leaves it alone.
    """

    name: ClassVar[str] = "set_truncation"
    shorthand: ClassVar[str | None] = "max_length"

    max_length: Annotated[int, Field(ge=1)] | Literal["off"] | None = Field(
        default=None, description="Keep that many tokens, special ones included; `off` truncates nothing."
    )
    strategy: Literal["longest_first", "only_first", "only_second"] | None = Field(
        default=None, description="Which of two texts is shortened."
    )
    stride: int | None = Field(default=None, ge=0, description="How many tokens the pieces of one text share.")
    direction: Literal["left", "right"] | None = Field(default=None, description="On which side tokens are dropped.")

    model_max_length: Annotated[int, Field(ge=1)] | Literal["keep", "none"] | None = Field(
        default=None, description="The maximum length that transformers uses; by default `max_length`."
    )

    @property
    def _options(self) -> dict[str, Any]:
        options = {
            "direction": self.direction and self.direction.capitalize(),
            "max_length": self.max_length,
            "strategy": self.strategy and STRATEGIES[self.strategy],
            "stride": self.stride,
        }
        return {key: value for key, value in options.items() if value is not None}

    def apply(self, state: ModelState, context: Context) -> ModelState:  # noqa: ARG002
        if not self._options and self.model_max_length is None:
            raise OperationError("set_truncation sets nothing", hint="give `max_length:`, or `off`")
        if self.max_length == "off":
            if len(self._options) > 1:
                raise OperationError(
                    "set_truncation is off and has options at once", hint="give `max_length: off` alone"
                )
            state = state.with_value(FILE, ("truncation",), None)
        elif self._options:
            state = self._with_section(state)
        if isinstance(self.model_max_length, int):
            return state.with_value(TOKENIZER_CONFIG, ("model_max_length",), self.model_max_length)
        config = state.documents.get(TOKENIZER_CONFIG) or {}
        if self.model_max_length == "none" and "model_max_length" in config:
            left = {name: value for name, value in config.items() if name != "model_max_length"}
            return state.with_document(TOKENIZER_CONFIG, left)
        return state

    def _with_section(self, state: ModelState) -> ModelState:
        config = state.documents.get(TOKENIZER_CONFIG) or {}
        section: dict[str, Any] = {
            "direction": str(config.get("truncation_side", "right")).capitalize(),
            "max_length": config.get("model_max_length"),
            "strategy": "LongestFirst",
            "stride": 0,
        }
        if state.documents[FILE].get("truncation"):
            section = {"direction": "Right", **state.documents[FILE]["truncation"]}
        section |= self._options
        length = section["max_length"]
        if not isinstance(length, int) or length >= NO_LIMIT:
            raise OperationError("the model has no maximum length yet", hint="give `max_length:`")
        if self.max_length is not None and self.model_max_length is None:
            state = state.with_value(TOKENIZER_CONFIG, ("model_max_length",), self.max_length)
        if self.direction is not None:
            state = state.with_value(TOKENIZER_CONFIG, ("truncation_side",), self.direction)
        _check_room(state, length, section["stride"])
        return state.with_value(FILE, ("truncation",), section)

    def risk(self, before: ModelState, after: ModelState) -> Risk:
        section = after.documents[FILE].get("truncation")
        if before.documents[FILE].get("truncation") == section:
            return Risk.caution("transformers warns and truncates at another length than before")
        if section is None:
            return Risk.caution("nothing is truncated; a long text may outgrow the model")
        length = section["max_length"]
        longest = after.documents[CONFIG].get("max_position_embeddings")
        if isinstance(longest, int) and length > longest:
            return Risk.caution(f"texts of {length} tokens outgrow the {longest} positions of the model")
        return Risk.caution(f"of a text longer than {length} tokens the rest is dropped without a warning")

    def token_changes(self) -> TokenChanges:
        return TokenChanges()

    def footprint(self) -> Footprint:
        return Footprint.of(["truncation"])


def _check_room(state: ModelState, length: int, stride: int) -> None:
    # The library panics where special tokens and stride leave no room.
    document = {**state.documents[FILE], "truncation": None, "padding": None}
    with refuse("the tokenizer"):
        around = load_tokenizer(document).num_special_tokens_to_add(False)
    if length - around <= stride:
        raise OperationError(
            f"max_length {length} leaves no room for text beside {around} special tokens and a stride of {stride}",
            hint=f"give at least {around + stride + 1}, or a smaller stride",
        )

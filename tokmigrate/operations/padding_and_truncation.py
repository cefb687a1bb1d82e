"""The operations `set_padding` and `set_truncation`."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from tokmigrate.errors import OperationError, in_one_line
from tokmigrate.model.documents.architecture_quirks import POSITION_IDS_FROM_PAD
from tokmigrate.model.documents.config_fields import NO_LIMIT
from tokmigrate.model.documents.roles import special_token, with_role
from tokmigrate.model.documents.state import CONFIG, TOKENIZER_CONFIG, ModelState
from tokmigrate.model.tokenizer.library import load_tokenizer
from tokmigrate.model.tokenizer.tokenizer_json import FILE
from tokmigrate.operations.operation import Context, Footprint, Operation, Risk, TokenChanges
from tokmigrate.operations.pipeline import refuse
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
        is_off = self.max_length == "off"
        if is_off and self.pad_to_multiple_of is not None:
            raise OperationError("set_padding is off and rounds lengths up at once", hint="leave one of them out")
        token = self.token or (None if is_off else pad_token(state))
        if token is None and not is_off:
            raise OperationError("the model has no pad token yet", hint="give `token:`")
        if token is not None and (self.token is not None or special_token(state, "pad") != token):
            state = with_pad_token(state, token)
        if self.side is not None:
            state = state.with_value(TOKENIZER_CONFIG, ("padding_side",), self.side)
        if is_off or token is None:
            is_set = state.documents[FILE].get("padding") is not None
            return state.with_value(FILE, ("padding",), None) if is_set else state
        section = build_section(state, token)
        if self.side is not None:
            section["direction"] = self.side.capitalize()
        if self.pad_to_multiple_of is not None:
            section["pad_to_multiple_of"] = self.pad_to_multiple_of
        if self.max_length is not None:
            section["strategy"] = "BatchLongest" if self.max_length == "longest" else {"Fixed": self.max_length}
        return state.with_value(FILE, ("padding",), section)

    def risk(self, before: ModelState, after: ModelState) -> Risk:
        if (risk := risk_of_added(before, after)) is not None:
            return risk
        old, new = pad_token(before), pad_token(after)
        if old != new and old is not None:
            return Risk.caution(f"padding is '{new}' instead of '{old}'; masks made by id change")
        if new == special_token(after, "eos"):
            return Risk.caution("padding is the end token; training must not mask real ends")
        return Risk.safe("no token that text is made of changes")

    def token_changes(self) -> TokenChanges:
        return TokenChanges(roles={"pad": (self.token,)} if self.token else {})

    def footprint(self) -> Footprint:
        if self.token is None:
            return Footprint.of(["padding"])
        return Footprint.of(["padding"], Footprint.name_tokens([self.token]), ["the pad token"])


def pad_token(state: ModelState) -> str | None:
    """Return the text of the pad token, or None."""
    section = state.documents[FILE].get("padding") or {}
    return special_token(state, "pad") or section.get("pad_token")


def build_section(state: ModelState, token: str) -> dict[str, object]:
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
    return {**present, "pad_id": id_of(state, token), "pad_token": token}


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
        state = state.with_value(FILE, ("padding",), build_section(state, token))
    return state


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

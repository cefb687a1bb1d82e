"""What the JSON files of a model have to look like where something is read of them; all else may be anything.

Only types are checked, as far as a wrong one would be taken for something else, or end in an error of Python's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, RootModel, ValidationError
from pydantic_core import ErrorDetails

from tokmigrate.errors import ModelError, TokenizerError
from tokmigrate.model.documents import state as names
from tokmigrate.model.formats.json_text import Json
from tokmigrate.model.tokenizer.tokenizer_json import FILE as TOKENIZER
from tokmigrate.strict_yaml.wording import expected, unlike, wording

_HINT = "fetch the file again, or restore it from a copy of the model"

Id = Annotated[int, Field(ge=0)]
Object = dict[str, Any]


class _Shape(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="allow")


class _AddedToken(_Shape):
    id: Id
    content: str
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False
    normalized: bool = True
    special: bool = False


class _SpecialToken(_Shape):
    id: str
    ids: list[Id]
    tokens: list[str]


class _Part(_Shape):
    """A part of the pipeline, alone or a sequence of parts."""

    type: str | None = None
    normalizers: list[_Part] | None = None
    pretokenizers: list[_Part] | None = None
    decoders: list[_Part] | None = None
    processors: list[_Part] | None = None
    special_tokens: dict[str, _SpecialToken] | None = None
    single: list[dict[str, Object]] | None = None
    pair: list[dict[str, Object]] | None = None
    sep: tuple[str, Id] | None = None
    cls: tuple[str, Id] | None = None


class _Model(_Shape):
    type: str | None = None
    vocab: dict[str, Id] | list[tuple[str, float]]
    merges: list[str | tuple[str, str]] | None = None
    unk_token: str | None = None
    unk_id: Id | None = None
    dropout: float | None = None
    byte_fallback: bool | None = None
    ignore_merges: bool | None = None
    continuing_subword_prefix: str | None = None
    end_of_word_suffix: str | None = None


class _Padding(_Shape):
    strategy: str | Object | None = None
    direction: str | None = None
    pad_to_multiple_of: int | None = None
    pad_id: Id | None = None
    pad_type_id: int | None = None
    pad_token: str | None = None


class _Truncation(_Shape):
    max_length: int | None = None
    stride: int | None = None
    strategy: str | None = None
    direction: str | None = None


class _Tokenizer(_Shape):
    model: _Model
    added_tokens: list[_AddedToken] | None = None
    normalizer: _Part | None = None
    pre_tokenizer: _Part | None = None
    post_processor: _Part | None = None
    decoder: _Part | None = None
    padding: _Padding | None = None
    truncation: _Truncation | None = None


class _Named(_Shape):
    """A token as transformers writes it where it is no plain text."""

    content: str


Token = str | _Named | None
Tokens = list[str | _Named] | dict[str, str | _Named] | None


class _Template(_Shape):
    name: str
    template: str


def _numbers(held: Mapping[str, Any]) -> Mapping[str, Any]:
    for number in held:
        if not number.isdecimal():
            raise ValueError(f"'{number}' is not the id of a token")
    return held


class _TokenizerConfig(_Shape):
    added_tokens_decoder: Annotated[dict[str, _Named], AfterValidator(_numbers)] | None = None
    additional_special_tokens: Tokens = None
    extra_special_tokens: Tokens = None
    model_specific_special_tokens: dict[str, str | _Named] | None = None
    chat_template: str | list[_Template] | None = None
    tokenizer_class: str | None = None
    padding_side: str | None = None
    truncation_side: str | None = None
    model_max_length: int | float | None = None
    add_bos_token: bool | None = None
    add_eos_token: bool | None = None
    bos_token: Token = None
    eos_token: Token = None
    unk_token: Token = None
    sep_token: Token = None
    pad_token: Token = None
    cls_token: Token = None
    mask_token: Token = None


class _SpecialTokensMap(_Shape):
    additional_special_tokens: Tokens = None
    extra_special_tokens: Tokens = None
    bos_token: Token = None
    eos_token: Token = None
    unk_token: Token = None
    sep_token: Token = None
    pad_token: Token = None
    cls_token: Token = None
    mask_token: Token = None


class _AddedTokens(RootModel[dict[str, Id]]):
    model_config = ConfigDict(strict=True, frozen=True)


class _LegacyTemplate(_Shape):
    chat_template: str | list[_Template] | None = None


class _Config(_Shape):
    model_type: str | None = None
    tokenizer_class: str | None = None


class _AdapterConfig(_Shape):
    peft_type: str | None = None
    base_model_name_or_path: str | None = None
    trainable_token_indices: list[Id] | dict[str, list[Id]] | None = None
    token_indices: list[Id] | dict[str, list[Id]] | None = None
    alora_invocation_tokens: list[Id] | dict[str, list[Id]] | None = None
    modules_to_save: list[str] | None = None
    target_modules: str | list[str] | None = None


_SHAPES: Mapping[str, type[BaseModel]] = {
    TOKENIZER: _Tokenizer,
    names.TOKENIZER_CONFIG: _TokenizerConfig,
    names.SPECIAL_TOKENS_MAP: _SpecialTokensMap,
    names.LEGACY_TEMPLATE: _LegacyTemplate,
    names.CONFIG: _Config,
    names.ADDED_TOKENS: _AddedTokens,
    names.ADAPTER_CONFIG: _AdapterConfig,
}


def check_shape(name: str, text: str, value: Json, where: str) -> None:
    """Raise ModelError where a JSON file holds something of another type than what is read of it.

    Args:
        name: Its name in the directory of a model.
        text: The file.
        value: What it is parsed to.
        where: What the error names as the file.
    """
    if not isinstance(value, dict):
        raise ModelError("not a JSON object", where=where, hint=_HINT)
    shape = _SHAPES.get(name)
    if shape is None:
        return
    try:
        # From the text, since in a parsed value every array would have to be a tuple.
        shape.model_validate_json(text)
    except ValidationError as error:
        kind = TokenizerError if name == TOKENIZER else ModelError
        raise kind(_told(error.errors(include_url=False), value), where=where, hint=_HINT) from error


def _told(faults: Sequence[ErrorDetails], value: Json) -> str:
    """Return the fault that lies deepest, and what may stand there: other members of a union gave up before."""
    places = [_place(fault, value) for fault in faults]
    deepest = max(places, key=len)
    there = [fault for fault, place in zip(faults, places, strict=True) if place == deepest]
    choices = [each for each in map(expected, there) if each]
    message = unlike(choices, there[0]["input"])[0] if choices else wording(there[0])[0]
    return f"{'.'.join(map(str, deepest)) or 'the file'}: {message}"


def _place(fault: ErrorDetails, value: Json) -> tuple[str | int, ...]:
    """Return the place in a file that a fault is about; its location also holds the names of members of unions."""
    place: list[str | int] = []
    for step in fault["loc"]:
        members = dict(enumerate(value)) if isinstance(value, list) else value if isinstance(value, dict) else {}
        if step in members:
            value = members[step]
            place.append(step)
    return tuple(place)

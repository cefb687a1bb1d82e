"""The files of a model directory that migrations read and write, besides weights: how they are read and checked."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from blake3 import blake3
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, RootModel, ValidationError
from pydantic_core import ErrorDetails

from tokmigrate.errors import ModelError, TokenizerError
from tokmigrate.files import entries, has_directory, read_if_present
from tokmigrate.memo import Memo
from tokmigrate.model.documents import state as names
from tokmigrate.model.documents.slow_tokenizer_files import SUFFIXES, TEKKEN_FILES, read_slow_tokenizer_files
from tokmigrate.model.documents.stamp import FILE as STAMP
from tokmigrate.model.formats.json_text import Json, parse
from tokmigrate.model.tokenizer.tokenizer_json import FILE as TOKENIZER
from tokmigrate.strict_yaml.validation import describe_expected, describe_fault, unlike

JSON_FILES = (
    TOKENIZER,
    names.TOKENIZER_CONFIG,
    names.SPECIAL_TOKENS_MAP,
    names.ADDED_TOKENS,
    names.CONFIG,
    names.GENERATION,
    names.LEGACY_TEMPLATE,
    names.PROCESSOR,
    names.PREPROCESSOR,
    names.SENTENCE_TRANSFORMERS,
    names.VOCAB_JSON,
)
TEXT_FILES = (names.TEMPLATE, names.VOCAB_TXT, names.MERGES)
TOKENIZER_FILES = (
    TOKENIZER,
    names.TOKENIZER_CONFIG,
    names.SPECIAL_TOKENS_MAP,
    names.ADDED_TOKENS,
    names.VOCAB_JSON,
    names.VOCAB_TXT,
    names.MERGES,
)
"""The files that a tokenizer consists of, besides its chat template and files in other formats."""


def read_documents(directory: Path, json_files: Sequence[str] = JSON_FILES) -> tuple[dict[str, bytes], dict[str, Json]]:
    """Return the bytes of each document of a directory, and what it is parsed to: JSON, text, or bytes again.

    The weights' index is not among them. Raises ModelError where one is damaged.
    """
    texts = read_texts(directory, json_files)
    return texts, {name: parse_document(name, data, str(directory / name)) for name, data in texts.items()}


def read_texts(directory: Path, json_files: Sequence[str] = JSON_FILES) -> dict[str, bytes]:
    """Return the bytes of each document of a directory by its name, without the weights' index."""
    folder = directory / names.MORE_TEMPLATES
    templates = [file for file in entries(folder) if file.suffix == ".jinja"] if has_directory(folder) else []
    named = (
        *json_files,
        *_module_files(directory),
        *TEXT_FILES,
        *(f"{names.MORE_TEMPLATES}/{file.name}" for file in templates),
    )
    texts = {name: data for name in named if (data := read_if_present(directory / name)) is not None}
    return texts | read_slow_tokenizer_files(directory)


def read_tokenizer_files(directory: Path) -> dict[str, bytes]:
    """Return the bytes of each file of a tokenizer by its name, its chat template included."""
    named = (*TOKENIZER_FILES, names.TEMPLATE)
    files = {name: data for name in named if (data := read_if_present(directory / name)) is not None}
    return files | read_slow_tokenizer_files(directory)


def is_tokenizer_file(name: str) -> bool:
    """Return whether `read_tokenizer_files` reads a file with this name."""
    return name in (*TOKENIZER_FILES, names.TEMPLATE) or _is_in_another_format(name)


def _is_in_another_format(name: str) -> bool:
    return name.endswith(SUFFIXES) or PurePosixPath(name).match(TEKKEN_FILES)


def writable_names(texts: Mapping[str, bytes]) -> tuple[str, ...]:
    """Return the names of the files that a migration may write: those documents, and some that are not there."""
    return tuple(dict.fromkeys((*JSON_FILES, *TEXT_FILES, STAMP, *texts)))


def with_files(documents: Mapping[str, Json], files: Mapping[str, bytes | None]) -> dict[str, Json]:
    """Return documents with the files of another time laid over them, None for those that were not there; no stamp."""
    found = dict(documents)
    for name, data in files.items():
        if data is None:
            found.pop(name, None)
        elif name != STAMP:
            found[name] = parse_document(name, data, name)
    return found


def parse_document(name: str, data: bytes, where: str) -> Json:
    """Return what the bytes of a document mean: JSON, text, or the bytes themselves of a slow-tokenizer file.

    Raises:
        ModelError: It is damaged, or holds something of another type than what is read of it.
    """
    if len(data) < _LARGE:
        return _parse(name, data, where)
    return _PARSED.get((name, blake3(data).digest()), lambda: _parse(name, data, where))


_LARGE = 2**17
"""The bytes from which a document is parsed once where it is read several times, or by several models."""

_PARSED: Memo[Json] = Memo(2)
"""One for the tokenizer before a change, one for that after it: a value of a large file takes ten times its bytes."""


def _parse(name: str, data: bytes, where: str) -> Json:
    if _is_in_another_format(name):
        return data
    text = _decode(data, where)
    if not name.endswith(".json"):
        return text
    value = parse(text, where)
    if not isinstance(value, dict):
        raise ModelError("not a JSON object", where=where, hint=_HINT)
    if name in _SHAPES:
        try:
            # From a text, since in a parsed value every array would have to be a tuple.
            _SHAPES[name].model_validate_json(_without_vocabulary(value, text) if name == TOKENIZER else text)
        except ValidationError as error:
            kind = TokenizerError if name == TOKENIZER else ModelError
            raise kind(_format_union_error(error.errors(include_url=False), value), where=where, hint=_HINT) from error
    return value


def _without_vocabulary(value: Json, text: str) -> str:
    """Return the text of a tokenizer.json without a vocabulary and merges that are right, which are most of it."""
    model = value.get("model")
    if not isinstance(model, dict) or not isinstance(vocabulary := model.get("vocab"), dict):
        return text
    merges = model.get("merges")
    pairs = merges if isinstance(merges, list) and {*map(type, merges)} == {list} else []
    words = list(chain.from_iterable(pairs))
    is_right = (
        {*map(type, vocabulary.values())} == {int}
        and min(vocabulary.values()) >= 0
        and {*map(len, pairs)} <= {2}
        and {*map(type, words)} <= {str}
        and _is_unicode(chain(vocabulary, words))
    )
    if not is_right:
        return text
    left = {**model, "vocab": {}, "merges": [] if pairs else merges}
    return json.dumps({**value, "model": left})


def _is_unicode(texts: Iterable[str]) -> bool:
    try:
        "".join(texts).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _module_files(directory: Path) -> Iterator[str]:
    """Yield the configurations of sentence-transformers' modules in folders of their own."""
    path = directory / names.MODULES
    data = read_if_present(path)
    modules = parse(_decode(data, str(path)), str(path)) if data else []
    for module in modules if isinstance(modules, list) else []:
        folder = PurePosixPath(str(module.get("path") or ".") if isinstance(module, dict) else ".")
        if folder.parts and not folder.is_absolute() and ".." not in folder.parts:
            yield f"{folder}{names.MODULE_CONFIG}"


_HINT = "fetch the file again, or restore it from a copy of the model"


def _decode(data: bytes, where: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ModelError("not UTF-8", where=where, hint=_HINT) from error


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


class _TokenizerConfig(_SpecialTokensMap):
    added_tokens_decoder: Annotated[dict[str, _Named], AfterValidator(_numbers)] | None = None
    model_specific_special_tokens: dict[str, str | _Named] | None = None
    chat_template: str | list[_Template] | None = None
    tokenizer_class: str | None = None
    padding_side: str | None = None
    truncation_side: str | None = None
    model_max_length: int | float | None = None
    add_bos_token: bool | None = None
    add_eos_token: bool | None = None


class _AddedTokens(RootModel[dict[str, Id]]):
    model_config = ConfigDict(strict=True, frozen=True)


class _LegacyTemplate(_Shape):
    chat_template: str | list[_Template] | None = None


class _Config(_Shape):
    model_type: str | None = None
    tokenizer_class: str | None = None


class _AdapterConfig(_Shape):
    trainable_token_indices: list[Id] | dict[str, list[Id]] | None = None
    token_indices: list[Id] | dict[str, list[Id]] | None = None
    alora_invocation_tokens: list[Id] | dict[str, list[Id]] | None = None
    modules_to_save: list[str] | None = None


_SHAPES: Mapping[str, type[BaseModel]] = {
    TOKENIZER: _Tokenizer,
    names.TOKENIZER_CONFIG: _TokenizerConfig,
    names.SPECIAL_TOKENS_MAP: _SpecialTokensMap,
    names.LEGACY_TEMPLATE: _LegacyTemplate,
    names.CONFIG: _Config,
    names.ADDED_TOKENS: _AddedTokens,
    names.ADAPTER_CONFIG: _AdapterConfig,
}


def _format_union_error(faults: Sequence[ErrorDetails], value: Json) -> str:
    """Return the fault that lies deepest, and what may stand there: other members of a union gave up before."""
    places = [_place(fault, value) for fault in faults]
    deepest = max(places, key=len)
    there = [fault for fault, place in zip(faults, places, strict=True) if place == deepest]
    choices = [each for each in map(describe_expected, there) if each]
    message = unlike(choices, there[0]["input"])[0] if choices else describe_fault(there[0])[0]
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

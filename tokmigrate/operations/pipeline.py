"""The operations on the parts of tokenizer.json: a part is set, and the tokenizers library must load it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from importlib import import_module
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from tokmigrate.errors import OperationError, suggest
from tokmigrate.model.documents.pipeline_overrides import (
    READS_THE_FILE,
    builder_of,
    template_settings,
    with_the_file_read,
)
from tokmigrate.model.documents.state import TOKENIZER_CONFIG, ModelState
from tokmigrate.model.formats.json_text import Json
from tokmigrate.model.tokenizer.library import library_errors, load_tokenizer
from tokmigrate.model.tokenizer.tokenizer_json import FILE, post_processor_tokens
from tokmigrate.operations.operation import ALL_IDS, Context, Footprint, Operation, Risk, TokenChanges
from tokmigrate.operations.token_checks import id_of
from tokmigrate.strict_yaml.tree import Plain, is_null

_JSON_SCALAR = re.compile(r"true|false|-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")


def parse_json_texts(value: Any) -> Any:
    """Return `value` with the texts that were written without quotes typed as JSON types them.

    JSON is YAML, so what stands in a tokenizer.json can be pasted as it is: a quoted text stays text, and
    `true`, `false`, `null` and JSON's numbers mean what they mean there. Any other unquoted text is text.
    """
    if isinstance(value, Mapping):
        return {str(name): parse_json_texts(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [parse_json_texts(inner) for inner in value]
    if isinstance(value, Plain):
        if is_null(value):
            return None
        return json.loads(value) if _JSON_SCALAR.fullmatch(value) else str(value)
    return value


def part(value: Any) -> dict[str, Any] | None:
    """Return a part of tokenizer.json as a migration gives it, typed; raises ValueError for anything else."""
    value = parse_json_texts(value)
    if value is None:
        return None
    if not isinstance(value, dict):
        raise ValueError("expected a mapping as in tokenizer.json, or null to remove the part")  # noqa: TRY004 - pydantic reads ValueError
    if not isinstance(value.get("type"), str):
        raise ValueError('a part of tokenizer.json needs its `type`, such as {type: "Sequence", …}')  # noqa: TRY004
    return value


Part = Annotated[dict[str, Any] | None, BeforeValidator(part, json_schema_input_type=dict[str, Any] | None)]
"""A field that takes a part of tokenizer.json."""

_EMPTY = {"version": "1.0", "added_tokens": [], "model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}}
_MODULES = {"post_processor": "processors"}
_SAMPLE = "Ab, \u00e9\u2460 12"


class SetPart(Operation):
    """Set one part of tokenizer.json; a subclass has one field of that name."""

    section: ClassVar[str]
    effect: ClassVar[Risk]
    """What another part does to text."""

    @model_validator(mode="before")
    @classmethod
    def _bare(cls, value: Any) -> Any:
        if not isinstance(value, Mapping) or cls.section in value:
            return value
        beside = {key: held for key, held in value.items() if key == "acknowledge"}
        return {cls.section: {key: held for key, held in value.items() if key not in beside}, **beside}

    @property
    def part(self) -> dict[str, Any] | None:
        found: dict[str, Any] | None = getattr(self, self.section)
        return found

    def apply(self, state: ModelState, context: Context) -> ModelState:  # noqa: ARG002
        hint = _hint(self.section, self.part["type"]) if self.part is not None else None
        if self.part is not None:
            # On its own first: the library's complaint is then about the part, not about the whole file.
            with refuse(f"the {self.section}", hint):
                alone = load_tokenizer({**_EMPTY, self.section: self.part})
            self.check_tokens(json.loads(alone.to_str())[self.section], state)
        changed = state.with_value(FILE, (self.section,), self.part)
        if changed is not state:
            with refuse(f"the {self.section}", hint):
                _use(changed.documents[FILE], state.documents[FILE])
            changed = with_the_file_read(changed, self.section)
        for key, value in self.list_repeats():
            if key in (changed.documents.get(TOKENIZER_CONFIG) or {}):
                changed = changed.with_value(TOKENIZER_CONFIG, (key,), value)
        return changed

    def check_tokens(self, part: Mapping[str, Any], state: ModelState) -> None:
        """Raise OperationError where the part, as the library writes it, does not fit the tokens."""

    def list_repeats(self) -> Iterator[tuple[str, Any]]:
        """Yield the fields of the part that tokenizer_config.json may repeat, by their names there."""
        yield from ()

    def risk(self, before: ModelState, after: ModelState) -> Risk:
        if before.documents[FILE].get(self.section) == after.documents[FILE].get(self.section):
            return Risk.safe(f"it is the {self.section.replace('_', '-')} that is there")
        builder = builder_of(before, self.section)
        reasons = [self.describe_effect(before, after)]
        if builder is not None and builder_of(after, self.section) is None:
            reasons.append(f"transformers' {builder} builds its own, so tokenizer_class becomes {READS_THE_FILE}")
        if gone := sorted({*template_settings(before)} - {*template_settings(after)}):
            reasons.append(f"transformers makes one of {' and '.join(gone)}, so tokenizer_config.json loses that")
        return Risk(self.effect.level, "; ".join(reasons))

    def describe_effect(self, before: ModelState, after: ModelState) -> str:  # noqa: ARG002
        """Return what another part does to text."""
        return self.effect.reason

    def token_changes(self) -> TokenChanges:
        return TokenChanges()

    def footprint(self) -> Footprint:
        # A post-processor names ids.
        return Footprint.of(reads=[ALL_IDS], replaces=[f"the {self.section}"])


def refuse(what: str, hint: str | None = None) -> AbstractContextManager[None]:
    """Raise OperationError where the tokenizers library fails or panics inside."""
    return library_errors(lambda cause: OperationError(f"the tokenizers library refuses {what}: {cause}", hint=hint))


def _use(document: Json, before: Json) -> None:
    # With a model that knows every text, so that what fails is one of the parts.
    _tokenize_sample({**document, "model": _EMPTY["model"], "added_tokens": []})
    try:
        _tokenize_sample(document)
    except Exception:
        try:
            _tokenize_sample(before)
        except Exception:
            # A tokenizer without an unknown token cannot tokenize every text, and could not before either.
            load_tokenizer(document)
        else:
            raise


def _tokenize_sample(document: Json) -> None:
    tokenizer = load_tokenizer(document)
    tokenizer.decode(tokenizer.encode(_SAMPLE).ids)
    tokenizer.encode(_SAMPLE, _SAMPLE)


def _hint(section: str, kind: str) -> str:
    module = import_module("tokenizers." + _MODULES.get(section, f"{section}s"))
    # The module also has the class that they derive from, and helpers that derive from none.
    types = {name: held for name, held in vars(module).items() if isinstance(held, type)}
    known = sorted(name for name, held in types.items() if held.__base__ is not object)
    if kind in known:
        return f"give the fields that {kind} has in a tokenizer.json; quote a text that looks like a number"
    return suggest(kind, known) or f"known types are {', '.join(known)}"


FORMS = ("NFC", "NFD", "NFKC", "NFKD")

_IN_CONFIG = {
    "lowercase": "do_lower_case",
    "strip_accents": "strip_accents",
    "handle_chinese_chars": "tokenize_chinese_chars",
}
"""Fields of a BertNormalizer, by the names under which tokenizer_config.json repeats them."""


def _normalizer(value: Any) -> dict[str, Any] | None:
    value = parse_json_texts(value)
    if isinstance(value, str):
        if value not in FORMS:
            hint = suggest(value, FORMS) or "known are " + ", ".join(FORMS)
            raise ValueError(f"unknown normalizer '{value}': {hint}")
        return {"type": value}
    return part(value)


class SetNormalizer(SetPart):
    """Set how text is normalised before it is tokenized.

    Takes `NFC`, `NFD`, `NFKC` or `NFKD`, or a normalizer as it stands in a tokenizer.json, or `null` for none. JSON
    can be pasted as it is: unquoted `true`, `false`, `null` and numbers are typed, a quoted text stays text.
    Where tokenizer_config.json repeats the fields of a `BertNormalizer`, it follows.
    """

    name: ClassVar[str] = "set_normalizer"
    shorthand: ClassVar[str | None] = "normalizer"
    section: ClassVar[str] = "normalizer"
    effect = Risk.caution("text that is now normalised differently will be tokenized differently than in training")

    normalizer: Annotated[
        dict[str, Any] | None,
        BeforeValidator(
            _normalizer, json_schema_input_type=Literal["NFC", "NFD", "NFKC", "NFKD"] | dict[str, Any] | None
        ),
    ] = Field(description="The normalizer, by its short name or as in tokenizer.json; null for none.")

    def list_repeats(self) -> Iterator[tuple[str, Any]]:
        part = self.part or {}
        if part.get("type") == "BertNormalizer":
            yield from ((key, part[field]) for field, key in _IN_CONFIG.items() if field in part)


class SetPreTokenizer(SetPart):
    """Set how text is split before the tokenizer's model sees it.

    Takes a pre-tokenizer as it stands in a tokenizer.json, or `null` for none. JSON can be pasted as it is: unquoted
    `true`, `false`, `null` and numbers are typed, a quoted text stays text. Where tokenizer_config.json repeats
    the `add_prefix_space` of a ByteLevel pre-tokenizer, it follows.
    """

    name: ClassVar[str] = "set_pre_tokenizer"
    shorthand: ClassVar[str | None] = "pre_tokenizer"
    section: ClassVar[str] = "pre_tokenizer"
    effect = Risk.breaking("all text may be tokenized differently than in training")

    pre_tokenizer: Part = Field(description="The pre-tokenizer as in tokenizer.json; null for none.")

    def list_repeats(self) -> Iterator[tuple[str, Any]]:
        part = self.part or {}
        for inner in (part, *(part.get("pretokenizers") or [])):
            if inner.get("type") == "ByteLevel" and "add_prefix_space" in inner:
                yield "add_prefix_space", inner["add_prefix_space"]


class SetPostProcessor(SetPart):
    """Set which tokens are put around a text.

    Takes a post-processor as it stands in a tokenizer.json, or `null` for none. JSON can be pasted as it is: unquoted
    `true`, `false`, `null` and numbers are typed, a quoted text stays text. The ids in it must be those of
    its tokens, since the library puts them out unchecked.
    """

    name: ClassVar[str] = "set_post_processor"
    shorthand: ClassVar[str | None] = "post_processor"
    section: ClassVar[str] = "post_processor"
    effect = Risk.caution("the special tokens around a text may differ from those in training")

    post_processor: Part = Field(description="The post-processor as in tokenizer.json; null for none.")

    def check_tokens(self, part: Mapping[str, Any], state: ModelState) -> None:
        for processor in _processors(part):
            specials = processor.get("special_tokens", {})
            # The library panics at a token that is not defined.
            for side in ("single", "pair"):
                for piece in processor.get(side, ()):
                    used = piece.get("SpecialToken", {}).get("id")
                    if used is not None and used not in specials:
                        raise OperationError(
                            f"`{side}` uses '{used}', which `special_tokens` of the post-processor does not define",
                            hint='add "NAME": {"id": "NAME", "ids": [id], "tokens": ["NAME"]} there',
                        )
            given = [processor[name] for name in ("sep", "cls") if name in processor]
            for name, special in specials.items():
                if len(special["ids"]) != len(special["tokens"]):
                    raise OperationError(
                        f"the special token '{name}' of the post-processor needs as many ids as tokens",
                        hint="give `ids` and `tokens` of it the same length",
                    )
                given += zip(special["tokens"], special["ids"], strict=True)
            for token, number in given:
                actual = id_of(state, token)
                if number != actual:
                    raise OperationError(
                        f"the post-processor gives '{token}' the id {number}, but its id is {actual}",
                        hint=f"write {actual}",
                    )

    def describe_effect(self, before: ModelState, after: ModelState) -> str:
        old, new = (list(dict.fromkeys(post_processor_tokens(each.documents[FILE]))) for each in (before, after))
        if old == new:
            return self.effect.reason
        shown = [", ".join(f"'{token}'" for token in tokens) or "none" for tokens in (old, new)]
        return f"the special tokens around a text were {shown[0]} in training, now {shown[1]}"


def _processors(part: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield part
    for inner in part.get("processors", ()):
        yield from _processors(inner)


class SetDecoder(SetPart):
    """Set how tokens become text again.

    Takes a decoder as it stands in a tokenizer.json, or `null` for none. JSON can be pasted as it is: unquoted
    `true`, `false`, `null` and numbers are typed, a quoted text stays text.
    """

    name: ClassVar[str] = "set_decoder"
    shorthand: ClassVar[str | None] = "decoder"
    section: ClassVar[str] = "decoder"
    effect = Risk.caution("text gets the ids that it had; ids may become other text")

    decoder: Part = Field(description="The decoder as in tokenizer.json; null for none.")

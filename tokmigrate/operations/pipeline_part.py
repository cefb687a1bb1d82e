"""What the operations on the parts of tokenizer.json share: a part is set, and the library must take it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar

from pydantic import model_validator

from tokmigrate.errors import OperationError, nearest
from tokmigrate.model.class_defaults.pipeline_overrides import (
    READS_THE_FILE,
    builder_of,
    template_settings,
    with_the_file_read,
)
from tokmigrate.model.documents.state import ModelState
from tokmigrate.model.formats.json_text import Json
from tokmigrate.model.tokenizer.library import library_errors, load_tokenizer
from tokmigrate.model.tokenizer.tokenizer_json import FILE
from tokmigrate.operations.base import Context, Operation, Risk, RiskLevel

T = TypeVar("T")

_EMPTY = {"version": "1.0", "added_tokens": [], "model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}}
_MODULES = {"post_processor": "processors"}
_SAMPLE = "Ab, \u00e9\u2460 12"


class SetPart(Operation):
    """Set one part of tokenizer.json; a subclass has one field of that name."""

    section: ClassVar[str]

    @model_validator(mode="before")
    @classmethod
    def _bare(cls, value: Any) -> Any:
        if not isinstance(value, Mapping) or cls.section in value:
            return value
        beside = {key: held for key, held in value.items() if key == "acknowledge"}
        return {cls.section: {key: held for key, held in value.items() if key not in beside}, **beside}

    @property
    def part(self) -> dict[str, Any] | None:
        """The part as the migration gives it."""
        found: dict[str, Any] | None = getattr(self, self.section)
        return found

    def apply(self, state: ModelState, context: Context) -> ModelState:  # noqa: ARG002
        """Return the state with the part, after the library took it."""
        return with_part(state, self.section, self.part)

    def risk(self, before: ModelState, after: ModelState) -> Risk:
        """Say what another part does, and whether transformers has to be told to read it."""
        if before.documents[FILE].get(self.section) == after.documents[FILE].get(self.section):
            return Risk(RiskLevel.SAFE, f"it is the {self.section.replace('_', '-')} that is there")
        risk = self.effect(before, after)
        builder = builder_of(before, self.section)
        reasons = [risk.reason]
        if builder is not None and builder_of(after, self.section) is None:
            reasons.append(f"transformers' {builder} builds its own, so tokenizer_class becomes {READS_THE_FILE}")
        if gone := sorted({*template_settings(before)} - {*template_settings(after)}):
            reasons.append(f"transformers makes one of {' and '.join(gone)}, so tokenizer_config.json loses that")
        return Risk(risk.level, "; ".join(reasons))

    def effect(self, before: ModelState, after: ModelState) -> Risk:
        """Return what another part does to text."""
        raise NotImplementedError


def with_part(state: ModelState, section: str, value: Json) -> ModelState:
    """Return the state with `value` as a part of tokenizer.json.

    Args:
        state: The state before.
        section: The part's name in the file.
        value: The part, or None for none.

    Raises:
        OperationError: The tokenizers library cannot load it or fails with it, or transformers would not read it.
    """
    if value is not None:
        # On its own first: the library's complaint is then about the part, not about the whole file.
        _tried(section, value, lambda: load_tokenizer({**_EMPTY, section: value}))
    changed = state.with_value(FILE, (section,), value)
    if changed is state:
        return state
    _tried(section, value, lambda: _use(changed.documents[FILE], state.documents[FILE]))
    return with_the_file_read(changed, section)


def guarded(what: str, attempt: Callable[[], T], hint: str | None = None) -> T:
    """Return what `attempt` gives; raises OperationError where the tokenizers library fails or panics."""
    with library_errors(lambda cause: OperationError(f"the tokenizers library refuses {what}: {cause}", hint=hint)):
        return attempt()


def _tried(section: str, value: Json, attempt: Callable[[], T]) -> T:
    return guarded(f"the {section}", attempt, _hint(section, value) if value else None)


def _use(document: Json, before: Json) -> None:
    # With a model that knows every text, so that what fails is one of the parts.
    _tokenize_sample({**document, "model": _EMPTY["model"], "added_tokens": []})
    try:
        _tokenize_sample(document)
    except Exception:
        # A tokenizer without an unknown token cannot tokenize every text, and could not before either.
        if _can_tokenize_sample(before):
            raise
        load_tokenizer(document)


def _tokenize_sample(document: Json) -> None:
    tokenizer = load_tokenizer(document)
    tokenizer.decode(tokenizer.encode(_SAMPLE).ids)
    tokenizer.encode(_SAMPLE, _SAMPLE)


def _can_tokenize_sample(document: Json) -> bool:
    try:
        _tokenize_sample(document)
    except Exception:
        return False
    return True


def _hint(section: str, value: Mapping[str, Any]) -> str:
    from importlib import import_module  # noqa: PLC0415

    module = import_module("tokenizers." + _MODULES.get(section, f"{section}s"))
    known = [name for name in dir(module) if name[0].isupper()]
    named = str(value["type"])
    if named in known:
        return f"give the fields that {named} has in a tokenizer.json; quote a text that looks like a number"
    return nearest(named, known) or f"known types are {', '.join(known)}"

"""From a tree to a frozen pydantic model; the types of the fields decide what a text means."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from tokmigrate.errors import Problem, TokmigrateError, suggest
from tokmigrate.formats import FileFormat
from tokmigrate.formatting import format_count
from tokmigrate.strict_yaml.tree import Location, Node, Tree, Value, is_null


class Closed(BaseModel):
    """A mapping of a file: frozen, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class FieldError(ValueError):
    """What a validator of a field finds wrong, and what to do."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


def field_names(model: type[BaseModel], location: Location) -> tuple[str, ...]:
    """Return the names of the fields that a mapping at `location` of a `model` may have."""
    known = [model]
    for step in map(str, location):
        fields = [field for each in known for own, field in each.model_fields.items() if step in (own, field.alias)]
        inner = [found for field in fields for found in _models(field.annotation)]
        # A step that is no field is a list position, a key, or the name of a union's member.
        known = inner or [each for each in known if _is_named(each, step)] or known
    names: dict[str, None] = {}
    for each in known:
        names |= dict.fromkeys(field.alias or own for own, field in each.model_fields.items())
        names |= dict.fromkeys(getattr(each, "further_fields", ()))
    return tuple(names)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and not get_args(annotation) and issubclass(annotation, BaseModel):
        yield annotation
    elif hasattr(annotation, "__value__"):
        yield from _models(annotation.__value__)
    for inner in get_args(annotation):
        yield from _models(inner)


def _is_named(model: type[BaseModel], name: str) -> bool:
    """Return whether `name` is the class or a value of a discriminating field."""
    tags = (
        value
        for field in model.model_fields.values()
        if get_origin(field.annotation) is Literal
        for value in get_args(field.annotation)
    )
    return model.__name__ == name or name in tags


_EXPECTED = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "text",
    "list": "a list",
    "tuple": "a list",
    "set": "a list",
    "frozen_set": "a list",
    "dict": "a mapping",
    "mapping": "a mapping",
    "model": "a mapping",
    "model_attributes": "a mapping",
    "dataclass": "a mapping",
    "bytes": "text",
    "none_required": "nothing",
}


def messages(error: ValidationError) -> list[str]:
    """Return a line for each fault, naming the field, for values that have no place in a file."""
    lines = []
    for detail in error.errors(include_url=False):
        field = ".".join(str(step) for step in detail["loc"])
        message, hint = describe_fault(detail)
        spot = field if field and detail["type"] not in ("missing", "extra_forbidden") else ""
        lines.append((f"{spot}: " if spot else "") + message + (f" ({hint})" if hint else ""))
    return lines


def describe_expected(detail: ErrorDetails) -> str | None:
    """Return what a value of another kind was expected in its place, such as `a list`, or None."""
    kind = detail["type"]
    if kind in ("literal_error", "enum"):
        return str(detail["ctx"]["expected"])
    for ending in ("_type", "_parsing", "_from_float", "_parsing_size"):
        if kind.endswith(ending):
            return _EXPECTED.get(kind.removesuffix(ending))
    return _EXPECTED.get(kind)


def unlike(liked: Iterable[str], found: object) -> tuple[str, str | None]:
    """Return message and hint for a value that is none of the things that were expected."""
    choices = " or ".join(dict.fromkeys(liked))
    return f"expected {choices}, found {describe_value(found)}", suggest(str(found), choices.split("'")[1::2])


def describe_fault(detail: ErrorDetails) -> tuple[str, str | None]:
    """Return message and hint for one pydantic error."""
    kind = detail["type"]
    found: Any = detail.get("input")
    context: Mapping[str, Any] = detail.get("ctx", {})
    last = str(detail["loc"][-1]) if detail["loc"] else ""
    liked = describe_expected(detail)
    if liked:
        return unlike([liked], found)
    if kind == "missing":
        return f"field '{last}' is missing", None
    if kind == "extra_forbidden":
        return f"unknown field '{last}'", None
    if kind == "union_tag_invalid":
        choices = str(context["expected_tags"])
        name = str(context["discriminator"]).strip("'")
        hint = suggest(str(context["tag"]), choices.split("'")[1::2])
        return f"unknown {name} '{context['tag']}'", hint or f"known are {choices}"
    if kind == "union_tag_not_found":
        return f"field {context['discriminator']} is missing", None
    if kind == "string_pattern_mismatch":
        return f"{describe_value(found)} has not the form {context['pattern']}", None
    if kind in ("too_short", "string_too_short"):
        least = context.get("min_length", 1)
        noun = "item" if kind == "too_short" else "character"
        return f"expected at least {format_count(least, noun)}, found {describe_value(found)}", None
    cause = context.get("error")
    if isinstance(cause, Exception):
        return str(cause), cause.hint if isinstance(cause, FieldError) else None
    message = detail["msg"].replace("Input should ", "has to ").replace("Value should ", "has to ")
    return message[:1].lower() + message[1:], None


def describe_value(value: object) -> str:
    """Return a short description of a value for an error message."""
    if value is None or is_null(value):
        return "nothing"
    if isinstance(value, (str, list, tuple)) and not value:
        return "an empty text" if isinstance(value, str) else "an empty list"
    if isinstance(value, str):
        return f"'{value}'" if len(value) <= 60 else f"'{value[:57]}…'"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, (list, tuple, set, frozenset)):
        return "a list"
    return f"{value!r:.60}"


OptionalText = Annotated[
    str | None,
    BeforeValidator(lambda value: None if is_null(value) else value, json_schema_input_type=str | None),
]
"""A text field in which an unquoted `null`, `~` or nothing means None."""

_INTEGER = re.compile(r"-?(0|[1-9][0-9]*)")
_NUMBER = re.compile(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?")
_NUMERIC = re.compile(r"\s*[-+]?[0-9._]+([eE][-+]?[0-9_]+)?\s*|\s*[-+]?(nan|inf|infinity)\s*", re.IGNORECASE)
_MASK = "\x00"
_MOST_FAULTS = 500

M = TypeVar("M", bound=BaseModel)


def with_format_hint(problem: Problem, written: FileFormat) -> Problem:
    """Return a problem, with what to do where it is about the `format:` of a file."""
    if "'format'" not in problem.message and "expected '1'" not in problem.message:
        return problem
    hint = f"this tokmigrate reads 'format: {written.version}'; for a newer one upgrade tokmigrate"
    return replace(problem, hint=hint)


def check(model: type[M], tree: Tree) -> tuple[M | None, list[Problem]]:
    """Return `tree` as a `model`, or None and all its faults in the order of the file."""
    try:
        instance, faults = _attempt(model, tree.value)
        empty = {place for place in _locate_all(tree, faults) if is_null(tree.at(place).value)}
        if empty:
            # A text field has taken its `null` as text; where a field refused it, nothing was meant.
            _, left = _attempt(model, _alter(tree.root, lambda place, text: None if place in empty else text))
            empty -= set(_locate_all(tree, left))
            content = _alter(tree.root, lambda place, text: None if place in empty else text)
            instance, faults = _attempt(model, content)
        problems = {*_problems(model, tree, faults), *_loose_numbers(model, tree, empty)}
    except TokmigrateError as error:
        return None, [tree.problem((), error.message, error.hint)]
    if problems:
        return None, sorted(problems, key=lambda each: (each.line, each.column, each.message))
    return instance, []


def _attempt(model: type[M], content: Value) -> tuple[M | None, list[ErrorDetails]]:
    try:
        return model.model_validate(content), []
    except ValidationError as error:
        return None, error.errors(include_url=False)[:_MOST_FAULTS]


def _alter(node: Node, change: Callable[[Location, str], Value], place: Location = ()) -> Value:
    """Return the value of `node` with each text as `change` gives it back."""
    if isinstance(node.content, str):
        return change(place, node.content)
    if isinstance(node.content, tuple):
        return [_alter(inner, change, (*place, step)) for step, inner in enumerate(node.content)]
    return {key: _alter(entry.node, change, (*place, key)) for key, entry in node.content.items()}


def _loose_numbers(model: type[BaseModel], tree: Tree, empty: set[Location]) -> list[Problem]:
    """Return the texts that pydantic would take for a number although they are not written as one."""
    if not any(_is_loose(text) for text, _, _ in tree.root.places()):
        return []

    def mask(place: Location, text: str) -> Value:
        if place in empty:
            return None
        return _MASK + text if _is_loose(text) else text

    problems = []
    for fault in _attempt(model, _alter(tree.root, mask))[1]:
        place, text = _locate(tree, fault["loc"]), str(fault["input"])
        if not text.startswith(_MASK):
            continue
        text = text.removeprefix(_MASK)
        # A text that is no whole number may be another one.
        if fault["type"] == "int_parsing" or (fault["type"] == "float_parsing" and not _NUMBER.fullmatch(text)):
            problems.append(tree.problem(place, f"expected {describe_expected(fault)}, found {describe_value(text)}"))
    return problems


def _is_loose(text: str) -> bool:
    return not _INTEGER.fullmatch(text) and _NUMERIC.fullmatch(text) is not None


def _locate_all(tree: Tree, faults: Iterable[ErrorDetails]) -> list[Location]:
    return [_locate(tree, fault["loc"]) for fault in faults]


def _locate(tree: Tree, location: Location) -> Location:
    """Return the place in the tree that a pydantic location means; it also holds names of union members."""
    node, found = tree.root, list[str | int]()
    for step in location:
        inner = node.child(step)
        if inner is not None:
            node = inner
            found.append(step)
    return tuple(found)


def _problems(model: type[BaseModel], tree: Tree, faults: list[ErrorDetails]) -> list[Problem]:
    places = _locate_all(tree, faults)
    # A field that is missing lies in what should have it.
    inside = [
        (*place, "") if fault["type"] == "missing" else place for fault, place in zip(faults, places, strict=True)
    ]
    problems: list[Problem] = []
    others: dict[Location, list[str]] = {}
    for fault, place in zip(faults, places, strict=True):
        liked = describe_expected(fault)
        # What is wrong inside says more: another member of a union got further, or a list lost an item to it.
        is_further = any(len(each) > len(place) and each[: len(place)] == place for each in inside)
        if (liked or fault["type"] == "too_short") and is_further:
            continue
        if liked:
            others.setdefault(place, []).append(liked)
        else:
            problems.append(_problem(model, tree, fault, place))
    for place, choices in others.items():
        problems.append(tree.problem(place, *unlike(choices, tree.at(place).value)))
    return problems


def _problem(model: type[BaseModel], tree: Tree, fault: ErrorDetails, place: Location) -> Problem:
    message, hint = describe_fault(fault)
    location = fault["loc"]
    if fault["type"] == "extra_forbidden":
        names = field_names(model, location[:-1])
        hint = suggest(str(location[-1]), names) or (f"known are {', '.join(names)}" if names else None)
        return tree.key_problem(place, message, hint)
    if location and location[-1] == "[key]":
        return tree.key_problem(place, message, hint)
    if fault["type"] == "union_tag_invalid":
        discriminator = str(fault["ctx"]["discriminator"]).strip("'")
        around = tree.at(place).value
        if isinstance(around, Mapping) and discriminator in around:
            return tree.problem((*place, discriminator), message, hint)
    return tree.problem(place, message, hint)

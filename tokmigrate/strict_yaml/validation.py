"""From a tree to a frozen pydantic model; the types of the fields decide what a text means."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, TypeVar

from pydantic import BaseModel, BeforeValidator, ValidationError
from pydantic_core import ErrorDetails

from tokmigrate.errors import FileProblems, Problem, TokmigrateError, nearest
from tokmigrate.strict_yaml.fields import field_names
from tokmigrate.strict_yaml.tree import Location, Node, Tree, Value, is_null
from tokmigrate.strict_yaml.wording import described, expected, unlike, wording

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


def validated(model: type[M], tree: Tree, at: Location = ()) -> M:
    """Return the part of `tree` at `at` as a `model`.

    Raises:
        FileProblems: All its faults, each with its place.
    """
    instance, problems = check(model, tree, at)
    if instance is None:
        raise FileProblems(problems)
    return instance


def check(model: type[M], tree: Tree, at: Location = ()) -> tuple[M | None, list[Problem]]:
    """Return the part of `tree` at `at` as a `model`, or None and all its faults in the order of the file."""
    part = tree.at(at)
    try:
        return _check(model, part)
    except TokmigrateError as error:
        return None, [part.problem((), error.message, error.hint)]


def _check(model: type[M], tree: Tree) -> tuple[M | None, list[Problem]]:
    content = tree.value
    instance, faults = _attempt(model, content)
    empty = {place for place in _places(tree, faults) if is_null(tree.at(place).value)}
    if empty:
        # A text field has taken its `null` as text; where a field refused it, nothing was meant.
        _, left = _attempt(model, _altered(tree.root, lambda place, value: None if place in empty else value))
        empty -= set(_places(tree, left))
        content = _altered(tree.root, lambda place, value: None if place in empty else value)
        instance, faults = _attempt(model, content)
    problems = _problems(model, tree, faults) + _loose_numbers(model, tree, empty)
    if problems:
        return None, sorted(set(problems), key=lambda each: (each.line, each.column, each.message))
    return instance, []


def _attempt(model: type[M], content: Value) -> tuple[M | None, list[ErrorDetails]]:
    try:
        return model.model_validate(content), []
    except ValidationError as error:
        return None, error.errors(include_url=False)[:_MOST_FAULTS]


def _altered(node: Node, change: Callable[[Location, str], Value], place: Location = ()) -> Value:
    """Return the value of `node` with each text as `change` gives it back."""
    if isinstance(node.content, str):
        return change(place, node.content)
    if isinstance(node.content, tuple):
        return [_altered(inner, change, (*place, step)) for step, inner in enumerate(node.content)]
    return {key: _altered(entry.node, change, (*place, key)) for key, entry in node.content.items()}


def _loose_numbers(model: type[BaseModel], tree: Tree, empty: set[Location]) -> list[Problem]:
    """Return the texts that pydantic would take for a number although they are not written as one."""
    if not any(_is_loose(str(node.content)) for node in tree.root.texts()):
        return []

    def mask(place: Location, text: str) -> Value:
        if place in empty:
            return None
        return _MASK + text if _is_loose(text) else text

    problems = []
    for fault in _attempt(model, _altered(tree.root, mask))[1]:
        place, text = _locate(tree, fault["loc"]), str(fault["input"])
        if not text.startswith(_MASK):
            continue
        text = text.removeprefix(_MASK)
        whole = fault["type"] == "int_parsing" and not _INTEGER.fullmatch(text)
        broken = fault["type"] == "float_parsing" and not _NUMBER.fullmatch(text)
        if whole or broken:
            liked = "a whole number" if whole else "a number"
            problems.append(tree.problem(place, f"expected {liked}, found {described(text)}"))
    return problems


def _is_loose(text: str) -> bool:
    return not _INTEGER.fullmatch(text) and _NUMERIC.fullmatch(text) is not None


def _places(tree: Tree, faults: Iterable[ErrorDetails]) -> list[Location]:
    return [_locate(tree, fault["loc"]) for fault in faults]


def _locate(tree: Tree, location: Location) -> Location:
    """Return the place in the tree that a pydantic location means; it also holds names of union members."""
    node, place = tree.root, ()
    found: Location = place
    for step in location:
        inner = node.child(step)
        if inner is not None:
            node, found = inner, (*found, step)
    return found


def _problems(model: type[BaseModel], tree: Tree, faults: list[ErrorDetails]) -> list[Problem]:
    places = _places(tree, faults)
    problems: list[Problem] = []
    others: dict[Location, list[str]] = {}
    for fault, place in zip(faults, places, strict=True):
        liked = expected(fault)
        # What is wrong inside says more: another member of a union got further, or a list lost an item to it.
        if (liked or fault["type"] == "too_short") and _goes_further(place, faults, places):
            continue
        if liked:
            others.setdefault(place, []).append(liked)
        else:
            problems.append(_problem(model, tree, fault, place))
    for place, choices in others.items():
        problems.append(tree.problem(place, *unlike(choices, tree.at(place).value)))
    return problems


def _goes_further(place: Location, faults: list[ErrorDetails], places: list[Location]) -> bool:
    """Return whether a fault lies deeper than `place`."""
    return any(
        other[: len(place)] == place and (len(other) > len(place) or fault["type"] == "missing")
        for fault, other in zip(faults, places, strict=True)
    )


def _problem(model: type[BaseModel], tree: Tree, fault: ErrorDetails, place: Location) -> Problem:
    message, hint = wording(fault)
    location = fault["loc"]
    if fault["type"] == "extra_forbidden":
        names = field_names(model, location[:-1])
        hint = nearest(str(location[-1]), names) or (f"known are {', '.join(names)}" if names else None)
        return tree.key_problem(place, message, hint)
    if location and location[-1] == "[key]":
        return tree.key_problem(place, message, hint)
    if fault["type"] == "union_tag_invalid":
        discriminator = str(fault["ctx"]["discriminator"]).strip("'")
        around = tree.at(place).value
        if isinstance(around, Mapping) and discriminator in around:
            return tree.problem((*place, discriminator), message, hint)
    return tree.problem(place, message, hint)

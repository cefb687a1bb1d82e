"""Ids in config.json, generation_config.json and the processors' files."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Literal

from tokmigrate.errors import OperationError, OutOfStepError, UnknownNameError, suggest
from tokmigrate.model.documents.config_fields import (
    Declared,
    Path,
    Shape,
    format_place,
    may_hold_ids,
    role_of,
    shape_at,
    shape_of,
)
from tokmigrate.model.formats.json_text import Json, replace_at, walk
from tokmigrate.vocabulary.ids import Renumbering

NONE_DECLARED: Declared = MappingProxyType({})


def with_ids_of_config(
    document: Json,
    renumbering: Renumbering,
    file: str,
    size: int,
    declared: Declared = NONE_DECLARED,
    by_role: Callable[[str, Json], Json] = lambda _role, _held: None,
) -> Json:
    """Return a configuration, the contents of `file`, in which every known field follows.

    Size and what is declared are those of `with_fields`. A field of ids gets what `by_role` returns for
    its role and what it holds, unless that is None.

    Raises:
        OperationError: A field needs an id that goes.
        OutOfStepError: A field that is not known seems to hold an id that moves or goes.
    """
    for place, number in suspects(document, size, declared):
        if renumbering.touches(number):
            raise OutOfStepError(
                f"'{place}' holds {number}, which may be the id of a token; tokmigrate does not know that field,"
                " and this migration gives that id to another token",
                where=file,
                hint=f'write for this model in tokmigrate.yaml:\nid_fields:\n  "{place}": ids'
                "  # or: ignore, if it holds no id of a token",
            )

    def follow(place: Path, value: Json, shape: Shape) -> Json:
        if shape == "list" and isinstance(value, list):
            return _without_gone(value, renumbering)
        if shape == "ids" and ids_held(value, shape) and (held := by_role(role_of(str(place[-1])), value)) is not None:
            return held
        return _map_field(value, shape, lambda number: require_new_id(renumbering, number, format_place(place), file))

    return with_fields(document, follow, size, declared)


def require_new_id(renumbering: Renumbering, number: int, place: str, file: str) -> int:
    """Return the new id of a token that a place uses; raises OperationError where it goes."""
    new = renumbering.new(number)
    if new is None:
        raise OperationError(
            f"'{place}' uses the token with id {number}, which is removed",
            where=file,
            hint="let it use another token first: set_special_tokens, set_padding or set_post_processor",
        )
    return new


def map_ids(value: Json, new: Callable[[int], int]) -> Json:
    """Return ids, alone, in lists or under names, as `new` gives them."""
    if isinstance(value, list):
        return [map_ids(item, new) for item in value]
    if isinstance(value, dict):
        return {name: map_ids(item, new) for name, item in value.items()}
    return new(value) if _is_id(value) else value


def _without_gone(value: list[Json], renumbering: Renumbering) -> list[Json]:
    """Return a list without the ids that go; a sequence in it that had one of them goes as a whole."""
    kept: list[Json] = []
    for item in value:
        if isinstance(item, list):
            inner = _without_gone(item, renumbering)
            if len(inner) == len(item) or isinstance(item[0], list):
                kept.append(inner)
        elif not _is_id(item):
            kept.append(item)
        elif (new := renumbering.new(item)) is not None:
            kept.append(new)
    return kept


def suspects(document: Json, size: int, declared: Declared = NONE_DECLARED) -> Iterator[tuple[str, int]]:
    """Yield each field that is not known but looks like an id, by its dotted place, with each number that it holds.

    The arguments are those of `with_fields`.
    """
    most = max(_list_sizes(document, size))
    for place, value, shape, first in _walk(document, size, declared):
        if shape is None and may_hold_ids(str(place[-1])):
            yield from ((format_place(place), number) for number in _numbers(value) or () if first <= number < most)


def ids_held(value: Json, shape: Shape) -> list[int]:
    """Return the ids that a known field holds; -1 and the like stand for none."""
    found: list[int] = []

    def note(number: int) -> int:
        found.append(number)
        return number

    _map_field(value, shape, note)
    return found


def _map_field(value: Json, shape: Shape, new: Callable[[int], int]) -> Json:
    """Return what a field that holds ids in that way holds with the ids that `new` gives."""
    if shape == "positions" and isinstance(value, list):
        return [[pair[0], map_ids(pair[1], new)] for pair in value]
    if shape == "bias" and isinstance(value, list):
        return [[map_ids(ids, new), bias] for ids, bias in value]
    if shape == "bias" and isinstance(value, dict):
        return {re.sub(r"\d+", lambda found: str(new(int(found[0]))), key): value[key] for key in value}
    return map_ids(value, new)


def _list_sizes(document: Json, size: int) -> frozenset[int]:
    """Return the sizes that a vocabulary may be stated with in a file: that of the model, and the file's own."""
    stated = document.get("vocab_size")
    return frozenset({size, stated}) if isinstance(stated, int) else frozenset({size})


def _numbers(value: Json) -> list[int] | None:
    """Return the numbers that a field holds, alone, in lists or under names; None where it holds anything else."""
    if _is_id(value):
        return [value]
    if isinstance(value, dict):
        return list(value.values()) if all(map(_is_id, value.values())) and not any(map(shape_of, value)) else None
    found = [_numbers(item) for item in value] if isinstance(value, list) else [None]
    return None if None in found else [number for numbers in found for number in numbers or ()]


def _is_id(value: Json) -> bool:
    return _is_number(value) and value >= 0


def _is_number(value: Json) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


Change = Callable[[Path, Json, Shape], Json]
"""From a field's place, its value and how it holds ids to its new value."""


def with_fields(document: Json, change: Change, size: int, declared: Declared = NONE_DECLARED) -> Json:
    """Return a configuration with every known field as `change` gives it.

    Args:
        size: The size of the vocabulary; a nested model that says another one has the ids below that for itself.
        declared: What the workspace says about fields.
    """
    for place, value, shape in known_fields(document, size, declared):
        document = replace_at(document, place, change(place, value, shape))
    return document


def known_fields(document: Json, size: int, declared: Declared) -> list[tuple[Path, Json, Shape]]:
    """Return the place, the value and the shape of each known field; the arguments are those of `with_fields`."""
    return [
        (place, value, shape)
        for place, value, shape, first in _walk(document, size, declared)
        if shape is not None and shape != "ignore" and all(number >= first for number in ids_held(value, shape))
    ]


def _walk(
    document: Json, size: int, declared: Declared
) -> Iterator[tuple[Path, Json, Shape | Literal["ignore"] | None, int]]:
    """Yield each field with its place, its value, how it holds ids, and the first id that its part may name.

    What is inside a field that is known, or that holds nothing but numbers, is no field.
    """
    sizes = _list_sizes(document, size)

    def walk(part: Json, path: Path, first: int) -> Iterator[tuple[Path, Json, Shape | Literal["ignore"] | None, int]]:
        if isinstance(part, list):
            for position, item in enumerate(part):
                yield from walk(item, (*path, position), first)
        if not isinstance(part, dict):
            return
        own = part.get("vocab_size")
        if isinstance(own, int) and own not in sizes:
            # A part has so many ids for itself, like a talker its codec's; it names ids of the text after them.
            first = max(first, own)
        for name, value in part.items():
            here = (*path, name)
            shape = shape_at(here, declared)
            yield here, value, shape, first
            if shape is None and not (may_hold_ids(name) and _numbers(value)):
                yield from walk(value, here, first)

    return walk(document, (), 0)


def check_declared(configurations: Mapping[str, Json], declared: Declared) -> None:
    """Raise where the workspace's `id_fields` do not fit the configurations of the model.

    Raises:
        UnknownNameError: No file has such a field.
        OutOfStepError: The field does not hold ids in that way.
    """
    held = [
        (file, format_place(place), str(place[-1]), value)
        for file, document in configurations.items()
        for place, value in walk(document)
        if place and isinstance(place[-1], str)
    ]
    for name, shape in declared.items():
        found = [(file, value) for file, place, field, value in held if name in (place, field)]
        if not found:
            known = {known for _, place, field, _ in held for known in (place, field)}
            raise UnknownNameError(
                "id_fields names it, but no configuration of the model has such a field",
                where=name,
                hint=suggest(name, known) or "take it out of tokmigrate.yaml",
            )
        for file, value in found:
            if shape != "ignore" and not _fits(value, shape):
                raise OutOfStepError(
                    f"id_fields says '{shape}' of '{name}', but it holds {value}",
                    where=file,
                    hint="correct the shape, give the field's dotted path, or set it to ignore",
                )


def _fits(value: Json, shape: Shape) -> bool:
    """Return whether a field that holds ids in that way can hold `value`."""
    if value is None or (shape == "ids" and _is_number(value)):
        return True
    if isinstance(value, dict):
        return shape == "bias" or (shape == "map" and all(map(_is_number, value.values())))
    if not isinstance(value, list) or shape == "map":
        return False
    if shape in ("ids", "list"):
        return all(_is_number(item) or (shape == "list" and _fits(item, shape)) for item in value)
    return all(isinstance(item, list) and len(item) == 2 for item in value)

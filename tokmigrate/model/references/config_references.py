"""Ids in config.json, generation_config.json and the processors' files."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from tokmigrate.errors import OperationError, OutOfStepError, UnknownNameError, suggest
from tokmigrate.model.documents.config_fields import Declared, Shape, may_hold_ids, shape_at, shape_of
from tokmigrate.model.formats.json_text import Json
from tokmigrate.vocabulary.ids import Renumbering

NONE_DECLARED: Declared = MappingProxyType({})


def with_ids_of_config(
    document: Json, renumbering: Renumbering, file: str, size: int, declared: Declared = NONE_DECLARED
) -> Json:
    """Return a configuration in which every known field follows; what did not change is the same object.

    Args:
        document: The parsed file.
        renumbering: How ids change.
        file: Its name, for errors.
        size: The size of the vocabulary; a nested model that says another one has the ids below that for itself.
        declared: What the workspace says about fields.

    Raises:
        OperationError: A field needs an id that goes.
        OutOfStepError: A field that is not known seems to hold an id that moves or goes.
    """
    sizes = sizes_of(document, size)
    for place, number in suspects(document, sizes, declared):
        if renumbering.touches(number):
            raise OutOfStepError(
                f"'{place}' holds {number}, which may be the id of a token; tokmigrate does not know that field,"
                " and this migration gives that id to another token",
                where=file,
                hint=f"write for this model in tokmigrate.yaml:\n{setting(place)}",
            )

    def follow(place: tuple[str, ...], value: Json, shape: Shape) -> Json:
        return _Field(renumbering, file, ".".join(place)).new(value, shape)

    return with_fields(document, follow, sizes, declared)


def setting(place: str) -> str:
    """Return the lines of tokmigrate.yaml that say about a field what it holds."""
    return f'id_fields:\n  "{place}": ids  # or: ignore, if it holds no id of a token'


def suspects(
    document: Json,
    sizes: frozenset[int],
    declared: Declared = NONE_DECLARED,
    path: tuple[str, ...] = (),
    first: int = 0,
) -> Iterator[tuple[str, int]]:
    """Yield each field that is not known but looks like an id, by its place, with each number that it holds.

    Args:
        document: A configuration, or a part of one.
        sizes: The sizes that a configuration may give for this vocabulary.
        declared: What the workspace says about fields.
        path: Where the part stands.
        first: The first id that is not one of the part's own vocabulary.
    """
    if isinstance(document, list):
        for item in document:
            yield from suspects(item, sizes, declared, path, first)
    if not isinstance(document, dict):
        return
    first = max(first, _own_ids(document, sizes))
    for name, value in document.items():
        here = (*path, name)
        if shape_at(here, declared) is not None:
            continue
        numbers = _numbers(value) if may_hold_ids(name) else None
        if numbers:
            yield from ((".".join(here), number) for number in numbers if first <= number < max(sizes))
        else:
            yield from suspects(value, sizes, declared, here, first)


def ids_held(value: Json, shape: Shape) -> Iterator[int]:
    """Yield the ids that a known field holds; -1 and the like stand for none."""
    if shape == "positions" and isinstance(value, list):
        value = [pair[1] for pair in value]
    if shape == "bias":
        value = [key for key, _ in value] if isinstance(value, list) else re.findall(r"\d+", " ".join(value or ()))
        value = [int(number) if isinstance(number, str) else number for number in value]
    if isinstance(value, list | dict):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from ids_held(inner, "ids")
    elif _is_id(value):
        yield value


def sizes_of(document: Json, size: int) -> frozenset[int]:
    """Return the sizes that a vocabulary may be stated with in a file: that of the model, and the file's own."""
    stated = document.get("vocab_size")
    return frozenset({size, stated}) if isinstance(stated, int) else frozenset({size})


def _own_ids(part: Json, sizes: frozenset[int]) -> int:
    """Return how many ids a part has for itself, like a talker its codec's; it names ids of the text after them."""
    size = part.get("vocab_size")
    return size if isinstance(size, int) and size not in sizes else 0


def _numbers(value: Json) -> list[int] | None:
    """Return the numbers that a field holds, alone, in lists or under names; None where it holds anything else."""
    if _is_id(value):
        return [value]
    if isinstance(value, dict):
        return list(value.values()) if all(map(_is_id, value.values())) and not any(map(shape_of, value)) else None
    found = [_numbers(item) for item in value] if isinstance(value, list) else [None]
    return None if None in found else [number for numbers in found for number in numbers or ()]


def _is_id(value: Json) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


Change = Callable[[tuple[str, ...], Json, Shape], Json]
"""From a field's place, its value and how it holds ids to its new value."""


def with_fields(document: Json, change: Change, sizes: frozenset[int], declared: Declared = NONE_DECLARED) -> Json:
    """Return a configuration with every known field as `change` gives it; what did not change is the same object.

    Args:
        document: The parsed file.
        change: Gives the new value of a field.
        sizes: The sizes that a configuration may give for this vocabulary.
        declared: What the workspace says about fields.
    """
    return _Walk(change, sizes, declared).new(document, ())


@dataclass(frozen=True)
class _Walk:
    """A walk through one configuration, in which ids below `first` are a nested model's own."""

    change: Change
    sizes: frozenset[int]
    declared: Declared
    first: int = 0

    def new(self, value: Json, path: tuple[str, ...]) -> Json:
        """Return a part in which every known field is changed."""
        if isinstance(value, list):
            changed: Json = [self.new(item, path) for item in value]
        elif isinstance(value, dict):
            part = replace(self, first=max(self.first, _own_ids(value, self.sizes)))
            changed = {name: part._field(held, (*path, name)) for name, held in value.items()}
        else:
            return value
        return value if changed == value else changed

    def _field(self, value: Json, place: tuple[str, ...]) -> Json:
        shape = shape_at(place, self.declared)
        if shape is None:
            return self.new(value, place)
        if shape == "ignore" or any(number < self.first for number in ids_held(value, shape)):
            return value
        return self.change(place, value, shape)


class _Field:
    """One known field, in the file where it stands."""

    def __init__(self, renumbering: Renumbering, file: str, place: str) -> None:
        self._renumbering = renumbering
        self._file = file
        self._place = place

    def new(self, value: Json, shape: Shape) -> Json:
        if shape == "list":
            return self._thin(value)
        if shape == "positions" and isinstance(value, list):
            return [[pair[0], self._require(pair[1])] for pair in value]
        if shape == "bias" and isinstance(value, dict):
            return {re.sub(r"\d+", lambda found: str(self._require(int(found[0]))), key): value[key] for key in value}
        if shape == "bias" and isinstance(value, list):
            return [[self._require(ids), bias] for ids, bias in value]
        return self._require(value)

    def _require(self, value: Json) -> Json:
        """Return ids none of which may go."""
        if isinstance(value, list):
            return [self._require(item) for item in value]
        if isinstance(value, dict):
            return {name: self._require(item) for name, item in value.items()}
        if not _is_id(value):
            return value
        number = self._renumbering.new(value)
        if number is None:
            raise OperationError(
                f"'{self._place}' uses the token with id {value}, which is removed",
                where=self._file,
                hint="give that role to another token first: set_special_tokens or set_padding",
            )
        return number

    def _thin(self, value: Json) -> Json:
        """Return lists without the ids that go; a sequence that had one of them goes as a whole."""
        if isinstance(value, list) and any(isinstance(item, list) for item in value):
            thinned = [self._thin(item) if isinstance(item, list) else item for item in value]
            return [item for item, old in zip(thinned, value, strict=True) if self._is_whole(item, old)]
        if isinstance(value, list):
            numbers = [self._renumbering.new(item) if _is_id(item) else item for item in value]
            return [number for number in numbers if number is not None]
        return self._require(value)

    @staticmethod
    def _is_whole(item: Json, old: Json) -> bool:
        return not isinstance(old, list) or len(item) == len(old) or isinstance(old[0], list)


def check_declared(configurations: Mapping[str, Json], declared: Declared) -> None:
    """Raise where the workspace's `id_fields` do not fit the model.

    Args:
        configurations: The files in which ids stand under names of fields.
        declared: What the workspace says.

    Raises:
        UnknownNameError: No file has such a field.
        OutOfStepError: The field does not hold ids in that way.
    """
    held = [(file, place, value) for file, document in configurations.items() for place, value in _fields(document)]
    for name, shape in declared.items():
        found = [(file, value) for file, place, value in held if name in (".".join(place), place[-1])]
        if not found:
            known = {known for _, place, _ in held for known in (".".join(place), place[-1])}
            raise UnknownNameError(
                "id_fields names it, but no configuration of the model has such a field",
                where=name,
                hint=suggest(name, known) or "take it out of tokmigrate.yaml",
            )
        for file, value in found:
            if shape != "ignore" and not holds(value, shape):
                raise OutOfStepError(
                    f"id_fields says '{shape}' of '{name}', but it holds {value}",
                    where=file,
                    hint="correct the shape, give the field's dotted path, or set it to ignore",
                )


def holds(value: Json, shape: Shape) -> bool:
    """Return whether a field that holds ids in that way can hold `value`."""
    if value is None or shape == "ids":
        return value is None or _is_number(value) or _all(value, _is_number)
    if shape == "list":
        return _all(value, lambda item: _is_number(item) or holds(item, "list"))
    if shape == "map":
        return isinstance(value, dict) and _all(list(value.values()), _is_number)
    if shape == "bias" and isinstance(value, dict):
        return True
    return _all(value, lambda item: isinstance(item, list) and len(item) == 2)


def _all(value: Json, fits: Callable[[Json], bool]) -> bool:
    return isinstance(value, list) and all(fits(item) for item in value)


def _is_number(value: Json) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _fields(document: Json, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Json]]:
    if isinstance(document, list):
        for item in document:
            yield from _fields(item, path)
    if isinstance(document, dict):
        for name, value in document.items():
            yield (*path, name), value
            yield from _fields(value, (*path, name))

"""What the workspace says of fields that hold ids must be true of the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from tokmigrate.errors import OutOfStepError, UnknownNameError, nearest
from tokmigrate.model.documents.id_fields import Declared, Shape
from tokmigrate.model.formats.json_text import Json


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
                hint=nearest(name, known) or "take it out of tokmigrate.yaml",
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

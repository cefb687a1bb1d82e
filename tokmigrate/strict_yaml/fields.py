"""Which field names a pydantic model knows at a location, for hints."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel

from tokmigrate.strict_yaml.tree import Location


def field_names(model: type[BaseModel], location: Location) -> tuple[str, ...]:
    """Return the names of the fields that a mapping at `location` of a `model` may have."""
    known = [model]
    for step in location:
        inner = [found for each in known for found in _field_models(each, str(step))]
        # A step that is no field is a list position, a key, or the name of a union's member.
        known = inner or [each for each in known if _is_named(each, str(step))] or known
    names = {name: None for each in known for name in _names(each)}
    return tuple(names)


def _names(model: type[BaseModel]) -> list[str]:
    further: tuple[str, ...] = getattr(model, "further_fields", ())
    return [*(field.alias or name for name, field in model.model_fields.items()), *further]


def _field_models(model: type[BaseModel], name: str) -> list[type[BaseModel]]:
    for own, field in model.model_fields.items():
        if name in (own, field.alias):
            return list(_models(field.annotation))
    return []


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

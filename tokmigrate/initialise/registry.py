"""Which strategies there are: the package's own, and those of plug-ins."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import cache, reduce
from importlib.metadata import EntryPoint, entry_points
from operator import or_
from types import MappingProxyType
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import Discriminator, TypeAdapter

from tokmigrate.errors import UsageError
from tokmigrate.initialise.strategies import (
    Average,
    Copy,
    Description,
    File,
    Mean,
    MeanCov,
    Normal,
    RowStrategy,
    Subtokens,
    Zeros,
)

GROUP = "tokmigrate.strategies"
"""The entry point group of plug-ins: the name is the strategy's, the object a subclass of `RowStrategy`."""

BuiltIn = Mean | MeanCov | Zeros | Normal | Copy | Average | Subtokens | Description | File


def strategy_types() -> Mapping[str, type[RowStrategy]]:
    """Return every strategy by the name that migrations use, the package's own first.

    Raises:
        UsageError: A plug-in cannot be loaded, is no strategy, or takes a name that is taken.
    """
    return _types(tuple(sys.path))


def strategy_adapter() -> TypeAdapter[RowStrategy]:
    """Return what validates a mapping with a `strategy` as that strategy; raises as `strategy_types` does."""
    return _adapter(tuple(sys.path))


# Where plug-ins are looked for is `sys.path`, so what was found holds as long as that does.
@cache
def _types(_path: tuple[str, ...]) -> Mapping[str, type[RowStrategy]]:
    found = {name: kind for kind in get_args(BuiltIn) for name in _names(kind)}
    for point in sorted(entry_points(group=GROUP), key=lambda point: (point.name, point.value)):
        if point.name in found:
            raise UsageError(
                f"two strategies are called '{point.name}'",
                where=_origin(point),
                hint="uninstall one of the packages",
            )
        found[point.name] = _loaded(point)
    return MappingProxyType(found)


@cache
def _adapter(path: tuple[str, ...]) -> TypeAdapter[RowStrategy]:
    union: Any = reduce(or_, _types(path).values())
    return TypeAdapter(Annotated[union, Discriminator("strategy")])


def _loaded(point: EntryPoint) -> type[RowStrategy]:
    try:
        kind = point.load()
    except Exception as error:
        raise UsageError(
            f"the plug-in strategy '{point.name}' cannot be loaded: {type(error).__name__}: {error}",
            where=_origin(point),
            hint="repair or uninstall the package",
        ) from error
    if not (isinstance(kind, type) and issubclass(kind, RowStrategy)) or _names(kind) != (point.name,):
        raise UsageError(
            f"the plug-in strategy '{point.name}' is no RowStrategy with `strategy: Literal[\"{point.name}\"]`",
            where=_origin(point),
            hint="see tokmigrate.initialise.RowStrategy",
        )
    return kind


def _names(kind: type[RowStrategy]) -> tuple[str, ...]:
    field = kind.model_fields.get("strategy")
    if field is None or get_origin(field.annotation) is not Literal:
        return ()
    return get_args(field.annotation)


def _origin(point: EntryPoint) -> str:
    return f"{point.dist.name}: {point.value}" if point.dist else point.value

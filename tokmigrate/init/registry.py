"""Which strategies there are: the package's own, and those of plug-ins."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import cache, reduce
from operator import or_
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import Discriminator, TypeAdapter

from tokmigrate.init.strategies import (
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
from tokmigrate.plugins import load_plugins

GROUP = "tokmigrate.strategies"
"""The entry point group of plug-ins: the name is the strategy's, the object a subclass of `RowStrategy`."""

BuiltIn = Mean | MeanCov | Zeros | Normal | Copy | Average | Subtokens | Description | File


def strategy_types() -> Mapping[str, type[RowStrategy]]:
    """Return every strategy by the name that migrations use; raises PluginError for a plug-in that cannot be used."""
    return _types(tuple(sys.path))


def strategy_adapter() -> TypeAdapter[RowStrategy]:
    """Return what validates a mapping with a `strategy` as that strategy; raises as `strategy_types` does."""
    return _adapter(tuple(sys.path))


# Plug-ins are found on `sys.path`, so the result holds as long as that does.
@cache
def _types(_path: tuple[str, ...]) -> Mapping[str, type[RowStrategy]]:
    built_in: dict[str, type[RowStrategy]] = {str(_name(kind)): kind for kind in get_args(BuiltIn)}
    return load_plugins(GROUP, RowStrategy, built_in, _name)


@cache
def _adapter(path: tuple[str, ...]) -> TypeAdapter[RowStrategy]:
    union: Any = reduce(or_, _types(path).values())
    return TypeAdapter(Annotated[union, Discriminator("strategy")])


def _name(kind: type[RowStrategy]) -> str | None:
    field = kind.model_fields.get("strategy")
    if field is None or get_origin(field.annotation) is not Literal:
        return None
    names = get_args(field.annotation)
    return names[0] if len(names) == 1 else None

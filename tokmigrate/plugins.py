"""Classes that other distributions register as entry points: operations and init strategies."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import Any, TypeVar

from tokmigrate.errors import PluginError

T = TypeVar("T")

GROUPS = OPERATIONS, STRATEGIES = "tokmigrate.operations", "tokmigrate.strategies"
"""The entry point groups: an operation or a strategy by its name."""


def load_plugins(
    group: str, base: type[Any], built_in: Mapping[str, type[T]], name_of: Callable[[type[T]], str | None]
) -> Mapping[str, type[T]]:
    """Return the classes of an entry point group by name, those of the package first; `name_of` gives the name of one.

    Raises:
        PluginError: One cannot be loaded, does not derive from `base`, or has a name that is taken.
    """
    found = dict(built_in)
    owners: dict[str, str] = dict.fromkeys(built_in, "tokmigrate")
    for point in sorted(entry_points(group=group), key=lambda point: (point.name, point.value)):
        if point.name in found:
            problem = f"the name '{point.name}' is taken by {owners[point.name]}"
            hint = f"{_uninstall(point)}, or install a version with another name"
            raise PluginError(problem, where=_describe(point), hint=hint)
        found[point.name] = _load(point, base, name_of)
        owners[point.name] = _distribution(point)
    return MappingProxyType(found)


def plugin_names(group: str) -> tuple[str, ...]:
    """Return the names that other distributions register in an entry point group; no class is loaded."""
    return tuple(sorted(entry_points(group=group).names))


def _load(point: EntryPoint, base: type[Any], name_of: Callable[[type[T]], str | None]) -> type[T]:
    remedy = f"{_uninstall(point)}, or install a version that works with this tokmigrate"
    try:
        loaded: Any = point.load()
    except (Exception, SystemExit) as error:
        reason = f"{type(error).__name__}: {error}"
        raise PluginError(f"it cannot be loaded: {reason}", where=_describe(point), hint=remedy) from error
    if not (isinstance(loaded, type) and issubclass(loaded, base)):
        problem = f"'{point.value}' is not a subclass of {base.__name__}"
    elif inspect.isabstract(loaded):
        missing: frozenset[str] = vars(loaded)["__abstractmethods__"]
        problem = f"{loaded.__name__} lacks {', '.join(sorted(missing))}"
    elif name_of(loaded) != point.name:
        problem = f"{loaded.__name__} is registered as '{point.name}' but calls itself '{name_of(loaded)}'"
    else:
        return loaded
    raise PluginError(problem, where=_describe(point), hint=f"{remedy}; docs/plugins.md says what a plug-in needs")


def _describe(point: EntryPoint) -> str:
    return f"plug-in '{point.name}' of {_distribution(point)}"


def _distribution(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else "an unknown distribution"


def _uninstall(point: EntryPoint) -> str:
    return f"`pip uninstall {point.dist.name}`" if point.dist else "uninstall it"

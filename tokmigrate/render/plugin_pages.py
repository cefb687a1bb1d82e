"""Pages of plug-ins for `tokmigrate explain`, made of their classes: to load these takes longer than to read pages."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

from pydantic import BaseModel

from tokmigrate import init, plugins
from tokmigrate.commands.topics import Topic
from tokmigrate.operations import registry


def plugin_pages() -> Iterator[Topic]:
    """Yield the operations and strategies of plug-ins; raises PluginError for one that cannot be used."""
    for name in plugins.plugin_names(plugins.OPERATIONS):
        yield Topic(name, "operation", _describe(name, registry.operation_types()[name]))
    for name in plugins.plugin_names(plugins.STRATEGIES):
        yield Topic(name, "init strategy", _describe(name, init.strategy_types()[name]))


def _describe(name: str, kind: type[BaseModel]) -> str:
    fields = (f"- `{key}`: {field.description}" for key, field in kind.model_fields.items() if field.description)
    return "\n".join([f"# `{name}`", "", inspect.getdoc(kind) or "", "", *fields])

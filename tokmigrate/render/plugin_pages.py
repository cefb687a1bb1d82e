"""Pages of plug-ins for `tokmigrate explain`, made of their classes: to load these takes longer than to read pages."""

from __future__ import annotations

from collections.abc import Iterator

from tokmigrate import init, plugins
from tokmigrate.commands.topics import Topic
from tokmigrate.operations import registry
from tokmigrate.render.field_tables import describe_type


def plugin_pages() -> Iterator[Topic]:
    """Yield the operations and strategies of plug-ins; raises PluginError for one that cannot be used."""
    for name in plugins.plugin_names(plugins.OPERATIONS):
        kind = registry.operation_types()[name]
        yield Topic(name, "operation", "\n".join([f"# `{name}`", "", *describe_type(kind)]))
    for name in plugins.plugin_names(plugins.STRATEGIES):
        strategy = init.strategy_types()[name]
        yield Topic(name, "init strategy", "\n".join([f"# `{name}`", "", *describe_type(strategy)]))

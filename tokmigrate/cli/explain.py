"""The command `explain`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING, Annotated

from typer import Argument

from tokmigrate import init, plugins
from tokmigrate.cli.app import COMMANDS
from tokmigrate.cli.each import Result, print_result
from tokmigrate.cli.options import AsJson
from tokmigrate.commands import topics as pages
from tokmigrate.errors import PluginError, UnknownNameError
from tokmigrate.operations import registry
from tokmigrate.render import explain as explain_report
from tokmigrate.render import markdown

if TYPE_CHECKING:
    from tokmigrate.commands.topics import Topic


def _complete_topic(incomplete: str) -> list[tuple[str, str]]:
    # To load the classes of plug-ins takes too long here.
    classes = ((name, group) for group in plugins.GROUPS for name in plugins.plugin_names(group))
    known = chain(((each.name, each.kind) for each in pages.read_topics()), classes)
    return [each for each in known if each[0].startswith(incomplete)]


def _plugin_pages() -> Iterator[Topic]:
    """Yield the operations and strategies of plug-ins; raises PluginError for one that cannot be used."""
    for name in plugins.plugin_names(plugins.OPERATIONS):
        yield explain_report.describe_class(name, "operation", registry.operation_types()[name])
    for name in plugins.plugin_names(plugins.STRATEGIES):
        yield explain_report.describe_class(name, "init strategy", init.strategy_types()[name])


def explain(
    topic: Annotated[
        str | None,
        Argument(help="Name one of them; without it all are listed.", autocompletion=_complete_topic),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Explain a rule, error, exit code, operation or init strategy.

    `tokmigrate explain TM103` prints the page of the documentation that the package has with it. An error names what
    explains it in its last line. Operations and strategies of plug-ins are explained by their classes.
    """
    topics = pages.read_topics()
    if topic:
        if topic in COMMANDS and topic not in {each.name for each in topics}:
            raise UnknownNameError(f"'{topic}' is a command", hint=f"`tokmigrate {topic} --help` shows what it does")
        found = pages.find_topic(topic, chain(topics, _plugin_pages()))
        text = explain_report.format_topic(found, topics)
        content = {"topic": found.name, "kind": found.kind, "text": text}
        shown = [markdown.render_markdown(text)] if sys.stdout.isatty() else text.splitlines()
        print_result("explain", Result(content, shown), as_json)
        return
    notes = []
    try:
        topics += _plugin_pages()
    except PluginError as error:
        notes = [f"note: plug-ins are left out: {error}"]
    content = explain_report.topics_content(topics)
    print_result("explain", Result(content, explain_report.topics_text(topics), notes), as_json)

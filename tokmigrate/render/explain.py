"""A topic of `tokmigrate explain` as Markdown that can be read without the other pages, and the list of topics."""

from __future__ import annotations

import inspect
import posixpath
import re
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

from rich.table import Column

from tokmigrate.commands.topics import Kind, Topic
from tokmigrate.render.terminal import plain_table

if TYPE_CHECKING:
    from pydantic import BaseModel
    from rich.console import RenderableType

_LINK = re.compile(r"!?\[([^\]]*)\]\((?!https?:)([^)\s]*)\)")
_FENCE = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)


def format_topic(topic: Topic, topics: Collection[Topic]) -> str:
    """Return the Markdown of a topic; a link to one of `topics` becomes the command that explains it."""
    names = {each.page: each.name for each in topics}

    def replace_link(link: re.Match[str]) -> str:
        path, _, anchor = link[2].partition("#")
        page = posixpath.normpath(posixpath.join(posixpath.dirname(topic.page), path))
        code = re.match(r"exit-code-\d+", anchor)
        name = names.get(f"{page}#{code[0]}" if code else page)
        return f"{link[1]} (`tokmigrate explain {name}`)" if name else link[1]

    body, _, last = topic.text.rstrip().rpartition("\n\n")
    # A last line of links leads on in the documentation.
    parts = _FENCE.split(topic.text.rstrip() if _LINK.sub("", last).strip(" ·") else body)
    parts[::2] = [_LINK.sub(replace_link, part) for part in parts[::2]]
    return "".join(parts) + "\n"


def describe_class(name: str, kind: Kind, described: type[BaseModel]) -> Topic:
    """Return the topic of a plug-in's operation or strategy, which has no page."""
    fields = (f"- `{key}`: {field.description}" for key, field in described.model_fields.items() if field.description)
    return Topic(name, kind, "\n".join([f"# `{name}`", "", inspect.getdoc(described) or "", "", *fields]))


def topics_text(topics: Collection[Topic]) -> Iterator[RenderableType]:
    """Yield the topics of each kind, with what else they are called and what they are."""
    for kind in dict.fromkeys(topic.kind for topic in topics):
        table = plain_table(Column(kind, no_wrap=True), "")
        for topic in topics:
            if topic.kind == kind:
                table.add_row(topic.name, _summarise(topic))
        yield table
        yield ""


def topics_content(topics: Collection[Topic]) -> dict[str, Any]:
    """Return the topics as JSON."""
    return {"topics": [{"topic": each.name, "kind": each.kind, "summary": _summarise(each)} for each in topics]}


def _summarise(topic: Topic) -> str:
    """Return what the title of a topic says, or else its first sentence."""
    title, _, text = format_topic(topic, ()).partition("\n\n")
    if topic.kind in {"error", "exit code"}:
        text = title.partition(": ")[2]
    sentence = re.match(r".*?(?=[.:;]( |$)|$)", " ".join(text.partition("\n\n")[0].split()))
    return sentence[0].replace("`", "") if sentence else ""

"""Fields of a migration file or of the settings as tables of Markdown: what each takes is read off its JSON Schema."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from tokmigrate.init.row_strategy import RowStrategy

Schema = Mapping[str, Any]

LINKS = {"InitSpec": "an [`init`]({strategies})"}
"""What has a page of its own; `{strategies}` is that of the init strategies."""

_HEAD = ["| field | takes | meaning | default |", "|---|---|---|---|"]
_WORDS = {"string": "text", "integer": "a whole number", "number": "a number", "boolean": "`true` or `false`"}
_SEVERAL = {"text": "texts", "a whole number": "whole numbers", "a number": "numbers", "a mapping": "mappings"}


def describe_type(kind: type[BaseModel], strategies: str = "") -> list[str]:
    """Return what an operation, a strategy or a condition is, and its fields; `strategies` is as for `tables`."""
    lines = [inspect.getdoc(kind) or "", ""]
    shorthand = getattr(kind, "shorthand", None)
    if shorthand:
        lines += [f"A value alone is its `{shorthand}`.", ""]
    # The name of a strategy stands in the field `strategy`; in an operation that is a field like others.
    return [*lines, *tables(kind, strategies, left_out=("strategy",) if issubclass(kind, RowStrategy) else ())]


def tables(kind: type[BaseModel], strategies: str = "", left_out: tuple[str, ...] = ()) -> list[str]:
    """Return the table of a model's fields, and one for each mapping that a field holds.

    Args:
        kind: The model.
        strategies: The page of the init strategies, as seen from the page that the table is for.
        left_out: Fields that are listed elsewhere.
    """
    schema = kind.model_json_schema()
    return schema_tables(schema, schema.get("$defs", {}), strategies, left_out)


def schema_tables(schema: Schema, definitions: Schema, strategies: str, left_out: tuple[str, ...] = ()) -> list[str]:
    """Return the tables of a schema of a mapping.

    Args:
        schema: The schema.
        definitions: What its references name.
        strategies: As for `tables`.
        left_out: As for `tables`.
    """
    required = schema.get("required", [])
    rows, inner = [], []
    # What every operation has comes last.
    for name, field in sorted(schema.get("properties", {}).items(), key=lambda item: item[0] == "acknowledge"):
        if name in left_out:
            continue
        default = "required" if name in required else _default(field.get("default"))
        taken = takes(field, definitions, strategies, is_optional=name not in required)
        # The schema leaves out a description that a mapping has itself.
        said = field.get("description") or definitions.get(_name_of(field), {}).get("description", "")
        rows.append(f"| `{name}` | {_cell(taken)} | {_cell(said)} | {default} |")
        for held in dict.fromkeys(_mappings(field)):
            if not _strategy(definitions.get(held, {})):
                inner += [f"What `{name}` holds:", ""]
                inner += schema_tables(definitions[held], definitions, strategies)
    return [*_HEAD, *rows, "", *inner] if rows else []


def takes(schema: Schema, definitions: Schema, strategies: str, *, is_optional: bool = False) -> str:
    """Return in words what a value may be.

    Args:
        schema: The schema of the value.
        definitions: What its references name.
        strategies: As for `tables`.
        is_optional: Whether null means that nothing is given, and so is not said.
    """
    choices = schema.get("anyOf") or schema.get("oneOf")
    if choices and "discriminator" not in schema:
        members = [each for each in choices if not (is_optional and each.get("type") == "null")]
        return " or ".join(dict.fromkeys(takes(each, definitions, strategies) for each in members))
    if choices:
        # Only strategies are distinguished by a field.
        return f"a [strategy]({strategies})"
    if "$ref" in schema:
        name = _name_of(schema)
        strategy = _strategy(definitions.get(name, {}))
        if strategy:
            return f"the [strategy]({strategies}) `{strategy}`"
        return LINKS[name].format(strategies=strategies) if name in LINKS else "a mapping"
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("type") == "null":
        return "`null`"
    if schema.get("type") == "array":
        return f"a list of {_several(takes(schema.get('items', {}), definitions, strategies))}"
    if schema.get("type") == "object":
        values = schema.get("additionalProperties")
        held = takes(values, definitions, strategies) if isinstance(values, Mapping) else ""
        return f"a mapping from text to {held}" if held else "a mapping"
    kind = schema.get("type")
    word = _WORDS.get(kind[0] if isinstance(kind, list) else str(kind), "anything")
    return f"{word} from {schema['minimum']:g} on" if "minimum" in schema else word


def _several(words: str) -> str:
    return " or ".join(_SEVERAL.get(word, word) for word in words.split(" or "))


def _mappings(schema: Schema) -> Iterator[str]:
    """Yield the names of the mappings that a value may hold, without those that have a page of their own."""
    if "$ref" in schema and _name_of(schema) not in LINKS:
        yield _name_of(schema)
    for member in schema.get("anyOf", []):
        yield from _mappings(member)
    for part in ("items", "additionalProperties"):
        if isinstance(schema.get(part), Mapping):
            yield from _mappings(schema[part])


def _strategy(schema: Schema) -> str:
    """Return the name of a strategy, which has a page of its own; nothing for other mappings."""
    return str(schema.get("properties", {}).get("strategy", {}).get("const", ""))


def _name_of(schema: Schema) -> str:
    return str(schema.get("$ref", "")).rpartition("/")[2]


def _default(value: object) -> str:
    if value is None or value in ({}, [], ()):
        return ""
    return f"`{value}`" if isinstance(value, str) and value else f"`{json.dumps(value)}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")

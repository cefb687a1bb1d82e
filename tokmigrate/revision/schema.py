"""The JSON Schema of a YAML migration, for editors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from tokmigrate.init import InitSpec
from tokmigrate.operations.registry import operation_types
from tokmigrate.revision.conditions import CHECKS, PRECONDITIONS
from tokmigrate.revision.migration import Replaced
from tokmigrate.revision.yaml_file import Kind

SCHEMA_FILE = "tokmigrate.schema.json"

Schema = dict[str, Any]


def json_schema() -> Schema:
    """Return the JSON Schema (2020-12) of a YAML migration with all operations that are installed."""
    groups: dict[str, Mapping[str, type[BaseModel]]] = {
        "operations": operation_types(),
        "preconditions": PRECONDITIONS,
        "verify": CHECKS,
    }
    models: list[type[BaseModel]] = [
        InitSpec,
        Replaced,
        *(kind for named in groups.values() for kind in named.values()),
    ]
    references, shared = models_json_schema([(model, "validation") for model in models], ref_template="#/$defs/{model}")
    definitions: Schema = shared.get("$defs", {})
    schemas = {model: schema for (model, _), schema in references.items()}
    lists: dict[str, Schema] = {}
    for field, named in groups.items():
        items = [_item(kind, schemas[kind], definitions) for kind in named.values()]
        lists[field] = {"anyOf": [{"type": "array", "items": {"anyOf": items}}, {"type": "null"}]}
    text: Schema = {"type": "string"}
    revision: Schema = {**text, "pattern": "^[0-9a-z_]{4,40}$"}
    document: Schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "tokmigrate migration",
        "type": "object",
        "additionalProperties": False,
        "required": ["format", "revision"],
        "properties": {
            "format": {"const": 1, "description": "The version of this format."},
            "revision": {**revision, "description": "The id of this migration; never changes."},
            "down_revision": {
                "anyOf": [revision, {"type": "null"}],
                "description": "The id of the migration before; null for the first.",
            },
            "message": {**text, "description": "What the migration is for."},
            "author": {"anyOf": [text, {"type": "null"}], "description": "Who wrote it."},
            "models": {
                "type": "array",
                "items": text,
                "minItems": 1,
                "default": ["*"],
                "description": "Names or tags from tokmigrate.yaml; * for all models.",
            },
            "replaces": {
                "type": "array",
                "items": schemas[Replaced],
                "description": "The migrations that were squashed into this one; `tokmigrate squash` writes it.",
            },
            "init": {
                "anyOf": [schemas[InitSpec], {"type": "null"}],
                "description": "How new rows are initialised by default.",
            },
            "operations": {**lists["operations"], "description": "What is done, in this order."},
            "preconditions": {**lists["preconditions"], "description": "What has to hold before."},
            "verify": {**lists["verify"], "description": "What has to hold after."},
        },
        "$defs": definitions,
    }
    return cast(Schema, _loosen(document))


def _item(kind: type[BaseModel], fields: Schema, definitions: Schema) -> Schema:
    """Return the schema of `- name: fields`, also of `- name: value` where one value stands for a field."""
    named = cast(Kind, kind)
    definition = definitions[fields["$ref"].rpartition("/")[2]]
    forms = [fields]
    if named.shorthand:
        forms.append(definition["properties"][named.shorthand])
    if not definition.get("required"):
        forms.append({"type": "null"})
    return {
        "type": "object",
        "additionalProperties": False,
        "required": [named.name],
        "properties": {named.name: {"anyOf": forms, "description": str(definition.get("description", ""))}},
    }


def _loosen(schema: Any) -> Any:
    """Return the schema in which a text may look like a number: `0002` and `no` are texts to tokmigrate."""
    if isinstance(schema, list):
        return [_loosen(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    loosened = {key: _loosen(value) for key, value in schema.items()}
    if schema.get("type") == "string" and not {"enum", "const", "pattern"} & schema.keys():
        loosened["type"] = ["string", "number", "boolean"]
    return loosened

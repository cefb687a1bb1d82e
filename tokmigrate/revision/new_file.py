"""New migration files, and the JSON Schema that editors check them with."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import yaml
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from tokmigrate.errors import StorageError, UsageError
from tokmigrate.files import read_if_present, storage_error
from tokmigrate.init import InitSpec
from tokmigrate.operations.operation import Item, Operation
from tokmigrate.operations.registry import operation_types
from tokmigrate.revision.history import History, migration_files
from tokmigrate.revision.migration import CHECKS, PRECONDITIONS
from tokmigrate.revision.names import new_revision_id
from tokmigrate.revision.yaml_file import YamlHeader, file_number
from tokmigrate.settings import Workspace

SCHEMA_FILE = "tokmigrate.schema.json"

Schema = dict[str, Any]

_EXAMPLES = """\
operations:
#  - add_tokens:
#      tokens:
#        - {content: "<|im_start|>", special: true}
#        - {content: "<|im_end|>", special: true, init: {strategy: copy, token: "</s>"}}
#  - set_special_tokens: {eos: "<|im_end|>"}
#  - resize_vocab: {multiple_of: 64}

# How new rows are initialised by default.
#init: {strategy: mean}

# What has to hold before, and what after.
#preconditions:
#  - token_absent: "<|im_start|>"
#verify:
#  - single_token: "<|im_start|>"
"""

_PYTHON = '''\
"""{title}"""

revision = {revision}
down_revision = {down_revision}
message = {message}
author = None
models = ["*"]
files = []  # the files that operations refer to, relative to this one


def upgrade(op):
    # Each method of op records an operation, with the fields that YAML gives it; nothing is changed here.
    # op.tokenizer is the tokenizer before this migration.
    #
    # op.add_tokens(tokens=[{{"content": "<|im_start|>", "special": True}}])
    pass
'''


def write_yaml_migration(
    workspace: Workspace,
    message: str,
    operations: Sequence[Operation] = (),
    revision: str | None = None,
    remarks: Sequence[str] = (),
    models: Sequence[str] = ("*",),
    attachments: Mapping[str, str | bytes] = MappingProxyType({}),
) -> Path:
    """Write a YAML migration that follows the head, with its attachments and the JSON Schema beside it.

    The path is returned. The message also makes the file's name. By default it has commented examples of operations,
    and a random id; `remarks` are lines of comment above the operations.

    Raises FileProblems or HistoryError where the migrations that are there do not hold together, UsageError where the
    message is empty or more than one line, StorageError where the file cannot be written.
    """
    down = _find_head(workspace, message)
    text = yaml_text(revision or new_revision_id(), down, message, operations, remarks, models)
    return _write(workspace, message, ".yaml", text, attachments)


def write_python_migration(workspace: Workspace, message: str) -> Path:
    """Write a Python migration that follows the head as `write_yaml_migration` does, and return its path."""
    text = python_text(new_revision_id(), _find_head(workspace, message), message)
    return _write(workspace, message, ".py", text)


def check_message(message: str) -> None:
    """Raise UsageError where the message of a migration is empty or more than one line."""
    if not message.strip() or not message.isprintable():
        raise UsageError("a migration needs a message, one line of printable text", hint="say what it is for: -m TEXT")


def _find_head(workspace: Workspace, message: str) -> str | None:
    check_message(message)
    chain = History.read(workspace).chain()
    return chain[-1].revision if chain else None


def _write(
    workspace: Workspace,
    message: str,
    suffix: str,
    text: str,
    attachments: Mapping[str, str | bytes] = MappingProxyType({}),
) -> Path:
    """Write a new migration behind its attachments, and return its path; none of them stays where one fails."""
    write_schema(workspace)
    name = file_name(workspace, message, suffix)
    written: list[Path] = []
    try:
        for each, contents in {**attachments, name: text}.items():
            path = workspace.migrations / each
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as file:
                written.append(path)
                file.write(contents.encode("utf-8") if isinstance(contents, str) else contents)
    except BaseException as error:
        for other in written:
            other.unlink(missing_ok=True)
        for folder in {other.parent for other in written} - {workspace.migrations}:
            with suppress(OSError):
                folder.rmdir()
        if isinstance(error, FileExistsError):
            hint = "remove it, or give another message"
            raise StorageError(f"the file cannot be written: {error.strerror}", where=str(path), hint=hint) from error
        if isinstance(error, OSError):
            raise storage_error("write the file", path, error) from error
        raise
    return path


def file_name(workspace: Workspace, message: str, suffix: str) -> str:
    """Return the name of the next migration file, such as `0004_add_chat_roles.yaml`."""
    numbers = [int(file_number(path) or "0") for path in migration_files(workspace)]
    letters = unicodedata.normalize("NFKD", message).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9]+", "_", letters).strip("_")[:48].rstrip("_") or "migration"
    return f"{max(numbers, default=0) + 1:04d}_{slug}{suffix}"


def write_schema(workspace: Workspace) -> Path:
    """Write the JSON Schema of migrations beside them, and return its path."""
    path = workspace.migrations / SCHEMA_FILE
    text = json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"
    try:
        workspace.migrations.mkdir(parents=True, exist_ok=True)
        if read_if_present(path) != text.encode("utf-8"):
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        hint = "make its directory writable, or leave the file out: `tokmigrate schema` prints it"
        raise StorageError(f"the schema cannot be written: {error.strerror}", where=str(path), hint=hint) from error
    return path


def json_schema() -> Schema:
    """Return the JSON Schema (2020-12) of a YAML migration with all operations that are installed."""
    lists: dict[str, Mapping[str, type[Item]]] = {
        "preconditions": PRECONDITIONS,
        "verify": CHECKS,
        "operations": operation_types(),
    }
    models: list[type[BaseModel]] = [YamlHeader, InitSpec]
    models += [kind for kinds in lists.values() for kind in kinds.values()]
    references, shared = models_json_schema([(model, "validation") for model in models], ref_template="#/$defs/{model}")
    schemas = {model: schema for (model, _), schema in references.items()}
    definitions: Schema = shared["$defs"]
    document: Schema = definitions.pop(YamlHeader.__name__)
    fields = document["properties"]
    fields["init"]["anyOf"] = [schemas[InitSpec], {"type": "null"}]
    for name, kinds in lists.items():
        items = [_item(kind, schemas[kind], definitions) for kind in kinds.values()]
        fields[name]["anyOf"] = [{"type": "array", "items": {"anyOf": items}}, {"type": "null"}]
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "tokmigrate migration"}
    return cast(Schema, _loosen({**document, **head, "$defs": definitions}))


def _item(kind: type[Item], fields: Schema, definitions: Schema) -> Schema:
    """Return the schema of `- name: fields`, also of `- name: value` where one value stands for a field."""
    definition = definitions[fields["$ref"].rpartition("/")[2]]
    forms = [fields]
    if kind.shorthand:
        forms.append(definition["properties"][kind.shorthand])
    if not definition.get("required"):
        forms.append({"type": "null"})
    return {
        "type": "object",
        "additionalProperties": False,
        "required": [kind.name],
        "properties": {kind.name: {"anyOf": forms, "description": str(definition.get("description", ""))}},
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


def yaml_text(
    revision: str,
    down_revision: str | None,
    message: str,
    operations: Sequence[Operation] = (),
    remarks: Sequence[str] = (),
    models: Sequence[str] = ("*",),
) -> str:
    """Return the text of a new YAML migration; its arguments are those of `write_yaml_migration`."""
    head = format_header(revision, down_revision, message, models) + "\n"
    if not operations:
        return head + _EXAMPLES
    comments = "".join(f"# {_printable(remark)}\n" for remark in remarks)
    items = [{operation.name: dump_written_fields(operation)} for operation in operations]
    body = yaml.dump({"operations": items}, Dumper=_Dumper, allow_unicode=True, sort_keys=False, width=100)
    return head + comments + body


def format_header(revision: str, down_revision: str | None, message: str, models: Sequence[str]) -> str:
    """Return the lines of a YAML migration that say which one it is."""
    fields = {"revision": revision, "down_revision": down_revision, "message": message, "models": list(models)}
    lines = [f"{name}: {json.dumps(value, ensure_ascii=False)}\n" for name, value in fields.items()]
    return f"# yaml-language-server: $schema={SCHEMA_FILE}\nformat: 1\n" + "".join(lines)


class _Dumper(yaml.SafeDumper):
    """Writes a text of several lines as lines."""

    def represent_str(self, data: str) -> yaml.ScalarNode:
        return self.represent_scalar("tag:yaml.org,2002:str", data, style="|" if "\n" in data else None)


_Dumper.add_representer(str, _Dumper.represent_str)


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def python_text(revision: str, down_revision: str | None, message: str) -> str:
    """Return the text of a new Python migration."""
    title = message.replace("\\", "\\\\").replace('"', '\\"').strip()
    return _PYTHON.format(
        title=title.rstrip(".") + ".",
        revision=json.dumps(revision),
        down_revision=json.dumps(down_revision) if down_revision else None,
        message=json.dumps(message, ensure_ascii=False),
    )


def dump_written_fields(operation: Operation) -> dict[str, Any]:
    """Return the fields that a file gives to make an operation; the one that every operation has comes last."""
    fields = operation.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return dict(sorted(fields.items(), key=lambda item: item[0] == "acknowledge"))

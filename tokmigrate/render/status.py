"""Migrations and the status of models, as text and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType
from rich.table import Column
from rich.text import Text

from tokmigrate.render.escape import escape
from tokmigrate.render.terminal import plain_table
from tokmigrate.render.training import adapter_rows_line, training_content, training_lines

if TYPE_CHECKING:
    from tokmigrate.commands.inspect import ModelStatus
    from tokmigrate.revision.history import History
    from tokmigrate.revision.migration import Migration


def history_table(history: History, at: Mapping[str, list[str]], tags: Mapping[str, list[str]]) -> RenderableType:
    """Return the migrations, the newest first, with the tags of each and the models that are at it."""
    table = plain_table("", "revision", "after", "message", "models here", *(["tags"] if tags else []))
    heads = {migration.revision for migration in history.heads}
    for migration in reversed(history.order()):
        here = [", ".join(at.get(migration.revision, ())), "(head)" if migration.revision in heads else ""]
        table.add_row(
            migration.number,
            migration.revision,
            migration.down_revision or "base",
            escape(migration.message),
            escape(" ".join(filter(None, here))),
            *([escape(", ".join(tags.get(migration.revision, ())))] if tags else []),
        )
    return table


def history_content(
    migrations: Iterable[Migration], at: Mapping[str, list[str]], tags: Mapping[str, list[str]]
) -> list[dict[str, Any]]:
    """Return the same as JSON, the oldest first."""
    return [
        {**migration_content(each), "models_here": at.get(each.revision, []), "tags": tags.get(each.revision, [])}
        for each in migrations
    ]


def migration_text(migration: Migration) -> RenderableType:
    """Return one migration in full."""
    content = migration_content(migration)
    rows = [
        ("revision", migration.revision),
        ("after", migration.down_revision or "base"),
        *((name, content[name]) for name in ("message", "author", "file")),
        ("models", ", ".join(migration.models)),
        ("checksum", migration.checksum),
        *((name, ", ".join(content[name])) for name in ("replaces", "attachments")),
        ("init", content["init"] and _one_line(content["init"])),
        *(("precondition", _format_condition(each)) for each in content["preconditions"]),
        *(("operation", f"{each['operation']}: {_one_line(each['fields'])}") for each in content["operations"]),
        ("operation", content["python"] and "(Python: known when it is planned for a model)"),
        *(("verify", _format_condition(each)) for each in content["verify"]),
    ]
    return Text("\n".join(escape(f"{name:<12} {value}") for name, value in rows if value))


def _format_condition(condition: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}: {_one_line(value)}" for name, value in condition.items())


def _one_line(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def status_text(status: ModelStatus) -> RenderableType:
    """Return where a model stands."""
    table = plain_table(Column(style="bold"), "")
    table.show_header = False
    table.add_row("model", escape(f"{status.model} ({status.path})"))
    table.add_row("revision", status.revision or "base")
    pending = ", ".join(migration.revision for migration in status.pending)
    table.add_row("pending", pending or "nothing")
    table.add_row("tokens", f"{status.tokens} in {status.rows} rows, {'tied' if status.tied else 'untied'}")
    for tensor in status.tensors:
        table.add_row("tensor", escape(f"{tensor.name} {list(tensor.shape)} {tensor.dtype} in {tensor.file}"))
    for adapter in status.adapters:
        tensors = f"{len(adapter.tensors)} tensors with rows of the vocabulary"
        label = f"{adapter.path}: {adapter.revision or 'base'}, {tensors}"
        table.add_row("adapter", escape(label))
        for held in adapter.rows:
            table.add_row("", escape(adapter_rows_line(held)))
    for copy in status.copies:
        table.add_row("copy", escape(f"{copy.path}: {copy.state}, {copy.reason}"))
    for line in training_lines(status.training):
        table.add_row("training", escape(line))
    for note in status.notes:
        table.add_row("note", escape(note))
    if status.locked_by:
        table.add_row("locked by", escape(status.locked_by))
    return table


def migration_content(migration: Migration) -> dict[str, Any]:
    """Return a migration as JSON."""
    return {
        "revision": migration.revision,
        "down_revision": migration.down_revision,
        "message": migration.message,
        "author": migration.author,
        "models": migration.models,
        "file": migration.shown,
        "checksum": migration.checksum,
        "operations": [
            {
                "operation": planned.operation.name,
                "place": planned.place,
                "fields": planned.operation.model_dump(mode="json", exclude_unset=True, exclude_defaults=True),
            }
            for planned in migration.operations
        ],
        "python": migration.source is not None,
        "init": migration.init.model_dump(mode="json", exclude_defaults=True) if migration.init else None,
        "preconditions": [each.as_written() for each in migration.preconditions],
        "verify": [each.as_written() for each in migration.checks],
        "attachments": list(migration.attachments),
        "replaces": [each.revision for each in migration.replaces],
    }


def status_content(status: ModelStatus) -> dict[str, Any]:
    """Return the state of a model as JSON."""
    return {
        **vars(status),
        "pending": [migration.revision for migration in status.pending],
        "adapters": [{**vars(adapter), "trained": adapter.trained} for adapter in status.adapters],
        "training": training_content(status.training),
    }

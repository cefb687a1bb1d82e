"""Results as JSON documents; each carries `schema_version`, and a field is never given another meaning."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tokmigrate.errors import FileProblems, TokmigrateError
from tokmigrate.formats import JSON_OUTPUT
from tokmigrate.render.training import adapter_rows_content, training_content

if TYPE_CHECKING:
    from tokmigrate.commands.downgrade import Downgraded
    from tokmigrate.commands.inspect import ModelStatus
    from tokmigrate.commands.upgrade import Upgraded
    from tokmigrate.plan.plan import Plan
    from tokmigrate.plan.token_changes import TokenChange
    from tokmigrate.revision.migration import Migration

SCHEMA_VERSION = JSON_OUTPUT.version


def document(command: str, **content: Any) -> dict[str, Any]:
    """Return the document of one command."""
    return {"schema_version": SCHEMA_VERSION, "command": command, **content}


def error_document(error: TokmigrateError) -> dict[str, Any]:
    """Return the document of an error."""
    found: dict[str, Any] = {
        "kind": type(error).__name__,
        "message": error.message,
        "where": error.where,
        "hint": error.hint,
        "exit_code": error.exit_code,
    }
    if isinstance(error, FileProblems):
        found["problems"] = [
            {
                "path": problem.path,
                "line": problem.line,
                "column": problem.column,
                "message": problem.message,
                "hint": problem.hint,
            }
            for problem in error.problems
        ]
    return {"schema_version": SCHEMA_VERSION, "error": found}


def plan_content(plan: Plan) -> dict[str, Any]:
    """Return a plan as JSON."""
    return {
        "model": plan.model,
        "from_revision": plan.before,
        "to_revision": plan.after,
        "rows_before": plan.edit.old_rows,
        "rows_after": plan.edit.new_rows,
        "bytes_to_write": plan.bytes_to_write,
        "tokens": [_token_change(change) for change in plan.tokens],
        "files": _files(plan),
        "adapters": [{"path": adapter.model, "files": _files(adapter)} for adapter in plan.adapters],
        "migrations": [
            {
                "revision": step.migration.revision,
                "message": step.migration.message,
                "operations": [
                    {
                        "operation": effect.operation,
                        "place": effect.place,
                        "risk": effect.risk.level.value,
                        "reason": effect.risk.reason,
                        "assigned_ids": [
                            {"token": new.token, "id": new.id, "row": new.row} for new in effect.assigned_ids
                        ],
                        "unreachable": list(effect.unreachable),
                    }
                    for effect in step.effects
                ],
            }
            for step in plan.steps
        ],
        "notes": list(plan.notes),
        "warnings": list(plan.warnings),
    }


def _token_change(change: TokenChange) -> dict[str, Any]:
    return {
        "token": change.token,
        "id": change.id,
        "old_token": change.old_token,
        "old_id": change.old_id,
        "row": change.row,
        "output_row": change.output_row,
        "placeholder": change.placeholder,
        "flags": [{"flag": each.flag, "before": each.before, "after": each.after} for each in change.flags],
        "gains": list(change.gains),
        "loses": list(change.loses),
    }


def _files(plan: Plan) -> list[dict[str, Any]]:
    return [{"name": change.name, "change": change.kind, "bytes": change.bytes} for change in plan.file_changes()]


def upgrade_content(done: Upgraded) -> dict[str, Any]:
    """Return what an upgrade did as JSON."""
    return {**plan_content(done.plan), "recovered": done.recovered.value, "changed": bool(done.plan.steps)}


def downgrade_content(done: Downgraded) -> dict[str, Any]:
    """Return what a downgrade did as JSON."""
    return {
        "model": done.model,
        "from_revision": done.before,
        "to_revision": done.after,
        "reverted": list(done.reverted),
        "semantic_undo": list(done.semantic_undo),
        "recovered": done.recovered.value,
    }


def migration_content(migration: Migration) -> dict[str, Any]:
    """Return a migration as JSON."""
    return {
        "revision": migration.revision,
        "down_revision": migration.down_revision,
        "message": migration.message,
        "author": migration.author,
        "models": list(migration.models),
        "file": migration.shown,
        "checksum": migration.checksum,
        "operations": [
            {
                "operation": planned.operation.name,
                "place": planned.place,
                "fields": planned.operation.model_dump(mode="json", exclude_defaults=True),
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
        "model": status.name,
        "path": status.path,
        "revision": status.revision,
        "pending": [migration.revision for migration in status.pending],
        "locked_by": status.locked_by,
        "rows": status.rows,
        "tokens": status.tokens,
        "tied": status.tied,
        "tensors": [
            {"name": tensor.name, "file": tensor.file, "axis": tensor.axis, "side": tensor.side, "dtype": tensor.dtype}
            for tensor in status.tensors
        ],
        "adapters": [
            {
                "path": adapter.path,
                "revision": adapter.revision,
                "tensors": [{"name": tensor.name, "axis": tensor.axis} for tensor in adapter.tensors],
                "trained": list(adapter.trained),
                "rows": [adapter_rows_content(held) for held in adapter.rows],
            }
            for adapter in status.adapters
        ],
        "training": training_content(status.training),
        "notes": list(status.notes),
    }

"""Writes the migration that leads from one tokenizer to another, after trying it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tokmigrate.commands.diff import Side
from tokmigrate.formatting import format_count
from tokmigrate.model.documents.declared import ID_FILES, state_without_weights
from tokmigrate.model.documents.semantic_diff import Difference, differences
from tokmigrate.model.tokenizer.tokenizer_json import FILE, view
from tokmigrate.operations.operation import Operation
from tokmigrate.plan.steps import steps_of
from tokmigrate.revision.derivation import derive
from tokmigrate.revision.names import new_revision_id
from tokmigrate.revision.new_file import write_yaml_migration, yaml_text
from tokmigrate.revision.yaml_file import yaml_migration
from tokmigrate.settings import Workspace

_REMARKED = 20  # How many differences that are left a file lists


@dataclass(frozen=True)
class Generated:
    """A migration that was written, None where no operation leads nearer; what still differs, and what was refused."""

    path: Path | None
    operations: tuple[Operation, ...]
    left: tuple[Difference, ...]
    refused: tuple[str, ...]


def autogenerate(workspace: Workspace, message: str, before: Side, after: Side) -> Generated:
    """Write the migration that leads from one tokenizer to another, as far as operations can express it.

    It is planned on the files of the first before it is written, so what is left is known and not guessed.
    """
    revision = new_revision_id()
    target = {name: held for name, held in after.documents.items() if name not in ID_FILES or name in before.documents}
    room = max(view(documents[FILE]).highest + 1 for documents in (before.documents, target))
    state = state_without_weights(before.documents, room)
    derived = derive(state, target, revision)
    operations, refused = tuple(derived.operations), tuple(dict.fromkeys(derived.refused))
    if not operations:
        return Generated(None, (), differences(before.documents, target), refused)
    text = yaml_text(revision, None, message, operations)
    name = "migration.yaml"
    migration = yaml_migration(text.encode("utf-8"), workspace.migrations / name, name, workspace.root)
    (step,) = steps_of(state, [migration])
    left = differences(step.after.documents, target)
    refused = refused if left else ()
    remarks = _remarks(before, after, operations, left, refused)
    path = write_yaml_migration(
        workspace, message, operations, revision=revision, remarks=remarks, models=before.models
    )
    return Generated(path, operations, left, refused)


def _remarks(
    before: Side, after: Side, operations: Sequence[Operation], left: Sequence[Difference], refused: Sequence[str]
) -> list[str]:
    remarks = [f"Leads from the tokenizer of {Path(before.name).name} to that of {Path(after.name).name}."]
    changes = [operation.token_changes() for operation in operations]
    if any(each is not None and each.added for each in changes):
        remarks.append("New rows are initialised with the mean unless `init:` says otherwise.")
    if not left:
        return [*remarks, "It was planned on the first tokenizer: the result has no semantic difference."]
    count = format_count(len(left), "difference")
    remarks.append(f"It was planned on the first; no operation expresses {count}.")
    remarks += [f"- {difference}" for difference in left[:_REMARKED]]
    remarks += [f"… and {len(left) - _REMARKED} more"] if len(left) > _REMARKED else []
    if refused:
        remarks += ["Tried, and refused:", *(f"- {reason}" for reason in refused)]
    return remarks

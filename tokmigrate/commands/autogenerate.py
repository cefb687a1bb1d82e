"""Writes the migration that leads from one tokenizer to another, after trying it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tokmigrate.audit.run_status import guard_reading
from tokmigrate.commands.diff import Side
from tokmigrate.formatting import format_count
from tokmigrate.init import InitSpec
from tokmigrate.model.documents.declared import ID_FILES, state_without_weights
from tokmigrate.model.documents.semantic_diff import Difference, differences
from tokmigrate.model.snapshot import take_snapshot
from tokmigrate.model.tokenizer.tokenizer_json import FILE, view
from tokmigrate.operations.operation import Operation
from tokmigrate.plan.steps import steps_of
from tokmigrate.revision.derivation import derive
from tokmigrate.revision.learned_rows import encode_row_files, read_biases, read_token_rows
from tokmigrate.revision.migration import Migration
from tokmigrate.revision.names import new_revision_id
from tokmigrate.revision.new_file import file_name, write_yaml_migration, yaml_text
from tokmigrate.revision.yaml_file import yaml_migration
from tokmigrate.settings import Workspace

_REMARKED = 20  # How many differences that are left a file lists


@dataclass(frozen=True)
class Generated:
    """A migration that was written, None where no operation leads nearer; what still differs, and what was refused.

    Its long lists, and rows that were taken, are in files beside it.
    """

    path: Path | None
    operations: tuple[Operation, ...]
    left: tuple[Difference, ...]
    refused: tuple[str, ...]
    list_files: tuple[Path, ...] = ()
    row_files: tuple[Path, ...] = ()


def autogenerate(
    workspace: Workspace, message: str, before: Side, after: Side, *, with_rows: bool = False
) -> Generated:
    """Write the migration that leads from one tokenizer to another, as far as operations can express it.

    It is planned on the files of the first before it is written, so what is left is known and not guessed. `with_rows`
    gives new tokens the rows of the second, which is a model then; else ModelError or WeightsError is raised.
    """
    revision = new_revision_id()
    target = {name: held for name, held in after.documents.items() if name not in ID_FILES or name in before.documents}
    room = max(view(documents[FILE]).highest + 1 for documents in (before.documents, target))
    state = state_without_weights(before.documents, room)
    derived = derive(state, target, revision)
    operations, refused = tuple(derived.operations), tuple(dict.fromkeys(derived.refused))
    if not operations:
        return Generated(None, (), differences(before.documents, target), refused)
    rows: dict[str, bytes] = {}
    if with_rows:
        operations, rows = _take_rows(workspace, message, operations, after)
    operations, lists = _move_lists(operations, file_name(workspace, message, ""))
    attachments = {**{name: text.encode("utf-8") for name, text in lists.items()}, **rows}
    (step,) = steps_of(state, [_read_back(yaml_text(revision, None, message, operations), attachments)])
    left = differences(step.after.documents, target)
    refused = refused if left else ()
    remarks = _remarks(before, after, operations, left, refused)
    path = write_yaml_migration(
        workspace,
        message,
        operations,
        revision=revision,
        remarks=remarks,
        models=before.models,
        attachments=attachments,
    )
    list_files, row_files = (tuple(path.parent / name for name in files) for files in (lists, rows))
    return Generated(path, operations, left, refused, list_files, row_files)


def _take_rows(
    workspace: Workspace, message: str, operations: Sequence[Operation], after: Side
) -> tuple[tuple[Operation, ...], dict[str, bytes]]:
    """Return operations that give new tokens the rows which they have in a model, and the files with these rows."""
    made = [
        () if changes is None else (*(token.content for token in changes.added), *changes.extended)
        for changes in (operation.token_changes() for operation in operations)
    ]
    tokens = [token for new in made for token in new]
    if not tokens or after.entry is None:
        return tuple(operations), {}
    with guard_reading(after.entry):
        snapshot = take_snapshot(after.entry)
        rows, biases = read_token_rows(snapshot, tokens), read_biases(snapshot, tokens)
    init, files = encode_row_files(workspace, message, tokens, rows, biases)
    given = {"init": InitSpec.model_validate(init)}
    return tuple(
        operation.model_copy(update=given) if new else operation
        for operation, new in zip(operations, made, strict=True)
    ), files


def _move_lists(operations: Sequence[Operation], stem: str) -> tuple[tuple[Operation, ...], dict[str, str]]:
    """Return operations whose long lists are in files, whose names begin with `stem`, and the texts of these files."""
    moved: list[Operation] = []
    files: dict[str, str] = {}
    for operation in operations:
        named, listed = operation.with_files(stem)
        if not files.keys().isdisjoint(listed):
            named, listed = operation.with_files(f"{stem}.{len(files) + 1}")
        files |= listed
        moved.append(named)
    return tuple(moved), files


def _read_back(text: str, attachments: Mapping[str, bytes]) -> Migration:
    """Return the migration that a text and its attachments are once they are written."""
    with TemporaryDirectory() as folder:
        for name, held in attachments.items():
            (Path(folder) / name).write_bytes(held)
        name = "migration.yaml"
        return yaml_migration(text.encode("utf-8"), Path(folder) / name, name, Path(folder))


def _remarks(
    before: Side, after: Side, operations: Sequence[Operation], left: Sequence[Difference], refused: Sequence[str]
) -> list[str]:
    remarks = [f"Leads from the tokenizer of {Path(before.name).name} to that of {Path(after.name).name}."]
    changes = [each.token_changes() for each in operations if "init" not in each.model_fields_set]
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

"""One migration, as a value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tokmigrate.errors import OperationError
from tokmigrate.init import InitSpec
from tokmigrate.operations.base import Attachment
from tokmigrate.revision.conditions import Check, Precondition
from tokmigrate.revision.planned_operation import PlannedOperation, Replaced
from tokmigrate.revision.recorder import record
from tokmigrate.settings import ModelEntry


@dataclass(frozen=True)
class Migration:
    """What a migration file says.

    Args:
        revision: Its id.
        down_revision: The id of the one before; None for the first.
        message: What it is for, in words.
        author: Who wrote it.
        models: Names or tags of the models that it is for; `*` for all.
        init: How its new rows are initialised by default.
        preconditions: What has to hold before it.
        checks: What has to hold after it, its `verify:`.
        path: The absolute path of its file.
        shown: The name that messages give the file, relative to the workspace.
        number: The digits that its file name begins with, or nothing.
        checksum: What identifies its contents.
        operations: What it does; empty for a Python migration, which says so only for a given model.
        attachments: The files that it refers to, by the names used there.
        data: The bytes of its file; none of one that is not a file yet.
        source: The text of a Python migration; None for YAML.
        replaces: The migrations that were squashed into it, in order; the last one had its id.
    """

    revision: str
    down_revision: str | None
    message: str
    author: str | None
    models: tuple[str, ...]
    init: InitSpec | None = field(repr=False)
    preconditions: tuple[Precondition, ...] = field(repr=False)
    checks: tuple[Check, ...] = field(repr=False)
    path: Path = field(repr=False)
    shown: str
    number: str
    checksum: str = field(repr=False)
    operations: tuple[PlannedOperation, ...] = field(default=(), repr=False)
    attachments: Mapping[str, Attachment] = field(default_factory=dict, repr=False)
    data: bytes = field(default=b"", repr=False)
    source: str | None = field(default=None, repr=False)
    replaces: tuple[Replaced, ...] = field(default=(), repr=False)

    def applies_to(self, entry: ModelEntry) -> bool:
        """Return whether the migration is for this model: by its name, one of its tags, or `*`."""
        return not {"*", entry.name, *entry.tags}.isdisjoint(self.models)

    def recorded(self, tokenizer: object) -> tuple[PlannedOperation, ...]:
        """Return what it does to a model.

        Args:
            tokenizer: What `op.tokenizer` of a Python migration gives: the tokenizer before the migration.

        Raises:
            OperationError: The code of a Python migration fails, or refers to a file that it does not declare.
        """
        if self.source is None:
            return self.operations
        operations = record(self.source, self.path, self.shown, tokenizer)
        for planned in operations:
            for name in planned.operation.references():
                if name not in self.attachments:
                    raise OperationError(
                        f"the migration does not declare the file '{name}'",
                        where=planned.place,
                        hint=f"write 'files = [\"{name}\"]' at the top, so that the checksum covers it",
                    )
        return operations

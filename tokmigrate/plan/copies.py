"""What an upgrade makes of a GGUF that changes with its model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tokmigrate.model.formats.gguf import Head
from tokmigrate.model.gguf_copy import GgufCopy
from tokmigrate.plan.steps import Step


@dataclass(frozen=True)
class CopyPlan:
    """The upgrade of a GGUF; `heads` are its heads after each step of the plan of its model."""

    copy: GgufCopy
    heads: tuple[Head, ...] = field(repr=False)

    @property
    def bytes(self) -> int:
        """The size of the file afterwards."""
        return self.heads[-1].file_size


def plan_copy(copy: GgufCopy, steps: Sequence[Step]) -> CopyPlan:
    """Return what migrations make of a GGUF; raises OperationError where one changes what a GGUF cannot express."""
    heads: list[Head] = []
    head = copy.head
    for step in steps:
        head = copy.migrate(head, step.before, step.after, step.migration.revision)
        heads.append(head)
    return CopyPlan(copy, tuple(heads))

"""What a change is about to do, as the journal beside the model holds it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from tokmigrate.change.workarea import WorkArea
from tokmigrate.model.documents.stamp import read_stamp


class _JournalPart(BaseModel):
    """What the journal says of one directory."""

    model_config = ConfigDict(strict=True, frozen=True)

    generation_before: str | None
    generation_after: str | None


class _JournalAdapter(_JournalPart):
    """What the journal says of an adapter."""

    path: str


class _Journal(_JournalPart):
    """The content of the journal."""

    format: Literal[1]
    operation: str
    adapters: list[_JournalAdapter] = []


@dataclass(frozen=True)
class Part:
    """One directory of a change.

    Args:
        area: Its work area.
        before: The generation in place before, None at `base`.
        after: The one afterwards.
    """

    area: WorkArea
    before: str | None
    after: str | None


@dataclass(frozen=True)
class Intent:
    """A change of a model and its adapters.

    Args:
        operation: The operation's id in the state.
        model: The model.
        adapters: The adapters that go along.
    """

    operation: str
    model: Part
    adapters: tuple[Part, ...] = ()

    @property
    def areas(self) -> tuple[WorkArea, ...]:
        """The work areas, the model's first."""
        return tuple(part.area for part in (self.model, *self.adapters))

    def to_json(self) -> dict[str, Any]:
        """Return the journal's content."""
        return {
            "format": 1,
            "operation": self.operation,
            "generation_before": self.model.before,
            "generation_after": self.model.after,
            "adapters": [
                {"path": str(part.area.model), "generation_before": part.before, "generation_after": part.after}
                for part in self.adapters
            ],
        }

    @staticmethod
    def from_json(held: dict[str, Any], model: Path) -> Intent:
        """Return the intent that the journal of a model holds; raises StorageError where it is damaged."""
        area = WorkArea(model)
        try:
            journal = _Journal.model_validate(held)
            adapters = tuple(_part(WorkArea(Path(adapter.path)), adapter) for adapter in journal.adapters)
        except ValueError as error:
            raise area.damaged_journal() from error
        return Intent(journal.operation, _part(area, journal), adapters)


def _part(area: WorkArea, said: _JournalPart) -> Part:
    return Part(area, said.generation_before, said.generation_after)


def generation_in_place(directory: Path) -> str | None:
    """Return the generation that a directory's stamp names, None where there is none."""
    stamp = read_stamp(directory)
    return stamp.generation if stamp else None

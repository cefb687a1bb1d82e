"""What a change is about to do, as the journal beside the model holds it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokmigrate.change.workarea import WorkArea
from tokmigrate.model.documents.stamp import read_stamp


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
        """Return the intent that the journal of a model holds."""

        def part(path: Path, content: dict[str, Any]) -> Part:
            return Part(WorkArea(path), content["generation_before"], content["generation_after"])

        adapters = tuple(part(Path(content["path"]), content) for content in held.get("adapters", ()))
        return Intent(held["operation"], part(model, held), adapters)


def generation_in_place(directory: Path) -> str | None:
    """Return the generation that a directory's stamp names, None where there is none."""
    stamp = read_stamp(directory)
    return stamp.generation if stamp else None

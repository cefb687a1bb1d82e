"""What a change is about to do, as the journal beside the model holds it."""

from __future__ import annotations

import os
import socket
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


class _JournalModel(BaseModel):
    """Where the journal was written: the model's path, and the inode of its work area on that host."""

    model_config = ConfigDict(strict=True, frozen=True)

    path: str
    inode: int
    host: str


class _Journal(_JournalPart):
    """The content of the journal."""

    format: Literal[1]
    operation: str
    model: _JournalModel | None = None
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
        others: Directories in the journal of a copied model that go along with the original, and not with the copy.
    """

    operation: str
    model: Part
    adapters: tuple[Part, ...] = ()
    others: tuple[Path, ...] = ()

    @property
    def areas(self) -> tuple[WorkArea, ...]:
        """The work areas, the model's first."""
        return tuple(part.area for part in (self.model, *self.adapters))

    def to_json(self, workspace: Path) -> dict[str, Any]:
        """Return the journal's content.

        Args:
            workspace: Its directory. An adapter that lies in it together with the model is named relative to the work
                area, since it is moved and copied with it; one elsewhere is named by its absolute path.
        """
        area, inside = self.model.area, Path(os.path.realpath(workspace))

        def place(adapter: WorkArea) -> str:
            together = area.model.is_relative_to(inside) and adapter.model.is_relative_to(inside)
            return os.path.relpath(adapter.model, area.root) if together else str(adapter.model)

        return {
            "format": 1,
            "operation": self.operation,
            "generation_before": self.model.before,
            "generation_after": self.model.after,
            "model": {"path": str(area.model), "inode": area.root.stat().st_ino, "host": socket.gethostname()},
            "adapters": [
                {"path": place(part.area), "generation_before": part.before, "generation_after": part.after}
                for part in self.adapters
            ],
        }

    @staticmethod
    def from_json(held: dict[str, Any], area: WorkArea) -> Intent:
        """Return the intent that the journal in a work area holds; raises StorageError where it is damaged."""
        try:
            journal = _Journal.model_validate(held)
            parts = {adapter.path: adapter for adapter in journal.adapters}
            elsewhere = {path for path in parts if Path(path).is_absolute()}
            others = elsewhere if _is_copy(journal, area) else set()
            adapters = tuple(
                _part(WorkArea(area.root / path), said) for path, said in parts.items() if path not in others
            )
        except ValueError as error:
            raise area.damaged_journal() from error
        return Intent(journal.operation, _part(area, journal), adapters, tuple(map(Path, sorted(others))))


def _part(area: WorkArea, said: _JournalPart) -> Part:
    return Part(area, said.generation_before, said.generation_after)


def _is_copy(journal: _Journal, area: WorkArea) -> bool:
    """Return whether the work area with this journal was copied, and the change belongs to the original of it."""
    began = journal.model
    if began is None or began.inode == area.root.stat().st_ino:
        return False
    origin = WorkArea(Path(began.path))
    if origin.model == area.model:
        # It was restored from a backup.
        return False
    # Where nothing is left there, it was moved here from another filesystem; of another host that is not known.
    return began.host != socket.gethostname() or origin.root.exists()


def generation_in_place(directory: Path) -> str | None:
    """Return the generation that a directory's stamp names, None where there is none."""
    stamp = read_stamp(directory)
    return stamp.generation if stamp else None

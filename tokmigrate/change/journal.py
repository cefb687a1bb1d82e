"""What a change is about to do, as the journal beside the model holds it."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from tokmigrate.change.workarea import WorkArea
from tokmigrate.errors import RecoveryNeededError
from tokmigrate.files import exists
from tokmigrate.model.documents.stamp import read_stamp

PathText = Annotated[str, Field(pattern=r"^[^\x00]+$")]


class _JournalPart(BaseModel):
    """What the journal says of one directory."""

    model_config = ConfigDict(strict=True, frozen=True)

    generation_before: str | None
    generation_after: str | None


class _JournalAdapter(_JournalPart):
    """What the journal says of an adapter."""

    path: PathText
    start: Literal["area", "workspace"] = "area"


class _JournalPlace(BaseModel):
    """A directory as it was when the journal was written; a copy of it has another inode."""

    model_config = ConfigDict(strict=True, frozen=True)

    path: PathText
    inode: int
    host: str


class _Journal(_JournalPart):
    """The content of the journal."""

    format: Literal[1]
    operation: str
    area: _JournalPlace | None = None
    workspace: _JournalPlace | None = None
    adapters: list[_JournalAdapter] = []


@dataclass(frozen=True)
class JournalEntry:
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
class Journal:
    """A change of a model and its adapters.

    Args:
        operation: The operation's id in the state.
        model: The model.
        adapters: The adapters that go along.
        others: Directories in the journal of a copied model that go along with the original, and not with the copy.
    """

    operation: str
    model: JournalEntry
    adapters: tuple[JournalEntry, ...] = ()
    others: tuple[Path, ...] = ()

    @property
    def areas(self) -> tuple[WorkArea, ...]:
        """The work areas, the model's first."""
        return tuple(part.area for part in (self.model, *self.adapters))

    def to_json(self, workspace: Path) -> dict[str, Any]:
        """Return the journal's content.

        Args:
            workspace: Its directory. What lies in it is moved and copied with it: an adapter there is named relative to
                the work area, or to the workspace where the model lies elsewhere. Others have absolute paths.
        """
        area, inside = self.model.area, Path(os.path.realpath(workspace))

        def place(adapter: Path) -> dict[str, str]:
            if not adapter.is_relative_to(inside):
                return {"path": str(adapter)}
            if area.model.is_relative_to(inside):
                return {"path": os.path.relpath(adapter, area.root)}
            return {"path": str(adapter.relative_to(inside)), "start": "workspace"}

        return {
            "format": 1,
            "operation": self.operation,
            "generation_before": self.model.before,
            "generation_after": self.model.after,
            "area": _place(area.root),
            "workspace": _place(inside),
            "adapters": [
                {**place(part.area.model), "generation_before": part.before, "generation_after": part.after}
                for part in self.adapters
            ],
        }

    @staticmethod
    def from_json(held: dict[str, Any], area: WorkArea, workspace: Path) -> Journal:
        """Return what the journal in a work area holds, for a workspace that lists the model.

        Raises:
            RecoveryNeededError: Its adapters lie in another workspace, which began the change.
            StorageError: The journal is damaged.
        """
        try:
            return Journal._of(_Journal.model_validate(held), area, workspace)
        except ValueError as error:
            raise area.damaged_journal() from error

    @staticmethod
    def _of(journal: _Journal, area: WorkArea, workspace: Path) -> Journal:
        starts = {"area": area.root, "workspace": Path(os.path.realpath(workspace))}
        if any(said.start == "workspace" for said in journal.adapters):
            _refuse_elsewhere(journal.workspace, starts["workspace"], area)
        copied = _is_elsewhere(journal.area, area.root)
        others = [Path(said.path) for said in journal.adapters if copied and Path(said.path).is_absolute()]
        adapters = [
            _part(WorkArea(starts[said.start] / said.path), said)
            for said in journal.adapters
            if Path(said.path) not in others
        ]
        return Journal(journal.operation, _part(area, journal), tuple(adapters), tuple(others))


def _part(area: WorkArea, said: _JournalPart) -> JournalEntry:
    return JournalEntry(area, said.generation_before, said.generation_after)


def _place(directory: Path) -> dict[str, Any]:
    return {"path": str(directory), "inode": directory.stat().st_ino, "host": socket.gethostname()}


def _is_elsewhere(began: _JournalPlace | None, here: Path) -> bool:
    """Return whether a directory was copied here, and the one that the journal was written for is still there."""
    # One with the same path was restored from a backup; where nothing is left there, it was moved here.
    if began is None or began.inode == here.stat().st_ino or Path(began.path) == here:
        return False
    return began.host != socket.gethostname() or exists(Path(began.path))


def _refuse_elsewhere(began: _JournalPlace | None, here: Path, area: WorkArea) -> None:
    if began is not None and _is_elsewhere(began, here):
        raise RecoveryNeededError(
            f"its change was started in the workspace {began.path}, with adapters that lie there",
            where=str(area.model),
            hint=f"run `tokmigrate recover` in {began.path}",
        )


def generation_in_place(directory: Path) -> str | None:
    """Return the generation that a directory's stamp names, None where there is none."""
    stamp = read_stamp(directory)
    return stamp.generation if stamp else None

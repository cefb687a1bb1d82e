"""The journal beside a model: what a change is about to do, written before it starts."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from tokmigrate.apply.workarea import WorkArea
from tokmigrate.errors import RecoveryNeededError, WeightsError
from tokmigrate.files import exists, has_file
from tokmigrate.formats import JOURNAL, check_version
from tokmigrate.model.documents.stamp import read_stamp
from tokmigrate.model.gguf_copy import read_generation

UNKNOWN = ""
"""The generation afterwards while it is not known: no directory is of it."""

PathText = Annotated[str, Field(pattern=r"^[^\x00]+$")]


class _StoredEntry(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)

    generation_before: str | None
    generation_after: str | None


class _StoredAdapter(_StoredEntry):
    path: PathText
    relative_to: Literal["work_area", "workspace"] = "work_area"


class _StoredDirectory(BaseModel):
    """A directory as it was when the journal was written; a copy of it has another inode."""

    model_config = ConfigDict(strict=True, frozen=True)

    path: PathText
    inode: int
    host: str


class _StoredJournal(_StoredEntry):
    format: int
    run: str
    work_area: _StoredDirectory | None = None
    workspace: _StoredDirectory | None = None
    adapters: list[_StoredAdapter] = []


@dataclass(frozen=True)
class JournalEntry:
    """One directory or GGUF of a change, with its generation before and the one afterwards, or `UNKNOWN`."""

    area: WorkArea
    before: str | None
    after: str | None


@dataclass(frozen=True)
class Journal:
    """A change of a model, its adapters and its GGUFs; of a copied model, `others` go along with the original.

    In `adapters` are all that follow the model: directories of adapters, and GGUF files.
    """

    run: str
    model: JournalEntry
    adapters: tuple[JournalEntry, ...] = ()
    others: tuple[Path, ...] = ()

    @property
    def areas(self) -> tuple[WorkArea, ...]:
        """The work areas, the model's first."""
        return tuple(entry.area for entry in (self.model, *self.adapters))

    def to_json(self, workspace: Path) -> dict[str, Any]:
        """Return the journal's content.

        What lies in the workspace is moved and copied with it: an adapter there is named relative to the work area, or
        to the workspace where the model lies elsewhere. Others have absolute paths.
        """
        area, inside = self.model.area, Path(os.path.realpath(workspace))

        def name(adapter: Path) -> dict[str, str]:
            if not adapter.is_relative_to(inside):
                return {"path": str(adapter)}
            if area.model.is_relative_to(inside):
                return {"path": os.path.relpath(adapter, area.root)}
            return {"path": str(adapter.relative_to(inside)), "relative_to": "workspace"}

        return {
            "format": JOURNAL.version,
            "run": self.run,
            "generation_before": self.model.before,
            "generation_after": self.model.after,
            "work_area": _directory(area.root),
            "workspace": _directory(inside),
            "adapters": [
                {**name(entry.area.model), "generation_before": entry.before, "generation_after": entry.after}
                for entry in self.adapters
            ],
        }

    @staticmethod
    def from_json(held: dict[str, Any], area: WorkArea, workspace: Path) -> Journal:
        """Return the journal of a work area, for a workspace that lists the model; StorageError where it is damaged.

        Raises RecoveryNeededError where its adapters lie in another workspace, or another version wrote it.
        """
        if isinstance(held.get("format"), int):
            check_version(JOURNAL, held["format"], str(area.journal), RecoveryNeededError)
        try:
            journal = _StoredJournal.model_validate(held)
        except ValueError as error:
            raise area.damaged_journal_error() from error
        starts = {"work_area": area.root, "workspace": Path(os.path.realpath(workspace))}
        began, inside = journal.workspace, any(stored.relative_to == "workspace" for stored in journal.adapters)
        if began is not None and inside and _is_elsewhere(began, starts["workspace"]):
            message = f"its change was started in the workspace {began.path}, with adapters that lie there"
            hint = f"run `tokmigrate recover` in {began.path}"
            raise RecoveryNeededError(message, where=str(area.model), hint=hint)
        copied = _is_elsewhere(journal.work_area, area.root)
        others = [Path(stored.path) for stored in journal.adapters if copied and Path(stored.path).is_absolute()]
        adapters = [
            _entry(WorkArea(starts[stored.relative_to] / stored.path), stored)
            for stored in journal.adapters
            if Path(stored.path) not in others
        ]
        return Journal(journal.run, _entry(area, journal), tuple(adapters), tuple(others))


def _entry(area: WorkArea, stored: _StoredEntry) -> JournalEntry:
    return JournalEntry(area, stored.generation_before, stored.generation_after)


def _directory(directory: Path) -> dict[str, Any]:
    return {"path": str(directory), "inode": directory.stat().st_ino, "host": socket.gethostname()}


def _is_elsewhere(began: _StoredDirectory | None, here: Path) -> bool:
    """Return whether a directory was copied here, and the one that the journal was written for is still there."""
    # One with the same path was restored from a backup; where nothing is left there, it was moved here.
    if began is None or began.inode == here.stat().st_ino or Path(began.path) == here:
        return False
    return began.host != socket.gethostname() or exists(Path(began.path))


def generation_in_place(path: Path) -> str | None:
    """Return the generation that a directory's stamp names, or that of a GGUF; None where there is neither."""
    if has_file(path):
        with suppress(WeightsError):
            return read_generation(path)
        return None
    stamp = read_stamp(path)
    return stamp.generation if stamp else None

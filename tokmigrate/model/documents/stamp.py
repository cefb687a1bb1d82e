"""The stamp, tokmigrate.json: the revision of a migrated model, stored in its directory.

It holds no time, no host and no random number, so that the same migrations on the same baseline give the
same stamp everywhere. At `base` there is none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blake3 import blake3
from pydantic import BaseModel, ConfigDict, Field

from tokmigrate.errors import DriftError, ModelError
from tokmigrate.files import read_if_present
from tokmigrate.formats import STAMP, check_version
from tokmigrate.model.documents.state import Made
from tokmigrate.model.formats.json_text import Json, Layout, parse
from tokmigrate.vocabulary.ids import Run
from tokmigrate.vocabulary.row_edit import CopiedRows, NewRow, RowEdit

FILE = "tokmigrate.json"
_LAYOUT = Layout()


@dataclass(frozen=True)
class ChangedFile:
    """A file that migrations changed since the baseline.

    Args:
        digest: BLAKE3 of its bytes now, None where it is gone.
        layout: How its JSON text is laid out; None for other text.
    """

    digest: str | None
    layout: Layout | None


@dataclass(frozen=True)
class ChangedShard:
    """A shard with a vocabulary tensor.

    Args:
        digest: As `model.shard_digest` makes it.
        baseline_start: Where its data section began at the baseline, in bytes.
    """

    digest: str
    baseline_start: int


@dataclass(frozen=True)
class Stamp:
    """The revision of a model, and what it needs to be migrated further.

    Args:
        lineage: The digest of the baseline.
        applied: The applied revisions with the checksums of their files, in order.
        files: The changed files.
        shards: The changed shards.
        baseline_tokens: The rows of the baseline that had a token.
        rows: The rows of today, mapped to those of the baseline.
        reshaped: Whether the number of rows ever changed.
        init: The default init that `set_init` set.
        tokenizer: The fingerprint of the baseline's tokenizer; None in stamps of older versions.
    """

    lineage: str
    applied: tuple[tuple[str, str], ...]
    files: Mapping[str, ChangedFile]
    shards: Mapping[str, ChangedShard]
    baseline_tokens: tuple[Run, ...]
    rows: RowEdit
    reshaped: bool
    init: Json
    tokenizer: str | None = None

    @property
    def revision(self) -> str:
        """The revision that the model is at."""
        return self.applied[-1][0]

    @property
    def revisions(self) -> tuple[str, ...]:
        """The applied revisions, in order."""
        return tuple(revision for revision, _ in self.applied)

    @property
    def generation(self) -> str:
        """The digest of the contents of the stamp: lineage, revisions, digests."""
        content = json.dumps(self._content(), sort_keys=True, ensure_ascii=False)
        return blake3(f"generation 1\n{content}\n".encode()).hexdigest()

    def encoded(self) -> bytes:
        """Return the stamp as the bytes of its file."""
        return _LAYOUT.render({"format": STAMP.version, "generation": self.generation, **self._content()}).encode()

    def _content(self) -> dict[str, Json]:
        return {
            "lineage": self.lineage,
            "revision": self.revision,
            "applied": [{"revision": name, "checksum": checksum} for name, checksum in self.applied],
            "files": {
                name: {"digest": file.digest, "layout": file.layout.to_json() if file.layout else None}
                for name, file in sorted(self.files.items())
            },
            "shards": {
                name: {"digest": shard.digest, "baseline_start": shard.baseline_start}
                for name, shard in sorted(self.shards.items())
            },
            "baseline": {"rows": self.rows.old_rows, "tokens": [list(run) for run in self.baseline_tokens]},
            "rows": [_piece_to_json(piece) for piece in self.rows.pieces],
            "reshaped": self.reshaped,
            "init": self.init,
            **({"tokenizer": self.tokenizer} if self.tokenizer is not None else {}),
        }


def read_stamp(directory: Path) -> Stamp | None:
    """Return the stamp of a model directory, None where there is none.

    Raises:
        DriftError: The stamp is damaged or of a newer format.
    """
    path = directory / FILE
    data = read_if_present(path)
    if data is None:
        return None
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _damaged_error(str(path)) from error
    return parse_stamp(text, str(path))


class _StoredPart(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)


class _StoredLayout(_StoredPart):
    indent: int | str | None
    ascii: bool
    compact: bool
    newline: str


class _StoredFile(_StoredPart):
    digest: str | None
    layout: _StoredLayout | None


class _StoredShard(_StoredPart):
    digest: str
    baseline_start: int


class _StoredRevision(_StoredPart):
    revision: str
    checksum: str


class _StoredBaseline(_StoredPart):
    rows: int
    tokens: tuple[Run, ...]


class _StoredRow(_StoredPart):
    revision: str
    label: str


class _StoredStamp(_StoredPart):
    """The content of the file."""

    generation: str
    lineage: str
    revision: str
    applied: tuple[_StoredRevision, ...] = Field(min_length=1)
    files: dict[str, _StoredFile]
    shards: dict[str, _StoredShard]
    baseline: _StoredBaseline
    rows: tuple[Run | _StoredRow, ...]
    reshaped: bool
    init: dict[str, Any] | None
    tokenizer: str | None = None


def parse_stamp(text: str, where: str) -> Stamp:
    """Return the stamp that `text` holds; raises DriftError where it is damaged or of a newer format."""
    try:
        held = parse(text, where)
    except ModelError as error:
        raise _damaged_error(where) from error
    if not isinstance(held, dict):
        raise _damaged_error(where)
    check_version(STAMP, held.get("format"), where)
    try:
        # From the text, since in a parsed value every array would have to be a tuple.
        stored = _StoredStamp.model_validate_json(text)
        stamp = Stamp(
            lineage=stored.lineage,
            applied=tuple((entry.revision, entry.checksum) for entry in stored.applied),
            files={
                name: ChangedFile(file.digest, Layout(**file.layout.model_dump()) if file.layout else None)
                for name, file in stored.files.items()
            },
            shards={name: ChangedShard(shard.digest, shard.baseline_start) for name, shard in stored.shards.items()},
            baseline_tokens=stored.baseline.tokens,
            rows=RowEdit(stored.baseline.rows, tuple(map(_piece, stored.rows))),
            reshaped=stored.reshaped,
            init=stored.init,
            tokenizer=stored.tokenizer,
        )
    except ValueError as error:
        raise _damaged_error(where) from error
    if stamp.generation != stored.generation or stored.revision != stamp.revision:
        raise DriftError("the stamp was edited", where=where, hint="restore it from a copy of the model")
    return stamp


def _damaged_error(where: str) -> DriftError:
    return DriftError("the stamp is damaged", where=where, hint="restore it from a copy of the model")


def _piece_to_json(piece: CopiedRows | NewRow) -> Json:
    if isinstance(piece, CopiedRows):
        return [piece.start, piece.stop]
    made = piece.recipe
    if not isinstance(made, Made):
        raise TypeError("a lineage holds rows of the baseline and rows that migrations made")
    return {"revision": made.revision, "label": made.label}


def _piece(row: Run | _StoredRow) -> CopiedRows | NewRow:
    return NewRow(Made(row.revision, row.label)) if isinstance(row, _StoredRow) else CopiedRows(*row)

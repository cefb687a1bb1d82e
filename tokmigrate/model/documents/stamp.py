"""The stamp, tokmigrate.json: the revision of a migrated model, stored in its directory.

It holds no time, no host and no random number, so that the same migrations on the same baseline give the
same stamp everywhere. At `base` there is none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from blake3 import blake3
from pydantic import BaseModel, Field

from tokmigrate.errors import DriftError, ModelError, TokmigrateError
from tokmigrate.files import read_if_present
from tokmigrate.formats import STAMP, check_version
from tokmigrate.memo import forget_with_all
from tokmigrate.model.documents.state import Made
from tokmigrate.model.formats.json_text import Json, Layout, parse
from tokmigrate.vocabulary.ids import Run
from tokmigrate.vocabulary.row_edit import CopiedRows, NewRow, RowEdit

FILE = "tokmigrate.json"


@dataclass(frozen=True)
class ChangedFile:
    """A file that migrations changed: BLAKE3 of its bytes, None where it is gone, and the layout of its JSON."""

    digest: str | None
    layout: Layout | None

    @staticmethod
    def of(data: bytes | None, layout: Layout | None) -> ChangedFile:
        """Return the record of a file with that content, None where it is gone."""
        return ChangedFile(None if data is None else blake3(data).hexdigest(), layout)


@dataclass(frozen=True)
class ChangedShard:
    """A shard that a migration wrote: its `shard_digest`, and where its data section began at the baseline."""

    digest: str
    baseline_start: int


@dataclass(frozen=True)
class Stamp:
    """The revision of a model, and what it needs to be migrated further.

    Args:
        lineage: The digest of the baseline.
        applied: The applied revisions with the checksums of their files, in order.
        baseline_tokens: The rows of the baseline that had a token.
        rows: The rows of today, mapped to those of the baseline.
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
        return self.applied[-1][0]

    @property
    def revisions(self) -> tuple[str, ...]:
        return tuple(revision for revision, _ in self.applied)

    @cached_property
    def generation(self) -> str:
        """The digest of the contents of the stamp: lineage, revisions, digests."""
        content = json.dumps(self._content, sort_keys=True, ensure_ascii=False)
        return blake3(f"generation 1\n{content}\n".encode()).hexdigest()

    def encode(self) -> bytes:
        return self._encoded

    @cached_property
    def _encoded(self) -> bytes:
        return Layout().encode({"format": STAMP.version, "generation": self.generation, **self._content})

    @cached_property
    def _content(self) -> dict[str, Json]:
        return {
            "lineage": self.lineage,
            "revision": self.revision,
            "applied": [{"revision": name, "checksum": checksum} for name, checksum in self.applied],
            "files": {name: asdict(file) for name, file in sorted(self.files.items())},
            "shards": {name: asdict(shard) for name, shard in sorted(self.shards.items())},
            "baseline": {"rows": self.rows.old_rows, "tokens": [list(run) for run in self.baseline_tokens]},
            "rows": [_piece_to_json(piece) for piece in self.rows.pieces],
            "reshaped": self.reshaped,
            "init": self.init,
            **({"tokenizer": self.tokenizer} if self.tokenizer is not None else {}),
        }


def read_stamp(directory: Path) -> Stamp | None:
    """Return the stamp of a model directory, None where there is none; errors are those of `parse_stamp`."""
    path = directory / FILE
    data = read_if_present(path)
    return None if data is None else parse_stamp(data, str(path))


class _StoredRevision(BaseModel):
    revision: str
    checksum: str


class _StoredBaseline(BaseModel):
    rows: int
    tokens: tuple[Run, ...]


class _StoredStamp(BaseModel):
    """The content of the file."""

    generation: str
    lineage: str
    revision: str
    applied: tuple[_StoredRevision, ...] = Field(min_length=1)
    files: dict[str, ChangedFile]
    shards: dict[str, ChangedShard]
    baseline: _StoredBaseline
    rows: tuple[Run | Made, ...]
    reshaped: bool
    init: dict[str, Any] | None
    tokenizer: str | None = None


def parse_stamp(data: bytes, where: str) -> Stamp:
    """Return the stamp that a file holds; raises DriftError where it is damaged or of a newer format."""
    try:
        return _parse_again(data)
    except TokmigrateError as error:
        error.where = where
        raise


def _parse(data: bytes) -> Stamp:
    try:
        held = parse(data.decode("utf-8"), FILE)
    except (UnicodeDecodeError, ModelError) as error:
        raise _damaged_error() from error
    if not isinstance(held, dict):
        raise _damaged_error()
    check_version(STAMP, held.get("format"), FILE)
    try:
        # From the text, since in a parsed value every array would have to be a tuple.
        stored = _StoredStamp.model_validate_json(data, strict=True)
        stamp = Stamp(
            lineage=stored.lineage,
            applied=tuple((entry.revision, entry.checksum) for entry in stored.applied),
            files=stored.files,
            shards=stored.shards,
            baseline_tokens=stored.baseline.tokens,
            rows=RowEdit(
                stored.baseline.rows,
                tuple(NewRow(row) if isinstance(row, Made) else CopiedRows(*row) for row in stored.rows),
            ),
            reshaped=stored.reshaped,
            init=stored.init,
            tokenizer=stored.tokenizer,
        )
    except ValueError as error:
        raise _damaged_error() from error
    if stamp.generation != stored.generation or stored.revision != stamp.revision:
        raise DriftError("the stamp was edited", hint=_RESTORE)
    return stamp


_parse_again = lru_cache(maxsize=2)(_parse)
"""A command asks several times for the stamp before a change and for that after it, which may hold 100,000 rows."""
forget_with_all(_parse_again.cache_clear)


_RESTORE = "restore it from a copy of the model; or remove it, and `tokmigrate check` names what writes it again"


def _damaged_error() -> DriftError:
    return DriftError("the stamp is damaged", hint=_RESTORE)


def _piece_to_json(piece: CopiedRows | NewRow) -> Json:
    if isinstance(piece, CopiedRows):
        return [piece.start, piece.stop]
    if not isinstance(piece.recipe, Made):
        raise TypeError("a lineage holds rows of the baseline and rows that migrations made")
    # `asdict` would copy each text of 100,000 rows.
    return {"revision": piece.recipe.revision, "label": piece.recipe.label}

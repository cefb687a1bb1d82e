"""What the libraries read of a model: its small files, without weights, as a change leaves them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tokmigrate.change.candidate import Candidate
from tokmigrate.files import storage_errors
from tokmigrate.model.documents.stamp import FILE as STAMP
from tokmigrate.model.snapshot import Snapshot
from tokmigrate.model.tokenizer.tokenizer_json import FILE as TOKENIZER
from tokmigrate.plan.upgrade import Plan, rendered


@dataclass(frozen=True)
class Documents:
    """The small files of a model after a change, in terms of those on disk.

    Args:
        files: The bytes of changed files, None for removed ones; without the stamp, which no library reads.
        rows: The ids that have a row.
        tokens: The id that every token must have.
    """

    files: Mapping[str, bytes | None] = field(repr=False)
    rows: int
    tokens: Mapping[str, int] = field(repr=False)

    @classmethod
    def of_plan(cls, plan: Plan) -> Documents:
        """Return what an upgrade leaves; no weights are needed for it."""
        files = {name: rendered(plan.snapshot, plan.final, name) for name in sorted(plan.touched)}
        return cls(files, plan.edit.new_rows, plan.final.tokenizer.ids)

    @classmethod
    def of_candidate(cls, candidate: Candidate) -> Documents:
        """Return what a change leaves."""
        files = {name: data for name, data in candidate.files.items() if name != STAMP}
        return cls(files, candidate.edit.new_rows, candidate.tokens)

    def shapes(self, snapshot: Snapshot) -> dict[str, list[int]]:
        """Return the shape of every tensor afterwards."""
        shapes = {entry.name: list(entry.shape) for _, entry in snapshot.weights.tensors()}
        return shapes | {tensor.name: list(tensor.with_ids(self.rows).shape) for tensor in snapshot.tensors}


@contextmanager
def staged_tokenizer(snapshot: Snapshot, documents: Documents) -> Iterator[Path]:
    """Give tokenizer.json as it is after a change, which is all that the tokenizers library reads.

    Args:
        snapshot: The model as it is.
        documents: What becomes of its small files.

    Raises:
        StorageError: The temporary directory has no space for it.
    """
    data = documents.files.get(TOKENIZER)
    if data is None:
        yield snapshot.directory.absolute() / TOKENIZER
        return
    with tempfile.TemporaryDirectory(prefix="tokmigrate-") as folder:
        path = Path(folder, TOKENIZER)
        with storage_errors("stage the file that tokenizers reads", path):
            path.write_bytes(data)
        yield path


@contextmanager
def staged(snapshot: Snapshot, documents: Documents) -> Iterator[Path]:
    """Give a directory with the model's files after a change; those that it does not touch are links to the model's.

    Args:
        snapshot: The model as it is.
        documents: What becomes of its small files.

    Raises:
        StorageError: The temporary directory has no space for them.
    """
    # A link leads to the model's place from anywhere.
    source = snapshot.directory.absolute()
    with tempfile.TemporaryDirectory(prefix="tokmigrate-") as folder:
        target = Path(folder, source.name or "model")
        with storage_errors("stage the files that the libraries read", target):
            for place, folders, names in os.walk(source):
                inner = target / Path(place).relative_to(source)
                inner.mkdir()
                links = [name for name in folders if Path(place, name).is_symlink()]
                for name in (*names, *links):
                    (inner / name).symlink_to(Path(place, name))
            for name, data in documents.files.items():
                path = target / name
                _own_folder(path.parent, target)
                path.unlink(missing_ok=True)
                if data is not None:
                    path.write_bytes(data)
        yield target


def _own_folder(folder: Path, target: Path) -> None:
    """Make a folder of the copy its own: through a link a file would be written into the model."""
    if folder == target:
        return
    _own_folder(folder.parent, target)
    linked = folder.readlink() if folder.is_symlink() else None
    if linked is None:
        folder.mkdir(exist_ok=True)
        return
    folder.unlink()
    folder.mkdir()
    for path in linked.iterdir():
        (folder / path.name).symlink_to(path)

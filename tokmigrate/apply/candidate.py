"""The new contents of a model directory, for an upgrade and a downgrade alike."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from tokmigrate.apply.file_metadata import FileMetadata, LinkMetadata
from tokmigrate.apply.shard_pass import Contents
from tokmigrate.apply.workarea import WorkArea
from tokmigrate.files import storage_errors
from tokmigrate.model.documents.stamp import FILE as STAMP
from tokmigrate.model.documents.stamp import parse_stamp
from tokmigrate.model.formats.safetensors_header import Header
from tokmigrate.model.snapshot import Snapshot
from tokmigrate.model.tokenizer.tokenizer_json import FILE as TOKENIZER
from tokmigrate.model.tokenizer.tokenizer_json import Tokenizer
from tokmigrate.model.weights.weights import read_weights
from tokmigrate.plan.plan import Plan
from tokmigrate.vocabulary.ids import Run
from tokmigrate.vocabulary.row_edit import Recipe, RowEdit


@dataclass(frozen=True)
class ShardImage:
    """The header of a shard, and its digest as `shard_digest` makes it."""

    header: Header
    digest: str


@dataclass(frozen=True)
class Documents:
    """The small files of a model after a change, in terms of those on disk.

    Args:
        files: The bytes of changed files, None for removed ones; without the stamp, which no library reads.
        edit: Its rows in terms of those on disk.
        tokenizer: What tokenizer.json says, None where an adapter has none.
    """

    files: Mapping[str, bytes | None] = field(repr=False)
    edit: RowEdit = field(repr=False)
    tokenizer: Tokenizer | None = field(repr=False)

    @classmethod
    def of_plan(cls, plan: Plan) -> Documents:
        """Return what an upgrade leaves; no weights are needed for it."""
        files = {name: plan.render_document(plan.final, name) for name in sorted(plan.touched)}
        return cls(files, plan.edit, plan.final.tokenizer)

    @classmethod
    def unchanged(cls, snapshot: Snapshot) -> Documents:
        """Return the files of a model as it is."""
        return cls({}, RowEdit.identity(snapshot.state.rows), snapshot.state.tokenizer)

    @property
    def rows(self) -> int:
        return self.edit.new_rows

    @property
    def ids(self) -> Mapping[str, int]:
        """The id that every token must have."""
        return self.tokenizer.ids if self.tokenizer else {}

    def shapes(self, snapshot: Snapshot) -> dict[str, list[int]]:
        """Return the shape of every tensor afterwards."""
        shapes = {entry.name: list(entry.shape) for _, entry in snapshot.weights.tensors()}
        return shapes | {tensor.name: list(tensor.with_ids(self.rows).shape) for tensor in snapshot.tensors}


@dataclass(frozen=True)
class Candidate:
    """A directory in terms of the one on disk, as far as it is known before weights are read; what it omits stays.

    Args:
        metadata: Mode, owner and times of files that are given back.
        headers: The headers of the shards that are written; a tensor comes from whatever shard on disk has it.
        links: The names of written files that are symbolic links, and what these hold.
        removed: The shards that are there no more.
    """

    documents: Documents
    metadata: Mapping[str, FileMetadata] = field(default_factory=dict)
    headers: Mapping[str, Header] = field(default_factory=dict)
    links: Mapping[str, LinkMetadata] = field(default_factory=dict)
    removed: frozenset[str] = frozenset()

    @property
    def bytes(self) -> int:
        """The bytes that will be written."""
        texts = sum(len(data) for data in self.documents.files.values() if data is not None)
        return texts + sum(header.file_size for header in self.headers.values())


@dataclass(frozen=True)
class Completion:
    """What completes a candidate when its shards have been read.

    Args:
        stamp: The stamp of the directory, None at `base`.
        digests: What `shard_digest` must give for each written shard.
        row: The bytes of a new row of a tensor.
    """

    stamp: bytes | None
    digests: Mapping[str, str]
    row: Callable[[str, Recipe], bytes]

    @property
    def generation(self) -> str | None:
        """The generation of the directory, None at `base`."""
        return None if self.stamp is None else parse_stamp(self.stamp, STAMP).generation


@dataclass(frozen=True)
class Change:
    """The change of one directory.

    Args:
        complete: Completes them with what was found in the shards; called once, the model's after those of adapters.
            It calls its second argument, which raises where the libraries refuse the change, before it keeps anything.
        populations: The rows whose mean `complete` needs, by tensor.
        reads_all: Whether it needs the digests of all vocabulary shards, also of those that are not written.
        read: Reads the weights of a staged directory, and raises where they are none.
        known_tensors: Digests of tensors that need not be read where their blocks are shared.
    """

    snapshot: Snapshot
    candidate: Candidate
    complete: Callable[[Contents, Callable[[], None]], Completion]
    populations: Mapping[str, Sequence[Run]] = field(default_factory=dict)
    reads_all: bool = False
    read: Callable[[Path], object] = read_weights
    known_tensors: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def area(self) -> WorkArea:
        """Its work area, whose lock the caller holds."""
        return WorkArea(self.snapshot.directory)

    @property
    def before(self) -> str | None:
        """The generation in place before, None at `base`."""
        return self.snapshot.generation


@contextmanager
def stage_tokenizer(snapshot: Snapshot, documents: Documents) -> Iterator[Path]:
    """Give tokenizer.json as it is after a change, which is all that the tokenizers library reads.

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
def stage_files(snapshot: Snapshot, documents: Documents) -> Iterator[Path]:
    """Give a directory with the model's files after a change; those that it does not touch are links to the model's.

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

"""What a model directory shall be, the same value for an upgrade and for a downgrade, and the headers of its shards."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tokmigrate.change.file_metadata import FileMetadata, LinkMetadata
from tokmigrate.model.documents.stamp import FILE as STAMP
from tokmigrate.model.documents.stamp import Stamp, parse_stamp
from tokmigrate.model.formats.safetensors_header import BLOCK_BYTES, Header
from tokmigrate.model.snapshot import Snapshot
from tokmigrate.vocabulary.rows import Recipe, RowEdit


@dataclass(frozen=True)
class ShardImage:
    """A shard to be written.

    Args:
        header: Its new header.
        digest: What `digests.shard_digest` must give for it.
    """

    header: Header
    digest: str


@dataclass(frozen=True)
class Candidate:
    """A directory in terms of the one on disk; what it does not name stays.

    Args:
        files: The bytes of written files, None for removed ones; the stamp among them.
        metadata: Mode, owner and times of files that are given back.
        shards: The shards to be written.
        edit: Rows of the written shards in terms of the rows on disk.
        row: The bytes of a fresh row of a tensor.
        tokens: The id that every token must have.
        links: The names of written files that are symbolic links, and what these hold.
    """

    files: Mapping[str, bytes | None]
    metadata: Mapping[str, FileMetadata]
    shards: Mapping[str, ShardImage]
    edit: RowEdit
    row: Callable[[str, Recipe], bytes]
    tokens: Mapping[str, int]
    links: Mapping[str, LinkMetadata] = field(default_factory=dict)

    @property
    def stamp(self) -> Stamp | None:
        """The stamp that the directory shall have, None at `base`."""
        data = self.files[STAMP]
        return None if data is None else parse_stamp(data.decode("utf-8"), STAMP)

    @property
    def bytes(self) -> int:
        """The bytes that will be written."""
        texts = sum(len(data) for data in self.files.values() if data is not None)
        return texts + sum(image.header.file_size for image in self.shards.values())


def baseline_start(snapshot: Snapshot, file: str) -> int:
    """Return where the data section of a shard began at the baseline."""
    recorded = snapshot.stamp.shards.get(file) if snapshot.stamp else None
    if recorded:
        return recorded.baseline_start
    return _header_on_disk(snapshot, file).data_start


def header_with_rows(snapshot: Snapshot, file: str, rows: int) -> Header:
    """Return the header of `file` with `rows` rows in its vocabulary tensors.

    It depends on the baseline and on `rows` alone, not on the way between them. The padding keeps the
    longest run of bytes congruent to where it was at the baseline, so that blocks can be shared.

    Args:
        snapshot: The model on disk.
        file: The shard.
        rows: The rows wanted.
    """
    header = _header_on_disk(snapshot, file)
    tensors = {tensor.name: tensor for tensor in snapshot.in_shard(file)}
    before = snapshot.state.lineage.old_rows
    run, shift, best, best_shift = 0, 0, -1, 0
    for entry in header.by_offset:
        tensor = tensors.get(entry.name)
        if tensor is None:
            run += len(entry)
            continue
        old, new = tensor.window.rows(before), tensor.window.rows(rows)
        run += tensor.row_bytes * min(old, new)
        if run > best:
            best, best_shift = run, shift
        run, shift = 0, shift + tensor.row_bytes * (new - old)
    if run > best:
        best_shift = shift
    congruent_to = (baseline_start(snapshot, file) - best_shift) % BLOCK_BYTES
    shapes = {name: tensor.with_ids(rows).shape for name, tensor in tensors.items()}
    return header.reshaped(shapes, congruent_to)


def _header_on_disk(snapshot: Snapshot, file: str) -> Header:
    return snapshot.weights.shard(file).header

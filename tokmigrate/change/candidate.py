"""What a model directory shall be: the same value for an upgrade and for a downgrade."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tokmigrate.change.facts import FileFacts, LinkFacts
from tokmigrate.model.formats.safetensors_header import Header
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
        facts: Mode, owner and times of files that are given back.
        shards: The shards to be written.
        edit: Rows of the written shards in terms of the rows on disk.
        row: The bytes of a fresh row of a tensor.
        tokens: The id that every token must have.
        links: The names of written files that are symbolic links, and what these hold.
    """

    files: Mapping[str, bytes | None]
    facts: Mapping[str, FileFacts]
    shards: Mapping[str, ShardImage]
    edit: RowEdit
    row: Callable[[str, Recipe], bytes]
    tokens: Mapping[str, int]
    links: Mapping[str, LinkFacts] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """The bytes that will be written."""
        texts = sum(len(data) for data in self.files.values() if data is not None)
        return texts + sum(image.header.file_size for image in self.shards.values())

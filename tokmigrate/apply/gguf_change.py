"""The change of a GGUF that follows its model: built beside the file, verified, and put in its place by one rename."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from threading import Event

from tokmigrate.apply.durable import drop_cache, fsync_file
from tokmigrate.apply.file_metadata import FileMetadata, read_metadata, write_metadata
from tokmigrate.apply.shard_pass import Contents, read_shard
from tokmigrate.apply.shard_writer import ShardWriter
from tokmigrate.apply.workarea import WorkArea
from tokmigrate.errors import DriftError, ModelError, VerificationError
from tokmigrate.files import fsync_directory
from tokmigrate.model.formats.gguf import GgufHeader, Head
from tokmigrate.model.formats.gguf_reading import read_head
from tokmigrate.model.gguf_copy import GgufCopy, read_generation
from tokmigrate.model.gguf_vocabulary import AGAIN
from tokmigrate.model.weights.tensor_rows import OpenFile, shard_digest
from tokmigrate.vocabulary.row_edit import Recipe, RowEdit


@dataclass(frozen=True)
class GgufCompletion:
    """What completes the change when the file was read.

    Args:
        row: The bytes of a new row of a tensor.
        found: What `shard_digest` has to give for the file as it is, None where nothing is known of it.
        digest: What it has to give for the new file.
        metadata: Mode, owner and times that are given back, None where the new file has those of the old one.
    """

    row: Callable[[str, Recipe], bytes]
    found: str | None
    digest: str
    metadata: FileMetadata | None = None


@dataclass
class GgufChange:
    """The change of a GGUF; its model's change calls `stage` before the new rows are known, `finish` afterwards.

    Args:
        head: The head afterwards.
        edit: The rows afterwards in terms of those on disk.
        complete: Gives what completes it; called once, after the change of the model was completed.
        contents: What `stage` found in the file.
    """

    copy: GgufCopy
    head: Head = field(repr=False)
    edit: RowEdit = field(repr=False)
    complete: Callable[[], GgufCompletion]
    contents: Contents = field(default_factory=Contents, repr=False)
    _writer: ShardWriter | None = None

    @cached_property
    def area(self) -> WorkArea:
        """Its work area, whose lock the caller holds."""
        return WorkArea(self.copy.path)

    @property
    def before(self) -> str:
        """The generation in place before."""
        return self.copy.generation

    def read_after(self) -> str:
        """Return the generation of the new file, once it is finished."""
        return read_generation(self.area.stage, self.head)

    @property
    def bytes(self) -> int:
        """The bytes that will be written."""
        return self.head.file_size

    @cached_property
    def _header(self) -> GgufHeader:
        return self.copy.layout(self.head)

    def stage(self, progress: Callable[[int], None], stopped: Event) -> None:
        """Write the new file beside the old one, without its new rows.

        Raises:
            DriftError: The file is not the one that was planned for.
            ModelError: There is something between its tensors, which would be lost.
        """
        self.area.remove_stage()
        self.check_untouched()
        path, old = self.copy.path, self.copy.header
        self._check_padding(old)
        tensors = self.copy.rows_of(self.edit.old_rows)
        self._writer = ShardWriter(self.area.stage, self._header, tensors, self.edit)
        with self._writer as writer:
            writer.start({path: old})
            self.contents = read_shard(path, old, tensors, {}, [writer], progress, stopped)
        self.check_untouched()

    def finish(self, *, reads_again: bool) -> list[str]:
        """Write the new rows, verify the new file and make it durable; return what of its metadata could not be kept.

        Raises:
            DriftError: The old file was changed since it was migrated.
            VerificationError: The new one is not what was planned.
        """
        completion, writer, staged = self.complete(), self._writer, self.area.stage
        if writer is None:
            raise ValueError("it is not staged")
        found = shard_digest(self.copy.header, self.contents.tables, self.contents.fixed)
        if completion.found not in (None, found):
            raise DriftError(
                "the GGUF was changed since it was migrated, and a downgrade would lose that",
                where=str(self.copy.path),
                hint=f"put it back as tokmigrate wrote it; or {AGAIN}",
            )
        with writer:
            writer.put_new_rows(completion.row)
        is_right = writer.digest() == completion.digest and writer.is_in_place({self.copy.path: self.copy.header})
        if is_right and reads_again:
            drop_cache(staged)
            again = read_shard(staged, self._header, self.copy.rows_of(self.edit.new_rows))
            is_right = shard_digest(self._header, again.tables, again.fixed) == completion.digest
        written = read_head(staged)
        if not is_right or (written.raw, written.file_size) != (self.head.raw, self.head.file_size):
            hint = "nothing was changed: check the disk, then run it again"
            raise VerificationError("the bytes are not those that were planned", where=str(self.copy.path), hint=hint)
        old = read_metadata(self.copy.path)
        wanted = completion.metadata or replace(old, mtime_ns=read_metadata(staged).mtime_ns)
        write_metadata(staged, wanted)
        fsync_file(staged)
        fsync_directory(self.area.root)
        return wanted.differences(read_metadata(staged))

    def check_untouched(self) -> None:
        """Raise DriftError where the file is not the one that was planned for."""
        if not self.copy.is_untouched:
            raise DriftError("it was changed while it was copied", where=str(self.copy.path), hint="try again")

    def _check_padding(self, header: GgufHeader) -> None:
        """Raise ModelError where what follows a tensor with rows up to the next one is not zero."""
        begins = sorted([*(entry.begin for entry in header.entries), header.file_size - header.data_start])
        with OpenFile(self.copy.path) as file:
            for entry in header.entries:
                end = next(begin for begin in begins if begin >= entry.end)
                if any(file.read(header.data_start + entry.end, end - entry.end)):
                    raise ModelError(
                        f"the padding behind the tensor '{entry.name}' is not zero, and would be lost",
                        where=str(self.copy.path),
                        hint=AGAIN,
                    )

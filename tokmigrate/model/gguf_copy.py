"""A GGUF that was made from a model and changes with it: what it is, and what a migration makes of it."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from pathlib import Path

from tokmigrate.errors import DriftError, ModelError, OutOfStepError, StorageError, UnexplainedTensorError
from tokmigrate.files import refuse_fixed, storage_errors
from tokmigrate.model.documents.state import ModelState
from tokmigrate.model.formats.gguf import GgufHeader, Head, Value
from tokmigrate.model.formats.gguf_reading import read_head
from tokmigrate.model.gguf_vocabulary import AGAIN, check_vocabulary, migrate_pairs
from tokmigrate.model.snapshot import Snapshot
from tokmigrate.model.weights.tensor_rows import Geometry, TensorRows, digest_samples
from tokmigrate.model.weights.vocabulary_tensor import VocabularyTensor
from tokmigrate.model.weights.weights import read_identity
from tokmigrate.vocabulary.row_edit import WHOLE

REVISION, LINEAGE = "tokmigrate.revision", "tokmigrate.lineage"
"""The keys by which a migrated GGUF says where it is: what `tokmigrate.json` is to a model."""
PADDING = "tokmigrate.padding"
"""The key of spaces that let the data begin at the same place of a block as before."""

_KINDS: Mapping[int, tuple[str, int, int]] = {
    0: ("F32", 4, 1),
    1: ("F16", 2, 1),
    8: ("Q8_0", 34, 32),
    30: ("BF16", 2, 1),
}
"""By ggml's number of a kind its name, and how many bytes hold how many numbers."""
_NAMES = ("Q4_0", "Q4_1", "", "", "Q5_0", "Q5_1", "", "", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K")
_REFUSED_KINDS = {number: name for number, name in enumerate(_NAMES, 2) if name}
"""By ggml's number the names of common kinds of which no new row is computed."""


@dataclass(frozen=True)
class CopiedTensor:
    """A tensor of a GGUF with a row for each id.

    Args:
        kind: How its numbers are stored: F32, F16, BF16 or Q8_0.
        row_bytes: The bytes of a row.
        of: The tensor of the model whose rows it has.
    """

    name: str
    kind: str
    row_bytes: int
    of: VocabularyTensor


@dataclass(frozen=True)
class GgufCopy:
    """A GGUF as it is.

    Args:
        identity: Device, inode and times: equal only where its bytes are the same.
        digest: That of its head and of samples of its data.
    """

    path: Path
    head: Head = field(repr=False)
    identity: tuple[int, ...]
    tensors: tuple[CopiedTensor, ...]
    digest: str

    @property
    def lineage(self) -> str:
        """What names it in undo records: its digest before its first migration."""
        return self.head.text(LINEAGE) or self.digest

    @property
    def revision(self) -> str | None:
        """The revision that it names, None where it was never migrated."""
        return self.head.text(REVISION)

    @property
    def generation(self) -> str:
        """What `read_generation` returns for it."""
        return f"{self.digest}.{self.identity[2]}"

    @property
    def is_untouched(self) -> bool:
        """Whether the file is still this one."""
        with storage_errors("look at the GGUF", self.path):
            return read_identity(self.path) == self.identity

    @cached_property
    def row_bytes(self) -> Mapping[str, int]:
        return {tensor.name: tensor.row_bytes for tensor in self.tensors}

    @cached_property
    def header(self) -> GgufHeader:
        """Where its tensors are."""
        return self.layout(self.head)

    def layout(self, head: Head) -> GgufHeader:
        """Return where its tensors are under another head."""
        return head.layout(self.row_bytes, str(self.path))

    def open_rows(self, tensor: str) -> TensorRows:
        """Open the rows of one of its tensors, as they are stored."""
        entry = self.header.entry(tensor)
        return TensorRows(self.path, self.header.data_start + entry.begin, Geometry.of(entry.shape, "U8", 0), "U8")

    def rows_of(self, rows: int) -> dict[str, VocabularyTensor]:
        """Return its tensors as what a shard has, where they have so many rows."""
        return {
            tensor.name: VocabularyTensor(
                name=tensor.name,
                file=self.path.name,
                axis=0,
                side=tensor.of.side,
                dtype="U8",
                shape=(rows, tensor.row_bytes),
                canonical=tensor.name,
            )
            for tensor in self.tensors
        }

    def migrate(self, head: Head, before: ModelState, after: ModelState, revision: str) -> Head:
        """Return the head after a migration, in terms of the one before.

        Raises:
            OperationError: The migration changes what a GGUF cannot express.
        """
        where = str(self.path)
        pairs = migrate_pairs(head, before, after, where)
        named = {LINEAGE: Value.of_text(self.lineage), REVISION: Value.of_text(revision)}
        migrated = head.with_pairs({**pairs, **named})
        if after.rows != before.rows:
            migrated = migrated.with_rows(self.row_bytes, after.rows)
        check_vocabulary(migrated, after, where)
        run = self._find_longest_run()
        return migrated if run is None else migrated.with_start_of(*run, PADDING)

    def _find_longest_run(self) -> tuple[str, int] | None:
        """Return the first tensor of the longest run of those that no migration changes, and where it begins."""
        runs = [
            list(entries)
            for changes, entries in groupby(self.header.by_offset, lambda entry: entry.name in self.row_bytes)
            if not changes
        ]
        longest = max(runs, key=lambda entries: entries[-1].end - entries[0].begin, default=None)
        return None if longest is None else (longest[0].name, self.header.data_start + longest[0].begin)


def read_generation(path: Path, head: Head | None = None) -> str:
    """Return what names a GGUF as it is, and no other that is put in its place; errors are those of `read_head`.

    Args:
        head: Its head, where it was read.
    """
    written = read_identity(path)[2]
    return f"{_compute_digest(path, head or read_head(path))}.{written}"


def take_gguf(path: Path, base: Snapshot) -> GgufCopy:
    """Read a GGUF that was made from a model.

    Raises:
        ModelError: It cannot be changed, or is not of this model.
        DriftError: It is at another revision than the model.
        OutOfStepError: It has other tokens or rows than the model.
        UnexplainedTensorError: A dimension of a tensor is as long as the vocabulary, and nothing explains it.
    """
    where = str(path)
    check_is_file(path)
    identity = read_identity(path)
    head = read_head(path)
    if "split.count" in head.pairs and head.pairs["split.count"].numbers != (1,):
        message = "it is one of several parts of a GGUF, which cannot be changed together"
        raise ModelError(message, where=where, hint="join them with llama.cpp's `llama-gguf-split --merge`")
    if head.text("general.type") not in (None, "model"):
        raise ModelError(f"it holds no model, but: {head.text('general.type')}", where=where, hint=AGAIN)
    revision = head.text(REVISION)
    if revision not in (None, base.revision):
        raise DriftError(
            f"the GGUF is at revision {revision}, its model at {base.revision or 'base'}",
            where=where,
            hint=f"convert the model as it is now; or {AGAIN}",
        )
    check_vocabulary(head, base.state, where)
    tensors = tuple(_match_tensors(head, base, where))
    return GgufCopy(path, head, identity, tensors, _compute_digest(path, head))


def check_is_file(path: Path) -> None:
    """Raise StorageError where a GGUF that has to follow is not there, is no regular file, or may not be renamed."""
    with storage_errors("look at the GGUF", path):
        mode = path.lstat().st_mode
    if not stat.S_ISREG(mode):
        hint = "name the file itself under `copies:`" if stat.S_ISLNK(mode) else "name a .gguf file under `copies:`"
        raise StorageError("a GGUF that follows has to be a regular file", where=str(path), hint=hint)
    refuse_fixed(path)


def _compute_digest(path: Path, head: Head) -> str:
    return digest_samples(path, head.file_size, f"gguf 1\n{head.file_size}\n".encode() + head.raw)


def _match_tensors(head: Head, base: Snapshot, where: str) -> Iterator[CopiedTensor]:
    """Yield the tensors of a GGUF with a row for each id, each with that of the model."""
    sources = _sources(base)
    names = {tensor.name for tensor in head.tensors}
    found: set[str] = set()
    for tensor in head.tensors:
        of = sources.get(tensor.name)
        if of is None:
            if base.state.rows in tensor.dimensions:
                raise UnexplainedTensorError(
                    f"whether '{tensor.name}' {list(tensor.dimensions)} has rows of the vocabulary is not known",
                    where=where,
                    hint=AGAIN,
                )
            continue
        expected = tuple(reversed(of.shape))
        if tensor.dimensions != expected:
            message = f"the tensor '{tensor.name}' is {list(tensor.dimensions)}, and that of the model {list(expected)}"
            raise OutOfStepError(message, where=where, hint=f"convert the model as it is now; or {AGAIN}")
        name, size, numbers = _KINDS.get(tensor.kind, ("", 0, 1))
        width = of.width
        if not size or width % numbers:
            kind = _REFUSED_KINDS.get(tensor.kind, f"the ggml type {tensor.kind}")
            raise ModelError(
                f"'{tensor.name}' is stored as {kind}: new rows can be F32, F16, BF16 or Q8_0",
                where=where,
                hint="quantize with `--token-embedding-type q8_0 --output-tensor-type q8_0`, or " + AGAIN,
            )
        found.add(of.canonical)
        yield CopiedTensor(tensor.name, name, width // numbers * size, of)
    for of in base.tensors:
        if of.canonical not in found:
            missing = next((name for name, each in sources.items() if each is of and name not in names), None)
            what = f"it has no '{missing}'" if missing else "what of the GGUF it became is not known"
            raise OutOfStepError(
                f"'{of.name}' of the model has rows of the vocabulary, and {what}", where=where, hint=AGAIN
            )


def _sources(base: Snapshot) -> dict[str, VocabularyTensor]:
    """Return the model's tensors by the names that the converter gives them; only what is certain."""
    plain = [
        each
        for each in base.tensors
        if each.canonical == each.name and each.window == WHOLE and each.axis == 0 and not (each.is_table or each.adds)
    ]
    inputs = [each for each in plain if each.embeds and len(each.shape) == 2]
    outputs = [each for each in plain if each.side == "output" and len(each.shape) == 2] or inputs
    biases = [each for each in plain if each.side == "output" and len(each.shape) == 1]
    named = {"token_embd.weight": inputs, "output.weight": outputs, "output.bias": biases}
    return {name: of[0] for name, of in named.items() if len(of) == 1}

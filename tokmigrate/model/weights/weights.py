"""The weights of a model directory: which safetensors files it has, and which tensor is in which.

The names are those that transformers loads: `model.safetensors`, or `model.safetensors.index.json` with
the shards that it names.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tokmigrate.errors import ModelError, StorageError, WeightsError, suggest
from tokmigrate.files import MissingFileError, entries, open_for_reading, read_file
from tokmigrate.formatting import format_list
from tokmigrate.model.formats import json_text
from tokmigrate.model.formats.safetensors_header import Header, TensorEntry, read_header
from tokmigrate.model.model_files import real_name
from tokmigrate.model.weights.tensor_rows import Geometry, TensorRows, digest_range

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
ADAPTER = "adapter_model.safetensors"
_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
WEIGHT_FILES = (".safetensors", ".gguf", ".onnx", ".h5", ".msgpack", ".npz", *_PICKLED)
"""How the names of files end that may be weights."""
_POINTER = b"version https://git-lfs.github.com/spec/"
_SHARD = re.compile(r"-\d{5}-of-\d{5}\.safetensors$")
_SAVE_AGAIN = "save the model again"
_WITHOUT = "without weights there are `lint`, `lock`, `rebase`, `squash` and `test`"
_CONVERT = """\
import shutil, transformers as t
old, new = {old}, {new}
shutil.copytree(old, new, ignore=shutil.ignore_patterns("*.bin*", "*.pt", "*.pth", "*.ckpt", "*.pkl"))
config = t.AutoConfig.from_pretrained(old)
model = getattr(t, (config.architectures or ["AutoModel"])[0]).from_pretrained(old, dtype="auto")
model.save_pretrained(new)"""


@dataclass(frozen=True)
class Shard:
    """One safetensors file of a model.

    Args:
        identity: Device, inode, times of its last write and last change: equal only where its bytes are the same.
    """

    file: str
    header: Header
    size: int
    identity: tuple[int, ...]

    def extent(self, entry: TensorEntry) -> tuple[int, int]:
        """Return where a tensor begins and ends in the file, in bytes from the file's start."""
        return self.header.data_start + entry.begin, self.header.data_start + entry.end


@dataclass(frozen=True)
class Weights:
    """All tensors of a model.

    Args:
        index: The name of the index file, None where there is one file without index.
        unread: Other weight files beside them, and a dead index, which transformers would not load.
    """

    directory: Path
    shards: tuple[Shard, ...]
    index: str | None = None
    unread: tuple[str, ...] = ()

    @cached_property
    def files(self) -> frozenset[str]:
        """The names of the shards."""
        return frozenset(shard.file for shard in self.shards)

    @cached_property
    def _by_name(self) -> dict[str, tuple[Shard, TensorEntry]]:
        return {entry.name: (shard, entry) for shard, entry in self.tensors()}

    @cached_property
    def _digests(self) -> dict[str, str]:
        return {}

    def digest(self, name: str) -> str:
        """Return the digest of the bytes of a tensor, which is read once."""
        if name not in self._digests:
            shard, entry = self.tensor(name)
            self._digests[name] = digest_range(self.path(shard), *shard.extent(entry))
        return self._digests[name]

    def tensors(self) -> Iterator[tuple[Shard, TensorEntry]]:
        """Yield every tensor with its shard, in the order of the files and of their data."""
        for shard in self.shards:
            for entry in shard.header.by_offset:
                yield shard, entry

    def tensor(self, name: str) -> tuple[Shard, TensorEntry]:
        """Return the tensor `name` and the shard that it is in; raises WeightsError where there is none."""
        found = self._by_name.get(name)
        if found is None:
            raise WeightsError(
                f"the model has no tensor '{name}'", where=str(self.directory), hint=suggest(name, self._by_name)
            )
        return found

    def open_rows(self, name: str, axis: int = 0) -> TensorRows:
        """Open the rows of the tensor `name`, whose vocabulary axis is `axis`."""
        shard, entry = self.tensor(name)
        begin, _ = shard.extent(entry)
        return TensorRows(self.path(shard), begin, Geometry.of(entry.shape, entry.dtype, axis), entry.dtype)

    def shard(self, file: str) -> Shard:
        return next(shard for shard in self.shards if shard.file == file)

    def path(self, shard: Shard) -> Path:
        return self.directory / shard.file


def read_weights(directory: Path) -> Weights:
    """Read the headers of a model's weights and check that they agree with its index.

    Raises:
        WeightsError: There are no weights, only pickled ones, or files that contradict each other.
        StorageError: The directory is a Hugging Face cache snapshot or cannot be read.
    """
    names = _names(directory)
    has_single, has_index = SINGLE in names, INDEX in names
    # Saving a model again in one file leaves an index of files that are not there.
    if has_single and has_index and not set(_read_weight_map(directory).values()).isdisjoint(names):
        raise WeightsError(
            f"both {SINGLE} and {INDEX} are there, and readers disagree on which of them counts",
            where=str(directory),
            hint="move the stale one away (transformers loads the file and ignores the index)",
        )
    if has_single:
        shards: tuple[Shard, ...] = (_shard(directory, SINGLE),)
        index = None
    elif has_index:
        index = INDEX
        shards = _read_indexed_shards(directory, _read_weight_map(directory))
    else:
        raise _without_weights(directory, names)
    read = {index, *(shard.file for shard in shards)}
    unread = tuple(name for name in names if name.endswith((*WEIGHT_FILES, INDEX)) and name not in read)
    return Weights(directory, shards, index, unread)


def read_adapter_weights(directory: Path) -> Weights:
    """Read the header of the weights of a peft adapter; errors are those of `read_weights`."""
    names = _names(directory)
    if ADAPTER not in names:
        message = _describe_pickled(names) or "no weights"
        raise WeightsError(message, where=str(directory), hint=f"save the adapter with peft, which writes {ADAPTER}")
    return Weights(directory, (_shard(directory, ADAPTER),))


def is_pointer(path: Path) -> bool:
    """Return whether a file is what Git LFS leaves in the place of one that was not fetched."""
    try:
        with open_for_reading(path) as file:
            return file.read(len(_POINTER)) == _POINTER
    except StorageError:
        return False


def _names(directory: Path) -> tuple[str, ...]:
    try:
        return tuple(path.name for path in entries(directory))
    except MissingFileError as error:
        raise ModelError("no such directory", where=str(directory), hint="check the model's path") from error


def _describe_pickled(names: tuple[str, ...]) -> str | None:
    pickled = [name for name in names if name.endswith(_PICKLED)]
    return f"only pickled weights ({format_list(pickled, 4)}): refused, and never unpickled" if pickled else None


def _without_weights(directory: Path, names: tuple[str, ...]) -> WeightsError:
    pickled = _describe_pickled(names)
    others = [name for name in names if name.endswith(".safetensors")]
    if others:
        return WeightsError(
            f"neither {SINGLE} nor {INDEX} is there, only {format_list(others, 4)}",
            where=str(directory),
            hint=f"fetch {INDEX}, which belongs to these shards, or save the model again"
            if all(_SHARD.search(name) for name in others)
            else f"rename the file to {SINGLE} if it is the whole model",
        )
    if pickled:
        return WeightsError(pickled, where=str(directory), hint=_to_safetensors(directory))
    return WeightsError(
        f"no weights: neither {SINGLE} nor {INDEX} is there",
        where=str(directory),
        hint=f"name the directory that transformers would load the model from; {_WITHOUT}",
    )


def _to_safetensors(directory: Path) -> str:
    new = f"{directory}-safetensors"
    code = "; ".join(_CONVERT.format(old=json.dumps(str(directory)), new=json.dumps(new)).splitlines())
    return (
        f"if you trust the file, convert it into a new directory and list that in tokmigrate.yaml: python -c"
        f" {shlex.quote(code)}"
    )


def _shard(directory: Path, file: str) -> Shard:
    real_name(directory, file)
    if is_pointer(directory / file):
        raise WeightsError(
            "Git LFS left a pointer in its place: the weights are not here",
            where=str(directory / file),
            hint=f"`git lfs pull` fetches them; {_WITHOUT}",
        )
    header = read_header(directory / file)
    # Before rows are read. A program can set the time of the last write back, but not the time of the last change.
    return Shard(file, header, header.file_size, read_identity(directory / file))


def read_identity(path: Path) -> tuple[int, ...]:
    """Return device, inode, and times of the last write and the last change of a file."""
    status = path.stat()
    return (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns)


def _read_weight_map(directory: Path) -> Mapping[str, str]:
    real_name(directory, INDEX)
    where = str(directory / INDEX)
    try:
        document = json_text.parse(read_file(directory / INDEX).decode("utf-8"), where)
    except UnicodeDecodeError as error:
        raise WeightsError("the index is not UTF-8", where=where, hint=_SAVE_AGAIN) from error
    except ModelError as error:
        raise WeightsError(error.message, where=error.where, hint=error.hint) from error
    held = document.get("weight_map") if isinstance(document, dict) else None
    if not held or not isinstance(held, dict) or not all(isinstance(file, str) for file in held.values()):
        raise WeightsError("the index has no weight_map from tensors to files", where=where, hint=_SAVE_AGAIN)
    for tensor, file in held.items():
        _check_shard_name(file, tensor, where)
    return dict(held)


def _check_shard_name(file: str, tensor: str, where: str) -> None:
    # A name from a downloaded file must not reach anything outside the directory.
    if file in {"", ".", ".."} or any(character in file for character in "/\\\0"):
        raise WeightsError(
            f"the index puts tensor {tensor!r} into {file!r}, which is not a file of this directory",
            where=where,
            hint="a shard is named by its plain file name",
        )
    if not file.endswith(".safetensors"):
        raise WeightsError(
            f"the index puts tensor {tensor!r} into {file!r}, which is not a safetensors file",
            where=where,
            hint=_to_safetensors(Path(where).parent),
        )


def _read_indexed_shards(directory: Path, weight_map: Mapping[str, str]) -> tuple[Shard, ...]:
    where = str(directory / INDEX)
    files = sorted(set(weight_map.values()))
    for file in files:
        if not os.path.lexists(directory / file):
            raise WeightsError(f"the shard {file} is missing", where=where, hint="fetch it, or save the model again")
    shards = tuple(_shard(directory, file) for file in files)
    found: dict[str, str] = {}
    for shard in shards:
        for entry in shard.header.entries:
            if entry.name in found:
                raise WeightsError(
                    f"the tensor {entry.name!r} is in {found[entry.name]} and in {shard.file}",
                    where=str(directory),
                    hint="save the model again: readers would take either one",
                )
            found[entry.name] = shard.file
    for tensor in (*weight_map, *found):
        listed, held = weight_map.get(tensor), found.get(tensor)
        if listed is None:
            fault = f"the tensor {tensor!r} of {held} is not in the index"
        else:
            fault = f"the index puts tensor {tensor!r} into {listed}, but {held or 'no shard'} has it"
        if listed != held:
            raise WeightsError(fault, where=where, hint="index and shards are from different saves: fetch both again")
    return shards

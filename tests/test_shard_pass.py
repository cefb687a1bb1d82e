"""One pass over a shard: what it digests, sums and hands on, by any number of threads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from tokmigrate.apply.digests import read_shard_digest
from tokmigrate.apply.shard_pass import Contents, read_shard
from tokmigrate.apply.shard_writer import ShardWriter
from tokmigrate.init.statistics import RowStatistics
from tokmigrate.model.formats.dtype import from_float64
from tokmigrate.model.formats.safetensors_header import read_header
from tokmigrate.model.weights.vocabulary_tensor import VocabularyTensor
from tokmigrate.vocabulary.row_edit import CopiedRows, NewRow, RestoredRow, RowEdit

ROWS, WIDTH = 5000, 300
TENSORS = {
    "embed": VocabularyTensor("embed", "f", 0, "input", "BF16", (ROWS, WIDTH), "embed"),
    "across": VocabularyTensor("across", "f", 1, "output", "F32", (3, ROWS), "across"),
    "bias": VocabularyTensor("bias", "f", 0, "output", "F16", (ROWS,), "bias"),
}


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a shard of 23 MB, which several threads read."""
    path = tmp_path_factory.mktemp("shard") / "model.safetensors"
    chance = np.random.default_rng(0)
    data = {
        "first": ("U8", (9_000_000,), chance.integers(0, 256, 9_000_000, np.uint8).tobytes()),
        "embed": ("BF16", (ROWS, WIDTH), from_float64(chance.standard_normal((ROWS, WIDTH)), "BF16")),
        "second": ("U8", (11_000_000,), chance.integers(0, 256, 11_000_000, np.uint8).tobytes()),
        "across": ("F32", (3, ROWS), chance.standard_normal((3, ROWS)).astype("<f4").tobytes()),
        "bias": ("F16", (ROWS,), chance.standard_normal(ROWS).astype("<f2").tobytes()),
    }
    header, position = {}, 0
    for name, (dtype, shape, octets) in data.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [position, position + len(octets)]}
        position += len(octets)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(octets for _, _, octets in data.values()))
    return path


def found(path: Path, **means: list[tuple[int, int]]) -> Contents:
    return read_shard(path, read_header(path), TENSORS, means)


def test_every_row_and_tensor_has_its_digest(shard: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    octets, header = shard.read_bytes(), read_header(shard)
    for cores in (1, 3):
        monkeypatch.setattr("tokmigrate.parallel.count_cores", lambda cores=cores: cores)
        contents = found(shard)
        for entry in header.entries:
            data = octets[header.data_start + entry.begin : header.data_start + entry.end]
            if entry.name not in TENSORS:
                assert contents.fixed[entry.name] == blake3(data).hexdigest()
                continue
            rows = np.frombuffer(data, np.uint8).reshape(ROWS, -1)
            if entry.name == "across":
                rows = np.frombuffer(data, "<f4").reshape(3, ROWS).T.copy().view(np.uint8)
            assert contents.tables[entry.name] == b"".join(blake3(row.tobytes()).digest() for row in rows)


runs = st.lists(st.tuples(st.integers(0, 49), st.integers(1, 30)), min_size=1, max_size=8).map(
    lambda found: [(start * 100, start * 100 + length) for start, length in dict(found).items()]
)


@given(runs)
@settings(deadline=None, max_examples=10)
def test_means_are_those_of_the_statistics(shard: Path, population: list[tuple[int, int]]) -> None:
    header = read_header(shard)
    everything = np.frombuffer(shard.read_bytes(), np.uint8)
    for name, dtype, width in (("embed", "BF16", WIDTH), ("bias", "F16", 1)):
        entry = header.entry(name)
        rows = everything[header.data_start + entry.begin : header.data_start + entry.end].reshape(ROWS, -1)
        for wanted in (population, [(0, ROWS)], [(3000, 4500), (0, 1300)]):
            read = RowStatistics(
                lambda runs, rows=rows: np.concatenate([rows[start:stop] for start, stop in runs]), dtype, wanted, width
            )
            contents = found(shard, **{name: wanted})
            assert contents.means[name].tobytes() == read.mean.tobytes()
            assert contents.tables == found(shard).tables


def test_a_byte_in_another_place_is_seen(shard: Path, tmp_path: Path) -> None:
    header, copy = read_header(shard), tmp_path / "copy"
    edit = RowEdit(ROWS, (CopiedRows(0, 10), NewRow(RestoredRow("record", 0)), CopiedRows(10, ROWS)))
    longer = header.reshape({name: tensor.with_ids(ROWS + 1).shape for name, tensor in TENSORS.items()}, 100)
    new = {"embed": bytes(2 * WIDTH), "across": bytes(12), "bias": bytes(2)}
    writer = ShardWriter(copy, longer, TENSORS, edit)
    with writer:
        writer.start({shard: header})
        read_shard(shard, header, TENSORS, writers=[writer])
    assert writer.digest() != read_shard_digest(copy, TENSORS, ROWS + 1)
    with writer:
        writer.put_new_rows(lambda name, _: new[name])
    assert writer.digest() == read_shard_digest(copy, TENSORS, ROWS + 1)
    assert writer.is_in_place({shard: header})
    octets = copy.read_bytes()
    for entry in longer.entries:
        for place in (longer.data_start + entry.begin, longer.data_start + entry.end - 1):
            copy.write_bytes(octets[:place] + bytes([octets[place] ^ 1]) + octets[place + 1 :])
            assert not writer.is_in_place({shard: header}), entry.name

"""The head of a GGUF: read as the `gguf` package reads it, written back to the bytes, and damage is an error."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf_files import convert
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from workspaces import DEMO

from tokmigrate.errors import WeightsError
from tokmigrate.model.formats.gguf import Head, Value
from tokmigrate.model.formats.gguf_reading import parse_head, read_head

NAMES = ("token_embd.weight", "output.weight", "blk.0.a", "blk.0.b", "blk.1.a")
VALUES: dict[str, Any] = {
    "add_uint8": st.integers(0, 255),
    "add_int8": st.integers(-128, 127),
    "add_uint16": st.integers(0, 65535),
    "add_int32": st.integers(-(2**31), 2**31 - 1),
    "add_uint64": st.integers(0, 2**64 - 1),
    "add_float32": st.floats(width=32, allow_nan=False),
    "add_float64": st.floats(allow_nan=False),
    "add_bool": st.booleans(),
    "add_string": st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
    "add_array": st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=5)
    | st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=5)
    | st.lists(st.booleans(), min_size=1, max_size=5),
}
PAIRS = st.lists(st.sampled_from(sorted(VALUES)).flatmap(lambda add: st.tuples(st.just(add), VALUES[add])), max_size=12)


@st.composite
def files(draw: st.DrawFn) -> tuple[list[tuple[str, Any]], list[tuple[str, np.ndarray[Any, Any]]], int | None]:
    """Draw values, tensors and the alignment of a file; the first two tensors have rows of four numbers."""
    names = draw(st.permutations(NAMES[: draw(st.integers(1, len(NAMES)))]))
    rows = draw(st.integers(1, 40))
    drawn = []
    for name in names:
        dtype = draw(st.sampled_from([np.float32, np.float16]))
        shape = (rows, 4) if name in NAMES[:2] else tuple(draw(st.lists(st.integers(1, 9), min_size=1, max_size=3)))
        drawn.append((name, np.arange(np.prod(shape), dtype=dtype).reshape(shape)))
    return draw(PAIRS), drawn, draw(st.sampled_from([None, 8, 32, 64, 4096]))


def write(path: Path, drawn: Any) -> dict[str, np.ndarray[Any, Any]]:
    pairs, tensors, alignment = drawn
    writer = gguf.GGUFWriter(path, "test")
    if alignment:
        writer.add_custom_alignment(alignment)
    for number, (add, value) in enumerate(pairs):
        getattr(writer, add)(f"key.{number}", value)
    for name, values in tensors:
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return dict(tensors)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=files(), rows=st.integers(1, 60))
def test_a_head_is_read_as_the_package_reads_it_and_may_be_changed(tmp_path: Path, drawn: Any, rows: int) -> None:
    path = tmp_path / "a.gguf"
    tensors = write(path, drawn)
    data, head, read = path.read_bytes(), read_head(path), gguf.GGUFReader(path)
    assert data.startswith(head.raw)
    assert len(head.raw) == read.data_offset
    fields = {key: field for key, field in read.fields.items() if not key.startswith("GGUF.")}
    assert list(fields) == list(head.pairs)
    for key, value in head.pairs.items():
        items = value.texts or value.numbers
        found = fields[key].contents()
        assert list(items) == (found if value.count is not None else [found])
    assert {each.name: each.dimensions[::-1] for each in head.tensors} == {
        name: values.shape for name, values in tensors.items()
    }
    sizes = {name: values.itemsize * 4 for name, values in tensors.items() if name in NAMES[:2]}
    header = head.layout(sizes, "")
    for name, values in tensors.items():
        begin = header.data_start + header.entry(name).begin
        assert data[begin : begin + values.nbytes] == values.tobytes()

    changed = head.with_pairs({"key.new": Value.of_texts(["a", "é"]), "key.0": None}).with_rows(sizes, rows)
    moved = changed.layout(sizes, "")
    after = bytearray(moved.raw + bytes(changed.data_size))
    for entry in moved.entries:
        kept = data[header.data_start + header.entry(entry.name).begin :][: len(entry)]
        place = moved.data_start + entry.begin
        after[place : place + len(kept)] = kept
    path.write_bytes(after)
    again = gguf.GGUFReader(path)
    assert again.fields["key.new"].contents() == ["a", "é"]
    assert "key.0" not in again.fields
    for tensor in again.tensors:
        before = tensors[tensor.name]
        if tensor.name in sizes:
            least = min(rows, len(before))
            assert tensor.data.shape == (rows, 4)
            assert np.array_equal(tensor.data[:least], before[:least])
        else:
            assert np.array_equal(tensor.data, before)
    assert read_head(path) == changed
    back = changed.with_pairs(dict.fromkeys(changed.pairs)).with_pairs(head.pairs)
    assert back.with_rows(sizes, head_rows(head)).raw == head.raw


def head_rows(head: Head) -> int:
    return next((each.dimensions[-1] for each in head.tensors if each.name in NAMES[:2]), 0)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return convert(DEMO, tmp_path_factory.mktemp("gguf") / "demo.gguf").read_bytes()


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_damaged_head_is_an_error_or_another_head(demo: bytes, data: st.DataObject) -> None:
    size = len(parse_head(demo, len(demo), "").raw)
    damaged = bytearray(demo[: data.draw(st.sampled_from([len(demo), size, size - 1, 23, 0]))])
    for _ in range(data.draw(st.integers(1, 3))):
        # Mostly where lengths are: at the beginning, and in the list of tensors at the end.
        place = data.draw(st.integers(0, 400) | st.integers(size - 3000, size))
        if place + 8 <= len(damaged):
            number = data.draw(st.sampled_from([0, 1, 9, 2**31, 2**63, 2**64 - 1]) | st.integers(0, 2**64 - 1))
            width = data.draw(st.sampled_from([1, 4, 8]))
            damaged[place : place + width] = number.to_bytes(8, "little")[:width]
    with suppress(WeightsError):
        assert damaged.startswith(parse_head(bytes(damaged), len(damaged), "x.gguf").raw)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "too few"),
        (b"GGUF" + bytes(20), "big-endian"),
        (b"GGUF" + (1).to_bytes(4, "little") + bytes(16), "version 1"),
        (b"GGUF" + (3).to_bytes(4, "big") + bytes(16), "big-endian"),
        (b"GGUF" + (3).to_bytes(4, "little") + b"\xff" * 16, "it names"),
    ],
)
def test_what_is_no_gguf_says_why(data: bytes, message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        parse_head(data, len(data), "x.gguf")

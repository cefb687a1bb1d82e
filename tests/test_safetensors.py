"""Headers: the safetensors library's own verdicts, its files, and files written back for it."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors import deserialize as _deserialize
from safetensors.numpy import save

from tokmigrate.errors import WeightsError
from tokmigrate.model.formats.safetensors_header import Header, encode_header, parse_header, read_header

deserialize: Any = _deserialize

PEER_CASES = Path(__file__).resolve().parents[2] / "shared/data/peer_cases/safetensors_malformed.json"
NUMPY_NAMES = {"BOOL": "bool", "U8": "uint8", "F16": "float16", "F32": "float32", "I64": "int64"}
BYTES = {"BOOL": 1, "U8": 1, "F16": 2, "F32": 4, "I64": 8}

# What the library accepts and this reader refuses, by the case's first words.
STRICTER = ("leading JSON whitespace padding", "OURS duplicate key")


def file_bytes(text: str | bytes, data: bytes = b"") -> bytes:
    octets = text if isinstance(text, bytes) else text.encode()
    return struct.pack("<Q", len(octets)) + octets + data


def one_tensor(name: str = '"a"', **fields: str) -> bytes:
    members = {"dtype": '"U8"', "shape": "[2]", "data_offsets": "[0,2]"} | fields
    body = ",".join(f'"{field}":{value}' for field, value in members.items() if value)
    return file_bytes(f"{{{name}:{{{body}}}}}", b"ab")


def parsed(octets: bytes) -> Header:
    return parse_header(octets, len(octets), "m.safetensors")


def library_accepts(octets: bytes) -> bool:
    try:
        deserialize(octets)
    except SafetensorError:
        return False
    return True


def peer_cases() -> list[Any]:
    if not PEER_CASES.exists():
        reason = pytest.mark.skip(reason="the collected peer cases are not beside the checkout")
        return [pytest.param(None, marks=reason)]
    return [pytest.param(case, id=case["case"]) for case in json.loads(PEER_CASES.read_text())]


@pytest.mark.parametrize("case", peer_cases())
def test_agrees_with_the_library_on_collected_cases(case: dict[str, str]) -> None:
    octets = bytes.fromhex(case["hex"])
    accepted = case["measured_safetensors_0_8_0"].startswith("ok")
    assert library_accepts(octets) == accepted
    if accepted and not case["case"].startswith(STRICTER):
        assert parsed(octets).file_size == len(octets)
    else:
        with pytest.raises(WeightsError) as caught:
            parsed(octets)
        assert caught.value.where == "m.safetensors"
        assert caught.value.hint


@pytest.mark.parametrize(
    ("octets", "message"),
    [
        (one_tensor(shape="[2.0]"), "not an integer"),
        (one_tensor(shape="[2e0]"), "not an integer"),
        (one_tensor(shape="[true,2]"), "not a list of integers"),
        (one_tensor(shape="[NaN]"), "not JSON"),
        (one_tensor(shape="[-2]"), "unsigned"),
        (one_tensor(data_offsets="[-0,2]"), "unsigned"),
        (one_tensor(shape=f"[{'9' * 5000}]"), "unsigned"),
        (one_tensor(shape="[18446744073709551616]"), "unsigned"),
        (one_tensor(shape="2"), "not a list"),
        (one_tensor(shape="[18446744073709551615,2,0]"), "64 bits"),
        (one_tensor(data_offsets="[0,1,2]"), "not a range"),
        (one_tensor(data_offsets="[2,0]"), "not a range"),
        (one_tensor(data_offsets=""), "missing"),
        (one_tensor(dtype='"U9"'), "unknown dtype"),
        (one_tensor(dtype="[]"), "unknown dtype"),
        (one_tensor(dtype='"F4"', shape="[3]"), "whole byte"),
        (one_tensor(name=r'"\ud800"'), "surrogate"),
        (file_bytes('{"__metadata__":{"a":1}}'), "not an object that holds strings"),
        (file_bytes('{"__metadata__":[]}'), "not an object"),
        (file_bytes("[]"), "begin with"),
        (file_bytes(""), "begin with"),
        (file_bytes('{"a":null}'), "not an object"),
        (file_bytes("{} x"), "not JSON"),
        (file_bytes("{}\0"), "not JSON"),
        (file_bytes('{"a":"' + "\n" + '"}'), "not JSON"),
        (file_bytes('{"a":' + "[" * 100_000), "nested too deeply"),
    ],
)
def test_refuses_what_the_library_refuses(octets: bytes, message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        parsed(octets)
    # A part of a byte is noticed by the library only when the tensor is taken.
    assert b'"F4"' in octets or not library_accepts(octets)


@pytest.mark.parametrize(
    ("octets", "message"),
    [
        (one_tensor(extra="1"), "'extra' is not one of"),
        (one_tensor(name=r'"a\u0000"'), "control character"),
        (one_tensor(name=r'"a\u001b[2J"'), "control character"),
        (file_bytes('{"a":["U8",[2],[0,2]]}', b"ab"), "not an object"),
        (file_bytes('{"__metadata__":null}'), "not an object"),
        (file_bytes('{"__metadata__":{"a":"1","a":"2"}}'), "'a' twice"),
    ],
)
def test_is_stricter_where_a_rewritten_header_would_lose_something(octets: bytes, message: str) -> None:
    assert library_accepts(octets)
    with pytest.raises(WeightsError, match=message):
        parsed(octets)


def test_an_empty_name_is_a_name() -> None:
    assert parsed(one_tensor(name='""')).entry("").shape == (2,)


def test_an_error_names_file_tensor_and_remedy(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(one_tensor(name='"lm_head.weight"', shape="[3]"))
    with pytest.raises(WeightsError, match=r"lm_head\.weight.*takes 3 bytes") as caught:
        read_header(path)
    assert caught.value.where == str(path)
    assert caught.value.hint


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    whole = one_tensor()
    path = tmp_path / "model.safetensors"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(WeightsError):
            read_header(path)
    path.write_bytes(whole)
    assert read_header(path).data_size == 2


def test_a_missing_file_and_a_prefix_that_is_too_short() -> None:
    with pytest.raises(WeightsError, match="missing"):
        read_header(Path("/nowhere/model.safetensors"))
    with pytest.raises(WeightsError, match="ends inside its header"):
        parse_header(one_tensor()[:20], len(one_tensor()), "m")


def test_an_unknown_tensor_gets_the_nearest_name() -> None:
    with pytest.raises(WeightsError) as caught:
        parsed(one_tensor(name='"lm_head.weight"')).entry("lm_head.wieght")
    assert caught.value.hint == "did you mean 'lm_head.weight'?"


def test_a_tensor_without_bytes_is_there() -> None:
    entry = parsed(file_bytes('{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}')).entry("a")
    assert len(entry) == 0
    assert entry


def test_a_header_can_be_hashed() -> None:
    first, second = (parsed(file_bytes('{"__metadata__":{"a":"b"}}')) for _ in range(2))
    assert {first, second} == {first}


names = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12).filter(lambda name: name != "__metadata__")
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
shapes = st.lists(st.integers(0, 5), max_size=3).map(tuple)
tensors = st.dictionaries(names, st.tuples(st.sampled_from(sorted(BYTES)), shapes), max_size=5)
metadata = st.none() | st.dictionaries(texts, texts, max_size=3)


def size_of(dtype: str, shape: tuple[int, ...]) -> int:
    size = BYTES[dtype]
    for dimension in shape:
        size *= dimension
    return size


@given(tensors, metadata)
@settings(deadline=None)
def test_reads_what_the_library_writes_and_writes_the_same(
    wanted: dict[str, tuple[str, tuple[int, ...]]], meta: dict[str, str] | None
) -> None:
    # Without tensors and with empty metadata safetensors 0.8 writes what it cannot read itself.
    assume(wanted or meta != {})
    octets = save({name: np.zeros(shape, NUMPY_NAMES[dtype]) for name, (dtype, shape) in wanted.items()}, meta)
    header = parsed(octets)
    assert {entry.name: (entry.dtype, entry.shape) for entry in header.entries} == wanted
    assert (dict(header.metadata) if header.metadata is not None else None) == meta
    assert header.raw == octets[: header.data_start]
    assert header.reshape({}, header.data_start).raw == header.raw


@given(
    tensors.flatmap(lambda wanted: st.tuples(st.just(wanted), st.permutations(list(wanted)))),
    metadata,
    st.integers(0, 3),
    st.integers(-5000, 5000),
)
@example(({"b": ("F32", (2, 2)), "a": ("U8", (3,))}, ["a", "b"]), {"format": "pt"}, 1, 4093)
@settings(deadline=None)
def test_the_library_reads_what_is_written(
    wanted: tuple[dict[str, tuple[str, tuple[int, ...]]], list[str]],
    meta: dict[str, str] | None,
    metadata_at: int,
    congruent_to: int,
) -> None:
    found, order = wanted
    raw = encode_header(
        [(name, dtype, shape) for name, (dtype, shape) in found.items()],
        meta,
        congruent_to,
        data_order=order,
        metadata_at=metadata_at,
    )
    contents = {name: bytes([at % 251]) * size_of(*found[name]) for at, name in enumerate(order)}
    octets = raw + b"".join(contents[name] for name in order)
    assert (len(raw) - congruent_to) % 4096 == 0
    assert {name: bytes(info["data"]) for name, info in deserialize(octets)} == contents
    header = parsed(octets)
    assert [entry.name for entry in header.entries] == list(found)
    by_offset = [(entry.begin, entry.end) for entry in header.by_offset]
    assert by_offset == sorted(by_offset)
    assert header.reshape({}, len(raw)).raw == raw


def test_every_alignment_opens_with_safetensors_and_torch(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from safetensors import safe_open

    path = tmp_path / "m.safetensors"
    ids = torch.tensor([1, -2])
    weight = torch.tensor([[0.5, -2.0]], dtype=torch.bfloat16)
    data = ids.numpy().tobytes() + weight.view(torch.uint8).numpy().tobytes()
    for congruent_to in (0, 1, 2, 3, 5, 4095):
        path.write_bytes(encode_header([("i", "I64", (2,)), ("w", "BF16", (1, 2))], None, congruent_to) + data)
        with safe_open(path, "pt") as file:
            assert torch.equal(file.get_tensor("i"), ids)
            assert torch.equal(file.get_tensor("w"), weight)


def test_new_shapes_move_the_tensors_behind_and_keep_the_order_of_keys() -> None:
    text = (
        '{"z":{"dtype":"U8","shape":[2],"data_offsets":[4,6]},"__metadata__":{"format":"pt"},'
        '"a":{"dtype":"F16","shape":[2,1],"data_offsets":[0,4]}}'
    )
    header = parsed(file_bytes(text, bytes(6)))
    grown = header.reshape({"a": (5, 1)}, 100)
    assert grown.raw[8:].rstrip() == (
        b'{"z":{"dtype":"U8","shape":[2],"data_offsets":[10,12]},"__metadata__":{"format":"pt"},'
        b'"a":{"dtype":"F16","shape":[5,1],"data_offsets":[0,10]}}'
    )
    assert grown.data_start % 4096 == 100
    assert grown.data_size == 12


def test_writing_refuses_a_wrong_order_and_a_header_beyond_the_limit() -> None:
    with pytest.raises(ValueError, match="once"):
        encode_header([("a", "U8", (1,)), ("a", "U8", (1,))], None, 0)
    with pytest.raises(ValueError, match="once"):
        encode_header([("a", "U8", (1,))], None, 0, data_order=["b"])
    with pytest.raises(WeightsError, match="more than"):
        encode_header([], {"long": "x" * 100_000_000}, 0)

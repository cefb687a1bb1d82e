"""Which files a model's weights are, and every way in which they contradict each other."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from tokmigrate.errors import ModelError, StorageError, WeightsError
from tokmigrate.model.weights.weights import INDEX, SINGLE, read_weights

DEMO = Path(__file__).resolve().parents[1] / "models" / "demo"
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


def save(directory: Path, file: str, **tensors: int) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    save_file({name: np.zeros((rows, 2), np.float32) for name, rows in tensors.items()}, directory / file)
    return directory / file


def write_index(directory: Path, weight_map: Any, **others: Any) -> None:
    (directory / INDEX).write_text(json.dumps({"metadata": {"total_size": 1.5}, "weight_map": weight_map} | others))


def sharded(directory: Path, **moved: str) -> Path:
    save(directory, FIRST, a=3, b=2)
    save(directory, SECOND, c=1)
    write_index(directory, {"a": FIRST, "b": FIRST, "c": SECOND} | moved)
    return directory


def refused(directory: Path, message: str) -> ModelError:
    with pytest.raises(ModelError, match=message) as caught:
        read_weights(directory)
    assert caught.value.hint
    return caught.value


def test_one_file(tmp_path: Path) -> None:
    path = save(tmp_path, SINGLE, a=3)
    weights = read_weights(tmp_path)
    shard, entry = weights.tensor("a")
    assert (shard.file, shard.size, entry.shape) == (SINGLE, path.stat().st_size, (3, 2))
    assert shard.extent(entry) == (shard.size - 24, shard.size)
    assert weights.path(shard) == path
    assert weights.index is None
    with pytest.raises(WeightsError, match="no tensor 'A'"):
        weights.tensor("A")


def test_shards(tmp_path: Path) -> None:
    weights = read_weights(sharded(tmp_path))
    assert [shard.file for shard in weights.shards] == [FIRST, SECOND]
    assert [(shard.file, entry.name) for shard, entry in weights.tensors()] == [
        (FIRST, "a"),
        (FIRST, "b"),
        (SECOND, "c"),
    ]
    assert weights.index == INDEX


@pytest.mark.skipif(not DEMO.is_dir(), reason="the demo model has not been made")
def test_demo_model() -> None:
    weights = read_weights(DEMO)
    assert len(weights.shards) == len(list(DEMO.glob("*.safetensors")))
    assert all(weights.path(shard).stat().st_size == shard.size for shard in weights.shards)


def test_other_weight_files_are_named(tmp_path: Path) -> None:
    save(tmp_path, SINGLE, a=3)
    for name in ("consolidated.safetensors", "pytorch_model.bin", "model.gguf", "config.json"):
        (tmp_path / name).write_bytes(b"")
    assert read_weights(tmp_path).unread == ("consolidated.safetensors", "model.gguf", "pytorch_model.bin")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "consolidated.00.pth", "weights.pt"])
def test_pickled_weights_are_refused_unread(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"not even a pickle")
    error = refused(tmp_path, f"only pickled weights .{name}.: refused, and never unpickled")
    assert "save_pretrained" in str(error.hint)


def test_no_weights_and_weights_of_another_name(tmp_path: Path) -> None:
    refused(tmp_path, "no weights")
    save(tmp_path, "model.fp16.safetensors", a=1)
    assert "rename" in str(refused(tmp_path, r"only model\.fp16\.safetensors").hint)
    with pytest.raises(ModelError, match="no such directory"):
        read_weights(tmp_path / "missing")
    with pytest.raises(StorageError, match="cannot list the directory"):
        read_weights(tmp_path / "model.fp16.safetensors")


def test_index_and_single_file_are_ambiguous(tmp_path: Path) -> None:
    save(sharded(tmp_path), SINGLE, a=3)
    refused(tmp_path, "both model.safetensors and model.safetensors.index.json")


@pytest.mark.parametrize(
    "file", ["../out.safetensors", "sub/x.safetensors", "/x.safetensors", "..", "", "a\\b.safetensors", "x\0"]
)
def test_a_shard_outside_the_directory(tmp_path: Path, file: str) -> None:
    model = sharded(tmp_path / "model", a=file)
    save(tmp_path, "out.safetensors", a=3)
    error = refused(model, "not a file of this directory")
    assert repr(file) in error.message


def test_a_shard_that_is_pickled(tmp_path: Path) -> None:
    refused(sharded(tmp_path, c="pytorch_model-00002-of-00002.bin"), "not a safetensors file")


@pytest.mark.parametrize(
    ("moved", "message"),
    [
        ({"a": SECOND}, "'a' into model-00002.*but model-00001.* has it"),
        ({"d": SECOND}, "'d' into model-00002.*but no shard has it"),
        ({"d": "model-00003-of-00002.safetensors"}, "model-00003-of-00002.safetensors is missing"),
    ],
)
def test_an_index_of_another_save(tmp_path: Path, moved: Mapping[str, str], message: str) -> None:
    refused(sharded(tmp_path, **moved), message)


def test_a_tensor_that_the_index_leaves_out(tmp_path: Path) -> None:
    sharded(tmp_path)
    write_index(tmp_path, {"a": FIRST, "c": SECOND})
    refused(tmp_path, "'b' of model-00001.* is not in the index")


def test_a_tensor_in_two_shards(tmp_path: Path) -> None:
    sharded(tmp_path)
    save(tmp_path, SECOND, c=1, a=3)
    refused(tmp_path, "'a' is in model-00001.* and in model-00002")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"{", "not valid JSON"),
        (b"[]", "no weight_map"),
        (b'{"weight_map":[]}', "no weight_map"),
        (b'{"weight_map":{}}', "no weight_map"),
        (b'{"weight_map":{"a":1}}', "no weight_map"),
        (b'{"weight_map":{"a":"x.safetensors","a":"y.safetensors"}}', "'a' occurs twice"),
        (b'{"weight_map":{"\xff":"x"}}', "not UTF-8"),
    ],
)
def test_a_broken_index(tmp_path: Path, text: bytes, message: str) -> None:
    (tmp_path / INDEX).write_bytes(text)
    with pytest.raises(WeightsError, match=message) as caught:
        read_weights(tmp_path)
    assert INDEX in str(caught.value.where)


def test_a_truncated_shard(tmp_path: Path) -> None:
    sharded(tmp_path)
    path = tmp_path / SECOND
    path.write_bytes(path.read_bytes()[:-1])
    error = refused(tmp_path, "the header describes")
    assert error.where == str(path)


def test_a_cache_snapshot_is_refused_in_place(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--x--y" / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    blob = save(tmp_path / "models--x--y" / "blobs", "4567", a=2)
    (snapshot / SINGLE).symlink_to(os.path.relpath(blob, snapshot))
    with pytest.raises(StorageError, match="Hugging Face cache snapshot") as caught:
        read_weights(snapshot)
    assert "cp -rL" in str(caught.value.hint)


def test_links_may_not_leave_the_directory(tmp_path: Path) -> None:
    outside = save(tmp_path / "elsewhere", "x.safetensors", a=2)
    model = tmp_path / "model"
    model.mkdir()
    (model / SINGLE).symlink_to(outside)
    refused(model, "points outside the model's directory")
    (model / SINGLE).unlink()
    sharded(model)
    (model / INDEX).rename(tmp_path / "index.json")
    (model / INDEX).symlink_to(tmp_path / "index.json")
    refused(model, "points outside the model's directory")


def test_a_linked_directory_is_the_directory(tmp_path: Path) -> None:
    sharded(tmp_path / "model")
    (tmp_path / "link").symlink_to(tmp_path / "model")
    assert len(read_weights(tmp_path / "link").shards) == 2
    (tmp_path / "model" / SECOND).rename(tmp_path / "model" / "kept")
    (tmp_path / "model" / SECOND).symlink_to("kept")
    assert len(read_weights(tmp_path / "link").shards) == 2
    (tmp_path / "model" / "kept").unlink()
    refused(tmp_path / "link", "missing")


def test_a_dangling_index_does_not_count(tmp_path: Path) -> None:
    save(sharded(tmp_path), SINGLE, a=3)
    for path in tmp_path.glob("model-*.safetensors"):
        path.unlink()
    weights = read_weights(tmp_path)
    assert (weights.index, [shard.file for shard in weights.shards]) == (None, [SINGLE])

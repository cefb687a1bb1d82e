"""The object store: what is put comes back, whole or with an error that says so."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from unittest.mock import patch

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from tokmigrate.errors import StorageError, UndoError
from tokmigrate.state.objects import ObjectStore
from tokmigrate.state.packing import BLOCK_BYTES, compress

COMPRESSIBLE = b"tokenizer " * 5000
RANDOM = bytes(blake3(b"noise").digest(length=300_000))


def path_of(store: ObjectStore, digest: str) -> Path:
    return store.root / digest[:2] / digest[2:]


def digests_of(store: ObjectStore) -> list[str]:
    return [path.parent.name + path.name for path in sorted(store.root.glob("??/*"))]


def unfinished(store: ObjectStore) -> list[Path]:
    return list(store.root.glob(".unfinished-*"))


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore(tmp_path / "state" / "objects")


@pytest.mark.parametrize("data", [b"", b"x", b"r", b"z", COMPRESSIBLE, RANDOM, COMPRESSIBLE * 60])
def test_what_is_put_comes_back(store: ObjectStore, data: bytes) -> None:
    digest = store.put(data)
    assert digest == blake3(data).hexdigest()
    assert store.has(digest)
    assert store.get(digest) == data
    assert unfinished(store) == []
    assert digests_of(store) == [digest]


def test_compressed_only_when_it_pays(store: ObjectStore) -> None:
    assert path_of(store, store.put(COMPRESSIBLE)).stat().st_size < len(COMPRESSIBLE) / 10
    assert path_of(store, store.put(RANDOM)).stat().st_size == len(RANDOM) + 1


PIECES = st.lists(st.sampled_from([b"", b"a" * 7, b"model", RANDOM[:9], COMPRESSIBLE]), max_size=6).map(b"".join)


@given(st.lists(PIECES, max_size=5), st.sampled_from([1, 5, 1000]))
def test_a_batch_gives_back_what_is_put_whatever_is_alike(datas: list[bytes], block: int) -> None:
    """What is stored is one zlib stream, as an object alone is."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr("tokmigrate.state.packing.BLOCK_BYTES", block)
        store = ObjectStore(Path(folder))
        with store.open_batch() as batch:
            digests = [batch.put(data) for data in datas]
        assert [store.get(digest) for digest in digests] == datas
        for digest, data in zip(digests, datas, strict=True):
            stored = path_of(store, digest).read_bytes()
            assert stored == b"r" + data or zlib.decompress(stored[1:]) == data
        assert not unfinished(store)


def test_blocks_that_objects_share_are_compressed_once() -> None:
    first = b"".join(b"%d\n" % number for number in range(200_000))
    _, blocks = compress(first)
    _, more = compress(b"head" + first[9:700_000] + b"new" + first[700_000:], [blocks])
    new = [block for block in more if not any(block is each for each in blocks)]
    assert sum(len(block.raw) for block in new) < 4 * BLOCK_BYTES < len(first)


def test_a_batch_of_many_objects_does_not_open_as_many_files(store: ObjectStore) -> None:
    with store.open_batch() as batch:
        for number in range(250):
            batch.put(b"%d" % number)
            assert len(unfinished(store)) <= 100
    assert len(digests_of(store)) == 250


def test_an_object_of_a_batch_that_fails_is_not_there(store: ObjectStore) -> None:
    with suppress(KeyError), store.open_batch() as batch:
        batch.put(RANDOM)
        raise KeyError
    assert digests_of(store) == unfinished(store) == []


def test_an_object_that_is_there_is_not_rewritten(store: ObjectStore) -> None:
    digest = store.put(RANDOM)
    before = path_of(store, digest).stat()
    assert store.put(RANDOM) == digest
    after = path_of(store, digest).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_mode_follows_the_umask(store: ObjectStore) -> None:
    digest = store.put(RANDOM)
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path_of(store, digest).stat().st_mode) == 0o666 & ~umask


@pytest.mark.parametrize("data", [COMPRESSIBLE, RANDOM, b""])
@pytest.mark.parametrize("damage", ["flip", "truncate", "extend", "empty", "kind"])
def test_damage_is_found_and_healed_by_the_next_put(store: ObjectStore, data: bytes, damage: str) -> None:
    digest = store.put(data)
    path = path_of(store, digest)
    stored = path.read_bytes()
    middle = len(stored) // 2
    path.write_bytes(
        {
            "flip": stored[:middle] + bytes([stored[middle] ^ 1]) + stored[middle + 1 :],
            "truncate": stored[:-1],
            "extend": stored + b"\0",
            "empty": b"",
            "kind": b"q" + stored[1:],
        }[damage]
    )
    with pytest.raises(UndoError, match="damaged") as raised:
        store.get(digest)
    assert raised.value.hint is not None
    assert raised.value.where == str(path)
    assert store.put(data) == digest
    assert store.get(digest) == data


def test_missing_objects_and_names_that_are_none(store: ObjectStore) -> None:
    digest = store.put(b"kept")
    (store.root / digest[:2] / digest[2:]).unlink()
    assert not store.has(digest)
    with pytest.raises(UndoError, match="missing") as raised:
        store.get(digest)
    assert raised.value.hint is not None
    for name in ("", "../../etc/passwd", digest.upper(), digest[:-1], digest + "\n"):
        with pytest.raises(UndoError, match="not the digest"):
            store.get(name)


def test_a_folder_that_cannot_be_made_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "objects").write_text("in the way")
    with pytest.raises(StorageError) as raised:
        ObjectStore(tmp_path / "objects").put(b"data")
    assert raised.value.hint is not None


def test_killed_while_writing_no_object_is_half_there(store: ObjectStore) -> None:
    script = (
        "import itertools, sys\n"
        "from pathlib import Path\n"
        "from tokmigrate.state.objects import ObjectStore\n"
        "store = ObjectStore(Path(sys.argv[1]))\n"
        "print('ready', flush=True)\n"
        "for number in itertools.count():\n"
        "    store.put(number.to_bytes(4, 'big') * 50_000)\n"
    )
    for pause in (0.0, 0.03, 0.1):
        with subprocess.Popen(
            [sys.executable, "-c", script, str(store.root)], stdout=subprocess.PIPE, text=True
        ) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
            time.sleep(pause)
            child.send_signal(signal.SIGKILL)
    for digest in digests_of(store):
        assert blake3(store.get(digest)).hexdigest() == digest
    store.remove_unfinished()
    assert unfinished(store) == []


def test_what_is_being_written_is_not_taken_for_left_behind(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[int] = []
    fsync = os.fsync

    def remove_meanwhile(descriptor: int) -> None:
        store.remove_unfinished()
        found.append(len(unfinished(store)))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", remove_meanwhile)
    digest = store.put(b"12")
    assert 1 in found
    assert store.get(digest) == b"12"
    (store.root / ".unfinished-0123").write_bytes(b"r1")
    store.remove_unfinished()
    assert unfinished(store) == []


LONG = bytes(blake3(b"long").digest(length=9 << 20))


def cut(data: bytes, size: int) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


@pytest.mark.parametrize("data", [b"", b"x", RANDOM, COMPRESSIBLE, LONG, COMPRESSIBLE * 200], ids=len)
@pytest.mark.parametrize("size", [70_001, 3 << 20])
def test_parts_come_back_as_a_whole_and_from_any_place(store: ObjectStore, data: bytes, size: int) -> None:
    with store.open_batch() as batch:
        digest = batch.put_parts(cut(data, size))
        assert batch.put_parts(cut(data, 1 << 20)) == digest
    assert digest == blake3(data).hexdigest()
    assert unfinished(store) == []
    stored = path_of(store, digest).read_bytes()
    assert len(stored) <= len(data) + 1
    assert store.put(data) == digest
    assert path_of(store, digest).read_bytes() == stored
    assert store.get(digest) == data
    opened = store.open(digest)
    for begin in (len(data) // 2, 0, len(data) // 3, max(0, len(data) - 5)):
        assert opened.read(begin, 1000) == data[begin : begin + 1000]
    assert unfinished(store) == []


def test_parts_that_end_with_an_error_leave_nothing(store: ObjectStore) -> None:
    def parts() -> Iterator[bytes]:
        yield LONG
        raise ValueError("the model cannot be read")

    with pytest.raises(ValueError, match="the model"), store.open_batch() as batch:
        batch.put_parts(parts())
    assert digests_of(store) == unfinished(store) == []


@pytest.mark.parametrize("data", [b"rows", COMPRESSIBLE, LONG, COMPRESSIBLE * 200], ids=len)
@pytest.mark.parametrize("place", [0, 1, 0.5, -1])
def test_what_is_damaged_is_not_opened(store: ObjectStore, data: bytes, place: float) -> None:
    digest = store.put(data)
    path = path_of(store, digest)
    stored = bytearray(path.read_bytes())
    stored[int(place * len(stored)) if place == 0.5 else int(place)] ^= 1
    path.write_bytes(stored)
    with pytest.raises(UndoError, match="damaged"):
        store.open(digest)
    with store.open_batch() as batch:
        assert batch.put_parts(cut(data, 1 << 20)) == digest
    assert store.open(digest).read(0, len(data)) == data


def test_what_is_missing_is_not_opened(store: ObjectStore) -> None:
    digest = store.put(b"rows")
    store.require(digest)
    path_of(store, digest).unlink()
    for ask in (store.open, store.require):
        with pytest.raises(UndoError, match="missing"):
            ask(digest)


def test_what_cannot_be_unpacked_is_said(store: ObjectStore) -> None:
    digest = store.put(COMPRESSIBLE * 200)
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with patch("tempfile.TemporaryFile", side_effect=full), pytest.raises(StorageError) as caught:
        store.open(digest)
    assert "cannot be unpacked: No space left on device" in caught.value.message
    assert "free space" in str(caught.value.hint)

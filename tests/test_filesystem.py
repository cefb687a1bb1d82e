"""Copying, sharing, durability, facts and room, on the filesystem that is there."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokmigrate.apply.clone import (
    clone_file,
    clone_tree,
    copy_file,
    seal_tree,
)
from tokmigrate.apply.durable import fsync_file, fsync_tree_bottom_up, write_durably
from tokmigrate.apply.file_metadata import FileMetadata, read_metadata, write_metadata
from tokmigrate.apply.publish import check_room, free_bytes, margin_bytes
from tokmigrate.apply.workarea import WorkArea, remove_tree
from tokmigrate.errors import RecoveryNeededError, StorageError
from tokmigrate.files import fsync_directory, storage_errors
from tokmigrate.formatting import format_bytes

REPOSITORY = Path(__file__).resolve().parents[1]
OLD = 1_600_000_000_123_456_789

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


def mount_image(root: Path, maker: str) -> str:
    """Return the shell commands that mount an image on `mounted`; skips where there is no program to make one."""
    program = maker.split(maxsplit=1)[0]
    if shutil.which(program) is None or shutil.which("losetup") is None:
        pytest.skip(f"no {program} or no losetup here to make a filesystem that shares blocks")
    (root / "mounted").mkdir()
    return f"truncate -s 600M image && {maker} image >&2 && mount -o loop image mounted"


def in_namespace(directory: Path, mounting: str, script: str) -> dict[str, object]:
    """Run a Python script where `mounting` has been done for it alone; return the JSON that it prints."""
    unshare = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-r", "-m"]
    if shutil.which("unshare") is None or subprocess.run([*unshare, "true"], check=False).returncode:
        pytest.skip("mount namespaces are not permitted here")
    (directory / "script.py").write_text(script)
    done = subprocess.run(
        [*unshare, "sh", "-c", f"({mounting}) || exit 77; exec {sys.executable} script.py"],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 77:
        pytest.skip(f"mounting is not permitted here: {done.stderr}")
    assert done.returncode == 0, done.stderr
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A directory on another filesystem than `tmp_path`."""
    memory = Path("/dev/shm")  # noqa: S108
    if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second filesystem")
    with tempfile.TemporaryDirectory(dir=memory) as directory:
        yield Path(directory)


def old_file(path: Path, data: bytes = b"weights", mode: int = 0o640) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    path.chmod(mode)
    os.utime(path, ns=(OLD, OLD))
    return path


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


# Whole files


def test_a_clone_is_the_same_bytes_by_the_cheapest_way(tmp_path: Path) -> None:
    source = old_file(tmp_path / "source", bytes(range(256)) * 100)
    clone_file(source, tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == source.read_bytes()
    before = shutil.disk_usage(tmp_path).free
    assert source.stat().st_nlink == 2 or shutil.disk_usage(tmp_path).free == before


@pytest.mark.parametrize("maker", ["mkfs.xfs -q -m reflink=1", "mkfs.btrfs -q"])
def test_blocks_are_shared_where_the_filesystem_can(tmp_path: Path, maker: str) -> None:
    mounting = mount_image(tmp_path, maker)
    script = """
import json, os
from pathlib import Path
from tokmigrate.apply.clone import clone_file, share_range
source, target = Path("mounted/source"), Path("mounted/target")
length = 32 << 20
def free():
    os.sync()
    status = os.statvfs("mounted")
    return status.f_bavail * status.f_frsize
def used_by_range(start, at):
    before = free()
    with source.open("rb") as reader, Path(f"mounted/{start}-{at}").open("wb") as writer:
        shared = share_range(reader.fileno(), start, writer.fileno(), at, length - start)
    return before - free() if shared else length
source.write_bytes(os.urandom(length))
before = free()
clone_file(source, target)
used = [before - free(), used_by_range(4096, 0), used_by_range(100, 200)]
same = source.read_bytes() == target.read_bytes() and source.stat().st_nlink == 1
print(json.dumps({"used": used, "same": same}))
"""
    answer = in_namespace(tmp_path, mounting, script)
    assert answer["same"] is True
    assert isinstance(answer["used"], list)
    whole, congruent, shifted = answer["used"]
    assert whole < 1 << 20
    assert congruent < 1 << 20
    assert shifted >= 31 << 20


def test_another_filesystem_gets_a_copy_with_mode_and_times(tmp_path: Path, elsewhere: Path) -> None:
    source = old_file(tmp_path / "source", b"x" * 5000, 0o440)
    clone_file(source, elsewhere / "target")
    assert (elsewhere / "target").read_bytes() == source.read_bytes()
    assert read_metadata(elsewhere / "target") == read_metadata(source)


@needs_root
def test_a_copy_keeps_its_owner(tmp_path: Path, elsewhere: Path) -> None:
    source = old_file(tmp_path / "source")
    os.chown(source, 1234, 2345)
    clone_file(source, elsewhere / "target")
    assert read_metadata(elsewhere / "target") == FileMetadata(0o640, 1234, 2345, OLD)


def test_a_copy_keeps_extended_attributes_where_there_are_any(tmp_path: Path, elsewhere: Path) -> None:
    source, probe = old_file(tmp_path / "source"), old_file(elsewhere / "probe")
    try:
        for path in (source, probe):
            os.setxattr(path, "user.origin", b"here")
    except OSError:
        pytest.skip("one of the two filesystems has no extended attributes")
    source.chmod(0o440)
    clone_file(source, elsewhere / "target")
    assert os.getxattr(elsewhere / "target", "user.origin") == b"here"


@pytest.mark.parametrize("way", [clone_file, copy_file])
def test_a_name_that_is_taken_is_left_alone(tmp_path: Path, way: object) -> None:
    source, target = old_file(tmp_path / "source"), old_file(tmp_path / "target", b"mine")
    assert callable(way)
    with pytest.raises(StorageError, match="File exists"):
        way(source, target)
    assert target.read_bytes() == b"mine"


@pytest.mark.parametrize("way", [clone_file, copy_file])
def test_only_regular_files_are_taken(tmp_path: Path, way: object) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert callable(way)
    with pytest.raises(StorageError, match="not a file"):
        way(tmp_path / "pipe", tmp_path / "target")
    assert names(tmp_path) == ["pipe"]


# Facts


@given(
    mode=st.integers(0, 0o777),
    mtime_ns=st.integers(0, 2**33 * 10**9),
)
@settings(max_examples=40, deadline=None)
def test_facts_go_onto_a_file_and_back(mode: int, mtime_ns: int) -> None:
    facts = FileMetadata(mode, os.geteuid(), os.getegid(), mtime_ns)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "file")
        path.write_bytes(b"")
        write_metadata(path, facts)
        assert read_metadata(path) == facts
        write_metadata(path, replace(facts, mtime_ns=OLD))
        assert path.stat().st_mtime_ns == OLD


def test_a_link_has_facts_of_its_own(tmp_path: Path) -> None:
    target = old_file(tmp_path / "target")
    (tmp_path / "link").symlink_to("target")
    write_metadata(tmp_path / "link", replace(read_metadata(tmp_path / "link"), mtime_ns=OLD - 5))
    assert (tmp_path / "link").lstat().st_mtime_ns == OLD - 5
    assert target.stat().st_mtime_ns == OLD


# Trees


@pytest.fixture
def model(tmp_path: Path) -> Path:
    directory = tmp_path / "model"
    old_file(directory / "config.json", b"{}")
    old_file(directory / "model.safetensors", b"x" * 10000, 0o444)
    old_file(directory / "1_Pooling" / "config.json", b"{}")
    old_file(directory / "onnx" / "deep" / "model.onnx", b"onnx")
    (directory / "empty").mkdir()
    (directory / "latest.json").symlink_to("config.json")
    (directory / "dangling").symlink_to("../nowhere")
    (directory / "onnx").chmod(0o750)
    for path in ("onnx/deep", "onnx", "1_Pooling", "empty", "."):
        os.utime(directory / path, ns=(OLD, OLD - 7))
    return directory


def seen(directory: Path) -> dict[str, tuple[FileMetadata, object]]:
    found: dict[str, tuple[FileMetadata, object]] = {}
    for path in (directory, *directory.rglob("*")):
        content: object = None
        if path.is_symlink():
            content = str(path.readlink())
        elif path.is_file():
            content = path.read_bytes()
        found[str(path.relative_to(directory))] = (read_metadata(path), content)
    return found


def test_a_shared_tree_is_the_same_to_the_last_fact(model: Path, tmp_path: Path) -> None:
    before = seen(model)
    clone_tree(model, tmp_path / "stage")
    assert seen(tmp_path / "stage") == before == seen(model)
    fsync_tree_bottom_up(tmp_path / "stage")


def test_a_shared_tree_on_another_filesystem(model: Path, elsewhere: Path) -> None:
    clone_tree(model, elsewhere / "stage")
    assert seen(elsewhere / "stage") == seen(model)


def test_left_out_files_are_left_out_and_sealing_gives_times_back(model: Path, tmp_path: Path) -> None:
    stage = tmp_path / "stage"
    clone_tree(model, stage, {"config.json", "onnx/deep/model.onnx", "1_Pooling"})
    assert not (stage / "config.json").exists()
    assert not (stage / "1_Pooling").exists()
    assert list((stage / "onnx" / "deep").iterdir()) == []
    (stage / "onnx" / "deep" / "model.onnx").write_bytes(b"new")
    assert (model / "onnx" / "deep" / "model.onnx").read_bytes() == b"onnx"
    seal_tree(model, stage)
    for name in (".", "onnx", "onnx/deep", "empty"):
        assert read_metadata(stage / name) == read_metadata(model / name)


def test_pipes_and_sockets_are_refused(model: Path, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as on_progress, tempfile.TemporaryDirectory() as short:
        # A socket's path has at most 107 bytes.
        on_progress.bind(f"{short}/s")
        Path(short, "s").rename(model / "s")
        with pytest.raises(StorageError, match="pipe, a socket or a device"):
            clone_tree(model, tmp_path / "stage")


def test_a_relative_link_out_of_the_model_is_refused(model: Path, tmp_path: Path) -> None:
    old_file(tmp_path / "common.json")
    (model / "1_Pooling" / "common.json").symlink_to("../../common.json")
    with pytest.raises(StorageError, match="points outside the model directory") as caught:
        clone_tree(model, tmp_path / "stage")
    assert caught.value.hint
    (model / "1_Pooling" / "common.json").unlink()
    (model / "1_Pooling" / "common.json").symlink_to(tmp_path / "common.json")
    remove_tree(tmp_path / "stage")
    clone_tree(model, tmp_path / "stage")
    assert (tmp_path / "stage" / "1_Pooling" / "common.json").read_bytes() == b"weights"


def test_removing_a_tree_leaves_the_modes_of_shared_files(model: Path, tmp_path: Path) -> None:
    (model / "empty").chmod(0o500)
    (model / "onnx" / "deep").chmod(0o500)
    clone_tree(model, tmp_path / "stage")
    remove_tree(tmp_path / "stage")
    assert not (tmp_path / "stage").exists()
    assert stat.S_IMODE((model / "model.safetensors").stat().st_mode) == 0o444
    (tmp_path / "link").symlink_to(model)
    remove_tree(tmp_path / "link")
    assert (model / "config.json").exists()


# Durability


def test_write_durably_replaces_the_whole_file(tmp_path: Path) -> None:
    path = old_file(tmp_path / "journal", b"a long content that must go")
    (tmp_path / ".journal.new").write_bytes(b"left by a killed process")
    write_durably(path, b"new", 0o600)
    assert path.read_bytes() == b"new"
    assert read_metadata(path).mode == 0o600
    assert names(tmp_path) == ["journal"]
    fsync_file(path)
    fsync_directory(tmp_path)


def test_what_cannot_be_opened_is_a_storage_error(tmp_path: Path) -> None:
    for call in (fsync_file, fsync_directory, fsync_tree_bottom_up, read_metadata):
        with pytest.raises(StorageError, match=r"(?i)no such file"):
            call(tmp_path / "missing")
    with pytest.raises(StorageError):
        write_durably(tmp_path / "missing" / "file", b"")


def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "small").mkdir()
    script = """
import json, os
from pathlib import Path
from tokmigrate.apply.durable import write_durably
from tokmigrate.apply.lock import hold_lock
from tokmigrate.apply.clone import copy_file
from tokmigrate.apply.workarea import WorkArea
from tokmigrate.errors import StorageError
small, errors = Path("small"), []
(small / "model").mkdir()
area = WorkArea(small / "model")
area.create()
write_durably(small / "file", b"old")
Path("big").write_bytes(bytes(2 << 20))
for call in (lambda: write_durably(small / "file", bytes(2 << 20)), lambda: copy_file(Path("big"), small / "copy")):
    try:
        call()
    except StorageError as error:
        errors.append([error.message, error.hint])
kept = (small / "file").read_bytes().decode()
names = sorted(os.listdir(small))
try:
    (small / "filler").write_bytes(bytes(2 << 20))
except OSError:
    pass
with hold_lock(area.lock):
    locked = True
print(json.dumps({"errors": errors, "kept": kept, "names": names, "locked": locked}))
"""
    answer = in_namespace(tmp_path, "mount -t tmpfs -o size=1m none small", script)
    errors = answer["errors"]
    assert isinstance(errors, list)
    assert [message.split(": ")[1] for message, _ in errors] == ["No space left on device"] * 2
    assert all("free some space" in hint for _, hint in errors)
    assert answer["kept"] == "old"
    assert answer["names"] == [".model.tokmigrate", "file", "model"]
    assert answer["locked"] is True


def test_storage_errors_carry_the_reason_and_a_way_out(tmp_path: Path) -> None:
    for number, word in ((errno.EDQUOT, "quota"), (errno.EIO, "log"), (errno.EROFS, "work on a copy")):
        with pytest.raises(StorageError, match="cannot write it: ") as caught, storage_errors("write it", tmp_path):
            raise OSError(number, "told by the kernel")
        assert word in (caught.value.hint or "")
        assert caught.value.where == str(tmp_path)
        assert isinstance(caught.value.__cause__, OSError)


# Room


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (1023, "1,023 bytes"),
        (1024, "1.0 KiB"),
        (3 << 29, "1.5 GiB"),
        (2**60, "1024.0 PiB"),
    ],
)
def test_bytes_for_people(count: int, text: str) -> None:
    assert format_bytes(count) == text


def test_room_names_what_is_needed_and_free(tmp_path: Path) -> None:
    free = free_bytes(tmp_path / "not" / "there" / "yet")
    assert free > 0
    check_room(tmp_path, 1)
    with pytest.raises(StorageError, match=r"1024\.0 PiB are needed, .* are free") as caught:
        check_room(tmp_path, 2**60)
    assert "free at least" in (caught.value.hint or "")


def test_the_margin_follows_what_is_written(tmp_path: Path) -> None:
    assert [margin_bytes(mib << 20) >> 20 for mib in (0, 2, 64, 1024, 1 << 20)] == [1, 1, 4, 64, 64]
    shutil.copytree(REPOSITORY / "models" / "demo", tmp_path / "demo")
    (tmp_path / "disk").mkdir()
    for name in ("migrations", "tokmigrate.yaml"):
        source = REPOSITORY / name
        shutil.copytree(source, tmp_path / name) if source.is_dir() else shutil.copy(source, tmp_path)
    script = """
import json, shutil, sys
from tokmigrate.cli.app import main
shutil.copytree("demo", "disk/demo")
open("tokmigrate.yaml", "w").write("format: 1\\nverify: fast\\nmodels:\\n  demo: {path: disk/demo}\\n")
free = shutil.disk_usage("disk").free
sys.argv = ["tokmigrate", "upgrade", "--json"]
sys.stdout, out = open("out", "w"), sys.stdout
try:
    main()
except SystemExit as leaving:
    print(json.dumps({"code": leaving.code, "free": free}), file=out)
"""
    answer = in_namespace(tmp_path, "mount -t tmpfs -o size=8m tmpfs disk", script)
    assert int(str(answer["free"])) < 8 << 20
    assert answer["code"] == 0


WRITING_OR_LOCKING = {
    "abilities.py",
    "durable.py",
    "lock.py",
    "shard_writer.py",
    "temporary_folder.py",
    "output.py",
}


def test_files_are_opened_for_reading_in_one_place() -> None:
    opening = re.compile(r"\.read_bytes\(|os\.open\(|\.open\(\"r")
    modules = (REPOSITORY / "tokmigrate").rglob("*.py")
    found = {path.name for path in modules if opening.search(path.read_text("utf-8"))}
    assert found == {"files.py"} | WRITING_OR_LOCKING


# The work area


def test_the_work_area_lies_beside_the_model_however_it_is_named(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = tmp_path.resolve() / ".model.tokmigrate"
    (tmp_path / "linked").symlink_to("model")
    (tmp_path / "parents").mkdir()
    (tmp_path / "parents" / "parent").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)
    for name in ("model", "model/", "./model", "linked", "model/onnx/..", "parents/parent/model", str(model)):
        assert WorkArea(Path(name)).root == expected
    relative = WorkArea(Path("model"))
    monkeypatch.chdir("/")
    assert relative.root == expected
    assert not expected.exists()
    monkeypatch.chdir(model)
    assert WorkArea(Path()).root == expected
    with pytest.raises(StorageError, match="root of a filesystem"):
        WorkArea(Path("/"))


def test_the_journal_is_whole_or_absent(model: Path) -> None:
    area = WorkArea(model)
    assert area.read_journal() is None
    area.create()
    area.create()
    assert area.read_journal() is None
    area.write_journal({"operation": "7", "text": "größer"})
    area.write_journal({"operation": "8", "text": "größer"})
    assert area.read_journal() == {"operation": "8", "text": "größer"}
    area.journal.write_text("{")
    with pytest.raises(StorageError, match="damaged"):
        area.read_journal()
    area.remove_journal()
    area.remove_journal()
    assert area.read_journal() is None


def test_the_stage_goes_only_while_the_model_is_in_place(model: Path) -> None:
    area = WorkArea(model)
    area.create()
    area.remove_stage()
    clone_tree(model, area.stage)
    area.remove_stage()
    assert names(area.root) == []
    clone_tree(model, area.stage)
    model.rename(area.aside)
    with pytest.raises(RecoveryNeededError):
        area.remove_stage()
    model.mkdir()
    with pytest.raises(RecoveryNeededError):
        area.remove_stage()
    model.rmdir()
    area.aside.rename(area.root / "gone")
    with pytest.raises(RecoveryNeededError):
        area.remove_stage()
    assert area.stage.is_dir()


def test_what_is_no_model_directory_is_refused(tmp_path: Path) -> None:
    file = old_file(tmp_path / "file")
    with pytest.raises(StorageError, match="not a directory"):
        WorkArea(file).create()
    with pytest.raises(StorageError, match="No such file"):
        WorkArea(tmp_path / "missing" / "model").create()
    (tmp_path / "model").mkdir()
    old_file(tmp_path / ".model.tokmigrate")
    with pytest.raises(StorageError, match="in the way"):
        WorkArea(tmp_path / "model").create()

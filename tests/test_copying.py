"""A shard that several threads copy: a process that dies in the middle, a disk that fails, and what proves the copy."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from blake3 import blake3
from dying import STREAMED, dying_at, exit_code
from test_filesystem import in_namespace, mount_image
from tracing import strace_works
from workspaces import BASE, Contents, Workspace, contents, make_workspace

from tokmigrate.apply.known_files import describe_files
from tokmigrate.commands.downgrade import downgrade
from tokmigrate.commands.upgrade import upgrade
from tokmigrate.model.formats.safetensors_header import read_header
from tokmigrate.settings import read_workspace

SHARD = "model-00001-of-00002.safetensors"
MORE, SIZE = 4, 9_000_000
XFS = "mkfs.xfs -q -m reflink=1"


def make_large(root: Path) -> Workspace:
    """Return the demo with four more tensors in a shard, so that several threads read it."""
    place = make_workspace(root)
    shard, index = place.model / SHARD, place.model / "model.safetensors.index.json"
    octets = shard.read_bytes()
    length = int.from_bytes(octets[:8], "little")
    header, listed = json.loads(octets[8 : 8 + length]), json.loads(index.read_text("utf-8"))
    end = len(octets) - 8 - length
    for number in range(MORE):
        header[f"extra.{number}"] = {"dtype": "U8", "shape": [SIZE], "data_offsets": [end, end + SIZE]}
        listed["weight_map"][f"extra.{number}"] = SHARD
        end += SIZE
    text = json.dumps(header).encode()
    more = np.random.default_rng(0).integers(0, 256, MORE * SIZE, np.uint8).tobytes()
    shard.write_bytes(len(text).to_bytes(8, "little") + text + octets[8 + length :] + more)
    listed["metadata"]["total_size"] += MORE * SIZE
    index.write_text(json.dumps(listed, indent=2) + "\n", "utf-8")
    return place


def go(place: Workspace, direction: str) -> None:
    found = read_workspace(place.settings)
    if direction == "upgrade":
        upgrade(found, found.models["demo"])
    else:
        downgrade(found, found.models["demo"], BASE)


@pytest.fixture(scope="module")
def at_base(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return make_large(tmp_path_factory.mktemp("base") / "workspace")


@pytest.fixture(scope="module")
def at_head(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    place = make_large(tmp_path_factory.mktemp("head") / "workspace")
    go(place, "upgrade")
    return place


@pytest.fixture(params=["upgrade", "downgrade"])
def direction(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def place(direction: str, at_base: Workspace, at_head: Workspace) -> Workspace:
    """Return a workspace that a command is about to change; what fails leaves it as it is."""
    return at_base if direction == "upgrade" else at_head


def is_as_before(place: Workspace, before: Contents) -> None:
    assert place.run("recover").returncode == 0
    assert contents(place.model) == before
    assert place.left_over() == []


def test_killed_while_threads_copy(place: Workspace, direction: str) -> None:
    before = contents(place.model)
    assert exit_code(dying_at, place.root, direction, STREAMED) == -signal.SIGKILL
    assert contents(place.model) == before
    assert place.left_over() != []
    is_as_before(place, before)


@pytest.mark.parametrize("number", [1, 60])
def test_a_disk_that_fails_at_a_read(place: Workspace, direction: str, number: int) -> None:
    if not strace_works():
        pytest.skip("strace is not installed, or may not trace here")
    before = contents(place.model)
    failing = ("strace", "-f", "-qq", "-o", os.devnull, "-e", "trace=preadv,preadv2")
    words = ["upgrade"] if direction == "upgrade" else ["downgrade", BASE]
    done = place.run_process(*words, before=(*failing, "-e", f"inject=preadv,preadv2:error=EIO:when={number}"))
    assert done.returncode == 1, done.stderr
    assert "cannot read the file: Input/output error" in done.stderr
    assert "Traceback" not in done.stderr
    is_as_before(place, before)


def test_up_and_down_again_by_any_number_of_threads(
    tmp_path: Path, at_head: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tokmigrate.parallel.count_cores", lambda: 5)
    place = make_large(tmp_path / "workspace")
    before = contents(place.model)
    go(place, "upgrade")
    assert contents(place.model) == contents(at_head.model)
    go(place, "downgrade")
    assert contents(place.model) == before


@pytest.mark.parametrize("maker", [XFS, "mkfs.btrfs -q"])
def test_blocks_that_can_be_shared_are_not_written(tmp_path: Path, at_head: Workspace, maker: str) -> None:
    mounting = mount_image(tmp_path, maker)
    script = f"""
import json, os, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_copying import go, make_large
from workspaces import contents
from blake3 import blake3
def free():
    os.sync()
    status = os.statvfs("mounted")
    return status.f_bavail * status.f_frsize
place = make_large(Path("mounted/workspace"))
before, room = contents(place.model), free()
go(place, "upgrade")
used, made = room - free(), {{name: blake3(data).hexdigest() for name, (data, _) in contents(place.model).items()}}
size = (place.model / {SHARD!r}).stat().st_size
go(place, "downgrade")
print(json.dumps({{"used": used, "size": size, "made": made, "same": contents(place.model) == before}}))
"""
    answer = in_namespace(tmp_path, mounting, script)
    assert answer["same"] is True
    assert answer["made"] == {name: blake3(data).hexdigest() for name, (data, _) in contents(at_head.model).items()}
    assert isinstance(answer["used"], int)
    assert answer["used"] < 3 << 20


@pytest.mark.parametrize("maker", [XFS, "mkfs.btrfs -q"])
def test_tensors_on_record_are_not_read_where_their_blocks_are_shared(
    tmp_path: Path, at_head: Workspace, maker: str
) -> None:
    mounting = mount_image(tmp_path, maker)
    script = f"""
import json, os, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_copying import SHARD, make_large
from workspaces import contents
from blake3 import blake3
from tokmigrate.apply import known_files
from tokmigrate.commands.downgrade import downgrade
from tokmigrate.commands.inspect import verify
from tokmigrate.commands.upgrade import upgrade
from tokmigrate.settings import read_workspace
known_files._FINE_NS = 0
place = make_large(Path("mounted/workspace"))
base = contents(place.model)
found = read_workspace(place.settings)
entry = found.models["demo"]
first = "9f3c2a7e41b0"
def read_by(change, to, workspace=found):
    before = int(Path("/proc/self/io").read_text().split()[1])
    change(workspace, entry, to)
    return int(Path("/proc/self/io").read_text().split()[1]) - before
read = [read_by(upgrade, first), read_by(upgrade, "head")]
made = {{name: blake3(data).hexdigest() for name, (data, _) in contents(place.model).items()}}
read += [read_by(downgrade, first), read_by(downgrade, "base")]
same = contents(place.model) == base
upgrade(found, entry, first)
with (place.model / SHARD).open("r+b") as shard:
    shard.seek(-1, os.SEEK_END)
    shard.write(b"?")
read.append(read_by(upgrade, "head"))
right = verify(found, entry).changed == ()
print(json.dumps({{"read": read, "made": made, "same": same, "right": right}}))
"""
    answer = in_namespace(tmp_path, mounting, script)
    assert answer["same"] is True
    assert answer["right"] is True
    assert answer["made"] == {name: blake3(data).hexdigest() for name, (data, _) in contents(at_head.model).items()}
    assert isinstance(answer["read"], list)
    all_tensors = MORE * SIZE
    first, second, down, to_base, trained = answer["read"]
    assert min(first, trained) > all_tensors
    assert max(second, down, to_base) < all_tensors / 2, answer["read"]


EXTENTS = """
import json, re, subprocess, sys
from pathlib import Path
sys.path[:0] = {paths!r}
import making
from models import Size, make_model
from tokmigrate.apply.clone import clone_file
from tokmigrate.commands.downgrade import downgrade
from tokmigrate.commands.upgrade import upgrade
from test_isolate_vocab import isolating
from workspaces import image

def blocks(directory):
    found = []
    for path in sorted(directory.glob("*.safetensors")):
        said = subprocess.run(("filefrag", "-s", "-v", path), check=True, capture_output=True, text=True).stdout
        for _, _, start, stop in re.findall(r"^ *\\d+: *(\\d+)[.][.] *(\\d+): *(\\d+)[.][.] *(\\d+):", said, re.M):
            found += range(int(start), int(stop) + 1)
    return found

model = Path("mounted/model").absolute()
make_model(model, Size(2000, {hidden}, 2, 1024))
add = [[{{"add_tokens": {{"tokens": [f"<{{name}}>" for name in names]}}}}] for names in ("ab", "cd")]
made = making.workspace(Path("mounted"), {{"m": model}}, [{{"operations": operations}} for operations in add])
first, base = made.revisions[0], image(model)
entry = made.entry("m")
shares = []
for isolates, change, to in {changes!r}:
    old = Path(f"mounted/old{{len(shares)}}")
    old.mkdir()
    for path in model.glob("*.safetensors"):
        clone_file(path, old / path.name)
    {{"up": upgrade, "down": downgrade}}[change](made.workspace, isolating(entry) if isolates else entry, to or first)
    before, after = set(blocks(old)), blocks(model)
    shares.append(sum(block not in before for block in after) / len(after))
print(json.dumps({{"shares": shares, "same": image(model) == base}}))
"""
UP_AND_DOWN = [(False, "up", ""), (False, "up", "head"), (False, "down", ""), (False, "down", "base")]


@pytest.mark.parametrize(
    ("maker", "hidden", "changes", "most"),
    [
        pytest.param("mkfs.btrfs -q", 1024, UP_AND_DOWN, [0.05] * 4, id="Btrfs, two rows fill a block"),
        pytest.param(XFS, 1024, UP_AND_DOWN, [0.05] * 4, id="XFS, two rows fill a block"),
        # The embeddings come first, a sixth of the bytes, and are not at the same place as the layers then.
        pytest.param(XFS, 640, UP_AND_DOWN, [0.22] * 4, id="XFS, two rows fill a part"),
        pytest.param(XFS, 1024, [(True, *each[1:]) for each in UP_AND_DOWN], [1, 0.05, 0.05, 1], id="XFS, isolated"),
    ],
)
def test_a_file_has_the_blocks_of_the_one_before(
    tmp_path: Path, maker: str, hidden: int, changes: list[tuple[bool, str, str]], most: list[float]
) -> None:
    if shutil.which("filefrag") is None:
        pytest.skip("no filefrag here to compare the blocks of files")
    mounting = mount_image(tmp_path, maker)
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "benchmarks")]
    answer = in_namespace(tmp_path, mounting, EXTENTS.format(paths=paths, hidden=hidden, changes=changes))
    assert answer["same"] is True
    assert isinstance(answer["shares"], list)
    assert all(share <= limit for share, limit in zip(answer["shares"], most, strict=True)), answer


def test_paranoid_reads_what_was_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = make_workspace(tmp_path / "workspace")
    read: list[str] = []
    monkeypatch.setattr("tokmigrate.apply.stage.drop_cache", lambda path: read.append(path.name))
    settings = place.settings.read_text("utf-8")
    for word, names in (("fast", []), ("paranoid", [SHARD, SHARD.replace("00001", "00002", 1)])):
        place.settings.write_text(settings.replace("verify: fast", f"verify: {word}"), "utf-8")
        read.clear()
        go(place, "upgrade")
        assert sorted(read) == names
        go(place, "downgrade")


def test_a_known_shard_is_read_once_and_another_one_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = make_large(tmp_path / "workspace")
    before = contents(place.model)
    read: list[Path] = []
    monkeypatch.setattr("tokmigrate.apply.digests.read_header", lambda path: read.append(path) or read_header(path))
    monkeypatch.setattr("tokmigrate.apply.known_files._FINE_NS", 0)
    go(place, "upgrade")
    go(place, "downgrade")
    assert read == []
    assert contents(place.model) == before

    go(place, "upgrade")
    os.utime(place.model / SHARD)
    go(place, "downgrade")
    assert [path.name for path in read] == [SHARD]
    assert contents(place.model) == before


def test_a_trained_shard_is_seen_whatever_is_on_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = make_large(tmp_path / "workspace")
    monkeypatch.setattr("tokmigrate.apply.known_files._FINE_NS", 0)
    go(place, "upgrade")
    shard = place.model / SHARD
    status = shard.stat()
    with shard.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x07")
    os.utime(shard, ns=(status.st_atime_ns, status.st_mtime_ns))
    found = read_workspace(place.settings)
    assert downgrade(found, found.models["demo"], BASE).semantic_undo == (SHARD,)


def test_what_was_changed_just_now_is_not_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "shard"
    file.write_bytes(b"rows")
    changed = file.stat().st_ctime_ns
    for passed, recorded in ((0, []), (100_000_000, []), (100_000_001, ["shard"])):
        monkeypatch.setattr("tokmigrate.apply.known_files.time.time_ns", lambda now=changed + passed: now)
        assert list(describe_files(tmp_path, {"shard": "s1:0"})) == recorded

"""The libraries verify a change while its shards are copied: whichever fails stops the other, and nothing is left."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_copying import MORE, SIZE, make_large
from tracing import strace_works
from workspaces import Workspace, command_line, contents, edit, environment

from tokmigrate.commands.upgrade import upgrade
from tokmigrate.errors import StorageError, VerificationError
from tokmigrate.events import ActivityStarted, BytesProcessed, Event
from tokmigrate.parallel import BackgroundCall
from tokmigrate.settings import read_workspace
from tokmigrate.state.database import open_state

# A signal in the middle of a shard; the libraries are imported meanwhile, which takes longer than all that is copied.
_ENDING = """
import os, sys
from pathlib import Path
from tokmigrate.commands.upgrade import upgrade
from tokmigrate.events import BytesProcessed
from tokmigrate.settings import read_workspace
from tokmigrate.signals import raise_keyboard_interrupt

copied = 0
def listen(event):
    global copied
    copied += event.count if isinstance(event, BytesProcessed) else 0
    if copied > 12 << 20:
        assert any(thread.joinpath("children").read_text() for thread in Path("/proc/self/task").iterdir())
        os.kill(os.getpid(), int(sys.argv[1]))

place = read_workspace(Path("tokmigrate.yaml"))
with raise_keyboard_interrupt():
    upgrade(place, place.models["demo"], on_progress=listen)
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Return the demo with a shard that several threads copy, at base."""
    return make_large(tmp_path_factory.mktemp("large") / "workspace")


@pytest.fixture
def place(large: Workspace, tmp_path: Path) -> Workspace:
    made = Workspace(tmp_path / "workspace")
    shutil.copytree(large.root, made.root, symlinks=True)
    return made


def verify_with_transformers(place: Workspace) -> None:
    edit(place.settings, "verify: fast", "verify: full")


def run_in_session(place: Workspace, temporary: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command, and return when no process of its session is left, which must not take long."""
    temporary.mkdir()
    variables = {**environment(), "TMPDIR": str(temporary)}
    with subprocess.Popen(
        command, cwd=place.root, env=variables, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        _, complaints = process.communicate(timeout=120)
        limit = time.monotonic() + 30
        while subprocess.run(["pgrep", "-s", str(process.pid)], capture_output=True, check=False).stdout:
            assert time.monotonic() < limit, "a process is left"
            time.sleep(0.05)
    return subprocess.CompletedProcess(command, process.returncode, "", complaints)


def last_error(place: Workspace) -> str | None:
    found = read_workspace(place.settings)
    state = open_state(found.state, found.root)
    return state.runs(state.model_for("demo", place.model), 1)[0].error


@pytest.mark.skipif(sys.platform != "linux" or shutil.which("pgrep") is None, reason="looks for processes")
@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM])
def test_a_signal_ends_the_copying_and_the_verification(
    place: Workspace, tmp_path: Path, ending: signal.Signals
) -> None:
    verify_with_transformers(place)
    before = contents(place.model)
    done = run_in_session(place, tmp_path / "tmp", sys.executable, "-c", _ENDING, str(ending.value))
    assert contents(place.model) == before
    if ending == signal.SIGKILL:
        assert done.returncode == -signal.SIGKILL
        assert place.run("recover").returncode == 0
    else:
        assert done.returncode == -signal.SIGINT, done.stderr
        assert list((tmp_path / "tmp").iterdir()) == []
    assert contents(place.model) == before
    assert place.left_over() == []
    assert last_error(place) == ("interrupted" if ending == signal.SIGKILL else "KeyboardInterrupt")


@pytest.mark.skipif(not strace_works() or shutil.which("pgrep") is None, reason="needs strace, and pgrep")
def test_a_disk_that_fails_ends_the_verification(place: Workspace, tmp_path: Path) -> None:
    verify_with_transformers(place)
    before = contents(place.model)
    failing = ("strace", "-f", "-qq", "--seccomp-bpf", "-o", os.devnull, "-e", "trace=preadv,preadv2")
    injected = ("-e", "inject=preadv,preadv2:error=EIO:when=9")
    done = run_in_session(place, tmp_path / "tmp", *failing, *injected, *command_line(), "upgrade")
    assert done.returncode == 1
    assert "cannot read the file: Input/output error" in done.stderr
    assert contents(place.model) == before
    assert place.left_over() == []
    assert list((tmp_path / "tmp").iterdir()) == []
    assert "Input/output error" in (last_error(place) or "")


@pytest.mark.parametrize("moment", ["copying", "copying, and the disk fails", "copied"])
def test_a_verification_that_fails_leaves_nothing(
    place: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    path = place.migration(3)
    edit(path, '"<|pad|>"\n', '"a b c"\n')
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    before = contents(place.model)
    calls: list[Late] = []
    started = threading.Event()

    class Late(BackgroundCall[Any]):
        """One that starts at the moment of the test."""

        def __init__(self, work: Callable[[], Any]) -> None:
            calls.append(self)
            super().__init__(lambda: started.wait(60) and work())

    monkeypatch.setattr("tokmigrate.commands.session.BackgroundCall", Late)
    copied = 0

    def listen(event: Event) -> None:
        nonlocal copied
        if isinstance(event, BytesProcessed):
            copied += event.count
        if moment == "copied":
            if event == ActivityStarted("demo", "verifying"):
                started.set()
        elif copied > SIZE:
            started.set()
            assert calls[0].stopped.wait(60)
            if moment != "copying":
                raise StorageError("the disk is full")

    found = read_workspace(place.settings)
    with pytest.raises(VerificationError, match="a `verify:` case does not hold"):
        upgrade(found, found.models["demo"], on_progress=listen)
    assert copied > MORE * SIZE if moment == "copied" else SIZE < copied < (MORE - 1) * SIZE
    assert contents(place.model) == before
    assert place.left_over() == []
    assert [path for path in found.objects.rglob("*") if path.is_file()] == []
    assert list((tmp_path / "tmp").iterdir()) == []
    assert "a `verify:` case does not hold" in (last_error(place) or "")

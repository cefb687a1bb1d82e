"""One process at a time, however the one before ended."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tokmigrate.apply.lock import hold_lock, read_holder
from tokmigrate.apply.workarea import WorkArea
from tokmigrate.errors import BusyError, StorageError

REPOSITORY = Path(__file__).resolve().parents[1]

HOLD = """
import sys, time
from pathlib import Path
from tokmigrate.apply.lock import hold_lock
with hold_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""

# The child lives on after its parent has gone without letting go of the lock.
FORK = """
import os, sys, time
from pathlib import Path
from tokmigrate.apply.lock import hold_lock
lock = hold_lock(Path(sys.argv[1]))
with lock:
    if os.fork() == 0:
        if sys.argv[2] == "leaves":
            lock.__exit__(None, None, None)
        print(os.getpid(), flush=True)
        os.close(1)
        time.sleep(30)
        os._exit(0)
    time.sleep(30)
"""


# The file is replaced just after it was opened, and before it is locked.
REPLACED = """
import sys
from pathlib import Path
from tokmigrate.apply.lock import hold_lock, read_holder
path, done = Path(sys.argv[1]), []
def before(event, arguments):
    if event == "fcntl.flock" and not done:
        done.append(event)
        path.unlink()
        path.touch()
sys.addaudithook(before)
with hold_lock(path):
    print(done, read_holder(path) != "another process", flush=True)
"""


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    area = WorkArea(tmp_path / "model")
    area.create()
    return area.lock


@contextmanager
def process(script: str, *arguments: object) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run a script; give it with the first line that it prints."""
    running = subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert running.stdout
    try:
        yield running, running.stdout.readline().strip()
    finally:
        running.kill()
        running.wait()
        running.stdout.close()


def test_a_lock_is_taken_and_given_back_and_its_file_stays(lock: Path) -> None:
    old_mask = os.umask(0)
    try:
        with hold_lock(lock):
            assert read_holder(lock) == f"process {os.getpid()} on {socket.gethostname()}"
            assert lock.stat().st_mode & 0o777 == 0o644
            inode = lock.stat().st_ino
    finally:
        os.umask(old_mask)
    assert read_holder(lock) == "another process"
    with hold_lock(lock):
        assert lock.stat().st_ino == inode


def test_a_second_one_is_shown_who_holds_it(lock: Path) -> None:
    with process(HOLD, lock, 30) as (holder, line):
        assert line == "held"
        with pytest.raises(BusyError) as caught, hold_lock(lock):
            pass
    assert f"process {holder.pid} on {socket.gethostname()}" in caught.value.message
    assert "--lock-timeout" in (caught.value.hint or "")
    assert caught.value.exit_code == 5


def test_the_same_process_does_not_get_it_twice(lock: Path) -> None:
    with hold_lock(lock), pytest.raises(BusyError), hold_lock(lock):
        pass


def test_killing_the_holder_frees_it(lock: Path) -> None:
    with process(HOLD, lock, 30) as (holder, _):
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        assert read_holder(lock) == f"process {holder.pid} on {socket.gethostname()}"
        with hold_lock(lock):
            assert read_holder(lock) == f"process {os.getpid()} on {socket.gethostname()}"


def test_waiting_gets_it_or_ends_in_time(lock: Path) -> None:
    with process(HOLD, lock, 0.6):
        start_time = time.monotonic()
        with pytest.raises(BusyError, match=r"still after 0\.2 s"), hold_lock(lock, 0.2):
            pass
        assert 0.2 <= time.monotonic() - start_time < 5
        with hold_lock(lock, 30):
            assert time.monotonic() - start_time < 20


@pytest.mark.parametrize("child_does", ["stays", "leaves"])
def test_a_forked_child_keeps_nothing_and_takes_nothing(lock: Path, child_does: str) -> None:
    with process(FORK, lock, child_does) as (parent, line):
        child = int(line)
        try:
            assert read_holder(lock) == f"process {parent.pid} on {socket.gethostname()}"
            with pytest.raises(BusyError), hold_lock(lock):
                pass
            parent.kill()
            parent.wait()
            with hold_lock(lock, 5):
                os.kill(child, 0)
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_started_program_keeps_nothing(lock: Path) -> None:
    with hold_lock(lock):
        sleeper = subprocess.Popen(["sleep", "30"], close_fds=False)
    try:
        with hold_lock(lock):
            assert sleeper.poll() is None
    finally:
        sleeper.kill()
        sleeper.wait()


def test_an_error_inside_gives_it_back(lock: Path) -> None:
    with pytest.raises(ValueError, match="inside"), hold_lock(lock):
        raise ValueError("inside")
    with hold_lock(lock):
        pass


@pytest.mark.parametrize("said", ["", "nonsense", "[]", '{"pid": "x"}', '{"host": "here"}'])
def test_what_the_file_says_is_never_trusted(lock: Path, said: str) -> None:
    lock.write_text(said)
    assert read_holder(lock) == "another process"
    with hold_lock(lock):
        lock.write_text(said)
        with pytest.raises(BusyError, match="locked by another process"), hold_lock(lock):
            pass


def test_a_lock_on_a_removed_work_area_is_no_lock(lock: Path) -> None:
    with hold_lock(lock):
        lock.unlink()
        with hold_lock(lock):
            assert read_holder(lock) == f"process {os.getpid()} on {socket.gethostname()}"


def test_a_file_replaced_before_it_is_locked_is_opened_again(lock: Path) -> None:
    lock.touch()
    with process(REPLACED, lock) as (_, line):
        assert line == "['fcntl.flock'] True"


def test_what_cannot_be_a_lock_file_is_reported(lock: Path, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot open the lock file"), hold_lock(tmp_path / "no" / "lock"):
        pass
    lock.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError), hold_lock(lock):
        pass
    assert not (tmp_path / "elsewhere").exists()

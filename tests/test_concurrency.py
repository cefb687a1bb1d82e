"""Two processes and one model: one of them works, the other waits or leaves; nothing is mixed."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time

import pytest
from workspaces import HEAD, Contents, Workspace, command_line, contents, environment

# Upgrades or downgrades the model; says when it holds the lock, and goes on when it is told to.
SLOW = """
import sys
from pathlib import Path
from tokmigrate.events import Step, StepReached
from tokmigrate.commands.upgrade import upgrade
from tokmigrate.settings import read_workspace

def listen(event):
    if isinstance(event, StepReached) and event.step == Step(sys.argv[2]):
        print(event.step, flush=True)
        sys.stdin.readline()

place = read_workspace(Path(sys.argv[1]))
upgrade(place, place.models["demo"], on_progress=listen)
"""


class Slow:
    """A process in the middle of an upgrade."""

    def __init__(self, workspace: Workspace, step: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", SLOW, str(workspace.settings), step],
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline().strip() == step

    def go_on(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def ends_well(self) -> None:
        self.process.communicate(timeout=60)
        assert self.process.returncode == 0

    def is_killed(self) -> None:
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.communicate(timeout=60)


@pytest.mark.parametrize("step", ["locked", "staged", "swapped"])
def test_the_second_leaves_with_5(place: Workspace, head: Contents, step: str) -> None:
    slow = Slow(place, step)
    words = ["downgrade", "base"] if step == "swapped" else ["upgrade"]
    second = place.run(*words, "--json")
    assert second.returncode == 5, second.stdout + second.stderr
    error = json.loads(second.stdout)["error"]
    assert error["kind"] == "BusyError"
    assert f"process {slow.process.pid} on " in error["message"]
    assert "--lock-timeout" in error["hint"]
    slow.go_on()
    slow.ends_well()
    assert contents(place.model) == head
    assert place.left_over() == []
    runs = place.asked("log")["runs"]
    assert [run["status"] for run in runs] == ["APPLIED"]


def test_recover_does_not_touch_what_is_in_progress(place: Workspace, head: Contents) -> None:
    slow = Slow(place, "prepared")
    second = place.run("recover")
    assert second.returncode == 5, second.stdout
    assert "locked by process" in second.stderr
    assert sorted(place.left_over()) == ["journal", "stage"]
    slow.go_on()
    slow.ends_well()
    assert contents(place.model) == head


def test_the_second_waits(place: Workspace, head: Contents) -> None:
    slow = Slow(place, "staged")
    command = [*command_line(), "upgrade", "--lock-timeout", "60", "--json"]
    waiting = subprocess.Popen(command, cwd=place.root, env=environment(), stdout=subprocess.PIPE, text=True)
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.wait(4)
    slow.go_on()
    slow.ends_well()
    said, _ = waiting.communicate(timeout=60)
    assert waiting.returncode == 0
    found = json.loads(said)["models"][0]
    assert (found["changed"], found["migrations"], found["recovered"]) == (False, [], "nothing")
    assert contents(place.model) == head
    assert [run["status"] for run in place.asked("log")["runs"]] == ["APPLIED"]


def test_many_at_once(place: Workspace, head: Contents) -> None:
    command = [*command_line(), "upgrade", "--lock-timeout", "60", "--json"]
    several = [
        subprocess.Popen(command, cwd=place.root, env=environment(), stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    said = [process.communicate(timeout=120)[0] for process in several]
    assert [process.returncode for process in several] == [0, 0, 0]
    assert sorted(json.loads(text)["models"][0]["changed"] for text in said) == [False, False, True]
    assert contents(place.model) == head
    assert [run["status"] for run in place.asked("log")["runs"]] == ["APPLIED"]


@pytest.mark.parametrize("step", ["locked", "swapped"])
def test_the_lock_of_a_killed_process_is_free(place: Workspace, head: Contents, step: str) -> None:
    slow = Slow(place, step)
    slow.is_killed()
    # The file still names the process that is gone.
    assert json.loads((place.area / "lock").read_text("utf-8"))["pid"] == slow.process.pid
    assert place.asked("upgrade")["models"][0]["to_revision"] in (HEAD, None)
    assert contents(place.model) == head


def test_who_reads_does_not_wait_long_for_a_locked_state(place: Workspace) -> None:
    assert place.run("upgrade").returncode == 0
    holder = sqlite3.connect(place.root / ".tokmigrate" / "state.db", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    try:
        start_time = time.monotonic()
        done = place.run("status")
        waited = time.monotonic() - start_time
    finally:
        holder.close()
    assert done.returncode == 5
    assert "another process writes to the state database and does not finish" in done.stderr
    assert 1.5 < waited < 10

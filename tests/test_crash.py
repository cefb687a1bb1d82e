"""A change that dies, or is refused something, at any point leaves the model before it or the one after it.

Processes are killed for real. The two-step swap is reached by a seccomp filter: the kernel itself answers
EINVAL to a swap, as it does on a filesystem that has none.
"""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import signal
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dying import FORKED, STREAMED, change, die, dying_at, exit_code
from tracing import points, strace, strace_works
from workspaces import BASE, HEAD, Contents, Image, contents, image, make_workspace

from tokmigrate.events import Step
from tokmigrate.settings import read_workspace
from tokmigrate.state.database import open_state

FORKED.set_forkserver_preload([__name__])

DIRECTIONS = ("upgrade", "downgrade")
STEPS = tuple(Step)


def dying_at_rename(root: Path, direction: str, number: int) -> None:
    """Change the model where nothing can be swapped, and be killed before a rename out of or into its place."""
    forbid_swap()
    left = number

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        if event == "os.rename" and Path(os.fsdecode(arguments[0])).name in {"demo", "stage", "aside"}:
            if left == 0:
                die()
            left -= 1

    sys.addaudithook(watch)
    change(root, direction)


def without_swap(root: Path, direction: str) -> None:
    forbid_swap()
    change(root, direction)


def forbid_swap() -> None:
    """Let the kernel answer EINVAL to renameat2 with RENAME_EXCHANGE in this process afterwards."""
    number = {"x86_64": 316, "aarch64": 276, "riscv64": 276}[platform.machine()]

    def instruction(code: int, yes: int, no: int, operand: int) -> bytes:
        return struct.pack("HBBI", code, yes, no, operand)

    load, jump_if_equal, answer = 0x20, 0x15, 0x06
    program = b"".join(
        [
            instruction(load, 0, 0, 0),  # the number of the call
            instruction(jump_if_equal, 0, 3, number),
            instruction(load, 0, 0, 16 + 8 * 4),  # its fifth argument, the flags
            instruction(jump_if_equal, 0, 1, 2),  # RENAME_EXCHANGE
            instruction(answer, 0, 0, 0x00050000 | 22),  # SECCOMP_RET_ERRNO, EINVAL
            instruction(answer, 0, 0, 0x7FFF0000),  # SECCOMP_RET_ALLOW
        ]
    )
    held = ctypes.create_string_buffer(program)
    header = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(held))
    library = ctypes.CDLL(None, use_errno=True)
    for arguments in ((38, 1, 0, 0, 0), (22, 2, ctypes.create_string_buffer(header), 0, 0)):
        if library.prctl(*arguments):
            raise OSError(ctypes.get_errno(), "no seccomp filter")


def seccomp_works() -> bool:
    return sys.platform == "linux" and exit_code(forbid_swap) == 0


class Story:
    """A workspace in which one direction is about to be taken, and what it is before and after."""

    def __init__(self, root: Path, direction: str, head: Contents) -> None:
        self.workspace = make_workspace(root)
        self.direction = direction
        self.base = contents(self.workspace.model)
        self.head = head
        if direction == "downgrade":
            change(root, "upgrade")
            assert contents(self.workspace.model) == head
        self.old: Image = image(self.workspace.model)

    @property
    def before(self) -> Contents:
        return self.base if self.direction == "upgrade" else self.head

    @property
    def after(self) -> Contents:
        return self.head if self.direction == "upgrade" else self.base

    def is_before(self) -> None:
        """Say that it is the old directory: bytes, modes and times of all files."""
        assert image(self.workspace.model) == self.old

    def is_after(self) -> None:
        """Say that it is the new one, and that no file was touched that has the same bytes in both."""
        found = image(self.workspace.model)
        assert contents(self.workspace.model) == self.after
        for name, old in self.old.items():
            if name in found and found[name].data == old.data and self.direction == "upgrade":
                assert found[name].mtime_ns == old.mtime_ns, name

    def is_settled(self, *, happened: bool) -> None:
        """Say that directory and database agree, and that nothing is left over."""
        self.is_after() if happened else self.is_before()
        assert self.workspace.left_over() == []
        place = read_workspace(self.workspace.settings)
        state = open_state(place.state, place.root)
        model = state.model_for("demo", self.workspace.model)
        assert state.active(model) is None
        applied = [row.record.revision for row in state.list_applied(model)]
        assert (applied[-1:] == [HEAD]) == self.at_head(happened=happened)
        assert len(applied) == (3 if applied else 0)

    def at_head(self, *, happened: bool) -> bool:
        return happened == (self.direction == "upgrade")

    def goes_on(self) -> None:
        """Say that the next commands work, and end at the exact bytes of before."""
        change(self.workspace.root, "upgrade")
        assert contents(self.workspace.model) == self.head
        change(self.workspace.root, "downgrade")
        assert contents(self.workspace.model) == self.base
        assert self.workspace.left_over() == []


@pytest.fixture(params=DIRECTIONS)
def story(tmp_path: Path, request: pytest.FixtureRequest, head: Contents) -> Story:
    return Story(tmp_path / "workspace", request.param, head)


def has_happened(moment: str) -> bool:
    return moment != STREAMED and STEPS.index(Step(moment)) >= STEPS.index(Step.SWAPPED)


@pytest.mark.parametrize("moment", [*(step.value for step in STEPS), STREAMED])
def test_killed_at_a_step(story: Story, moment: str) -> None:
    root = story.workspace.root
    assert exit_code(dying_at, root, story.direction, moment) == -signal.SIGKILL
    happened = has_happened(moment)
    # Even before anything is recovered the directory is one of the two.
    story.is_after() if happened else story.is_before()

    interrupted = moment not in (Step.LOCKED, Step.CLEANED)
    found = ("after" if happened else "before") if interrupted else "nothing"
    assert story.workspace.asked("recover")["models"] == [{"model": "demo", "found": found}]
    story.is_settled(happened=happened)
    if moment != Step.LOCKED:
        run = story.workspace.asked("log")["runs"][0]
        assert (run["direction"], run["status"]) == (story.direction, "APPLIED" if happened else "FAILED")
    revision = HEAD if story.at_head(happened=happened) else None
    assert story.workspace.asked("current")["models"] == [{"model": "demo", "revision": revision}]
    story.goes_on()


@pytest.mark.parametrize("moment", [STREAMED, Step.PREPARED, Step.SWAPPED])
def test_the_next_upgrade_recovers_by_itself(story: Story, moment: str) -> None:
    assert exit_code(dying_at, story.workspace.root, story.direction, moment) == -signal.SIGKILL
    document = story.workspace.asked("upgrade")
    assert document["models"][0]["recovered"] == ("after" if has_happened(moment) else "before")
    assert contents(story.workspace.model) == story.head
    assert story.workspace.left_over() == []
    story.goes_on()


def test_the_next_downgrade_recovers_by_itself(story: Story) -> None:
    assert exit_code(dying_at, story.workspace.root, story.direction, Step.SWAPPED) == -signal.SIGKILL
    done = story.workspace.run("downgrade", "base")
    # A killed downgrade that had happened leaves nothing to take back.
    assert done.returncode == (0 if story.direction == "upgrade" else 1), done.stderr
    assert contents(story.workspace.model) == story.base
    assert story.workspace.left_over() == []


def test_killed_twice(story: Story) -> None:
    """A second change dies in the same place: what the first left is recovered before."""
    root = story.workspace.root
    for _ in range(2):
        assert exit_code(dying_at, root, story.direction, Step.STAMPED) == -signal.SIGKILL
    assert story.workspace.asked("recover")["models"][0]["found"] == "before"
    story.is_settled(happened=False)
    runs = story.workspace.asked("log", "--limit", "2")["runs"]
    assert [run["status"] for run in runs] == ["FAILED", "FAILED"]


def dying_before_the_journal(root: Path, direction: str) -> None:
    """Change the model, and be killed when the journal is written but does not have its name yet."""

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "os.rename" and Path(os.fsdecode(arguments[1])).name == "journal":
            die()

    sys.addaudithook(watch)
    change(root, direction)


def test_killed_before_the_journal_has_its_name(story: Story) -> None:
    assert exit_code(dying_before_the_journal, story.workspace.root, story.direction) == -signal.SIGKILL
    assert story.workspace.left_over() != []
    assert story.workspace.asked("recover")["models"][0]["found"] == "nothing"
    story.is_settled(happened=False)
    assert story.workspace.asked("log")["runs"][0]["status"] == "FAILED"


@pytest.mark.parametrize("number", range(3))
def test_killed_between_the_renames_of_a_two_step_swap(story: Story, number: int) -> None:
    if not seccomp_works():
        pytest.skip("this system takes no seccomp filter")
    root = story.workspace.root
    assert exit_code(dying_at_rename, root, story.direction, number) == -signal.SIGKILL
    assert story.workspace.model.exists() == (number != 1)
    assert "an error in tokmigrate itself" not in story.workspace.run("status").stderr
    happened = number > 0
    assert story.workspace.asked("recover")["models"][0]["found"] == ("after" if happened else "before")
    story.is_settled(happened=happened)
    story.goes_on()


def test_the_next_command_ends_a_two_step_swap(story: Story) -> None:
    if not seccomp_works():
        pytest.skip("this system takes no seccomp filter")
    root = story.workspace.root
    assert exit_code(dying_at_rename, root, story.direction, 1) == -signal.SIGKILL
    assert story.workspace.asked("upgrade")["models"][0]["recovered"] == "after"
    assert contents(story.workspace.model) == story.head


def test_a_change_without_swap_works(story: Story) -> None:
    if not seccomp_works():
        pytest.skip("this system takes no seccomp filter")
    assert exit_code(without_swap, story.workspace.root, story.direction) == 0
    story.is_settled(happened=True)


def words(direction: str) -> list[str]:
    return ["upgrade"] if direction == "upgrade" else ["downgrade", BASE]


@pytest.fixture
def heeded() -> Iterator[None]:
    """Let commands heed signals: what runs under nohup or in the background may ignore them, and so do its children."""
    handlers = {signal.SIGHUP: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("heeded")
def test_signals_that_end_a_command(story: Story, tmp_path: Path) -> None:
    """Before the commit point they undo the change, behind it the change is finished; nothing is left to recover."""
    if not strace_works():
        pytest.skip("strace is not installed, or may not trace here")
    workspace = story.workspace
    begin = tmp_path / "begin"
    shutil.copytree(workspace.root, begin, symlinks=True)
    calls = points(workspace, words(story.direction), tmp_path)
    commit = calls.index(("renameat2", 1))
    for name, number in (("TERM", commit // 2), ("HUP", commit - 1), ("INT", commit), ("TERM", commit + 2)):
        call, nth = calls[number]
        shutil.rmtree(workspace.root)
        shutil.copytree(begin, workspace.root, symlinks=True)
        injected = strace("-o", os.devnull, "-e", f"inject={call}:signal={name}:when={nth}")
        done = workspace.run_process(*words(story.direction), before=tuple(injected))
        said = f"SIG{name} at {call} {nth}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert done.returncode == 130, said
        assert done.stderr.splitlines()[-3:-2] == ["error: stopped"], said
        story.is_settled(happened=number >= commit)

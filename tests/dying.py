"""Commands in a process of their own that is killed for real; it imports nothing that is slow to import."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokmigrate.commands.downgrade import downgrade
from tokmigrate.commands.file_transaction import finish_writing
from tokmigrate.commands.rebase import rebase
from tokmigrate.commands.squash import squash
from tokmigrate.commands.upgrade import upgrade
from tokmigrate.events import BytesProcessed, Event, OnProgress, StepReached, no_progress
from tokmigrate.settings import Workspace, read_workspace

FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(
    [f"tokmigrate.commands.{name}" for name in ("downgrade", "rebase", "squash", "upgrade")],
)
STREAMED = "in the middle of the bytes"


def place_of(root: Path) -> Workspace:
    """Return the workspace in a folder."""
    return read_workspace(root / "tokmigrate.yaml", {})


def rebased(root: Path) -> None:
    """Move the branch of the migration `cccc…`."""
    place = place_of(root)
    rebase(place, list(place.models.values()), "cccc")


def put_together(root: Path) -> None:
    """Squash the first three migrations."""
    place = place_of(root)
    squash(place, list(place.models.values()), "1", "3")


def settled(root: Path) -> None:
    """Finish what was interrupted."""
    finish_writing(place_of(root))


def change(root: Path, direction: str, on_progress: OnProgress = no_progress) -> None:
    """Upgrade the first model of a workspace, or bring it back to base."""
    place = place_of(root)
    entry = next(iter(place.models.values()))
    if direction == "upgrade":
        upgrade(place, entry, on_progress=on_progress)
    else:
        downgrade(place, entry, "base", on_progress=on_progress)


def die() -> None:
    """Be killed."""
    os.kill(os.getpid(), signal.SIGKILL)


def dying_at(root: Path, direction: str, moment: str) -> None:
    """Change the model and be killed at `moment`, a step or `STREAMED`."""
    streamed = 0

    def listen(event: Event) -> None:
        nonlocal streamed
        if isinstance(event, StepReached) and event.step == moment:
            die()
        if isinstance(event, BytesProcessed) and moment == STREAMED:
            streamed += event.count
            if streamed > 1 << 20:
                die()

    change(root, direction, listen)


def dying(command: Callable[[Path], None], root: Path, number: int) -> None:
    """Carry a command out, and be killed before a certain change of a file."""
    left = number

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        if event == "open":
            changes = isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        else:
            changes = event in {"os.rename", "os.remove", "os.mkdir", "os.link", "os.truncate"}
        if changes and str(root) in str(arguments[0]):
            if left == 0:
                die()
            left -= 1

    sys.addaudithook(watch)
    command(root)


def exit_code(function: Callable[..., None], *arguments: object) -> int | None:
    """Call a function in a process of its own, and return that one's exit code."""
    child = FORKED.Process(target=function, args=arguments)
    child.start()
    child.join(120)
    return child.exitcode

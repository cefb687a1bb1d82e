"""Team commands in a process of their own that is killed for real; it imports nothing that is slow to import."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokmigrate.commands.file_transaction import finish_writing
from tokmigrate.commands.rebase import rebase
from tokmigrate.commands.squash import squash
from tokmigrate.commands.upgrade import upgrade
from tokmigrate.events import Event, Step, StepReached
from tokmigrate.settings import Workspace, read_workspace

FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(
    [f"tokmigrate.commands.{name}" for name in ("rebase", "squash", "upgrade")],
)


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


def upgraded_and_killed(root: Path) -> None:
    """Upgrade the model `demo`, and be killed as soon as it is in its place."""

    def listen(event: Event) -> None:
        if isinstance(event, StepReached) and event.step == Step.SWAPPED:
            os.kill(os.getpid(), signal.SIGKILL)

    place = place_of(root)
    upgrade(place, place.models["demo"], on_progress=listen)


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
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1

    sys.addaudithook(watch)
    command(root)


def exit_code(command: Callable[[Path], None], root: Path, number: int) -> int | None:
    """Let a command die in a process of its own, and return that one's exit code."""
    child = FORKED.Process(target=dying, args=(command, root, number))
    child.start()
    child.join(120)
    return child.exitcode

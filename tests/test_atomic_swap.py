"""Two directories change places, at once or in steps that any crash may interrupt."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from test_filesystem import REPOSITORY, in_namespace

from tokmigrate.apply.atomic_swap import (
    SwapUnsupportedError,
    finish_two_step,
    swap,
    two_step_swap,
)
from tokmigrate.errors import StorageError

# Kills its own process just before the rename with the given number, counted from 0.
KILLED = """
import os, signal, sys
from pathlib import Path
from tokmigrate.apply import atomic_swap
left = int(sys.argv[2])
def before(event, arguments):
    global left
    if event == "os.rename":
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
sys.addaudithook(before)
getattr(atomic_swap, sys.argv[1])(*map(Path, sys.argv[3:]))
"""


def make(directory: Path) -> tuple[Path, Path, Path]:
    """Return model, stage and aside of a work area, with an old and a new model."""
    a, b = directory / "model", directory / ".model.tokmigrate" / "stage"
    for path, text in ((a, "old"), (b, "new")):
        path.mkdir(parents=True)
        (path / "stamp").write_text(text)
    return a, b, b.parent / "aside"


def texts(*paths: Path) -> list[str | None]:
    return [(path / "stamp").read_text() if path.exists() else None for path in paths]


def test_a_swap_swaps(tmp_path: Path) -> None:
    a, b, _ = make(tmp_path)
    inside = (a / "stamp").open()
    try:
        swap(a, b)
    except SwapUnsupportedError as error:
        pytest.skip(f"{error}")
    assert texts(a, b) == ["new", "old"]
    with inside:
        assert inside.read() == "old"
    swap(a, b)
    assert texts(a, b) == ["old", "new"]


def test_a_swap_with_nothing_changes_nothing(tmp_path: Path) -> None:
    a, b, aside = make(tmp_path)
    with pytest.raises(StorageError, match="No such file") as caught:
        swap(a, aside)
    assert not isinstance(caught.value, SwapUnsupportedError)
    assert texts(a, b, aside) == ["old", "new", None]


def test_a_mount_point_is_refused_with_the_remedy(tmp_path: Path) -> None:
    space = tmp_path / "a space\\040"
    a, b, _ = make(space)
    script = f"""
import json
from pathlib import Path
from tokmigrate.apply.atomic_swap import swap
from tokmigrate.errors import StorageError
a, b = Path({str(a)!r}), Path({str(b)!r})
try:
    swap(a, b)
    said = []
except StorageError as error:
    said = [str(error), error.hint]
print(json.dumps({{"said": said, "stamp": (a / "stamp").read_text()}}))
"""
    answer = in_namespace(space, f"mount --bind {a.name} {a.name}", script)
    assert isinstance(answer["said"], list)
    message, hint = answer["said"]
    assert message.startswith(f"{a}: is a mount point")
    assert "a directory inside it" in hint
    assert answer["stamp"] == "old"


def test_two_steps_are_a_swap(tmp_path: Path) -> None:
    a, b, aside = make(tmp_path)
    two_step_swap(a, b, aside)
    assert texts(a, b, aside) == ["new", "old", None]
    finish_two_step(a, b, aside)
    assert texts(a, b, aside) == ["new", "old", None]


def test_two_steps_do_not_begin_on_the_rest_of_others(tmp_path: Path) -> None:
    a, b, aside = make(tmp_path)
    aside.mkdir()
    with pytest.raises(StorageError, match="interrupted swap"):
        two_step_swap(a, b, aside)
    assert texts(a, b) == ["old", "new"]


@pytest.mark.parametrize("first", range(4))
@pytest.mark.parametrize("second", range(3))
def test_killed_before_any_rename_it_is_finished(tmp_path: Path, first: int, second: int) -> None:
    paths = make(tmp_path)
    for name, renames in (("two_step_swap", first), ("finish_two_step", second)):
        done = subprocess.run(
            [sys.executable, "-c", KILLED, name, str(renames), *map(str, paths)],
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            check=False,
        )
        assert done.returncode in (0, -signal.SIGKILL)
        # Whatever the instant, both models are somewhere.
        assert sorted(text for text in texts(*paths) if text) == ["new", "old"]
    for _ in range(2):
        finish_two_step(*paths)
        assert texts(*paths) == (["old", "new", None] if first == 0 else ["new", "old", None])


def test_a_vanished_candidate_gives_the_model_back(tmp_path: Path) -> None:
    a, b, aside = make(tmp_path)
    a.rename(aside)
    shutil.rmtree(b)
    finish_two_step(a, b, aside)
    assert texts(a, b, aside) == ["old", None, None]


def test_what_no_interruption_leaves_is_reported_and_not_touched(tmp_path: Path) -> None:
    a, b, aside = make(tmp_path)
    shutil.copytree(a, aside)
    with pytest.raises(StorageError, match="both other directories exist") as caught:
        finish_two_step(a, b, aside)
    assert caught.value.hint
    assert texts(a, b, aside) == ["old", "new", "old"]
    shutil.rmtree(a)
    shutil.rmtree(aside)
    with pytest.raises(StorageError, match="does not exist") as caught:
        finish_two_step(a, b, aside)
    assert str(b) in (caught.value.hint or "")
    assert texts(b) == ["new"]

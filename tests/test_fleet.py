"""`-j N`: several models at a time, with the results, the guarantees and the output of one after the other."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console
from workspaces import BASE, DEMO, HEAD, Contents, Workspace, contents, environment, make_fleet

from tokmigrate.commands import resources
from tokmigrate.commands.fleet import each_model
from tokmigrate.errors import StorageError
from tokmigrate.events import ActivityStarted, BytesProcessed, Event, OnProgress, Step, StepReached, Warned, no_progress
from tokmigrate.render import terminal
from tokmigrate.settings import ModelEntry

NAMES = ("a", "b", "c", "d")


@pytest.fixture
def place(tmp_path: Path) -> Workspace:
    """Four copies of the demo."""
    return make_fleet(tmp_path / "place", NAMES)


def models(place: Workspace) -> list[Contents]:
    return [contents(place.root / "models" / name) for name in NAMES]


def entries(*names: str) -> list[ModelEntry]:
    return [ModelEntry(name, Path("/nowhere", name)) for name in names]


def test_models_side_by_side_are_changed_and_printed_as_one_after_the_other(place: Workspace, head: Contents) -> None:
    one_by_one = place.run("upgrade")
    assert models(place) == [head] * len(NAMES)
    assert place.run("downgrade", BASE, "-j", "4").stdout == "".join(
        f"{name}: {HEAD} → base, 3 reverted, every byte verified\n" for name in NAMES
    )
    assert models(place) == [contents(DEMO)] * len(NAMES)
    together = place.run("upgrade", "-j", "3")
    assert (together.returncode, together.stderr) == (0, one_by_one.stderr)
    assert together.stdout == one_by_one.stdout
    assert models(place) == [head] * len(NAMES)
    assert place.run("check").returncode == 0
    assert place.run("log", "--verify-chain").returncode == 0


def test_none_is_changed_if_one_cannot_be(place: Workspace) -> None:
    (place.root / "models" / "c" / "tokenizer.json").write_text("{", "utf-8")
    before = models(place)
    done = place.run("upgrade", "-j", "2")
    assert done.returncode == 1
    assert done.stderr.endswith("done: none; failed: c; not tried: a, b, d\n")
    assert models(place) == before


@pytest.mark.parametrize("step", [Step.RECORDED, Step.STAGED, Step.PREPARED, Step.SWAPPED, Step.APPLIED])
@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM])
def test_each_model_is_as_before_or_as_after_when_the_process_ends(
    place: Workspace, head: Contents, step: Step, ending: signal.Signals
) -> None:
    code = f"""
import os, sys, threading, time
from tokmigrate.apply import publish
from tokmigrate.cli.app import main
from tokmigrate.events import Step, StepReached
real, seen = publish.StepReached, []
def reached(model, step):
    if step == Step({step.value!r}):
        seen.append(model)
        if len(seen) == 2:
            os.kill(os.getpid(), {ending.value})
    return real(model, step)
publish.StepReached = reached
sys.argv = ["tokmigrate", "upgrade", "-j", "2"]
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=place.root, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode in {-signal.SIGKILL, 130}, done.stderr
    if ending == signal.SIGTERM:
        assert all(each in (contents(DEMO), head) for each in models(place))
    recovered = place.run("recover")
    assert recovered.returncode == 0, recovered.stderr
    assert all(each in (contents(DEMO), head) for each in models(place))
    if step in {Step.SWAPPED, Step.APPLIED}:
        assert models(place).count(head) >= 2
    assert place.run("upgrade", "-j", "2").returncode == 0
    assert models(place) == [head] * len(NAMES)
    assert place.run("log", "--verify-chain").returncode == 0


def test_results_and_warnings_come_in_the_order_of_the_models() -> None:
    second_ended = threading.Event()
    heard: list[str] = []

    def work(entry: ModelEntry, on_progress: OnProgress) -> str:
        if entry.name == "a":
            assert second_ended.wait(30)
        on_progress(Warned(entry.name, "about"))
        if entry.name == "b":
            second_ended.set()
        return entry.name.upper()

    def listen(event: Event) -> None:
        if isinstance(event, Warned):
            heard.append(event.model)

    for entry, result in each_model(entries(*NAMES), work, 2, listen):
        heard.append(result())
        assert heard[-2:] == [entry.name, entry.name.upper()]
    assert heard == ["a", "A", "b", "B", "c", "C", "d", "D"]


@pytest.mark.parametrize(("keep_going", "tried"), [(False, ["a", "b"]), (True, ["a", "b", "c", "d"])])
def test_no_model_is_begun_after_one_failed(keep_going: bool, tried: list[str]) -> None:
    both = threading.Barrier(2)

    def work(entry: ModelEntry, _: OnProgress) -> None:
        if entry.name in "ab":
            both.wait(30)
        if entry.name == "a":
            raise StorageError("no space")
        if entry.name == "b":
            # It ends after the other has failed.
            failed.wait(30)

    failed = threading.Event()
    found: list[str] = []
    for entry, result in each_model(entries(*NAMES), work, 2, no_progress, keep_going=keep_going):
        found.append(entry.name)
        if entry.name == "a":
            with pytest.raises(StorageError):
                result()
            failed.set()
    assert found == tried


class Crowd:
    """Work that counts the models that are worked on, and lets as many come together as may."""

    def __init__(self, expected: int) -> None:
        self.lock = threading.Lock()
        self.together = threading.Event()
        self.now = self.most = 0
        self.expected = expected

    def __call__(self, entry: ModelEntry, _: OnProgress) -> str:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
            if self.now == self.expected:
                self.together.set()
        assert self.together.wait(30)
        time.sleep(0.02)
        with self.lock:
            self.now -= 1
        return entry.name


@pytest.mark.parametrize(
    ("memory_mib", "space_mib", "at_a_time"), [(4096, 4096, 4), (1100, 4096, 2), (4096, 250, 2), (1, 1, 1)]
)
def test_fewer_models_at_a_time_where_memory_or_space_is_not_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory_mib: int, space_mib: int, at_a_time: int
) -> None:
    monkeypatch.setattr(resources, "free_memory", lambda: memory_mib << 20)
    monkeypatch.setattr(resources, "free_bytes", lambda _: space_mib << 20)
    crowd = Crowd(at_a_time)
    listed = [ModelEntry(name, tmp_path) for name in NAMES]
    found = each_model(listed, crowd, 4, no_progress, bytes_to_write=lambda _: 100 << 20)
    assert [result() for _, result in found] == list(NAMES)
    assert crowd.most == at_a_time


def test_an_unknown_amount_of_memory_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "free_memory", lambda: None)
    crowd = Crowd(2)
    assert [result() for _, result in each_model([ModelEntry(name, tmp_path) for name in "ab"], crowd, 2, no_progress)]
    assert crowd.most == 2


def test_the_progress_of_each_model_fits_into_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(width=80, force_terminal=True, file=io.StringIO(), color_system=None)
    monkeypatch.setattr(terminal, "_open_console", lambda **_: console)
    names = ("a", "a-model-with-a-name-of-more-than-forty-letters")
    with terminal.progress() as on_progress:
        bars = on_progress.__self__.bars  # type: ignore[attr-defined]
        for name in names:
            on_progress(ActivityStarted(name, "staging", 16 << 30))
        for _ in range(3):
            for name in names:
                time.sleep(0.01)
                on_progress(BytesProcessed(name, 100 << 20))
        shown = io.StringIO()
        Console(width=80, file=shown).print(bars.get_renderable())
    lines = shown.getvalue().splitlines()
    assert [line.split(":")[0][:8] for line in lines] == ["a", "a-model-"]
    for line in lines:
        assert len(line) <= 80
        assert re.search(r"300\.0 MiB of 16\.0 GiB, .*iB/s, \d+ s left *$", line)


@pytest.fixture
def _interruptible() -> Iterator[None]:
    # A shell without job control has its background ignore SIGINT.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_interruptible")
def test_an_interrupt_reaches_models_that_are_not_committed() -> None:
    ready = threading.Barrier(3)
    ended: dict[str, str] = {}
    going_on = threading.Event()

    def work(entry: ModelEntry, on_progress: OnProgress) -> None:
        ready.wait(30)
        assert going_on.wait(30)
        try:
            on_progress(StepReached(entry.name, Step.PREPARED if entry.name == "a" else Step.SWAPPED))
            ended[entry.name] = "done"
        except KeyboardInterrupt:
            ended[entry.name] = "undone"

    running = each_model(entries("a", "b"), work, 2, no_progress)
    threading.Timer(0.1, interrupt_when, (ready, going_on)).start()
    with pytest.raises(KeyboardInterrupt):
        next(running)
    assert ended == {"a": "undone", "b": "done"}


@pytest.mark.usefixtures("_interruptible")
def test_an_interrupt_reaches_models_that_wait_for_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "free_memory", lambda: 1)
    ready, going_on = threading.Barrier(2), threading.Event()
    tried: list[str] = []

    def work(entry: ModelEntry, on_progress: OnProgress) -> None:
        tried.append(entry.name)
        ready.wait(30)
        assert going_on.wait(30)
        on_progress(StepReached(entry.name, Step.PREPARED))

    running = each_model(entries("a", "b"), work, 2, no_progress)
    threading.Timer(0.1, interrupt_when, (ready, going_on)).start()
    with pytest.raises(KeyboardInterrupt):
        next(running)
    assert tried == ["a"]


def interrupt_when(ready: threading.Barrier, going_on: threading.Event) -> None:
    ready.wait(30)
    os.kill(os.getpid(), signal.SIGINT)
    threading.Timer(1, going_on.set).start()

"""The real command line, killed or refused at every system call that changes something on the disk.

A model with an adapter and a GGUF is upgraded, downgraded and recovered. Whatever happens, each is the one before or
the one after, the exit code says which, and `recover` finishes it. By default a test takes some of the calls of a run;
`TOKMIGRATE_SWEEP=full` takes all of them.
"""

from __future__ import annotations

import os
import shutil
import signal
from dataclasses import dataclass, replace
from pathlib import Path

import peft
import pytest
import torch
import transformers
from dying import dying_at, exit_code
from gguf_files import convert
from tracing import points, strace, strace_works
from workspaces import BASE, HEAD, Contents, Workspace, contents, make_workspace

from tokmigrate.commands.downgrade import downgrade
from tokmigrate.commands.upgrade import upgrade
from tokmigrate.events import Step
from tokmigrate.settings import read_workspace
from tokmigrate.state.database import open_state

FULL = os.environ.get("TOKMIGRATE_SWEEP") == "full"
SAMPLES = 3
"""How many calls of a whole run a test takes without TOKMIGRATE_SWEEP=full."""
OTHERWISE = {("error=ENOSPC", "downgrade"), ("error=EIO", "upgrade"), ("error=ENOSPC", "recover")}
"""What is left to TOKMIGRATE_SWEEP=full."""
EVERY = 10 if FULL else 1
"""After how many of the points the model goes up and down once more."""
_FOLLOWERS = "adapters: [loras/adapter], copies: [{path: ggufs/demo.gguf, follow: true}]"
COMMANDS = {"upgrade": ["upgrade"], "downgrade": ["downgrade", BASE], "recover": ["recover"]}


@dataclass(frozen=True)
class Both:
    """The contents of the model, of its adapter and of its GGUF."""

    model: Contents
    adapter: Contents
    gguf: Contents


def adapter_of(place: Workspace) -> Path:
    return place.root / "loras" / "adapter"


def gguf_of(place: Workspace) -> Path:
    return place.root / "ggufs" / "demo.gguf"


def both(place: Workspace) -> Both:
    copy = gguf_of(place)
    return Both(contents(place.model), contents(adapter_of(place)), {copy.name: contents(copy.parent)[copy.name]})


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Return the demo with an adapter on its embeddings and a GGUF, at base."""
    made = make_workspace(tmp_path_factory.mktemp("base") / "workspace")
    torch.manual_seed(3)
    model = transformers.AutoModelForCausalLM.from_pretrained(made.model)
    options = peft.LoraConfig(r=2, target_modules=["embed_tokens", "lm_head"], init_lora_weights=False)
    peft.get_peft_model(model, options).save_pretrained(adapter_of(made))
    settings = made.settings.read_text("utf-8")
    made.settings.write_text(settings.replace("{path: models/demo}", f"{{path: models/demo, {_FOLLOWERS}}}"), "utf-8")
    gguf_of(made).parent.mkdir()
    convert(made.model, gguf_of(made))
    return made


@pytest.fixture(scope="module")
def head(base: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Return the same at the head of its migrations."""
    return _upgraded(base, tmp_path_factory.mktemp("head") / "workspace")


def _upgraded(base: Workspace, root: Path) -> Workspace:
    shutil.copytree(base.root, root, symlinks=True)
    place = read_workspace(root / "tokmigrate.yaml")
    upgrade(place, place.models["demo"])
    return Workspace(root)


@pytest.fixture(scope="module")
def interrupted(base: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Return the same, killed in the middle of its upgrade: the model is in place, its adapter is not."""
    root = tmp_path_factory.mktemp("interrupted") / "workspace"
    shutil.copytree(base.root, root, symlinks=True)
    assert exit_code(dying_at, root, "upgrade", Step.SWAPPED) == -signal.SIGKILL
    return Workspace(root)


def sampled(found: list[tuple[str, int]], offset: int) -> list[tuple[str, int]]:
    """Return some of a run's calls, spread over it; each kind of test begins elsewhere."""
    if FULL:
        return found
    # Most calls are writes of the database and of rows: one like the other, but for the last one.
    rare = [point for point in found if point[0] not in {"pwrite64", "write", "fdatasync"}]
    last = [point for point in found if point[0] == "pwrite64"][-1:]
    return [*rare[offset :: max(1, len(rare) // SAMPLES)], *last]


@pytest.mark.skipif(not strace_works(), reason="strace is not installed, or may not trace here")
@pytest.mark.parametrize("command", list(COMMANDS))
@pytest.mark.parametrize(("kind", "offset"), [("signal=KILL", 0), ("error=ENOSPC", 2), ("error=EIO", 4)])
def test_sweep(
    base: Workspace, head: Workspace, interrupted: Workspace, tmp_path: Path, command: str, kind: str, offset: int
) -> None:
    if not FULL and (kind, command) in OTHERWISE:
        pytest.skip("only with TOKMIGRATE_SWEEP=full")
    begin = {"upgrade": base, "downgrade": head, "recover": interrupted}[command]
    at_base, at_head = both(base), both(head)
    before, after = (at_head, at_base) if command == "downgrade" else (at_base, at_head)
    place = Workspace(tmp_path / "workspace")
    shutil.copytree(begin.root, place.root, symlinks=True)
    chosen = sampled(points(place, COMMANDS[command], tmp_path), offset)
    assert both(place) == after
    assert chosen
    killed = 0
    for count, (call, number) in enumerate(chosen):
        shutil.rmtree(place.root)
        shutil.copytree(begin.root, place.root, symlinks=True)
        injected = strace("-o", os.devnull, "-e", f"inject={call}:{kind}:when={number}")
        done = place.run_process(*COMMANDS[command], before=tuple(injected))
        told = f"{call} {number} {kind}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        killed += done.returncode == -signal.SIGKILL
        found = both(place)
        assert found.model in (before.model, after.model), told
        assert found.adapter in (before.adapter, after.adapter), told
        assert found.gguf in (before.gguf, after.gguf), told
        assert "Traceback" not in done.stderr, told
        assert "an error in tokmigrate itself" not in done.stderr, told
        if kind != "signal=KILL":
            assert done.returncode in (0, 1, 5), told
        if done.returncode == 0:
            assert found == after, told
        if done.returncode == 1:
            assert found == both(begin), told
        if found not in (before, after):
            # The model is in place and what follows it is not: every command says what to do.
            assert found in (replace(before, model=after.model), replace(after, gguf=before.gguf)), told
            assert place.run("status").returncode == 5, told
        recovered = place.run("recover")
        assert recovered.returncode == 0, told + recovered.stderr
        found = both(place)
        assert found in (before, after), told
        is_settled(place, at_head=found == at_head, told=told)
        if count % EVERY == 0:
            goes_on(place, at_base, at_head, told)
    # A call that a worker makes as well may end that one instead.
    assert kind != "signal=KILL" or killed > len(chosen) // 2
    # Shown by `pytest -rP`.
    print(f"{command}, {kind}: {len(chosen)} points, {killed} times killed")


def is_settled(place: Workspace, *, at_head: bool, told: str) -> None:
    """Say that the database agrees with the directories, and that nothing is left over."""
    assert place.left_over() == [], told
    for beside in (adapter_of(place).parent / ".adapter.tokmigrate", gguf_of(place).parent / ".demo.gguf.tokmigrate"):
        assert [path.name for path in beside.iterdir() if path.name != "lock"] == [] if beside.exists() else True, told
    found = read_workspace(place.settings)
    state = open_state(found.state, found.root)
    model = state.model_for("demo", place.model)
    assert state.active(model) is None, told
    assert [row.record.revision for row in state.list_applied(model)][-1:] == ([HEAD] if at_head else []), told


def goes_on(place: Workspace, at_base: Both, at_head: Both, told: str) -> None:
    """Say that the next commands work, and end at the exact bytes of before."""
    found = read_workspace(place.settings)
    upgrade(found, found.models["demo"])
    assert both(place) == at_head, told
    downgrade(found, found.models["demo"], BASE)
    assert both(place) == at_base, told
    assert place.left_over() == [], told

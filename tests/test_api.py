"""The Python API: its names, and a workspace used through it."""

from __future__ import annotations

import gc
import re
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
from workspaces import HEAD, REPOSITORY, Workspace, contents, edit

import tokmigrate
from tokmigrate.commands import preparation


def test_the_exported_names() -> None:
    assert tokmigrate.__all__ == [
        "BusyError",
        "Checked",
        "Downgraded",
        "DriftError",
        "ModelStatus",
        "OpenWorkspace",
        "Plan",
        "TokmigrateError",
        "Upgraded",
        "UsageError",
        "open",
    ]
    for name in tokmigrate.__all__:
        assert getattr(tokmigrate, name).__name__ == name
        assert getattr(tokmigrate, name).__doc__
    with pytest.raises(AttributeError, match="upgrade"):
        tokmigrate.upgrade  # noqa: B018


def test_a_workspace_up_and_down(place: Workspace) -> None:
    before = contents(place.model)
    with tokmigrate.open(place.root / "models") as ws:
        (plan,) = ws.plan()
        assert [len(plan.steps), plan.after] == [3, HEAD]
        assert [checked.exit_code for checked in ws.check()] == [3]
        assert [done.plan.after for done in ws.upgrade("+2", model="demo")] == ["9f3c2a7e41b0"]
        ws.upgrade()
        assert ws.current() == {"demo": HEAD}
        assert [checked.exit_code for checked in ws.check()] == [0]
        (status,) = ws.status()
        assert [token.token for token in status.training] == ["<|im_start|>", "<|im_end|>", "<|pad|>"]
        assert [done.semantic_undo for done in ws.downgrade("base")] == [()]
        with pytest.raises(tokmigrate.TokmigrateError) as raised:
            ws.downgrade("base")
        assert raised.value.exit_code == 1
    assert contents(place.model) == before


def test_a_plan_is_kept_for_models_that_are_alike_until_the_workspace_is_closed(place: Workspace) -> None:
    with tokmigrate.open(place.root) as ws:
        kept = weakref.ref(ws.plan()[0].steps[0])
        gc.collect()
        assert kept() is ws.plan()[0].steps[0]
        migration = weakref.ref(ws.plan()[0].steps[0].migration)
    gc.collect()
    assert kept() is None
    assert migration() is None


def test_what_it_returns_can_be_printed(place: Workspace) -> None:
    with tokmigrate.open(place.root) as ws:
        for told in (ws.plan(), ws.check(), ws.upgrade(), ws.status(), ws.check(), ws.downgrade("base"), ws):
            assert len(repr(told)) < 2000, told
        assert "message='Add the ChatML role tokens'" in repr(ws.plan())


def test_a_closed_workspace_says_so(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    edit(place.settings, "verify: fast", "verify: full")
    started: list[str] = []
    monkeypatch.setattr(preparation, "prepare_worker", started.append)
    with tokmigrate.open(place.root) as ws:
        assert not ws.closed
    for act in (ws.plan, ws.upgrade, ws.status, ws.check, ws.current, lambda: ws.downgrade("base")):
        with pytest.raises(tokmigrate.UsageError, match="the workspace is closed") as raised:
            act()
        assert raised.value.hint
    assert not started
    ws = tokmigrate.open(place.root)
    ws.close()
    ws.close()
    with pytest.raises(tokmigrate.UsageError):
        ws.plan()


def test_no_workspace_and_no_models(tmp_path: Path) -> None:
    with pytest.raises(tokmigrate.UsageError):
        tokmigrate.open(tmp_path)
    (tmp_path / "tokmigrate.yaml").write_text("format: 1\n", "utf-8")
    with tokmigrate.open(tmp_path) as ws, pytest.raises(tokmigrate.UsageError, match="no models"):
        ws.plan()


def test_importing_it_imports_nothing_heavy() -> None:
    code = "import sys, tokmigrate; print([n for n in ('torch', 'pydantic', 'sqlalchemy') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_every_name_has_an_example_that_runs(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(place.model)
    page = (REPOSITORY / "docs" / "api.md").read_text("utf-8")
    assert sorted(re.findall(r"^## `(\w+)`$", page, re.MULTILINE)) == tokmigrate.__all__
    sections = page.split("\n## ")[1:]
    examples = [re.findall(r"^```python\n(.*?)^```$", each, re.DOTALL | re.MULTILINE) for each in sections]
    assert all(len(found) == 1 for found in examples)
    monkeypatch.chdir(place.root)
    known: dict[str, object] = {}
    for section, (example,) in zip(sections, examples, strict=True):
        exec(compile(example, section.split("\n")[0], "exec"), known)  # noqa: S102
    assert contents(place.model) == before

"""Workspaces and models that are moved keep their ledger, and can be downgraded."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from workspaces import BASE, HEAD, Workspace, contents, list_models

from tokmigrate.state.database import open_state


def test_a_workspace_that_was_moved_can_be_downgraded(place: Workspace, tmp_path: Path) -> None:
    before = contents(place.model)
    assert place.run("upgrade").returncode == 0
    place.root.rename(tmp_path / "y")
    moved = Workspace(tmp_path / "y")
    (run,) = moved.asked("log")["runs"]
    assert run["path"] == str(moved.model)
    assert "<|im_start|>" in moved.run("diff", "demo", BASE).stdout
    assert "peft-config" in moved.run("status").stdout
    done = moved.run("downgrade", BASE)
    assert done.returncode == 0, done.stderr
    assert contents(moved.model) == before
    assert moved.run("log", "--verify-chain").returncode == 0


def test_copies_of_a_workspace_go_their_own_ways(place: Workspace, tmp_path: Path) -> None:
    before = contents(place.model)
    assert place.run("upgrade").returncode == 0
    shutil.copytree(place.root, tmp_path / "y", symlinks=True)
    for each in (Workspace(tmp_path / "y"), place):
        assert each.run("downgrade", BASE).returncode == 0
        assert contents(each.model) == before


def test_a_model_that_was_moved_takes_its_ledger_along(place: Workspace, tmp_path: Path) -> None:
    before = contents(place.model)
    assert place.run("upgrade").returncode == 0
    outside = tmp_path / "elsewhere" / "big"
    outside.parent.mkdir()
    new = place.model
    for target in (place.root / "models" / "big", outside, tmp_path / "third"):
        new = new.rename(target)
        list_models(place, big=str(new))
        assert [run["direction"] for run in place.asked("log")["runs"]][-1:] == ["upgrade"]
        assert place.run("downgrade", "-1").returncode == 0
        assert place.run("upgrade").returncode == 0
    assert place.run("downgrade", BASE).returncode == 0
    assert contents(new) == before
    assert place.run("log", "--verify-chain").returncode == 0


def test_a_copy_is_not_taken_for_the_original(place: Workspace) -> None:
    assert place.run("upgrade").returncode == 0
    shutil.copytree(place.model, place.model.with_name("copy"))
    list_models(place, demo="models/demo", copy="models/copy")
    done = place.run("downgrade", BASE, "-M", "copy")
    assert done.returncode == 1
    assert "the undo data of" in done.stderr
    assert place.asked("current", "-M", "demo")["models"][0]["revision"] == HEAD
    assert place.run("downgrade", BASE, "-M", "demo").returncode == 0


def test_where_two_of_the_same_are_gone_nothing_is_guessed(place: Workspace) -> None:
    shutil.copytree(place.model, place.model.with_name("twin"))
    list_models(place, demo="models/demo", twin="models/twin")
    assert place.run("upgrade").returncode == 0
    for name in ("demo", "twin"):
        place.model.with_name(name).rename(place.model.with_name(f"{name}2"))
    list_models(place, a="models/demo2")
    assert "the undo data of" in place.run("downgrade", BASE).stderr


def test_another_host_is_another_place(place: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outside = tmp_path / "outside"
    place.model.rename(outside)
    list_models(place, demo=str(outside))
    assert place.run("upgrade").returncode == 0
    outside.rename(tmp_path / "else")
    list_models(place, demo=str(tmp_path / "else"))
    with monkeypatch.context() as patched:
        patched.setattr("socket.gethostname", lambda: "another")
        assert "the undo data of" in place.run("downgrade", BASE).stderr


def test_a_state_outside_of_the_workspace_keeps_whole_paths(tmp_path: Path) -> None:
    shared = f"sqlite:///{tmp_path / 'shared.db'}"
    rows = []
    for name in ("one", "two"):
        (tmp_path / name / "m").mkdir(parents=True)
        rows.append(open_state(shared, tmp_path / name).model_for("m", tmp_path / name / "m"))
    assert [row.path for row in rows] == [str(tmp_path / "one" / "m"), str(tmp_path / "two" / "m")]
    assert rows[0].id != rows[1].id

"""A command over several models: one that fails hides no other, and nothing is changed unless all can be."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from typing import Any

import pytest
from workspaces import BASE, HEAD, Workspace, contents, list_models, run_here

from tokmigrate.commands.upgrade import Upgraded
from tokmigrate.commands.upgrade import upgrade as upgrade_model
from tokmigrate.errors import StorageError


def copied(place: Workspace, name: str) -> Path:
    return Path(shutil.copytree(place.model, place.root / "models" / name))


ABSENT = "error: absent: {root}/models/absent: the model is missing: no such directory\n"


@pytest.mark.parametrize("order", list(itertools.permutations(("absent", "demo"))), ids="-".join)
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("status",), "demo"),
        (("plan",), "demo: base → "),
        (("check",), "demo: at base, 3 pending"),
        (("verify",), "demo: base, no file changed"),
        (("current",), "demo: base"),
        (("test",), "demo"),
        (("report",), "demo: "),
        (("blame", "othing"), "demo"),
        (("recover",), "demo: nothing to recover"),
    ],
    ids=lambda part: part[0] if isinstance(part, tuple) else "",
)
def test_an_absent_model_hides_no_other(
    place: Workspace, order: tuple[str, ...], words: tuple[str, ...], said: str
) -> None:
    list_models(place, *order)
    done = run_here(place.root, *words)
    assert done.returncode == 1, done.stdout + done.stderr
    assert said in done.stdout
    assert ABSENT.format(root=place.root) in done.stderr
    found = place.asked(*words, code=1)
    assert "demo" in [each["model"] for each in found["models"]]
    assert [each["model"] for each in found["failed"]] == ["absent"]
    assert found["failed"][0]["error"] == found["error"]
    assert found["error"]["message"] == "the model is missing: no such directory"


def test_the_most_serious_code_is_that_of_the_command(place: Workspace) -> None:
    drifted = copied(place, "drifted")
    list_models(place, "drifted", "demo")
    assert run_here(place.root, "upgrade", "-M", "drifted").returncode == 0
    (drifted / "chat_template.jinja").write_text("other", "utf-8")
    assert run_here(place.root, "check", "-M", "demo").returncode == 3
    assert run_here(place.root, "check").returncode == 4
    list_models(place, "demo", "absent")
    assert run_here(place.root, "check").returncode == 1
    list_models(place, "drifted", "demo", "absent")
    assert run_here(place.root, "check").returncode == 4


def test_the_same_error_is_reported_once(place: Workspace) -> None:
    copied(place, "other")
    list_models(place, "demo", "other")
    done = run_here(place.root, "plan", "nosuch")
    assert done.returncode == 2
    assert done.stderr.count("no revision is called 'nosuch'") == 1
    assert len(place.asked("plan", "nosuch", code=2)["failed"]) == 2


def test_what_explains_errors_of_one_kind_is_named_once(place: Workspace) -> None:
    list_models(place, "absent", "demo", "gone")
    for name in ("plan", "upgrade"):
        said = run_here(place.root, name).stderr.splitlines()
        assert [line for line in said if line.startswith("more: ")] == ["more: tokmigrate explain missing-model"]
        assert sum(line.startswith("error: ") for line in said) == 2
    failed = place.asked("plan", code=1)["failed"]
    assert [each["error"]["explain"] for each in failed] == ["missing-model", "missing-model"]


def test_a_plan_that_lacks_a_model_is_not_written(place: Workspace) -> None:
    list_models(place, "demo", "absent")
    assert run_here(place.root, "plan", "-o", "plan.json").returncode == 1
    assert not (place.root / "plan.json").exists()


def test_a_plan_of_no_model_changes_none(place: Workspace) -> None:
    list_models(place, "absent")
    assert run_here(place.root, "plan", "--here", "-o", "plan.json").returncode == 0
    list_models(place, "demo")
    done = run_here(place.root, "upgrade", "--plan", "plan.json")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: plan.json: the plan file contains no models\n")


@pytest.mark.parametrize("command", [("upgrade",), ("downgrade", BASE)], ids=["upgrade", "downgrade"])
@pytest.mark.parametrize("order", list(itertools.permutations(("absent", "demo"))), ids="-".join)
def test_nothing_is_changed_unless_all_can_be(
    place: Workspace, order: tuple[str, ...], command: tuple[str, ...]
) -> None:
    if command[0] == "downgrade":
        assert run_here(place.root, "upgrade").returncode == 0
    list_models(place, *order)
    before = contents(place.model)
    done = run_here(place.root, *command)
    assert (done.returncode, done.stdout) == (1, "")
    assert ABSENT.format(root=place.root) in done.stderr
    assert done.stderr.endswith("done: none; failed: absent; not tried: demo\n")
    found = place.asked(*command, code=1)
    assert (found["models"], found["not_tried"]) == ([], ["demo"])
    assert [each["model"] for each in found["failed"]] == ["absent"]
    assert contents(place.model) == before
    assert run_here(place.root, *command, "-M", "demo").returncode == 0


def test_a_failure_on_the_way_ends_it_and_is_summed_up(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b", "c"):
        copied(place, name)
    list_models(place, "a", "b", "c")
    upgrade = upgrade_model

    def failing(workspace: Any, entry: Any, *rest: Any, **more: Any) -> Upgraded:
        if entry.name == "b":
            raise StorageError("no space", hint="make room")
        return upgrade(workspace, entry, *rest, **more)

    monkeypatch.setattr("tokmigrate.commands.upgrade.upgrade", failing)
    done = run_here(place.root, "upgrade")
    assert done.returncode == 1
    assert f"a: upgraded to {HEAD}" in done.stdout
    assert done.stderr.splitlines() == [
        "error: b: no space",
        "what to do: make room",
        "more: tokmigrate explain storage",
        "done: a; failed: b; not tried: c",
    ]
    found = place.asked("upgrade", code=1)
    assert [each["model"] for each in found["models"]] == ["a"]
    assert [each["model"] for each in found["failed"]] == ["b"]
    assert found["not_tried"] == ["c"]
    assert run_here(place.root, "current").stdout == f"a: {HEAD}\nb: base\nc: base\n"


def test_a_model_that_is_there_already_is_passed_over(place: Workspace) -> None:
    copied(place, "other")
    list_models(place, "other", "demo")
    assert run_here(place.root, "upgrade", "-M", "demo").returncode == 0
    done = run_here(place.root, "downgrade", BASE)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "note: other: nothing to downgrade: the model is already at 'base'\n"
    assert f"demo: {HEAD} → base" in done.stdout
    assert run_here(place.root, "downgrade", BASE).returncode == 1


@pytest.mark.parametrize("command", ["plan", "check", "status"])
def test_models_that_are_not_here_can_be_left_out(place: Workspace, command: str) -> None:
    list_models(place, "absent", "demo")
    done = run_here(place.root, command, "--here")
    assert done.returncode == (3 if command == "check" else 0)
    assert "demo" in done.stdout
    assert done.stderr == "note: skipped, because the directory is missing: absent\n"
    assert [each["model"] for each in place.asked(command, "--here", code=done.returncode)["models"]] == ["demo"]
    list_models(place, "absent", "gone")
    done = run_here(place.root, command, "--here")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "note: skipped, because the directory is missing: absent, gone\n"


def test_no_model_goes_back_where_the_way_of_one_is_not_on_record(place: Workspace) -> None:
    list_models(place, "demo")
    assert run_here(place.root, "upgrade").returncode == 0
    copied(place, "other")
    list_models(place, "demo", "other")
    before = contents(place.model)
    done = run_here(place.root, "downgrade", "-1")
    assert done.returncode == 1
    assert "other: the undo data of" in done.stderr
    assert contents(place.model) == before


def test_two_names_of_one_directory_are_refused(place: Workspace) -> None:
    (place.root / "models" / "twin").symlink_to(place.model)
    list_models(place, "demo", "twin")
    done = run_here(place.root, "status")
    assert done.returncode == 2
    assert "'twin' is the same directory as 'demo'" in done.stderr

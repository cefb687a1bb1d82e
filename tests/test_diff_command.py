"""`tokmigrate diff`: two directories, or a model and what it is planned to be or once was."""

from __future__ import annotations

import pytest
from real_tokenizers import real
from workspaces import HEAD, Workspace

from tokmigrate.commands.diff import compare, sides_of
from tokmigrate.errors import UndoError
from tokmigrate.model.documents.semantic_diff import Difference
from tokmigrate.settings import read_workspace


def at(place: Workspace, revision: str) -> tuple[Difference, ...]:
    workspace = read_workspace(place.settings)
    return compare(*sides_of(workspace, workspace.models["demo"], revision)).differences


def turned(found: tuple[Difference, ...]) -> set[tuple[str, str, str, str]]:
    """Return differences seen from the other side."""
    names = {"added": "removed", "removed": "added"}
    return {(names.get(each.aspect, each.aspect), each.subject, str(each.after), str(each.before)) for each in found}


def told(found: tuple[Difference, ...]) -> set[tuple[str, str, str, str]]:
    return {(each.aspect, each.subject, str(each.before), str(each.after)) for each in found}


def test_the_planned_state_and_the_recorded_one_mirror_each_other(place: Workspace) -> None:
    planned = at(place, "head")
    assert {each.subject for each in planned if each.aspect == "added"} == {"<|im_start|>", "<|im_end|>", "<|pad|>"}
    assert place.run("upgrade").returncode == 0
    assert at(place, "head") == ()
    assert told(at(place, "base")) == turned(planned)
    assert 0 < len(at(place, "-1")) < len(planned)
    assert place.run("downgrade", "base").returncode == 0
    assert at(place, "base") == ()
    assert at(place, "head") == planned


def test_a_missing_undo_record_is_reported(place: Workspace) -> None:
    assert place.run("upgrade").returncode == 0
    (place.root / ".tokmigrate" / "state.db").unlink()
    with pytest.raises(UndoError, match="undo data of"):
        at(place, "base")


def test_the_command_tells_and_exits_as_asked(place: Workspace) -> None:
    shown = place.run("diff", "demo", "head")
    assert shown.returncode == 0, shown.stderr
    assert "tokens: 3 added" in shown.stdout
    assert "demo at base → demo at " + HEAD in shown.stdout
    assert place.run("diff", "demo", "head", "--exit-code").returncode == 1
    assert (
        place.run("diff", "demo", "models/demo", "--exit-code").stdout == "demo → models/demo\nno semantic difference\n"
    )
    asked = place.asked("diff", "demo", "head")
    assert {"aspect": "added", "subject": "<|pad|>", "before": None, "after": 1026} in asked["differences"]
    wrong = place.run("diff", "demo", "haed")
    assert wrong.returncode == 2
    assert "'haed' is not a revision, a model of this workspace or a directory" in wrong.stderr
    assert "head" in wrong.stderr


def test_tokenizers_alone_in_a_workspace(place: Workspace) -> None:
    for name in ("first", "second"):
        (place.root / name).mkdir()
        (place.root / name / "tokenizer.json").write_bytes((place.root / "models/demo/tokenizer.json").read_bytes())
    assert place.run("diff", "first", "second").stdout == "first → second\nno semantic difference\n"
    missing = place.run("diff", "first", "head")
    assert "there is no config.json" in missing.stderr


def test_two_directories_need_no_workspace(place: Workspace) -> None:
    place.settings.unlink()
    pair = [str(real(name)) for name in ("bert-base-uncased", "all-minilm-l6-v2")]
    found = place.asked("diff", *pair)["differences"]
    assert {(each["aspect"], each["subject"]) for each in found} == {
        ("role", "pad"),
        ("part", "truncation"),
        ("part", "padding"),
    }
    missing = place.run("diff", pair[0], "nowhere")
    assert (missing.returncode, "is not a directory" in missing.stderr) == (2, True)

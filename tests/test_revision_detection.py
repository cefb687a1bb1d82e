"""A model that has what migrations do, and no stamp that says so: what the commands make of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from test_semantic_undo import trained
from workspaces import HEAD, Workspace, edit, make_workspace

FIRST, SECOND = "3b8f0d5a61c2", "9f3c2a7e41b0"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace whose model was trained at the head, and saved elsewhere by transformers."""
    made = make_workspace(tmp_path_factory.mktemp("whole") / "w")
    assert made.run("upgrade").returncode == 0
    trained(made.model, made.root / "models" / "t3")
    assert not (made.root / "models" / "t3" / "tokmigrate.json").exists()
    return made


@pytest.fixture
def place(whole: Workspace, tmp_path: Path) -> Workspace:
    return Workspace(Path(shutil.copytree(whole.root, tmp_path / "w")))


def test_a_model_that_is_past_a_revision_is_not_adopted_there(place: Workspace) -> None:
    for revision in ("0001", "0002"):
        refused = place.run("stamp", revision, "-M", "models/t3")
        assert refused.returncode == 1
        assert "the model is past that revision" in refused.stderr
        assert "the token '<|pad|>' is there" in refused.stderr
        assert f"`tokmigrate stamp {HEAD} --model models/t3`" in refused.stderr
        assert "stamp --from" in refused.stderr
        assert not (place.root / "models" / "t3" / "tokmigrate.json").exists()
    assert "the token '<|im_start|>' is there" in place.run("stamp", "0001", "-M", "models/t3").stderr
    assert place.run("stamp", HEAD, "-M", "models/t3").returncode == 0


def test_a_model_that_has_a_part_of_a_migration_is_shown_what_is_missing(place: Workspace) -> None:
    target = place.root / "models" / "t2"
    assert place.run("downgrade", SECOND).returncode == 0
    shutil.copytree(place.model, target)
    (target / "tokmigrate.json").unlink()
    # The last token gets another text: of the second migration a part is there.
    text = (target / "tokenizer.json").read_text("utf-8").replace("<|im_end|>", "<|im_over|>")
    (target / "tokenizer.json").write_text(text, "utf-8")
    refused = place.run("stamp", FIRST, "-M", "models/t2")
    assert refused.returncode == 1
    assert "part of what 9f3c2a7e41b0 does is there: the token '<|im_start|>' is there" in refused.stderr
    assert "the token '<|im_end|>' is not there" in refused.stderr


def test_where_nothing_later_is_there_a_model_is_adopted(place: Workspace) -> None:
    target = place.root / "models" / "t2"
    assert place.run("downgrade", SECOND).returncode == 0
    shutil.copytree(place.model, target)
    (target / "tokmigrate.json").unlink()
    assert place.run("stamp", SECOND, "-M", "models/t2").returncode == 0


def test_a_wrong_stamp_can_be_taken_off(place: Workspace) -> None:
    refused = place.run("stamp", "0001", "-M", "demo")
    assert refused.returncode == 2
    assert "remove tokmigrate.json" in refused.stderr
    (place.model / "tokmigrate.json").unlink()
    assert place.run("stamp", "head", "-M", "demo").returncode == 0
    assert place.run("downgrade", "base").returncode == 0


def test_a_copy_without_a_stamp_is_shown_how_it_is_adopted(place: Workspace) -> None:
    edit(place.settings, "verify:", "  tuned: {path: models/t3}\nverify:")
    from_demo = "`tokmigrate stamp --from demo --model tuned`"
    at_head = f"`tokmigrate stamp {HEAD} --model tuned`"
    for code, command in ((0, "status"), (3, "check"), (1, "plan"), (1, "upgrade")):
        done = place.run(command, "-M", "tuned")
        assert done.returncode == code, command
        assert from_demo in done.stdout + done.stderr, command
        assert at_head in done.stdout + done.stderr, command
    assert f"looks like {HEAD}" in place.run("check", "-M", "tuned").stdout
    (told,) = json.loads(place.run("check", "-M", "tuned", "--json").stdout)["models"]
    assert HEAD in told["detected"]
    assert place.run("stamp", "--from", "demo", "-M", "tuned").returncode == 0
    assert place.run("check", "-M", "tuned").returncode == 0
    (found,) = place.asked("status", "-M", "tuned")["models"]
    assert not any("stamp" in note for note in found["notes"])


def test_a_model_at_base_gets_no_hint(tmp_path: Path) -> None:
    made = make_workspace(tmp_path / "w")
    assert made.asked("status")["models"][0]["notes"] == []
    assert "stamp" not in made.run("check").stdout

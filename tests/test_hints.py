"""What a hint says to do is done, and the problem is gone."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from command_tables import commands
from safetensors.torch import load_file
from workspaces import BASE, DEMO, HEAD, Workspace, contents, edit, run_here

from tokmigrate.cli.app import ELSEWHERE


def refused(place: Workspace, *words: str, code: int = 2) -> str:
    """Return the output of a command that has to fail."""
    said = run_here(place.root, *words)
    assert said.returncode == code, said.stdout + said.stderr
    return said.stdout + said.stderr


def done(place: Workspace, *words: str) -> str:
    """Return what a command that has to work prints."""
    said = run_here(place.root, *words)
    assert said.returncode == 0, said.stderr
    return said.stdout


def hinted(text: str) -> Iterator[list[str]]:
    """Yield the commands of this program that a hint names."""
    for command in re.findall(r"`tokmigrate ([^`]+)`", text):
        yield shlex.split(command)


@pytest.mark.parametrize("command", ["plan", "upgrade"])
def test_a_model_in_the_place_of_a_revision(place: Workspace, command: str) -> None:
    said = refused(place, command, "demo")
    assert "it is a model" in said
    done(place, command, *shlex.split(said.partition("\nmore: ")[0].rpartition(": ")[2]))


@pytest.mark.parametrize("word", ["0", "zero"])
def test_the_state_before_all_migrations_by_another_name(place: Workspace, word: str) -> None:
    done(place, "upgrade")
    (_, name) = re.findall(r"is called '(\w+)'$", refused(place, "downgrade", word), re.MULTILINE)
    assert done(place, "downgrade", name).startswith(f"demo: {HEAD} → {BASE}")


def test_commands_of_other_tools(place: Workspace) -> None:
    for word in ELSEWHERE:
        assert word not in commands()
        (command,) = hinted(refused(place, word))
        assert command[0] in commands()
        if "downgrade" not in command:
            done(place, *command)
    done(place, "upgrade")
    for command in hinted(refused(place, "rollback")):
        done(place, *command)
    assert done(place, "current") != f"demo: {HEAD}\n"


@pytest.mark.parametrize("models", ["  demo: models/demo\n", "  demo: 'models/demo'\n"])
def test_a_directory_alone_is_a_model(place: Workspace, models: str) -> None:
    edit(place.settings, "  demo: {path: models/demo}\n", models)
    assert done(place, "current") == "demo: base\n"


def test_a_directory_alone_that_is_listed_twice_has_a_place(place: Workspace) -> None:
    edit(place.settings, "verify:", "  twin: models/demo\nverify:")
    assert "tokmigrate.yaml:6:9: 'twin' is the same directory as 'demo'" in refused(place, "current")


def test_a_list_of_models(place: Workspace) -> None:
    text = place.settings.read_text("utf-8")
    place.settings.write_text(text.replace("  demo: {path: models/demo}\n", "  - models/demo\n"), "utf-8")
    (entry,) = re.findall(r"`(\w+: [\w/]+)`", refused(place, "current"))
    place.settings.write_text(text.replace("demo: {path: models/demo}", entry), "utf-8")
    done(place, "current")


@pytest.mark.parametrize("by_option", [True, False])
def test_a_model_of_the_hub_and_a_file(place: Workspace, by_option: bool) -> None:
    text = place.settings.read_text("utf-8")

    def asked(path: str) -> tuple[str, ...]:
        if not by_option:
            place.settings.write_text(text.replace("models/demo", path), "utf-8")
        return ("plan", "-M", path) if by_option else ("plan",)

    said = refused(place, *asked("nobody/tiny-7b"), code=2 if by_option else 1)
    download = shlex.split(said.rpartition("there: ")[2])
    assert download[:4] == ["hf", "download", "nobody/tiny-7b", "--local-dir"]
    # As the Hub's command would: nothing is fetched here.
    shutil.copytree(DEMO, download[4])
    done(place, *asked("nobody/tiny-7b"))

    said = refused(place, *asked("models/demo/config.json"), code=2 if by_option else 1)
    done(place, *asked(said.partition("\nmore: ")[0].strip().rpartition(", ")[2]))


@pytest.mark.parametrize(
    ("name", "hint"), [("c07d", "choose another name"), ("1.2", "a tag begins with a letter"), ("base", "another name")]
)
def test_a_name_that_cannot_be_a_tag(place: Workspace, name: str, hint: str) -> None:
    assert hint in refused(place, "tag", name, "0001")
    done(place, "tag", "v1.2-chat", "0001")


def test_a_missing_stamp(place: Workspace) -> None:
    done(place, "upgrade")
    stamp = place.model / "tokmigrate.json"
    for words in (("check",), ("verify",), ("plan",), ("upgrade",), ("downgrade", BASE)):
        stamp.unlink()
        (command, _) = hinted(refused(place, *words, code=4))
        done(place, *command)
        done(place, "check")
    done(place, "downgrade", BASE)


def test_a_missing_stamp_since_the_original_is_there_again(place: Workspace) -> None:
    original = contents(place.model)
    done(place, "upgrade")
    migrated = contents(place.model)
    shutil.rmtree(place.model)
    shutil.copytree(DEMO, place.model)
    assert contents(place.model) == original
    (_, command) = hinted(refused(place, "plan", code=4))
    done(place, *command)
    assert contents(place.model) == migrated


@pytest.mark.parametrize("revision", ["0001", "head"])
def test_a_revision_that_a_model_is_not_at(place: Workspace, revision: str) -> None:
    done(place, "upgrade", "0002")
    (place.model / "tokmigrate.json").unlink()
    shutil.rmtree(place.root / ".tokmigrate")
    said = refused(place, "stamp", revision, code=1)
    (command,) = (words for words in hinted(said) if "--from" not in words)
    done(place, *command)
    done(place, "upgrade")
    done(place, "check")


def test_a_role_that_was_changed_by_hand(place: Workspace, tmp_path: Path) -> None:
    done(place, "upgrade")
    copy = tmp_path / "a copy"
    shutil.copytree(place.model, copy)
    path = place.model / "tokenizer_config.json"
    config = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps({**config, "eos_token": "<|endoftext|>"}), "utf-8")
    said = refused(place, "check", code=4)
    (command,) = hinted(said)
    done(place, *(str(copy) if word == "DIR" else word for word in command))
    shutil.copy(copy / path.name, path)
    done(place, "upgrade")
    done(place, "check")
    assert json.loads(path.read_text("utf-8"))["eos_token"] == "<|endoftext|>"


@pytest.mark.parametrize("text", ["{", "", "[]", "{}"])
def test_a_tokenizer_that_is_damaged(place: Workspace, text: str) -> None:
    path = place.model / "tokenizer.json"
    path.write_text(text, "utf-8")
    for command in ("plan", "status", "upgrade"):
        assert "restore it from a copy of the model" in refused(place, command, code=1)
    shutil.copy(DEMO / path.name, path)
    done(place, "status")


def test_pickled_weights(place: Workspace) -> None:
    old = {name: tensor for file in place.model.glob("*.safetensors") for name, tensor in load_file(file).items()}
    for path in place.model.glob("model*safetensors*"):
        path.unlink()
    torch.save(old, place.model / "pytorch_model.bin")
    said = refused(place, "plan", code=1)
    code = shlex.split(said[said.index("python -c") :])[2]
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    new = Path(f"{place.model}-safetensors")
    edit(place.settings, "models/demo", f"models/{new.name}")
    assert (new / "tokenizer.json").read_bytes() == (DEMO / "tokenizer.json").read_bytes()
    saved = {name: tensor for file in new.glob("*.safetensors") for name, tensor in load_file(file).items()}
    assert saved.keys() == old.keys()
    assert all(torch.equal(saved[name], old[name]) for name in old)
    done(place, "plan")

"""The folder of the migrations: every command that reads it tells that it is not there, and what in it is no file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from workspaces import Workspace, run_here

READING = (
    ("validate",),
    ("check",),
    ("lint",),
    ("plan",),
    ("upgrade",),
    ("status",),
    ("verify",),
    ("history",),
    ("heads",),
    ("show", "1"),
    ("test",),
    ("lock",),
    ("rebase",),
    ("tag", "chat", "2"),
    ("revision", "-m", "One more"),
)


@pytest.mark.parametrize("words", READING, ids=lambda words: words[0])
def test_a_folder_that_is_not_there(place: Workspace, words: tuple[str, ...]) -> None:
    text = place.settings.read_text("utf-8").replace("migrations: migrations", "migrations: migration")
    place.settings.write_text(text, "utf-8")
    said = run_here(place.root, *words)
    assert (said.returncode, said.stdout) == (2, "")
    told = f"{place.settings}:2:13: the folder of the migrations does not exist: {place.root / 'migration'}"
    assert said.stderr == (
        f"error: {told} (correct the path, or make the folder)\nmore: tokmigrate explain file-problems\n"
    )
    problems = json.loads(run_here(place.root, *words, "--json").stdout)["error"]["problems"]
    assert [(each["line"], each["column"]) for each in problems] == [(2, 13)]
    assert not (place.root / "migration").exists()


def test_going_back_needs_no_folder(place: Workspace) -> None:
    """The ledger has what is needed."""
    assert run_here(place.root, "upgrade").returncode == 0
    (place.root / "migrations").rename(place.root / "moved")
    said = run_here(place.root, "downgrade", "base")
    assert said.returncode == 0, said.stderr
    assert "every byte verified" in said.stdout


def test_the_default_folder_that_is_not_there(place: Workspace) -> None:
    text = place.settings.read_text("utf-8").replace("migrations: migrations\n", "")
    place.settings.write_text(text, "utf-8")
    assert run_here(place.root, "heads").returncode == 0
    (place.root / "migrations").rename(place.root / "moved")
    said = run_here(place.root, "validate")
    assert said.returncode == 2
    assert f"{place.settings}:1:1: the folder of the migrations does not exist" in said.stderr
    assert "correct `migrations:`" in said.stderr


def test_a_file_in_the_place_of_the_folder(place: Workspace) -> None:
    text = place.settings.read_text("utf-8").replace("migrations: migrations", "migrations: tokmigrate.yaml")
    place.settings.write_text(text, "utf-8")
    said = run_here(place.root, "check")
    assert said.returncode == 2
    assert f"{place.settings}:2:13: the folder of the migrations is a file: {place.settings}" in said.stderr


def test_an_empty_folder_is_none_the_worse(tmp_path: Path) -> None:
    assert run_here(tmp_path, "init").returncode == 0
    assert [path.name for path in (tmp_path / "migrations").iterdir()] == [".gitkeep"]
    assert run_here(tmp_path, "validate").stdout.startswith("valid: 0 migrations")


@pytest.mark.parametrize("suffix", [".yaml", ".yml", ".py"])
def test_what_is_named_like_a_migration_and_is_no_file(place: Workspace, suffix: str) -> None:
    folder = place.root / "migrations"
    (folder / f"0004_x{suffix}").symlink_to("nowhere")
    (folder / f"0005_x{suffix}").mkdir()
    (folder / f"_beside{suffix}").mkdir()
    for words in (("validate",), ("check",), ("lint",)):
        said = run_here(place.root, *words)
        assert (said.returncode, said.stdout) == (2, "")
        assert said.stderr.splitlines() == [
            f"error: migrations/0004_x{suffix}:1:1: a dangling link (fix or remove it)",
            f"error: migrations/0005_x{suffix}:1:1: a folder, and no migration file (let its name begin with _)",
            "more: tokmigrate explain file-problems",
        ]

"""Work that models have in common is done once in a command, and done again where something differs."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from workspaces import Workspace, make_workspace, run_here

from tokmigrate.errors import FileProblems
from tokmigrate.revision import history
from tokmigrate.revision.migration import Migration
from tokmigrate.revision.yaml_file import yaml_migration
from tokmigrate.settings import read_workspace

NAMES = ("a", "b")


@pytest.fixture
def place(tmp_path: Path) -> Workspace:
    """Two copies of the demo."""
    made = make_workspace(tmp_path / "place")
    for name in NAMES:
        shutil.copytree(made.model, made.root / "models" / name)
    models = "".join(f"  {name}: {{path: models/{name}}}\n" for name in NAMES)
    made.settings.write_text(f"format: 1\nverify: fast\nmodels:\n{models}", "utf-8")
    return made


def record_calls(function: Callable[..., Any]) -> tuple[list[tuple[Any, ...]], Callable[..., Any]]:
    """Return a list, and what does the same as a function and adds the arguments of each call to the list."""
    calls: list[tuple[Any, ...]] = []

    def call(*arguments: Any) -> Any:
        calls.append(arguments)
        return function(*arguments)

    return calls, call


@pytest.mark.parametrize("words", ["status", "plan", "check", "lint", "upgrade -j 2"])
def test_migrations_are_parsed_once_for_all_models(
    place: Workspace, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    calls, call = record_calls(yaml_migration)
    monkeypatch.setitem(history._KINDS, ".yaml", call)
    run_here(place.root, *words.split())
    assert sorted(arguments[2] for arguments in calls) == [
        "migrations/0001_start_rows_from_the_mean.yaml",
        "migrations/0002_add_chat_roles.yaml",
        "migrations/0003_pad_on_the_left.yaml",
    ]


def test_a_migration_is_parsed_again_where_its_file_or_one_that_it_names_was_edited(place: Workspace) -> None:
    third, template = place.migration(3), place.root / "migrations" / "chat.jinja"
    before, after = third.read_text("utf-8").split("verify:")
    workspace = read_workspace(place.settings)

    def read(operation: str) -> Migration:
        third.write_text(f"{before}  - set_chat_template: {operation}\nverify:{after}", "utf-8")
        return history.History.read(workspace).migrations[2]

    template.write_text("one", "utf-8")
    first = read("{file: chat.jinja}")
    assert first is read("{file: chat.jinja}")
    template.write_text("two", "utf-8")
    second = read("{file: chat.jinja}")
    assert second.attachments == {"chat.jinja": b"two"}
    assert second.checksum != first.checksum
    assert read("{template: three}").attachments == {}
    template.unlink()
    with pytest.raises(FileProblems, match="chat"):
        read("{file: chat.jinja}")

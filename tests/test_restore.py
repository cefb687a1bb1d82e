"""Migrations that were edited or deleted after they were applied: what was applied is on record, and is put back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import making
import pytest
import torch
from safetensors.torch import save
from test_state import tamper
from workspaces import BASE, HEAD, Workspace, contents, edit, make_workspace

from tokmigrate.commands import restore as restoring

FIRST, SECOND = "3b8f0d5a61c2", "9f3c2a7e41b0"


@pytest.fixture
def place(place_at_head: Workspace) -> Workspace:
    return place_at_head


def hint_of(place: Workspace, *words: str, code: int) -> str:
    done = place.run(*words)
    assert done.returncode == code, done.stdout
    return done.stderr


def test_an_edited_migration_is_shown_and_put_back(place: Workspace) -> None:
    path = place.migration(2)
    text = edit(path, "operations:", "init: {strategy: zeros}\noperations:")
    said = hint_of(place, "status", code=4)
    assert f"tokmigrate restore {SECOND}" in said
    assert f"tokmigrate show {SECOND}" in said
    shown = place.run("show", SECOND).stdout
    assert f"\n--- {path.name} as it was applied\n" in shown
    assert "\n+init: {strategy: zeros}\n" in shown
    assert "+init: {strategy: zeros}" in place.asked("show", SECOND)["edited"]
    edited = path.read_text("utf-8")
    assert path.read_text("utf-8") == edited
    done = place.run("restore", SECOND[:5])
    assert done.returncode == 0, done.stderr
    assert path.read_text("utf-8") == text
    assert path.with_name(f"{path.name}.edited").read_text("utf-8") == edited
    assert place.run("status").returncode == 0
    assert place.asked("show", SECOND)["edited"] == []
    assert "is as it was applied" in place.run("restore", SECOND).stdout
    assert place.run("log", "--verify-chain").returncode == 0


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("operations:", "init: {strategy: zeros}\noperations:", 4),
        ("operations:", "operations: [", 4),
        # What has no part in the checksum may be another.
        ("operations:", "# a comment\noperations:", 0),
    ],
)
def test_a_text_that_was_edited_in_the_ledger_is_not_put_back(place: Workspace, old: str, new: str, code: int) -> None:
    statement = "UPDATE migration_texts SET text = replace(text, ?, ?) WHERE revision = ?"
    assert tamper(place.root / ".tokmigrate" / "state.db", statement, old, new, SECOND) == 1
    edit(place.migration(2), "operations:", "init: {strategy: mean}\noperations:")
    before = contents(place.root / "migrations")
    done = place.run("restore", SECOND)
    assert done.returncode == code, done.stderr
    if code:
        assert f"the text of {SECOND} on record was edited: its checksum is not the recorded one" in done.stderr
        assert contents(place.root / "migrations") == before


@pytest.mark.parametrize("how", ["broken", "deleted", "renamed and edited", "all deleted"])
def test_a_file_need_not_hold_together_or_be_there(place: Workspace, how: str) -> None:
    path, before = place.migration(2), contents(place.root / "migrations")
    if how == "broken":
        edit(path, "operations:", "operations: [")
    elif how == "renamed and edited":
        edit(path, "operations:", "init: {strategy: zeros}\noperations:")
        path = path.rename(path.with_name("0002_other.yaml"))
    else:
        path.unlink()
        if how == "all deleted":
            place.migration(1).unlink()
            place.migration(1).unlink()
    # What is undone is on record: no file is needed for it.
    assert place.run("downgrade", FIRST if how != "all deleted" else "-2").returncode == 0
    assert place.run("downgrade", BASE).returncode == 0
    for revision in (FIRST, SECOND, HEAD):
        done = place.run("restore", revision)
        assert done.returncode == 0, done.stderr
    found = contents(place.root / "migrations")
    restored = {name: held for name, held in found.items() if not name.endswith(".edited")}
    if how == "renamed and edited":
        restored[place.migration(2).with_name(next(n for n in before if n.startswith("0002"))).name] = restored.pop(
            "0002_other.yaml"
        )
    assert {name: held[0] for name, held in restored.items()} == {name: held[0] for name, held in before.items()}
    assert place.run("upgrade").returncode == 0


def test_a_downgrade_goes_by_the_record_and_says_so(place: Workspace, tmp_path: Path) -> None:
    base = contents(make_workspace(tmp_path / "other").model)
    edit(place.migration(2), "operations:", "init: {strategy: zeros}\noperations:")
    done = place.run("downgrade", "-2")
    assert done.returncode == 0, done.stderr
    assert f"{SECOND} was edited since it was applied; it is undone as it was applied" in done.stderr
    assert place.run("downgrade", BASE).returncode == 0
    assert contents(place.model) == base


@pytest.mark.parametrize("how", ["the first is missing", "the last is missing", "two heads"])
def test_a_downgrade_says_that_a_file_was_edited_whatever_the_others_are(place: Workspace, how: str) -> None:
    edit(place.migration(2), "operations:", "init: {strategy: zeros}\noperations:")
    if how == "two heads":
        last = place.migration(3)
        last.with_name("0004_other.yaml").write_text(last.read_text("utf-8").replace(HEAD, "f0f0f0f0f0f0"), "utf-8")
    else:
        place.migration(1 if how == "the first is missing" else 3).unlink()
    done = place.run("downgrade", BASE)
    assert done.returncode == 0, done.stderr
    assert f"{SECOND} was edited since it was applied; it is undone as it was applied" in done.stderr
    assert FIRST not in done.stderr


def test_what_is_not_on_record(place: Workspace) -> None:
    assert "no text is on record" in hint_of(place, "restore", "ffff", code=2)
    assert "has no file" in hint_of(place, "restore", BASE, code=2)
    edit(place.migration(2), "operations:", "init: {strategy: zeros}\noperations:")
    (place.root / ".tokmigrate" / "state.db").unlink()
    assert "take the file from Git" in hint_of(place, "restore", SECOND, code=2)


def workspace_with(root: Path, files: Mapping[str, str | bytes], migration: Mapping[str, Any]) -> Workspace:
    """Make a workspace with one model and one migration that refers to files, and upgrade it."""
    model = making.llama(root / "model")
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data if isinstance(data, bytes) else data.encode("utf-8"))
    making.workspace(root, {"m": model}, [migration] if migration else [])
    made = Workspace(root)
    assert made.run("upgrade").returncode == 0
    return made


TEMPLATE = {"operations": [{"set_chat_template": {"file": "../lists/chat.jinja"}}]}


def test_files_that_a_migration_refers_to_are_put_back_too(tmp_path: Path) -> None:
    place = workspace_with(tmp_path, {"lists/chat.jinja": "{{ messages[0].content }}"}, TEMPLATE)
    template = tmp_path / "lists" / "chat.jinja"
    template.write_text("{{ messages[1].content }}", "utf-8")
    assert "edited after it was applied" in hint_of(place, "status", code=4)
    done = place.run("restore", "0001")
    assert (done.returncode, template.read_text("utf-8")) == (0, "{{ messages[0].content }}"), done.stderr
    template.unlink()
    assert place.run("restore", "0001").returncode == 0
    assert place.run("status").returncode == 0


def test_a_file_that_was_too_large_to_keep_is_reported_as_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restoring, "LARGEST_KEPT", 4)
    rows = {"strategy": "file", "path": "rows.safetensors"}
    add = {"add_tokens": {"tokens": ["<one>"], "init": {"input": rows, "output": rows}}}
    held = save({"<one>": torch.ones(making.HIDDEN)})
    place = workspace_with(tmp_path, {"migrations/rows.safetensors": held}, {"operations": [add]})
    path = tmp_path / "migrations" / "rows.safetensors"
    other = save({"<one>": torch.zeros(making.HIDDEN)})
    path.write_bytes(other)
    said = hint_of(place, "restore", "0001", code=1)
    assert str(path) in said
    assert "BLAKE3" in said
    assert path.read_bytes() == other


PYTHON = """\
revision = "aaaa1111"
down_revision = None
message = "In Python"
files = ["rows.safetensors"]


def upgrade(op):
    init = {"strategy": "file", "path": "rows.safetensors"}
    op.add_tokens(tokens=["<one>"], init={"input": init, "output": init})
"""


def test_a_python_migration_is_put_back(tmp_path: Path) -> None:
    rows = save({"<one>": torch.ones(making.HIDDEN)})
    files = {"migrations/0001_python.py": PYTHON, "migrations/rows.safetensors": rows}
    place = workspace_with(tmp_path, files, {})
    path = tmp_path / "migrations" / "0001_python.py"
    path.write_text("no Python (", "utf-8")
    (tmp_path / "migrations" / "rows.safetensors").unlink()
    assert place.run("restore", "aaaa1111").returncode == 0
    assert path.read_text("utf-8") == PYTHON
    assert (tmp_path / "migrations" / "rows.safetensors").read_bytes() == rows
    assert place.run("status").returncode == 0

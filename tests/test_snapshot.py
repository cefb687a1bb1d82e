"""What was read of a model is taken over only where no file has changed since, and so is a plan of it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from workspaces import Workspace, edit

from tokmigrate.commands.plan import plan_or_reuse
from tokmigrate.errors import FileProblems, ModelError
from tokmigrate.model.snapshot import Snapshot, take_snapshot
from tokmigrate.settings import ModelEntry, read_workspace
from tokmigrate.settings import Workspace as Settings


def read(place: Workspace) -> tuple[Settings, ModelEntry, Snapshot]:
    settings = read_workspace(place.settings)
    return settings, settings.models["demo"], take_snapshot(settings.models["demo"])


def append_space(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b" ")


def change_row(path: Path) -> None:
    """Change the last number of the weights, as training does: the header stays."""
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    before = path.stat()
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))


def change_row_in_the_same_instant(path: Path) -> None:
    """Change the weights, and set the time back: whether embeddings are tied is read from rows, not from headers."""
    before = path.stat()
    change_row(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace_by_link(path: Path) -> None:
    """Put a link to a copy with the same size and times in the place of a file."""
    copy = path.with_name("copy.bin")
    shutil.copy2(path, copy)
    path.unlink()
    path.symlink_to(copy.name)


DOCUMENTS: dict[str, Callable[[Path], object]] = {
    "a document": lambda model: append_space(model / "tokenizer_config.json"),
    "the tokenizer": lambda model: append_space(model / "tokenizer.json"),
    "the index": lambda model: append_space(model / "model.safetensors.index.json"),
    "a new document": lambda model: (model / "added_tokens.json").write_text("{}"),
    "a new file with a vocabulary": lambda model: (model / "q.tiktoken").write_text("IQ== 0\n"),
}
CHANGES = DOCUMENTS | {
    "weights": lambda model: change_row(model / "model-00001-of-00002.safetensors"),
    "weights with the same time": lambda model: change_row_in_the_same_instant(
        model / "model-00001-of-00002.safetensors"
    ),
    "weights by a link": lambda model: replace_by_link(model / "model-00001-of-00002.safetensors"),
    "a file that a class of transformers may need": lambda model: (model / "bpe.codes").write_text(""),
    "nothing": Path.exists,
}


@pytest.mark.parametrize("what", CHANGES)
def test_an_earlier_reading_is_taken_over_only_where_no_file_has_changed(place: Workspace, what: str) -> None:
    settings, entry, snapshot = read(place)
    plan = plan_or_reuse(settings, entry, snapshot, "head")
    CHANGES[what](place.model)
    again = take_snapshot(entry, snapshot)
    assert (again is snapshot) == (what == "nothing")
    planned = plan_or_reuse(settings, entry, again, "head", plan)
    # No step depends on the values of rows.
    assert (planned.steps is plan.steps) == (what not in DOCUMENTS)
    assert [step.migration for step in planned.steps] == [step.migration for step in plan.steps]


def test_a_plan_is_made_again_where_a_migration_has_changed(place: Workspace) -> None:
    settings, entry, snapshot = read(place)
    plan = plan_or_reuse(settings, entry, snapshot, "head")
    assert plan_or_reuse(settings, entry, snapshot, "9f3c2a7e41b0", plan).steps == plan.steps[:2]
    path = place.migration(3)
    edit(path, "<|pad|>", "<|fill|>")
    changed = plan_or_reuse(settings, entry, snapshot, "head", plan)
    assert "<|fill|>" in changed.final.tokenizer.ids
    assert "<|fill|>" not in plan.final.tokenizer.ids


def test_an_earlier_plan_is_checked_against_lock_and_adapters_of_now(place: Workspace) -> None:
    settings, entry, snapshot = read(place)
    plan = plan_or_reuse(settings, entry, snapshot, "head")
    lock = place.root / "migrations" / "tokmigrate.lock"
    edit(lock, 'id 1026 "<|pad|>"', 'id 1030 "<|pad|>"')
    with pytest.raises(FileProblems, match="edited by hand"):
        plan_or_reuse(settings, entry, snapshot, "head", plan)
    lock.unlink()
    assert plan_or_reuse(settings, entry, snapshot, "head", plan).steps is plan.steps
    # An adapter that is not there is an error, whatever was planned without it.
    with pytest.raises(ModelError):
        plan_or_reuse(settings, replace(entry, adapters=(place.root / "no",)), snapshot, "head", plan)

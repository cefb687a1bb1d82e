"""Undo data that is lost, and what `check` and `verify` say of it before it is needed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from workspaces import HEAD, Workspace

from tokmigrate.apply.undo_record import list_objects
from tokmigrate.settings import read_workspace
from tokmigrate.state.database import open_state
from tokmigrate.state.objects import ObjectStore

FIRST, SECOND = "3b8f0d5a61c2", "9f3c2a7e41b0"


@pytest.fixture
def place(place_at_head: Workspace) -> Workspace:
    return place_at_head


def records(place: Workspace) -> dict[str, str]:
    """Return the undo records by revision."""
    found = read_workspace(place.settings, {})
    state = open_state(found.state, found.root)
    model = state.model_for("demo", place.model)
    return {row.record.revision: row.record.undo for row in state.list_applied(model) if row.record.undo}


def objects(place: Workspace) -> Path:
    return place.root / ".tokmigrate" / "objects"


def path_of(place: Workspace, digest: str) -> Path:
    return objects(place) / digest[:2] / digest[2:]


def lose_all(place: Workspace) -> None:
    shutil.rmtree(objects(place))


def lose_a_record(place: Workspace) -> None:
    path_of(place, records(place)[SECOND]).unlink()


def damage_a_file(place: Workspace) -> None:
    store, wanted = ObjectStore(objects(place)), records(place)
    others = {each for name, record in wanted.items() if name != SECOND for each in list_objects(record, store)}
    own = [each for each in list_objects(wanted[SECOND], store) if each not in others and each != wanted[SECOND]]
    path = path_of(place, own[-1])
    path.write_bytes(path.read_bytes()[:-1] + b"?")


def lose_the_database(place: Workspace) -> None:
    (place.root / ".tokmigrate" / "state.db").unlink()


@pytest.mark.parametrize(
    ("lose", "said", "stuck"),
    [
        (lose_all, "is missing", 3),
        (lose_a_record, f"the undo data of {SECOND} is lost", 2),
        (damage_a_file, f"the undo data of {SECOND} is lost", 2),
        (lose_the_database, "the state database is missing", 3),
    ],
)
def test_undo_data_that_is_lost_is_reported(
    place: Workspace, lose: Callable[[Workspace], None], said: str, stuck: int
) -> None:
    lose(place)
    for command in ("check", "verify"):
        done = place.run(command)
        assert done.returncode == 4, done.stdout
        assert said in done.stdout
        assert f"no downgrade from here can undo {FIRST}" in done.stdout
        assert "more: tokmigrate explain undo\n" in done.stdout
        told = place.run(command, "--json")
        assert told.returncode == 4
        (found,) = json.loads(told.stdout)["models"]
        assert len(found["undo"]["not_undoable"]) == stuck
    # What is not said to be lost can be undone, and nothing else.
    assert place.run("downgrade", "base").returncode == 1
    assert place.run("downgrade", "-1").returncode == (0 if stuck < 3 else 1)


def test_a_model_that_was_migrated_elsewhere_has_lost_nothing(place: Workspace) -> None:
    for command in ("check", "verify"):
        assert "undo" not in place.run(command).stdout
    shutil.rmtree(place.root / ".tokmigrate")
    for command in ("check", "verify"):
        done = place.run(command)
        assert done.returncode == 0, done.stdout
        assert f"no downgrade from here can undo {FIRST}, {SECOND}, {HEAD}" in done.stdout

"""What `status`, `current` and `log` report about a model that is missing or being changed; and about tags."""

from __future__ import annotations

import json
import os
import shutil
import socket

import pytest
from workspaces import BASE, HEAD, Workspace, edit

from tokmigrate.apply.lock import hold_lock
from tokmigrate.commands.upgrade import upgrade
from tokmigrate.errors import RecoveryNeededError
from tokmigrate.events import Event, Step, StepReached
from tokmigrate.settings import read_workspace

# --- a model that is not there


def test_a_model_that_is_missing_is_at_no_revision(place: Workspace) -> None:
    edit(place.settings, "models:\n", "models:\n  gone: {path: models/gone}\n")
    said = place.run("current")
    assert (said.returncode, said.stdout) == (1, "demo: base\n")
    assert f"error: gone: {place.root}/models/gone: the model is missing: no such directory" in said.stderr
    told = place.run("current", "--json")
    assert told.returncode == 1
    assert json.loads(told.stdout)["models"] == [{"model": "demo", "revision": None}]
    assert [each["model"] for each in json.loads(told.stdout)["failed"]] == ["gone"]
    history = place.run("history")
    assert history.returncode == 0
    assert "warning: gone is missing: there is no directory" in history.stderr
    assert place.asked("history")["missing"] == ["gone"]
    status = place.run("status")
    assert status.returncode == 1
    assert "demo (" in status.stdout
    assert "the model is missing: no such directory" in status.stderr


def test_a_model_that_is_missing_in_the_middle_of_a_swap_is_to_be_recovered(place: Workspace) -> None:
    place.area.mkdir()
    (place.area / "journal").write_text("{}", "utf-8")
    place.model.rename(place.area / "aside")
    for command in ("current", "status"):
        done = place.run(command)
        assert done.returncode == 5, command
        assert "tokmigrate recover" in done.stderr


# --- a model that another process works on


def test_a_model_that_a_process_works_on_is_not_said_to_be_interrupted(place: Workspace) -> None:
    place.area.mkdir()
    (place.area / "journal").write_text("{}", "utf-8")
    here = f"process {os.getpid()} on {socket.gethostname()}"
    with hold_lock(place.area / "lock"):
        status = place.run("status")
        assert status.returncode == 0
        assert here in status.stdout
        assert "recover" not in status.stdout
        (told,) = place.asked("status")["models"]
        assert told["locked_by"] == here
        for command in ("check", "plan"):
            done = place.run(command)
            assert done.returncode == 5, command
            assert here in done.stderr
            assert "recover" not in done.stderr
    assert "run `tokmigrate recover`" in place.run("status").stderr
    assert "run `tokmigrate recover`" in place.run("check").stderr
    # What a process left that was killed says who it was, and holds nothing.
    (place.area / "lock").write_text('{"pid": 1, "host": "x"}', "utf-8")
    assert "run `tokmigrate recover`" in place.run("status").stderr


READING = (
    *("current", "status", "check", "verify", "plan", "test", "report", "log", "history", "peft-config", "lock"),
    *("squash 0001:0002", "stamp --from models/demo --model models/copy"),
    *("blame the", f"diff demo {BASE}", "diff models/demo models/demo"),
)


def test_every_command_that_reads_a_model_says_that_a_change_was_interrupted(place: Workspace) -> None:
    def stop(event: Event) -> None:
        if isinstance(event, StepReached) and event.step is Step.SWAPPED:
            raise KeyboardInterrupt

    found = read_workspace(place.settings, {})
    with pytest.raises(RecoveryNeededError):
        upgrade(found, found.models["demo"], on_progress=stop)
    shutil.copytree(place.model, place.model.with_name("copy"))
    told = {
        words: (done.returncode, "recovery needed" in done.stderr and "tokmigrate recover" in done.stderr)
        for words in READING
        for done in [place.run(*words.split())]
    }
    assert told == dict.fromkeys(READING, (5, True))
    for words in READING:
        done = place.run(*words.split(), "--json")
        assert (done.returncode, json.loads(done.stdout)["error"]["exit_code"]) == (5, 5), words
    assert place.run("recover").returncode == 0
    assert place.run("status").returncode == 0


# --- tags


def test_a_tag_is_shown_moved_and_taken_away(place: Workspace) -> None:
    assert place.run("tag", "v1", "0002").stdout == "v1: 9f3c2a7e41b0\n"
    shown = place.run("show", "v1")
    assert shown.returncode == 0, shown.stderr
    assert "9f3c2a7e41b0" in shown.stdout
    assert place.run("tag", "v1", "0002").stdout == "v1: 9f3c2a7e41b0\n"
    assert place.run("tag", "v1", "0003").stdout == f"v1: moved from 9f3c2a7e41b0 to {HEAD}\n"
    assert place.asked("tag", "v1", "0002")["moved_from"] == HEAD
    (line,) = (line for line in place.run("history").stdout.splitlines() if "9f3c2a7e41b0 " in line and "v1" in line)
    assert "Add the ChatML role tokens" in line
    assert [each["tags"] for each in place.asked("history")["migrations"]] == [[], ["v1"], []]
    assert place.run("tag", "--delete", "v1").stdout == "v1: deleted, it named 9f3c2a7e41b0\n"
    assert place.asked("tag")["tags"] == {}
    gone = place.run("tag", "--delete", "v1")
    assert gone.returncode == 2
    assert "there is no tag 'v1'" in gone.stderr
    assert place.run("tag", "v2", "--delete", "v1").returncode == 2
    assert place.run("show", BASE).returncode == 2


def test_a_tag_can_be_rebased(place: Workspace) -> None:
    second, third = place.migration(2), place.migration(3)
    text = third.read_text("utf-8").replace("down_revision: 9f3c2a7e41b0", "down_revision: 3b8f0d5a61c2")
    place.run("tag", "mine", "0003")
    third.write_text(text, "utf-8")
    done = place.run("rebase", "mine")
    assert done.returncode == 0, done.stderr
    assert "down_revision: 9f3c2a7e41b0" in place.migration(3).read_text("utf-8")
    assert second.exists()

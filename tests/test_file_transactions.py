"""A rebase or squash that dies at any instant leaves the migrations as before it, or as after it, once recovered."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import making
import pytest
from dying import dying, exit_code, place_of, put_together, rebased, settled
from test_crash import strace_works
from test_rebase import add, forked, tokens
from workspaces import Contents, Workspace, command_line, contents, environment

from tokmigrate.apply.lock import hold_lock
from tokmigrate.apply.publish import RecoveryOutcome
from tokmigrate.commands.file_transaction import finish_writing, write_files
from tokmigrate.commands.lock import update_lock
from tokmigrate.errors import BusyError, HistoryError, RecoveryNeededError, StorageError, TokmigrateError
from tokmigrate.revision.history import History, journal_path
from tokmigrate.revision.lock_file import validate

COMMANDS = {"rebase": rebased, "squash": put_together}


def begin(root: Path, command: str) -> None:
    """Make a workspace in which a command has several files to write, its lock among them."""
    if command == "rebase":
        made, entry = forked(root, tokens("<ours>"), tokens("<theirs>"))
        mine = [add(root, "0003_ours_too.yaml", "cccccccccccc", "bbbbbbbbbbbb", **tokens("<more>"))]
        mine.append(root / "migrations" / "0002_ours.yaml")
        held = {path: path.read_bytes() for path in mine}
        for path in mine:
            path.unlink()
        update_lock(made.workspace, [entry], None)
        for path, data in held.items():
            path.write_bytes(data)
    else:
        making.llama(root / "model")
        made = making.workspace(root, {"m": root / "model"}, [tokens(f"<{word}>") for word in "abcd"])
        update_lock(made.workspace, [made.entry("m")], None)


def deaths(command: Callable[[Path], None], started: Path, scratch: Path) -> list[Path]:
    """Return a copy of a workspace for each instant at which a command may die in it."""
    dead: list[Path] = []
    for number in count():
        copy = scratch / str(number)
        shutil.copytree(started, copy)
        code = exit_code(dying, command, copy, number)
        if code == 0:
            shutil.rmtree(copy)
            return dead
        assert code == -signal.SIGKILL
        dead.append(copy)
    raise AssertionError


@dataclass(frozen=True)
class Story:
    """A command that died at every instant at which it changes a file.

    Args:
        command: The command.
        before: The migrations before it.
        after: Those that it leaves.
        dead: The workspaces in which it died.
    """

    command: str
    before: Contents
    after: Contents
    dead: tuple[Path, ...]

    def half(self, root: Path) -> Path:
        """Copy a workspace in which some files were written, and return the copy."""
        for dead in self.dead:
            if journal_path(place_of(dead)).exists() and migrations(dead) not in (self.before, self.after):
                return Path(shutil.copytree(dead, root))
        raise AssertionError


def migrations(root: Path) -> Contents:
    """Return the files of the migrations, without those that are not finished."""
    return {name: held for name, held in contents(root / "migrations").items() if not name.endswith(".new")}


def told(command: str, root: Path) -> Story:
    begin(root / "started", command)
    shutil.copytree(root / "started", root / "done")
    COMMANDS[command](root / "done")
    before, after = (contents(root / name / "migrations") for name in ("started", "done"))
    assert before != after
    assert not journal_path(place_of(root / "done")).exists()
    return Story(command, before, after, tuple(deaths(COMMANDS[command], root / "started", root / "dead")))


@pytest.fixture(scope="module")
def squashing(tmp_path_factory: pytest.TempPathFactory) -> Story:
    return told("squash", tmp_path_factory.mktemp("squash"))


@pytest.fixture(scope="module")
def rebasing(tmp_path_factory: pytest.TempPathFactory) -> Story:
    return told("rebase", tmp_path_factory.mktemp("rebase"))


@pytest.fixture(params=["rebasing", "squashing"])
def story(request: pytest.FixtureRequest) -> Story:
    made: Story = request.getfixturevalue(request.param)
    return made


def test_killed_between_any_two_changes(tmp_path: Path, story: Story) -> None:
    found: list[RecoveryOutcome] = []
    for dead in story.dead:
        root = Path(shutil.copytree(dead, tmp_path / dead.name))
        place = place_of(root)
        is_half = journal_path(place).exists()
        if is_half:
            with pytest.raises(RecoveryNeededError, match="some of them are as before") as caught:
                validate(place)
            assert "tokmigrate recover" in str(caught.value.hint)
        found.append(finish_writing(place))
        assert (found[-1] is not RecoveryOutcome.NOTHING) == is_half
        assert list(root.rglob(".*.new")) == []
        held = contents(root / "migrations")
        allowed = {RecoveryOutcome.BEFORE: [story.before], RecoveryOutcome.AFTER: [story.after]}
        assert held in allowed.get(found[-1], [story.before, story.after])
        assert finish_writing(place) is RecoveryOutcome.NOTHING
        if held == story.before:
            COMMANDS[story.command](root)
        assert contents(root / "migrations") == story.after
        validate(place)
    # Every one of them happened, in this order.
    assert list(dict.fromkeys(found)) == [RecoveryOutcome.NOTHING, RecoveryOutcome.BEFORE, RecoveryOutcome.AFTER]


def test_killed_while_it_is_recovered(tmp_path: Path, story: Story) -> None:
    half = story.half(tmp_path / "half")
    for root in deaths(settled, half, tmp_path / "dead"):
        finish_writing(place_of(root))
        assert contents(root / "migrations") == story.after
        assert not journal_path(place_of(root)).exists()


def test_the_next_command_finishes_it_and_says_so(tmp_path: Path, squashing: Story) -> None:
    here = Workspace(squashing.half(tmp_path / "half"))
    for words in (("validate",), ("plan",), ("upgrade",), ("lint",)):
        told = here.run(*words)
        assert (told.returncode, "tokmigrate recover" in told.stderr) == (5, True), words
    told = here.run("lock")
    assert told.returncode == 0, told.stderr
    assert "migrations: a command was interrupted while it wrote files" in told.stderr
    assert "up to date: 2 migrations" in told.stdout
    assert here.run("validate").returncode == 0
    assert here.asked("recover")["migrations"] == "nothing"


def test_recover_finishes_it(tmp_path: Path, squashing: Story) -> None:
    here = Workspace(squashing.half(tmp_path / "half"))
    assert here.asked("recover")["migrations"] == "after"
    assert here.run("validate").returncode == 0


def test_what_git_put_back_is_left_alone(tmp_path: Path, squashing: Story) -> None:
    root = squashing.half(tmp_path / "half")
    shutil.rmtree(root / "migrations")
    (root / "migrations").mkdir()
    for name, (data, _) in squashing.before.items():
        (root / "migrations" / name).write_bytes(data)
    assert finish_writing(place_of(root)) is RecoveryOutcome.BEFORE
    assert contents(root / "migrations") == squashing.before


def test_what_somebody_changed_meanwhile_is_not_written_over(tmp_path: Path, squashing: Story) -> None:
    root = squashing.half(tmp_path / "half")
    path = root / "migrations" / "0002_step_2.yaml"
    path.write_text("mine", "utf-8")
    before = contents(root / "migrations")
    with pytest.raises(RecoveryNeededError, match="it was changed after a command") as caught:
        finish_writing(place_of(root))
    assert caught.value.where == str(path)
    assert contents(root / "migrations") == before
    journal_path(place_of(root)).unlink()
    assert finish_writing(place_of(root)) is RecoveryOutcome.NOTHING


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", json.dumps({"before": {"../x": None}, "after": {"../x": "text"}}), '{"before": {}}']
)
def test_a_damaged_journal_is_reported(tmp_path: Path, text: str) -> None:
    place = making.workspace(tmp_path, {}, [tokens("<a>")]).workspace
    journal_path(place).parent.mkdir()
    journal_path(place).write_text(text, "utf-8")
    with pytest.raises(StorageError, match="damaged"):
        finish_writing(place)
    assert not (tmp_path / "x").exists()


def test_one_process_at_a_time(tmp_path: Path) -> None:
    place = making.workspace(tmp_path, {}, [tokens("<a>")]).workspace
    files = {place.migrations / name: b"x" for name in ("a", "b")}
    journal_path(place).parent.mkdir()
    with hold_lock(journal_path(place).with_suffix(".lock")), pytest.raises(BusyError, match="another process writes"):
        write_files(place, files)
    assert not (place.migrations / "a").exists()


def test_a_disk_that_refuses_half_way_is_reported_and_finished_later(tmp_path: Path) -> None:
    place = making.workspace(tmp_path, {}, [tokens("<a>")]).workspace
    # A directory stands where the second file is written first.
    obstacle = place.migrations / ".b.new"
    obstacle.mkdir()
    with pytest.raises(RecoveryNeededError, match="could not be written to the end"):
        write_files(place, {place.migrations / "a": b"1", place.migrations / "b": b"2"})
    with pytest.raises(TokmigrateError):
        History.read(place)
    obstacle.rmdir()
    assert finish_writing(place) is RecoveryOutcome.AFTER
    assert (place.migrations / "b").read_bytes() == b"2"
    assert len(History.read(place).chain()) == 1


def test_a_disk_that_confirms_all_but_the_last_name_is_no_failure(tmp_path: Path) -> None:
    if not strace_works():
        pytest.skip("strace is not installed, or may not trace here")
    begin(tmp_path / "started", "rebase")
    command = [*command_line(), "rebase", "cccc"]

    def under_strace(root: Path, *injected: str) -> subprocess.CompletedProcess[str]:
        traced = ["strace", "-f", "-qq", "-y", "-e", "trace=fsync", *injected]
        return subprocess.run(
            [*traced, *command], cwd=root, env=environment(), capture_output=True, text=True, check=False
        )

    done = under_strace(Path(shutil.copytree(tmp_path / "started", tmp_path / "done")))
    assert done.returncode == 0, done.stderr
    calls = [line for line in done.stderr.splitlines() if "fsync(" in line]
    assert ".tokmigrate>" in calls[-1]
    root = Path(shutil.copytree(tmp_path / "started", tmp_path / "failed"))
    failed = under_strace(root, "-e", f"inject=fsync:error=EIO:when={len(calls)}")
    assert "EIO" in failed.stderr
    assert failed.returncode == 0, failed.stderr
    assert contents(root / "migrations") == contents(tmp_path / "done" / "migrations")
    assert finish_writing(place_of(root)) is RecoveryOutcome.NOTHING


def test_modes_and_line_ends_stay(tmp_path: Path) -> None:
    place = making.workspace(tmp_path, {}, [tokens("<a>")]).workspace
    path = place.migrations / "0001_step_1.yaml"
    path.chmod(0o600)
    text = path.read_bytes().replace(b"\n", b"\r\n")
    write_files(place, {path: text, place.migrations / "b": b"\xc3\xa4\r\n"})
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (text, 0o600)
    assert (place.migrations / "b").read_bytes() == b"\xc3\xa4\r\n"


def test_owners_and_links_stay(tmp_path: Path) -> None:
    place = making.workspace(tmp_path, {}, [tokens("<a>")]).workspace
    path = place.migrations / "0001_step_1.yaml"
    (tmp_path / "kept").mkdir()
    path.rename(tmp_path / "kept" / "first.yaml")
    path.symlink_to("../kept/first.yaml")
    if os.geteuid() == 0:
        os.chown(tmp_path / "kept" / "first.yaml", 1234, 2345)
    owner = (path.stat().st_uid, path.stat().st_gid)
    text = path.read_bytes() + b"# more\n"
    write_files(place, {path: text, place.migrations / "b": b"1"})
    assert (path.is_symlink(), path.read_bytes()) == (True, text)
    assert (path.stat().st_uid, path.stat().st_gid) == owner


def test_with_three_heads_one_goes_behind_another_at_a_time(tmp_path: Path) -> None:
    made, entry = forked(tmp_path, tokens("<ours>"), tokens("<theirs>"))
    add(tmp_path, "0002_third.yaml", "cccccccccccc", made.revisions[0], **tokens("<third>"))
    told = made.run("rebase", "bbbb", "--onto", "aaaa")
    assert told.returncode == 0, told.stderr
    assert "still several heads; next: `tokmigrate rebase` again" in told.stdout
    with pytest.raises(HistoryError):
        update_lock(made.workspace, [entry], None)
    assert made.run("rebase", "cccc").returncode == 0
    assert len(validate(made.workspace).chain) == 4

"""What cannot be said does not undo what was done: full disks and closed pipes behind stdout and stderr."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from workspaces import BASE, HEAD, Workspace, command_line, environment, make_workspace

from tokmigrate.model.documents.stamp import read_stamp


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Give one workspace to all tests, each of which leaves the model at base."""
    return make_workspace(tmp_path_factory.mktemp("lost") / "w")


def told(place: Workspace, *words: str, redirected: str = ">/dev/full") -> subprocess.CompletedProcess[str]:
    """Run a command whose stdout goes where a shell sends it."""
    line = f'"$@" {redirected}'
    return subprocess.run(
        ["bash", "-c", line, "bash", *command_line(), *words],
        cwd=place.root,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def revision(place: Workspace) -> str | None:
    stamp = read_stamp(place.model)
    return stamp.revision if stamp else None


@pytest.mark.parametrize(
    ("redirected", "json"),
    [
        (">/dev/full", ()),
        (">/dev/full", ("--json",)),
        ("| true; exit ${PIPESTATUS[0]}", ()),
        (">&-", ("--json",)),
        (">/dev/full 2>&1", ()),
    ],
)
def test_a_change_that_cannot_be_reported_is_done(place: Workspace, redirected: str, json: tuple[str, ...]) -> None:
    for words, after in ((("upgrade",), HEAD), (("downgrade", BASE), None)):
        done = told(place, *words, *json, redirected=redirected)
        assert (done.returncode, revision(place)) == (0, after), done.stderr
        lines = [line for line in done.stderr.splitlines() if "the output could not be written" in line]
        assert done.stderr.splitlines() == lines
        assert len(lines) <= 1
        assert lines or "2>&1" in redirected or "true" in redirected


def test_commands_that_write_migrations(tmp_path: Path) -> None:
    place = make_workspace(tmp_path / "w")
    for words in (
        ("squash", "0001:0002"),
        ("revision", "--message", "One more"),
        ("lock",),
        ("tag", "v1", "0002"),
        ("recover", "--json"),
        ("init", "new"),
    ):
        done = told(place, *words)
        assert (done.returncode, done.stderr.count("the output could not be written")) == (0, 1), done.stderr
    assert len(list((place.root / "migrations").glob("*.yaml"))) == 3
    assert (place.root / "new" / "tokmigrate.yaml").exists()


def test_what_only_says_something_has_failed(place: Workspace) -> None:
    for words, code in ((("status", "--json"), 1), (("check",), 3), (("--version",), 1), (("plan", "--help"), 1)):
        done = told(place, *words)
        assert (done.returncode, done.stderr.count("\n")) == (code, 1), (words, done.stderr)
        assert "the output could not be written: No space left on device" in done.stderr
    assert told(place, "status", "--json", redirected=">&-").returncode == 1


def test_a_reader_that_has_seen_enough_is_no_error(place: Workspace) -> None:
    for words in (("history",), ("explain", "drift"), ("plan", "--help")):
        assert told(place, *words, redirected="| true").stderr == ""


def test_an_error_that_cannot_be_printed_as_json_is_printed_on_stderr(place: Workspace) -> None:
    done = told(place, "downgrade", "nonsense", "--json")
    assert done.returncode == 2
    assert "error: " in done.stderr
    assert "nonsense" in done.stderr


def test_letters_that_a_stream_does_not_have(tmp_path: Path) -> None:
    place = make_workspace(tmp_path / "w")
    (place.root / "tokmigrate.yaml").write_text(
        place.settings.read_text("utf-8").replace("  demo:", "  dämo:"), "utf-8"
    )
    variables = {**environment(), "PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    for words in (("current",), ("current", "--json")):
        done = subprocess.run(
            [*command_line(), *words], cwd=place.root, env=variables, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert "d\\xe4mo" in done.stdout or "d\\u00e4mo" in done.stdout

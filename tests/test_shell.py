"""What a shell gets: lines as wide as it says, words completed, and the command as a module."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from workspaces import HEAD, Workspace, make_workspace, run_here

from tokmigrate import __version__


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    made = make_workspace(tmp_path_factory.mktemp("shell"))
    assert run_here(made.root, "tag", "blessed", "0002").returncode == 0
    return made


def completed(place: Workspace, words: str, monkeypatch: pytest.MonkeyPatch, shell: str = "bash") -> list[str]:
    """Return what a shell proposes for the last of these words."""
    variables: Mapping[str, str] = {
        "COMP_WORDS": words,
        "COMP_CWORD": str(words.count(" ")),
        "_TYPER_COMPLETE_ARGS": words,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        "_TOKMIGRATE_COMPLETE": f"complete_{shell}",
    }
    with monkeypatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        said = run_here(place.root)
    assert (said.returncode, said.stderr) == (0, "")
    return said.stdout.split("\n")[:-1]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("tokmigrate down", ["downgrade"]),
        ("tokmigrate plan -M ", ["demo"]),
        ("tokmigrate upgrade --model d", ["demo"]),
        ("tokmigrate stamp --from ", ["demo"]),
        ("tokmigrate diff ", ["demo"]),
        ("tokmigrate diff demo b", ["base", "blessed"]),
        ("tokmigrate upgrade he", ["head"]),
        ("tokmigrate downgrade b", ["base", "blessed"]),
        ("tokmigrate plan 000", ["0001", "0002", "0003"]),
        (f"tokmigrate show {HEAD[:3]}", [HEAD]),
        ("tokmigrate tag bl", ["blessed"]),
        ("tokmigrate tag --delete ", ["blessed"]),
        ("tokmigrate tag new bl", ["blessed"]),
        ("tokmigrate explain TM10", [f"TM10{number}" for number in range(1, 10)]),
        ("tokmigrate explain mean_", ["mean_cov"]),
    ],
)
def test_names_are_completed(
    place: Workspace, words: str, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert completed(place, words, monkeypatch) == expected


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_show_the_message_too(place: Workspace, shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (line,) = completed(place, "tokmigrate show 0001", monkeypatch, shell)
    assert "0001" in line
    assert "Start new rows from the mean" in line


def test_a_workspace_that_cannot_be_read_completes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert completed(Workspace(tmp_path), "tokmigrate show ", monkeypatch) == [""]
    (tmp_path / "tokmigrate.yaml").write_text("format: 1\nmodels: [", "utf-8")
    assert completed(Workspace(tmp_path), "tokmigrate plan -M ", monkeypatch) == [""]


@pytest.mark.parametrize(
    "words", ["tokmigrate ", "tokmigrate upgrade he", "tokmigrate squash --model d", "tokmigrate explain T"]
)
def test_completion_loads_nothing_that_takes_long(place: Workspace, words: str) -> None:
    code = (
        "import atexit, sys\n"
        "heavy = {'torch', 'transformers', 'numpy', 'sqlalchemy', 'tokenizers', 'tokmigrate.plan.steps'}\n"
        "atexit.register(lambda: print(*heavy & {*sys.modules}, file=sys.stderr))\n"
        "from tokmigrate.cli.app import main\n"
        "main()"
    )
    variables = {"COMP_WORDS": words, "COMP_CWORD": str(words.count(" ")), "_TOKMIGRATE_COMPLETE": "complete_bash"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=place.root,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "\n")
    assert done.stdout


@pytest.mark.parametrize("command", ["plan", "status", "history", "lint"])
def test_a_pipe_is_as_wide_as_columns_says(place: Workspace, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    narrow = run_here(place.root, command).stdout.splitlines()
    assert max(map(len, narrow)) <= 60
    for columns in ("", "0", "wide"):
        monkeypatch.setenv("COLUMNS", columns)
        wide = run_here(place.root, command).stdout.splitlines()
        assert len(wide) <= len(narrow)
        assert not [line for line in [*wide, *narrow] if line.endswith(" ")]


def test_the_package_runs_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "tokmigrate", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"tokmigrate {__version__}\n"

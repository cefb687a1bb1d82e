"""What holds for all commands: exit codes, tracebacks, and the help, which says the same as the documentation."""

from __future__ import annotations

import inspect
import json
import re

import pytest
from command_tables import commands
from typer.core import TyperOption
from workspaces import BASE, REPOSITORY, Workspace, run_here

from tokmigrate.cli.app import COMMANDS
from tokmigrate.commands.check import DRIFTED, PENDING, UP_TO_DATE
from tokmigrate.errors import EXIT_CODES, OperationError, error_types


@pytest.mark.parametrize(
    ("words", "code", "cause"),
    [
        (("show", "nosuch"), 2, "UnknownNameError"),
        (("plan", "nosuch"), 2, "UnknownNameError"),
        (("downgrade", BASE), 1, "AlreadyThereError"),
        (("nosuch",), 2, "UsageError"),
    ],
)
def test_tracebacks_only_when_asked_and_beside_all_else(
    place: Workspace, words: tuple[str, ...], code: int, cause: str
) -> None:
    plain = run_here(place.root, *words)
    assert "Traceback" not in plain.stderr
    for asked in (run_here(place.root, *words, "--debug"), run_here(place.root, "--debug", *words)):
        assert (asked.returncode, asked.stdout) == (code, plain.stdout)
        assert asked.stderr.startswith("Traceback (most recent call last):\n")
        assert cause in asked.stderr
        assert asked.stderr.endswith(plain.stderr)
    as_json = run_here(place.root, *words, "--json")
    asked = run_here(place.root, *words, "--json", "--debug")
    assert (asked.returncode, json.loads(asked.stdout)) == (code, json.loads(as_json.stdout))
    assert asked.stderr.startswith("Traceback")


def test_an_error_of_the_program_itself(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokmigrate.revision.history.migration_files", lambda _: 1 / 0)
    said = run_here(place.root, "history")
    assert said.returncode == 1
    assert "an error in tokmigrate itself: ZeroDivisionError" in said.stderr
    asked = run_here(place.root, "history", "--debug", "--json")
    assert (asked.returncode, json.loads(asked.stdout)["error"]["exit_code"]) == (1, 1)
    assert "ZeroDivisionError: division by zero\n" in asked.stderr


def test_a_word_after_two_dashes_is_no_option(place: Workspace) -> None:
    said = run_here(place.root, "blame", "--", "--debug")
    assert "Traceback" not in said.stderr
    assert "'--debug'" in said.stderr


def test_exit_codes_are_documented_alike_everywhere(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {each.exit_code for each in error_types()} | {UP_TO_DATE, PENDING, DRIFTED}
    assert given == set(EXIT_CODES)
    short = "; ".join(f"{code} {meaning}" for code, meaning in EXIT_CODES.items())
    monkeypatch.setenv("COLUMNS", "500")
    assert f"Exit codes: {short}." in " ".join(run_here(place.root, "--help").stdout.split())
    table = (REPOSITORY / "docs" / "reference" / "exit-codes.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| (\d+) \| (.*) \|$", table, re.MULTILINE))
    assert [int(code) for code in rows] == list(EXIT_CODES)
    for each in error_types():
        assert f"`{each.__name__}`" in rows[str(each.exit_code)]


def test_an_error_names_what_explains_it() -> None:
    topics = [each.topic for each in error_types()]
    assert {"internal", "usage", "file-problems", "unknown-name", "missing-model", "recovery-needed"} < set(topics)
    assert len(set(topics)) == len(topics)

    class WrongShapeError(OperationError):
        """An error of a plug-in, which has no page of its own."""

    assert WrongShapeError("wrong").topic == "operation"
    assert WrongShapeError not in error_types()


VERBS = re.findall(
    r"[\w-]+",
    """
    Adopt Apply Change Check Choose Compare Continue Count Create Delete Derive Distil Exit Explain Finish Give Import
    Include Install Keep Learn List Make Measure Move Print Read Record Remove Replace Restore Run Select Set Show Skip
    Train Undo Update Use Verify Wait Write
    """,
)


@pytest.mark.parametrize("name", commands())
def test_help_is_one_imperative_sentence(name: str) -> None:
    command = commands()[name]
    docstring = inspect.getdoc(inspect.unwrap(command.callback))
    assert docstring.split("\n\n")[0] == command.help
    if name in COMMANDS:
        assert command.help == COMMANDS[name].help
    # It fits into the list of commands at 80 columns.
    assert len(command.help) <= 62
    for parameter in command.params:
        told = parameter.help
        assert told, parameter.name
        assert len(told) <= 80, told
        if isinstance(parameter, TyperOption):
            assert told.split()[0] in VERBS, told
    assert command.help.split()[0] in VERBS, command.help
    for text in (command.help, *(parameter.help for parameter in command.params)):
        assert not re.search(r"[.?!] [A-Z]", text.replace(". Default: ", "; ")), text
        assert text.endswith("."), text


@pytest.mark.parametrize("name", ["upgrade", "lint", "stamp"])
def test_help_of_a_command_is_short(place: Workspace, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    said = run_here(place.root, name, "--help").stdout
    assert COMMANDS[name].help in said
    assert "bool" not in said
    assert len(said.splitlines()) < 40


def test_help_begins_with_what_runs_migrations(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    said = run_here(place.root, "--help").stdout
    assert "bool" not in said
    assert re.findall(r"─ (\w+) ─", said) == ["Options", "Run", "Train", "Author", "Inspect", "CI", "Maintain"]
    named = re.findall(r"^│ ([a-z][\w-]+) ", said, re.MULTILINE)
    assert named == list(COMMANDS)
    for entry in COMMANDS.values():
        assert f" {entry.help} " in said, entry.help


def test_a_letter_is_one_thing_in_all_commands() -> None:
    meant: dict[str, set[str | None]] = {}
    for command in commands().values():
        for each in command.params:
            for word in each.opts:
                if len(word) == 2:
                    meant.setdefault(word, set()).add(each.name)
    assert meant == {"-m": {"message"}, "-M": {"model"}, "-o": {"output"}, "-j": {"jobs"}, "-k": {"most"}}
    for name, command in commands().items():
        for each in command.params:
            assert each.name not in ("message", "model") or {"-m", "-M"} & set(each.opts), name


def test_a_model_that_is_named_with_the_letter_of_a_message_is_distinguished(place: Workspace) -> None:
    said = run_here(place.root, "plan", "-m", "demo")
    assert said.returncode == 2
    assert "-M NAME" in said.stderr
    assert run_here(place.root, "plan", "-M", "demo").returncode == 0

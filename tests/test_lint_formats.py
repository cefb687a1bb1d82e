"""How `tokmigrate lint` says what it found: to people, to programs, to GitHub and GitLab, as SARIF."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lint_projects import ALL, Project, empty_project
from workspaces import run_here

from tokmigrate.commands.lint import Linted, lint
from tokmigrate.lint.linter import RULES
from tokmigrate.render.escape import escape
from tokmigrate.render.lint import code_quality, findings_text, sarif, workflow_commands
from tokmigrate.render.terminal import format_plain

BAD = """\
message: Add the tools, 100 % of them
operations:
  - add_tokens:
      tokens:
        - {content: "<tool\u200b>", special: true, init: {strategy: mean}}
        - {content: "<result> ", special: true, init: {strategy: mean}}
"""

FOUND = """\
migrations/0001_first.yaml:8:21: TM105 error: '<tool>' holds U+200B ZERO WIDTH SPACE
  8 |         - {content: "<tool\\u200b>", special: true, init: {strategy: mean}}
    |                     ^
  help: write "<tool>"
migrations/0001_first.yaml:9:21: TM103 warning: '<result> ' ends with white space
  9 |         - {content: "<result> ", special: true, init: {strategy: mean}}
    |                     ^
  help: write "<result>"; the text keeps its white space. If the token needs it, write `# noqa: TM103` and why
1 migration: 1 error and 1 warning
more: tokmigrate explain TM105
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = empty_project(tmp_path / "top, 1:2" / "work space")
    made.write(BAD)
    return made


def test_people_see_the_line_and_the_place_in_it(project: Project) -> None:
    said = project.run()
    assert said.stdout == FOUND
    assert said.returncode == 1
    assert format_plain(findings_text(project.lint())) == FOUND


def test_it_fails_for_errors_and_when_strict_for_warnings(project: Project) -> None:
    assert project.run("--ignore", "TM105").returncode == 0
    assert project.run("--ignore", "TM105", "--strict").returncode == 1
    assert project.run("--ignore", "TM1", "--strict").returncode == 0


def test_programs_get_one_document(project: Project) -> None:
    said = project.run("--json")
    assert said.returncode == 1
    document = json.loads(said.stdout)
    assert (document["schema_version"], document["command"]) == (1, "lint")
    assert (document["errors"], document["warnings"]) == (1, 1)
    assert document["migrations"] == ["migrations/0001_first.yaml"]
    first = document["findings"][0]
    assert first == {
        "code": "TM105",
        "rule": "invisible-character",
        "severity": "error",
        "path": "migrations/0001_first.yaml",
        "line": 8,
        "column": 21,
        "message": "'<tool>' holds U+200B ZERO WIDTH SPACE",
        "hint": 'write "<tool>"',
        "revision": "aaaa0001",
        "models": [],
    }


def test_a_file_that_cannot_be_read_is_an_error_as_everywhere(project: Project) -> None:
    project.write("operations: [{add_token: x}]\n")
    said = project.run("--json")
    assert said.returncode == 2
    assert "did you mean 'add_tokens'?" in json.loads(said.stdout)["error"]["problems"][0]["hint"]


def test_github_gets_a_line_for_each(project: Project) -> None:
    # A workflow runs in the repository, of which the workspace is a part.
    (project.root.parent / ".git").mkdir()
    said = project.run("--format", "github")
    assert said.returncode == 1
    first, second, note = [_command(line) for line in said.stdout.splitlines()]
    assert first == (
        "error",
        {
            "file": "work space/migrations/0001_first.yaml",
            "line": "8",
            "col": "21",
            "title": "TM105 invisible-character",
        },
        "'<tool>' holds U+200B ZERO WIDTH SPACE\nwrite \"<tool>\"",
    )
    assert second[0] == "warning"
    assert note[0] == "notice"
    assert "checked by their files only" in note[2]


def test_github_gets_a_line_for_a_file_that_cannot_be_read(project: Project) -> None:
    (project.root.parent / ".git").mkdir()
    project.write("operations: [{add_token: x}]\n")
    said = project.run("--format", "github")
    assert said.returncode == 2
    (line,) = said.stdout.splitlines()
    command, properties, message = _command(line)
    assert (command, properties["file"], properties["line"]) == ("error", "work space/migrations/0001_first.yaml", "5")
    assert message == "unknown operation 'add_token'\ndid you mean 'add_tokens'?"


def _command(line: str) -> tuple[str, dict[str, str], str]:
    """Return what GitHub's runner reads in a line: the command, its properties, its message."""
    match = re.fullmatch(r"::(\w+) ([^:]*)::(.*)", line)
    assert match is not None
    properties = dict(part.split("=", 1) for part in match[2].split(","))
    return match[1], {name: _decoded(value) for name, value in properties.items()}, _decoded(match[3])


def _decoded(text: str) -> str:
    # actions/runner, ActionCommand.cs: %25 comes last.
    for code, letter in (("%0D", "\r"), ("%0A", "\n"), ("%3A", ":"), ("%2C", ","), ("%25", "%")):
        text = text.replace(code, letter)
    return text


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Linted:
    made = empty_project(tmp_path_factory.mktemp("found"))
    made.write(BAD)
    return lint(made.workspace, [], ALL)


@given(st.text(st.characters(codec="utf-8")))
def test_no_message_breaks_a_line_of_githubs(found: Linted, text: str) -> None:
    finding = replace(found.findings[0], message=text, help=None)
    (line, *_) = workflow_commands(replace(found, findings=(finding,))).split("\n")
    assert _command(line)[2] == escape(text)


def test_sarif_is_what_its_schema_asks_for(project: Project) -> None:
    (project.root.parent / ".git").mkdir()
    said = project.run("--format", "sarif")
    assert said.returncode == 1
    log = json.loads(said.stdout)
    assert log["version"] == "2.1.0"
    assert log["$schema"].endswith("sarif-schema-2.1.0.json")
    (run,) = log["runs"]
    driver = run["tool"]["driver"]
    assert driver["name"] == "tokmigrate"
    for number, result in enumerate(run["results"]):
        rule = driver["rules"][result["ruleIndex"]]
        assert rule["id"] == result["ruleId"] == ["TM105", "TM103"][number]
        assert result["level"] == rule["defaultConfiguration"]["level"] == ["error", "warning"][number]
        assert rule["shortDescription"]["text"] == RULES[rule["id"]].summary
        # GitHub shows the Markdown beside a finding.
        assert RULES[rule["id"]].why in rule["help"]["text"]
        assert RULES[rule["id"]].right in rule["help"]["markdown"]
        (location,) = result["locations"]
        physical = location["physicalLocation"]
        uri = physical["artifactLocation"]["uri"]
        assert unquote(uri) == "work space/migrations/0001_first.yaml"
        assert re.fullmatch(r"[\w./%-]+", uri)
        assert physical["artifactLocation"]["uriBaseId"] in run["originalUriBaseIds"]
        assert physical["region"] == {"startLine": 8 + number, "startColumn": 21}
    (invocation,) = run["invocations"]
    assert invocation["executionSuccessful"] is True
    assert [note["level"] for note in invocation["toolExecutionNotifications"]] == ["note"]


def test_gitlab_gets_a_report_of_code_quality(project: Project) -> None:
    (project.root.parent / ".git").mkdir()
    said = project.run("--format", "gitlab")
    assert said.returncode == 1
    report = json.loads(said.stdout)
    path = "work space/migrations/0001_first.yaml"
    assert [(each["check_name"], each["severity"], each["location"]) for each in report] == [
        ("TM105", "major", {"path": path, "lines": {"begin": 8}}),
        ("TM103", "minor", {"path": path, "lines": {"begin": 9}}),
    ]
    assert report[1]["description"].startswith("'<result> ' ends with white space. write")
    # A finding is the same where lines are added above it, and two equal ones are two.
    project.write("\n" + BAD.replace("message: Add", "# One more line.\nmessage: Add"))
    moved = json.loads(project.run("--format", "gitlab").stdout)
    assert [each["fingerprint"] for each in moved] == [each["fingerprint"] for each in report]
    linted = project.lint()
    twice = code_quality(replace(linted, findings=linted.findings * 2))
    assert len({each["fingerprint"] for each in twice}) == 4


# The properties that the schema knows (OASIS SARIF 2.1.0), of the objects that are written.
_KNOWN = {
    "sarifLog": {"$schema", "version", "runs"},
    "run": {"tool", "columnKind", "originalUriBaseIds", "results", "invocations"},
    "driver": {"name", "version", "informationUri", "rules"},
    "rule": {"id", "name", "shortDescription", "fullDescription", "help", "defaultConfiguration"},
    "result": {"ruleId", "ruleIndex", "level", "message", "locations"},
}


def test_sarif_has_no_property_that_its_schema_forbids(found: Linted) -> None:
    log: dict[str, Any] = sarif(found)
    (run,) = log["runs"]
    assert set(log) <= _KNOWN["sarifLog"]
    assert set(run) <= _KNOWN["run"]
    assert set(run["tool"]["driver"]) <= _KNOWN["driver"]
    assert all(set(result) <= _KNOWN["result"] for result in run["results"])
    assert all(set(rule) <= _KNOWN["rule"] for rule in run["tool"]["driver"]["rules"])
    ids = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("form", ["github", "gitlab", "sarif"])
def test_a_format_beside_json_is_refused(project: Project, form: str) -> None:
    done = run_here(project.root, "lint", "--json", "--format", form)
    assert done.returncode == 2
    assert json.loads(done.stdout)["error"]["message"] == f"--json contradicts --format {form}"

"""What rules found, as annotations of GitHub's workflows.

Format: "Workflow commands for GitHub Actions", `::error file={name},line={line},col={col},title={title}::{message}`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from tokmigrate.errors import FileProblems, TokmigrateError
from tokmigrate.git import find_repository
from tokmigrate.report.shown import shown

if TYPE_CHECKING:
    from tokmigrate.lint.checking import Finding
    from tokmigrate.runner.lint import Linted


def workflow_commands(linted: Linted) -> str:
    """Return a line for each finding, and one for each note."""
    lines = [_line(finding, linted.path_of(finding)) for finding in linted.findings]
    lines += [f"::notice title=tokmigrate lint::{_data(shown(note))}" for note in linted.notes]
    return "".join(f"{line}\n" for line in lines)


def problem_commands(error: TokmigrateError, root: Path) -> str:
    """Return a line for each problem of files that could not be read, nothing for another error.

    Args:
        error: The error.
        root: The workspace, which the names of files are relative to.
    """
    problems = error.problems if isinstance(error, FileProblems) else ()
    top = find_repository(root) or root
    lines = []
    for problem in problems:
        path = Path(os.path.relpath(root / problem.path, top)).as_posix()
        message = _message(problem.message, problem.hint)
        lines.append(_command("error", path, problem.line, problem.column, "tokmigrate", message))
    return "".join(f"{line}\n" for line in lines)


def _line(finding: Finding, path: str) -> str:
    rule, place = finding.rule, finding.place
    message = _message(finding.message, finding.help)
    return _command(rule.severity.value, path, place.line, place.column, f"{rule.code} {rule.name}", message)


def _message(message: str, hint: str | None) -> str:
    return shown(message) + (f"\n{shown(hint)}" if hint else "")


def _command(command: str, path: str, line: int, column: int, title: str, message: str) -> str:
    properties = {"file": path, "line": str(line), "col": str(column), "title": title}
    given = ",".join(f"{name}={_property(value)}" for name, value in properties.items())
    return f"::{command} {given}::{_data(message)}"


def _data(text: str) -> str:
    """Return a text as the runner decodes it behind `::` (actions/toolkit, `escapeData`)."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    """Return a text as the runner decodes it in a property (actions/toolkit, `escapeProperty`)."""
    return _data(text).replace(":", "%3A").replace(",", "%2C")

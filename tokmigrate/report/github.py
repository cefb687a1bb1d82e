"""What rules found, as annotations of GitHub's workflows.

Format: "Workflow commands for GitHub Actions", `::error file={name},line={line},col={col},title={title}::{message}`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokmigrate.lint.checking import Finding
    from tokmigrate.runner.lint import Linted


def workflow_commands(linted: Linted) -> str:
    """Return a line for each finding, and one for each note."""
    lines = [_line(finding, linted.path_of(finding)) for finding in linted.findings]
    lines += [f"::notice title=tokmigrate lint::{_data(note)}" for note in linted.notes]
    return "".join(f"{line}\n" for line in lines)


def _line(finding: Finding, path: str) -> str:
    properties = {
        "file": path,
        "line": str(finding.place.line),
        "col": str(finding.place.column),
        "title": f"{finding.rule.code} {finding.rule.name}",
    }
    given = ",".join(f"{name}={_property(value)}" for name, value in properties.items())
    message = finding.message + (f"\n{finding.help}" if finding.help else "")
    return f"::{finding.rule.severity.value} {given}::{_data(message)}"


def _data(text: str) -> str:
    """Return a text as the runner decodes it behind `::` (actions/toolkit, `escapeData`)."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    """Return a text as the runner decodes it in a property (actions/toolkit, `escapeProperty`)."""
    return _data(text).replace(":", "%3A").replace(",", "%2C")

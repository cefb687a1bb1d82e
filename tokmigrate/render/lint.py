"""The findings of `tokmigrate lint`: text, JSON, for GitHub and GitLab, SARIF; and a rule explained in Markdown."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from blake3 import blake3
from rich.console import Group, RenderableType
from rich.text import Text

from tokmigrate import __version__
from tokmigrate.errors import FileProblems, TokmigrateError, name_explanation
from tokmigrate.formatting import format_count, format_findings
from tokmigrate.git import find_repository
from tokmigrate.render.escape import escape

if TYPE_CHECKING:
    from tokmigrate.commands.lint import Linted
    from tokmigrate.lint.linter import Finding
    from tokmigrate.lint.rule import Rule

_AROUND = 80  # The characters that are shown before and after a place in a long line

_STYLES = {"error": "bad", "warning": "caution"}
_GITLAB = {"error": "major", "warning": "minor"}


def findings_text(linted: Linted) -> RenderableType:
    """Return each finding with the line that it is in, how many there are, and what explains the most serious one."""
    found = format_findings(linted.errors, linted.warnings)
    findings = [part for finding in linted.findings for part in _finding_text(finding)]
    codes = [each.rule.code for each in sorted(linted.findings, key=lambda each: each.rule.severity != "error")]
    more = [name_explanation(code) for code in codes[:1]]
    return Group(*findings, f"{format_count(len(linted.files), 'migration')}: {found}", *more)


def findings_content(linted: Linted) -> dict[str, Any]:
    """Return what rules found as JSON."""
    return {
        "migrations": [file.migration.shown for file in linted.files],
        "findings": [
            {
                "code": finding.rule.code,
                "rule": finding.rule.name,
                "severity": finding.rule.severity.value,
                "path": finding.file.migration.shown,
                "line": finding.location.line,
                "column": finding.location.column,
                "message": finding.message,
                "hint": finding.help,
                "revision": finding.file.migration.revision,
                "models": finding.models,
            }
            for finding in linted.findings
        ],
        "errors": linted.errors,
        "warnings": linted.warnings,
        "notes": linted.notes,
    }


def _finding_text(finding: Finding) -> Iterator[RenderableType]:
    severity, place = finding.rule.severity.value, finding.location
    on = f" ({', '.join(finding.models)})" if finding.models else ""
    yield Text.assemble(
        (f"{finding.file.migration.shown}:{place.line}:{place.column}", "bold"),
        ": ",
        (f"{finding.rule.code} {severity}", _STYLES[severity]),
        f": {escape(finding.message)}{on}",
    )
    # Of a long line the part around the place.
    start = max(0, place.column - _AROUND) if len(finding.line) > 2 * _AROUND else 0
    line = ("…" if start else "") + escape(finding.line[start : start + 2 * _AROUND])
    if line.strip():
        caret = " " * (Text(escape(finding.line[start : place.column - 1])).cell_len + bool(start)) + "^"
        yield Text(f"  {place.line} | {line}", no_wrap=True, overflow="ellipsis")
        yield Text(f"  {' ' * len(str(place.line))} | {caret}", no_wrap=True, overflow="crop")
    if finding.help:
        yield Text.assemble(("  help: ", "bold"), escape(finding.help))


def workflow_commands(linted: Linted) -> str:
    """Return a line for each finding, and one for each note."""
    lines = []
    for finding in linted.findings:
        rule, place, path = finding.rule, finding.location, linted.path_of(finding)
        title, message = f"{rule.code} {rule.name}", _message(finding.message, finding.help)
        lines.append(_workflow_command(rule.severity.value, path, place.line, place.column, title, message))
    lines += [f"::notice title=tokmigrate lint::{_data(escape(note))}\n" for note in linted.notes]
    return "".join(lines)


def problem_commands(error: TokmigrateError, root: Path) -> str:
    """Return a line for each problem of files that could not be read, nothing for another error."""
    top = find_repository(root) or root
    lines = []
    for problem in error.problems if isinstance(error, FileProblems) else ():
        path = Path(os.path.relpath(root / problem.path, top)).as_posix()
        message = _message(problem.message, problem.hint)
        lines.append(_workflow_command("error", path, problem.line, problem.column, "tokmigrate", message))
    return "".join(lines)


def _message(message: str, hint: str | None) -> str:
    return escape(message) + (f"\n{escape(hint)}" if hint else "")


def _workflow_command(command: str, path: str, line: int, column: int, title: str, message: str) -> str:
    """Return a line that the runner decodes (actions/toolkit, `escapeData` and `escapeProperty`)."""
    properties = {"file": path, "line": str(line), "col": str(column), "title": title}
    escaped = {name: _data(value).replace(":", "%3A").replace(",", "%2C") for name, value in properties.items()}
    return f"::{command} {','.join(f'{name}={value}' for name, value in escaped.items())}::{_data(message)}\n"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def code_quality(linted: Linted) -> list[dict[str, Any]]:
    """Return GitLab's report of code quality, in the fields that it reads; paths are those of the repository."""
    report, seen = [], Counter[str]()
    for finding in linted.findings:
        rule, path = finding.rule, linted.path_of(finding)
        description = f"{finding.message}. {finding.help}" if finding.help else finding.message
        # A finding whose line moved keeps its fingerprint; GitLab shows one of those that share one.
        same = "\0".join((path, rule.code, finding.message, *finding.models))
        seen[same] += 1
        report.append(
            {
                "check_name": rule.code,
                "description": description,
                "severity": _GITLAB[rule.severity.value],
                "fingerprint": blake3(f"{same}\0{seen[same]}".encode()).hexdigest(),
                "location": {"path": path, "lines": {"begin": finding.location.line}},
            }
        )
    return report


SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"


def sarif(linted: Linted) -> dict[str, Any]:
    """Return a log with one run; paths are relative to the top of the repository."""
    rules = {finding.rule.code: finding.rule for finding in linted.findings}
    codes = sorted(rules)
    notes = [{"level": "note", "message": {"text": note}} for note in linted.notes]
    run = {
        "tool": {
            "driver": {
                "name": "tokmigrate",
                "version": __version__,
                "rules": [_sarif_rule(rules[code]) for code in codes],
            }
        },
        "columnKind": "unicodeCodePoints",
        "originalUriBaseIds": {"SRCROOT": {"description": {"text": "The top of the repository."}}},
        "results": [
            _sarif_result(finding, linted.path_of(finding), codes.index(finding.rule.code))
            for finding in linted.findings
        ],
        "invocations": [{"executionSuccessful": True, "toolExecutionNotifications": notes}],
    }
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _sarif_rule(rule: Rule) -> dict[str, Any]:
    return {
        "id": rule.code,
        "name": "".join(word.capitalize() for word in rule.name.split("-")),
        "shortDescription": {"text": rule.summary},
        "fullDescription": {"text": " ".join(rule.why.split())},
        # Where the pages of rules can be read is not known here, so a log brings what they say.
        "help": {"text": rule.why, "markdown": explanation(rule)},
        "defaultConfiguration": {"level": rule.severity.value},
    }


def _sarif_result(finding: Finding, path: str, rule: int) -> dict[str, Any]:
    place = {
        "artifactLocation": {"uri": quote(path), "uriBaseId": "SRCROOT"},
        "region": {"startLine": finding.location.line, "startColumn": finding.location.column},
    }
    return {
        "ruleId": finding.rule.code,
        "ruleIndex": rule,
        "level": finding.rule.severity.value,
        "message": {"text": finding.message + (f". {finding.help}" if finding.help else "")},
        "locations": [{"physicalLocation": place}],
    }


_LEFT_OUT = {
    "yaml": "`format`, `revision`, `down_revision`, and `message` where it does not matter, are left out here.",
    "python": "`revision` and `down_revision` are left out here.",
}


def explanation(rule: Rule, printed: str = "") -> str:
    """Return why it matters what a rule finds, a wrong migration with what `lint` prints of it, and a right one."""
    lines = [rule.why, "", "## Wrong", "", _LEFT_OUT[rule.language], ""]
    if rule.given:
        lines += ["In a model that has had", "", *_fence(rule.language, rule.given), "", "this migration is wrong:", ""]
    lines += _fence(rule.language, rule.wrong)
    if printed:
        against = f" --git-base {rule.branch}" if rule.branch else ""
        lines += ["", f"`tokmigrate lint --select {rule.code}{against}` prints", "", *_fence("text", printed)]
    return "\n".join([*lines, "", "## Right", "", *_fence(rule.language, rule.right), ""])


def _fence(language: str, code: str) -> list[str]:
    return [f"```{language}", code.rstrip("\n"), "```"]

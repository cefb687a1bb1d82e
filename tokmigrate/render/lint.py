"""The findings of `tokmigrate lint`: text, JSON, GitHub annotations, SARIF; and a rule explained in Markdown."""

from __future__ import annotations

import os
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from rich.console import Group, RenderableType
from rich.text import Text

from tokmigrate import __version__
from tokmigrate.errors import FileProblems, TokmigrateError
from tokmigrate.formatting import format_count
from tokmigrate.git import find_repository
from tokmigrate.render.escape import escape
from tokmigrate.render.terminal import print_plain

if TYPE_CHECKING:
    from tokmigrate.commands.lint import Linted
    from tokmigrate.lint.linter import Finding
    from tokmigrate.lint.rule import Rule

_AROUND = 80
"""The characters that are shown before and after a place in a long line."""

_STYLE = {"error": "bold red", "warning": "yellow"}


def findings_text(linted: Linted) -> RenderableType:
    """Return each finding with the line that it is in, and how many there are."""
    parts: list[RenderableType] = [part for finding in linted.findings for part in _finding_text(finding)]
    return Group(*parts, summary_line(linted))


def format_findings_plain(linted: Linted) -> str:
    """Return the same as text without colours, as a pipe gets it."""
    said = StringIO()
    # A pipe has no width: nothing is to be cut or folded there.
    print_plain(findings_text(linted), said)
    return said.getvalue()


def summary_line(linted: Linted) -> str:
    """Return how much was found in how many files."""
    files = format_count(len(linted.files), "migration")
    if not linted.findings:
        return f"{files}: nothing found"
    counts = [format_count(linted.errors, "error"), format_count(linted.warnings, "warning")]
    return f"{files}: {' and '.join(count for count in counts if not count.startswith('0'))}"


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
                "models": list(finding.models),
            }
            for finding in linted.findings
        ],
        "errors": linted.errors,
        "warnings": linted.warnings,
        "notes": list(linted.notes),
    }


def _finding_text(finding: Finding) -> list[RenderableType]:
    severity = finding.rule.severity.value
    where = f"{finding.file.migration.shown}:{finding.location.line}:{finding.location.column}"
    on = f" ({', '.join(finding.models)})" if finding.models else ""
    parts: list[RenderableType] = [
        Text.assemble(
            (where, "bold"),
            ": ",
            (f"{finding.rule.code} {severity}", _STYLE[severity]),
            f": {escape(finding.message)}{on}",
        )
    ]
    number = str(finding.location.line)
    # Of a long line the part around the place.
    start = max(0, finding.location.column - _AROUND) if len(finding.line) > 2 * _AROUND else 0
    line = ("…" if start else "") + escape(finding.line[start : start + 2 * _AROUND])
    if line.strip():
        before = escape(finding.line[start : finding.location.column - 1])
        caret = " " * (Text(before).cell_len + bool(start)) + "^"
        parts += [
            Text(f"  {number} | {line}", no_wrap=True, overflow="ellipsis"),
            Text(f"  {' ' * len(number)} | {caret}", no_wrap=True, overflow="crop"),
        ]
    if finding.help:
        parts.append(Text.assemble(("  help: ", "bold"), escape(finding.help)))
    return parts


def workflow_commands(linted: Linted) -> str:
    """Return a line for each finding, and one for each note."""
    lines = [_annotation(finding, linted.path_of(finding)) for finding in linted.findings]
    lines += [f"::notice title=tokmigrate lint::{_data(escape(note))}" for note in linted.notes]
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
        lines.append(_workflow_command("error", path, problem.line, problem.column, "tokmigrate", message))
    return "".join(f"{line}\n" for line in lines)


def _annotation(finding: Finding, path: str) -> str:
    rule, place = finding.rule, finding.location
    message = _message(finding.message, finding.help)
    return _workflow_command(rule.severity.value, path, place.line, place.column, f"{rule.code} {rule.name}", message)


def _message(message: str, hint: str | None) -> str:
    return escape(message) + (f"\n{escape(hint)}" if hint else "")


def _workflow_command(command: str, path: str, line: int, column: int, title: str, message: str) -> str:
    properties = {"file": path, "line": str(line), "col": str(column), "title": title}
    given = ",".join(f"{name}={_property(value)}" for name, value in properties.items())
    return f"::{command} {given}::{_data(message)}"


def _data(text: str) -> str:
    """Return a text as the runner decodes it behind `::` (actions/toolkit, `escapeData`)."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    """Return a text as the runner decodes it in a property (actions/toolkit, `escapeProperty`)."""
    return _data(text).replace(":", "%3A").replace(",", "%2C")


SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"


def sarif(linted: Linted) -> dict[str, Any]:
    """Return a log with one run; paths are relative to the top of the repository."""
    rules = {finding.rule.code: finding.rule for finding in linted.findings}
    codes = sorted(rules)
    driver = {
        "name": "tokmigrate",
        "version": __version__,
        "rules": [_sarif_rule(rules[code]) for code in codes],
    }
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "originalUriBaseIds": {"SRCROOT": {"description": {"text": "The top of the repository."}}},
        "results": [
            _sarif_result(finding, linted.path_of(finding), codes.index(finding.rule.code))
            for finding in linted.findings
        ],
        "invocations": [
            {
                "executionSuccessful": True,
                "toolExecutionNotifications": [{"level": "note", "message": {"text": note}} for note in linted.notes],
            }
        ],
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
    text = finding.message + (f". {finding.help}" if finding.help else "")
    region = {"startLine": finding.location.line, "startColumn": finding.location.column}
    return {
        "ruleId": finding.rule.code,
        "ruleIndex": rule,
        "level": finding.rule.severity.value,
        "message": {"text": text},
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": {"uri": quote(path), "uriBaseId": "SRCROOT"},
                    "region": region,
                }
            }
        ],
    }


_LEFT_OUT = {
    "yaml": "`format`, `revision`, `down_revision`, and `message` where it does not matter, are left out here.",
    "python": "`revision` and `down_revision` are left out here.",
}


def explanation(rule: Rule, printed: str = "") -> str:
    """Return why it matters what a rule finds, a migration that is wrong, and what is right instead.

    Args:
        rule: The rule.
        printed: What the command prints of the one that is wrong.
    """
    given = ["In a model that has had", "", *_fence(rule.language, rule.given), ""] if rule.given else []
    lines = [
        *(rule.why, "", "## Wrong", "", _LEFT_OUT[rule.language], ""),
        *given,
        *(("this migration is wrong:", "") if given else ()),
        *_fence(rule.language, rule.wrong),
        *(("", f"`{_lint_command(rule)}` prints", "", *_fence("text", printed)) if printed else ()),
        *("", "## Right", "", *_fence(rule.language, rule.right)),
    ]
    return "\n".join(lines) + "\n"


def _fence(language: str, code: str) -> list[str]:
    return [f"```{language}", code.rstrip("\n"), "```"]


def _lint_command(rule: Rule) -> str:
    against = f" --git-base {rule.branch}" if rule.branch else ""
    return f"tokmigrate lint --select {rule.code}{against}"

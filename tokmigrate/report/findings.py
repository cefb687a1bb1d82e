"""What rules found, for people and as JSON."""

from __future__ import annotations

from io import StringIO
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.text import Text

from tokmigrate.report.shown import shown
from tokmigrate.report.terminal import written_plainly

if TYPE_CHECKING:
    from tokmigrate.lint.checking import Finding
    from tokmigrate.runner.lint import Linted

_AROUND = 80
"""The characters that are shown before and behind a place in a long line."""

_STYLE = {"error": "bold red", "warning": "yellow"}


def findings_text(linted: Linted) -> RenderableType:
    """Return each finding with the line that it is in, and how many there are."""
    parts: list[RenderableType] = [part for finding in linted.findings for part in _finding_text(finding)]
    return Group(*parts, summary_line(linted))


def findings_plain(linted: Linted) -> str:
    """Return the same as text without colours, as a pipe gets it."""
    said = StringIO()
    # A pipe has no width: nothing is to be cut or folded there.
    written_plainly(findings_text(linted), said)
    return said.getvalue()


def summary_line(linted: Linted) -> str:
    """Return how much was found in how many files."""
    files = _counted(len(linted.files), "migration")
    if not linted.findings:
        return f"{files}: nothing found"
    counts = [_counted(linted.errors, "error"), _counted(linted.warnings, "warning")]
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
                "line": finding.place.line,
                "column": finding.place.column,
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
    where = f"{finding.file.migration.shown}:{finding.place.line}:{finding.place.column}"
    on = f" ({', '.join(finding.models)})" if finding.models else ""
    parts: list[RenderableType] = [
        Text.assemble(
            (where, "bold"),
            ": ",
            (f"{finding.rule.code} {severity}", _STYLE[severity]),
            f": {shown(finding.message)}{on}",
        )
    ]
    number = str(finding.place.line)
    # Of a long line the part around the place.
    start = max(0, finding.place.column - _AROUND) if len(finding.line) > 2 * _AROUND else 0
    line = ("…" if start else "") + shown(finding.line[start : start + 2 * _AROUND])
    if line.strip():
        before = shown(finding.line[start : finding.place.column - 1])
        caret = " " * (Text(before).cell_len + bool(start)) + "^"
        parts += [
            Text(f"  {number} | {line}", no_wrap=True, overflow="ellipsis"),
            Text(f"  {' ' * len(number)} | {caret}", no_wrap=True, overflow="crop"),
        ]
    if finding.help:
        parts.append(Text.assemble(("  help: ", "bold"), shown(finding.help)))
    return parts


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"

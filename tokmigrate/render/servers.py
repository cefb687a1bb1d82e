"""What another program would read of a model, as text and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rich.text import Text

from tokmigrate.formatting import format_findings
from tokmigrate.render.escape import escape
from tokmigrate.render.terminal import SEVERITY_STYLES

if TYPE_CHECKING:
    from rich.console import RenderableType

    from tokmigrate.commands.check_target import CheckedTarget


def target_lines(checked: CheckedTarget) -> Iterator[RenderableType]:
    """Yield what the program would read, and what its rules find."""
    target, findings = checked.target, checked.findings
    yield Text(f"{checked.model}: {target.program} ({target.version}) {escape(checked.reading.summary)}")
    for finding in findings:
        severity = (finding.severity, SEVERITY_STYLES[finding.severity])
        yield Text.assemble("  ", severity, f": {escape(finding.where)}: {escape(finding.message)}")
        yield Text.assemble(("    help: ", "bold"), escape(finding.help))
    yield f"  {format_findings(checked.errors, len(findings) - checked.errors)}"


def target_content(checked: CheckedTarget) -> dict[str, Any]:
    """Return the same as JSON."""
    return {
        "model": checked.model,
        "program": checked.target.program,
        "version": checked.target.version,
        "reads": checked.reading.summary,
        "findings": [
            {"severity": each.severity, "path": each.where, "message": each.message, "hint": each.help}
            for each in checked.findings
        ],
        "errors": checked.errors,
    }

"""What rules found, in the Static Analysis Results Interchange Format (OASIS SARIF 2.1.0)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from tokmigrate import __version__
from tokmigrate.report.explanation import explanation

if TYPE_CHECKING:
    from tokmigrate.lint.checking import Finding
    from tokmigrate.lint.rule import Rule
    from tokmigrate.runner.lint import Linted

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"


def sarif(linted: Linted) -> dict[str, Any]:
    """Return a log with one run; paths are relative to the top of the repository."""
    rules = {finding.rule.code: finding.rule for finding in linted.findings}
    codes = sorted(rules)
    driver = {
        "name": "tokmigrate",
        "version": __version__,
        "rules": [_rule(rules[code]) for code in codes],
    }
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "originalUriBaseIds": {"SRCROOT": {"description": {"text": "The top of the repository."}}},
        "results": [
            _result(finding, linted.path_of(finding), codes.index(finding.rule.code)) for finding in linted.findings
        ],
        "invocations": [
            {
                "executionSuccessful": True,
                "toolExecutionNotifications": [{"level": "note", "message": {"text": note}} for note in linted.notes],
            }
        ],
    }
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _rule(rule: Rule) -> dict[str, Any]:
    return {
        "id": rule.code,
        "name": "".join(word.capitalize() for word in rule.name.split("-")),
        "shortDescription": {"text": rule.summary},
        "fullDescription": {"text": " ".join(rule.why.split())},
        # Where the pages of rules can be read is not known here, so a log brings what they say.
        "help": {"text": rule.why, "markdown": explanation(rule)},
        "defaultConfiguration": {"level": rule.severity.value},
    }


def _result(finding: Finding, path: str, rule: int) -> dict[str, Any]:
    text = finding.message + (f". {finding.help}" if finding.help else "")
    region = {"startLine": finding.place.line, "startColumn": finding.place.column}
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

"""What a rule is, and what it finds."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal, TypeVar, get_type_hints

from tokmigrate.lint.subjects import Failure, Location, MigrationFile, OnModel

T = TypeVar("T", MigrationFile, OnModel, Failure)


class Severity(StrEnum):
    """How sure it is that a migration has to change."""

    ERROR = "error"
    WARNING = "warning"


ERROR, WARNING = Severity.ERROR, Severity.WARNING


@dataclass(frozen=True)
class Found:
    """What a rule finds: where, what is wrong, and what to do."""

    location: Location
    message: str
    help: str | None = None


@dataclass(frozen=True)
class Rule:
    """A rule: `check` yields what it finds in its subject, and has the summary and the reason in its docstring.

    Args:
        wrong: A migration in which it finds something, without the fields that identify one; `right` as it should be.
        given: A migration before either of them.
        branch: The branch that its examples are compared with, None for a rule that reads none.
    """

    code: str
    name: str
    severity: Severity
    check: Callable[[Any], Iterable[Found]]
    subject: type[MigrationFile] | type[OnModel] | type[Failure]
    wrong: str
    right: str
    given: str
    branch: str | None

    @property
    def summary(self) -> str:
        return (inspect.getdoc(self.check) or "").partition("\n")[0]

    @property
    def why(self) -> str:
        return (inspect.getdoc(self.check) or "").partition("\n")[2].strip()

    @property
    def language(self) -> Literal["yaml", "python"]:
        return "python" if "def upgrade(op):" in self.right else "yaml"


REGISTERED: dict[str, Rule] = {}
"""Every rule by its code, in the order of registration."""


def rule(
    code: str,
    severity: Severity,
    *,
    wrong: str,
    right: str,
    given: str = "",
    branch: str | None = None,
) -> Callable[[Callable[[T], Iterable[Found]]], Callable[[T], Iterable[Found]]]:
    """Register a function as the check of a rule, which it gives its name; the type of its parameter is the subject.

    Raises ValueError for a taken code.
    """

    def register(check: Callable[[T], Iterable[Found]]) -> Callable[[T], Iterable[Found]]:
        name = check.__name__.replace("_", "-")
        if code in REGISTERED:
            raise ValueError(f"two rules have the code {code}: {REGISTERED[code].name} and {name}")
        subject = next(iter(get_type_hints(check).values()))
        REGISTERED[code] = Rule(code, name, severity, check, subject, wrong, right, given, branch)
        return check

    return register


def operations(*each: str) -> str:
    """Return an example in YAML with these operations."""
    return "operations:\n" + "".join(f"  - {operation}\n" for operation in each)


def add_special(token: str) -> str:
    """Return an operation that adds a special token."""
    return f'add_tokens: {{tokens: [{{content: "{token}", special: true}}]}}'


def upgrade(line: str, imports: str = "") -> str:
    """Return an example in Python whose `upgrade(op)` is this line."""
    head = f"{imports}\n\n" if imports else ""
    return f'{head}message = "Add the tools"\n\n\ndef upgrade(op):\n    {line}\n'


def escape_text(text: str) -> str:
    """Return a text as YAML has it between double quotes, in letters that everybody can tell apart."""
    # Python writes the escapes \x, \u and \U as YAML does.
    return '"' + text.encode("unicode_escape").decode("ascii").replace('"', '\\"') + '"'

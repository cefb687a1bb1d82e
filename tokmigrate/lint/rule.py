"""What a rule is, and what it finds."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal, TypeVar, get_type_hints

from tokmigrate.lint.file import Failure, Location, MigrationFile
from tokmigrate.lint.model import OnModel

T = TypeVar("T", MigrationFile, OnModel, Failure)

_LOOKS_AT = {
    MigrationFile: "the file alone",
    OnModel: "the file, and its effect on a model without it",
    Failure: "the file, and a model without it",
}


class Severity(StrEnum):
    """How sure it is that a migration has to change."""

    ERROR = "error"
    WARNING = "warning"


ERROR, WARNING = Severity.ERROR, Severity.WARNING


@dataclass(frozen=True)
class Found:
    """What a rule finds.

    Args:
        location: Where.
        message: What is wrong.
        help: What to do.
    """

    location: Location
    message: str
    help: str | None = None


@dataclass(frozen=True)
class Rule:
    """A rule.

    Args:
        code: Its code, such as `TM101`.
        name: Its name in words joined by hyphens.
        severity: What a finding of it is.
        check: Yields what it finds in its subject. Its docstring is the summary and the reason of the rule.
        subject: What it checks: a file, a migration on a model, or a migration that a model refuses.
        wrong: A migration in which it finds something, without the fields that identify one.
        right: The same as it should be.
        given: A migration before either of them.
        language: In which of the two languages for migrations the examples are.
        looks_at: What it needs, in words.
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
    language: Literal["yaml", "python"]
    looks_at: str
    branch: str | None

    @property
    def summary(self) -> str:
        """What it finds, in one sentence."""
        return self._documentation[0]

    @property
    def why(self) -> str:
        """Why that matters."""
        return self._documentation[1].strip()

    @property
    def _documentation(self) -> tuple[str, str]:
        first, _, rest = (inspect.getdoc(self.check) or "").partition("\n")
        return first, rest


REGISTERED: dict[str, Rule] = {}
"""Every rule by its code, in the order of registration."""


def rule(
    code: str,
    name: str,
    severity: Severity,
    *,
    wrong: str,
    right: str,
    given: str = "",
    language: Literal["yaml", "python"] = "yaml",
    beside: str = "",
    branch: str | None = None,
) -> Callable[[Callable[[T], Iterable[Found]]], Callable[[T], Iterable[Found]]]:
    """Register a function as the check of a rule; the type of its parameter says what the rule is run on.

    Args:
        code: See `Rule`, as for the others.
        name: Its name.
        severity: What a finding of it is.
        wrong: An example with a finding.
        right: The same without.
        given: A migration before either of them.
        language: The language of the examples.
        beside: What it needs besides the file, where the type of the parameter does not tell.
        branch: The branch that its examples are compared with.

    Raises:
        ValueError: The code is taken.
    """

    def register(check: Callable[[T], Iterable[Found]]) -> Callable[[T], Iterable[Found]]:
        if code in REGISTERED:
            raise ValueError(f"two rules have the code {code}: {REGISTERED[code].name} and {name}")
        subject = next(iter(get_type_hints(check).values()))
        looks_at = f"the file, and {beside}" if beside else _LOOKS_AT[subject]
        REGISTERED[code] = Rule(code, name, severity, check, subject, wrong, right, given, language, looks_at, branch)
        return check

    return register

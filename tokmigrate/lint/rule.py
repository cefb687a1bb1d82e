"""What a rule is, and what it finds."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, Literal, TypeVar

from tokmigrate.lint.file import Failure, MigrationFile, Place
from tokmigrate.lint.model import OnModel

T = TypeVar("T")


class Severity(StrEnum):
    """How sure it is that a migration has to change."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True)
class Found:
    """What a rule finds.

    Args:
        place: Where.
        message: What is wrong.
        help: What to do.
    """

    place: Place
    message: str
    help: str | None = None


@dataclass(frozen=True)
class Rule(Generic[T]):
    """A rule.

    Args:
        code: Its code, such as `TM101`.
        name: Its name in words joined by hyphens.
        severity: What a finding of it is.
        check: Yields what it finds in what it is shown.
        wrong: A migration in which it finds something, without the fields that identify one.
        right: The same as it should be.
        given: A migration before either of them.
        language: In which of the two languages for migrations the examples are.
        beside: What it looks at beside the file, where the kind of rule does not say it.
        branch: The branch that its examples are held against, None for a rule that looks at none.
    """

    code: str
    name: str
    severity: Severity
    check: Callable[[T], Iterable[Found]]
    wrong: str
    right: str
    given: str = ""
    language: Literal["yaml", "python"] = "yaml"
    beside: str = ""
    branch: str | None = None

    @property
    def summary(self) -> str:
        """What it finds, in one sentence."""
        return self._documentation[0]

    @property
    def why(self) -> str:
        """Why that matters."""
        return self._documentation[1].strip()

    @property
    def looks_at(self) -> str:
        """What it has to be shown."""
        return f"the file, and {self.beside}" if self.beside else "the file alone"

    @property
    def _documentation(self) -> tuple[str, str]:
        first, _, rest = (inspect.getdoc(self.check) or "").partition("\n")
        return first, rest


class FileRule(Rule[MigrationFile]):
    """A rule that needs a migration file alone."""


@dataclass(frozen=True)
class ModelRule(Rule[OnModel]):
    """A rule that needs a model, and what a migration makes of it."""

    beside: str = "what it makes of a model that lacks it"


@dataclass(frozen=True)
class FailureRule(Rule[Failure]):
    """A rule for a migration that a model refuses."""

    beside: str = "a model that lacks it"


AnyRule = FileRule | ModelRule | FailureRule

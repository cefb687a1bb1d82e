"""A command over several models: a result for each, an error for each that failed, and one exit code."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import typer

from tokmigrate.audit import run_status
from tokmigrate.cli.output import declare_changes, echo_err, is_lost, print_error, print_json, print_traceback
from tokmigrate.errors import AlreadyThereError, TokmigrateError, UsageError
from tokmigrate.render.json import document, error_document

if TYPE_CHECKING:
    from tokmigrate.commands.library_check import Accepted
    from tokmigrate.settings import ModelEntry

T = TypeVar("T")

_LEAST_SERIOUS_FIRST = (0, 3, 2, 1, 5, 4)


class Command(ABC, Generic[T]):
    """What a command does with one model, and how it shows the result."""

    name: ClassVar[str]

    @abstractmethod
    def run(self, entry: ModelEntry) -> T:
        """Do it for one model."""

    @abstractmethod
    def render(self, result: T) -> None:
        """Print a result."""

    @abstractmethod
    def content(self, result: T) -> dict[str, Any]:
        """Return a result as a part of the JSON document."""

    def exit_code(self, result: T) -> int:  # noqa: ARG002
        """Return the exit code of a result."""
        return 0


class ChangeCommand(Command[T]):
    """A command that changes models, after it has planned and verified the change of each."""

    @abstractmethod
    def plan(self, entry: ModelEntry) -> Accepted | None:
        """Raise the error that the change of a model would end with; return what was verified. Nothing is written."""

    @abstractmethod
    def run(self, entry: ModelEntry, accepted: Accepted | None = None) -> T:
        """Change one model; what was verified is not verified again."""


@dataclass(frozen=True)
class Failure:
    """A model, and the error that a command ended with on it."""

    model: str
    error: TokmigrateError


def run_each(command: Command[T], entries: Sequence[ModelEntry], as_json: bool, **more: object) -> None:
    """Run a command on each model, and print results and errors as they come, or one document with all.

    Args:
        command: The command.
        entries: The models.
        as_json: Whether to print a document.
        more: What else the document holds.

    Raises:
        Exit: With the most serious code, if that is not 0.
    """
    codes: list[int] = []
    contents: list[dict[str, Any]] = []
    failures: list[Failure] = []
    for entry in entries:
        try:
            result = command.run(entry)
            if as_json:
                contents.append(command.content(result))
            else:
                command.render(result)
            codes.append(command.exit_code(result))
        except TokmigrateError as error:
            failure = Failure(entry.name, error)
            if not as_json:
                print_failure(failure, failures, alone=len(entries) == 1)
            failures.append(failure)
    if as_json:
        print_documents(command.name, contents, failures, **more)
    _exit_with(_most_serious([*codes, *(each.error.exit_code for each in failures)]))


@dataclass
class _Changes:
    """The results for several models, by their names.

    Args:
        already_there: Those that needed no change.
        done: Those that were changed.
        failures: Those that could not be planned, verified or changed.
        not_tried: The others.
    """

    already_there: list[Failure] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    not_tried: list[str] = field(default_factory=list)

    def summary(self) -> str:
        """Return which models were changed, failed and not tried."""
        parts = {"done": self.done, "failed": [each.model for each in self.failures], "not tried": self.not_tried}
        return "; ".join(f"{what}: {', '.join(names) or 'none'}" for what, names in parts.items())


def change_each(command: ChangeCommand[T], entries: Sequence[ModelEntry], as_json: bool, *, keep_going: bool) -> None:
    """Plan and verify the change of each model, then change all of them, or none if one cannot be changed.

    Models are changed in order. The first that fails ends the command, and a summary says what was done.

    Args:
        command: The command.
        entries: The models.
        as_json: Whether to print a document.
        keep_going: Whether to continue with the other models after one fails.

    Raises:
        Exit: A model failed.
    """
    declare_changes()
    if len(entries) == 1:
        run_each(command, entries, as_json)
        return
    contents: list[dict[str, Any]] = []
    changes = _change_all(command, entries, contents if as_json else None, keep_going=keep_going)
    if as_json:
        print_documents(command.name, contents, changes.failures, not_tried=changes.not_tried)
    else:
        for each in changes.already_there:
            echo_err(f"note: {each.model}: {each.error.message}")
        print_failures(changes.failures)
        if changes.failures:
            echo_err(changes.summary())
    _exit_with(_most_serious(each.error.exit_code for each in changes.failures))


def _change_all(
    command: ChangeCommand[T], entries: Sequence[ModelEntry], contents: list[dict[str, Any]] | None, *, keep_going: bool
) -> _Changes:
    changes = _Changes()
    planned: list[tuple[ModelEntry, Accepted | None]] = []
    for entry in entries:
        try:
            planned.append((entry, command.plan(entry)))
        except AlreadyThereError as error:
            changes.already_there.append(Failure(entry.name, error))
        except TokmigrateError as error:
            changes.failures.append(Failure(entry.name, error))
    if len(changes.already_there) == len(entries):
        # All models are already there: exit as for a single model.
        return _Changes(failures=changes.already_there)
    while planned and (keep_going or not changes.failures):
        entry, accepted = planned.pop(0)
        try:
            result = command.run(entry, accepted)
            if contents is None:
                command.render(result)
            else:
                contents.append(command.content(result))
            changes.done.append(entry.name)
        except TokmigrateError as error:
            changes.failures.append(Failure(entry.name, error))
    changes.not_tried += [entry.name for entry, _ in planned]
    return changes


def print_documents(
    command: str, contents: list[dict[str, Any]] | None, failures: Sequence[Failure], **more: object
) -> None:
    """Print the document of a command over several models; `error` is the most serious one, the first of its kind.

    Args:
        command: Its name.
        contents: Its results, None if it has none for each model.
        failures: The models that failed.
        more: What else the document holds.
    """
    content = {**({} if contents is None else {"models": contents}), **more}
    if not failures:
        print_json(document(command, **content))
        return
    worst = _most_serious(each.error.exit_code for each in failures)
    first = next(each.error for each in failures if each.error.exit_code == worst)
    failed = [{"model": each.model, "error": error_document(each.error)["error"]} for each in failures]
    for each in failures:
        print_traceback(each.error)
    print_json({**error_document(first), "command": command, "failed": failed, **content})
    if is_lost(sys.stdout):
        print_failures(failures, alone=len(failures) == 1)


def find_missing(entries: Iterable[ModelEntry]) -> list[Failure]:
    """Return a failure for each model whose directory does not exist."""
    failures: list[Failure] = []
    for entry in entries:
        try:
            entry.here()
        except TokmigrateError as error:
            failures.append(Failure(entry.name, error))
    return failures


def find_interrupted(entries: Iterable[ModelEntry]) -> list[Failure]:
    """Return a failure for each model with an interrupted change."""
    failures: list[Failure] = []
    for entry in entries:
        try:
            run_status.refuse_interrupted(entry)
        except TokmigrateError as error:
            failures.append(Failure(entry.name, error))
    return failures


def exit_with(failures: Sequence[Failure], *, printed: bool) -> None:
    """End a command with the most serious failure, if there is one.

    Args:
        failures: The failures.
        printed: Whether they are printed already.

    Raises:
        Exit: With its code.
    """
    if not printed:
        print_failures(failures)
    _exit_with(_most_serious(each.error.exit_code for each in failures))


def print_failures(failures: Sequence[Failure], *, alone: bool = False) -> None:
    """Write failures to stderr."""
    for index, each in enumerate(failures):
        print_failure(each, failures[:index], alone=alone)


def print_failure(failure: Failure, before: Iterable[Failure], *, alone: bool) -> None:
    """Write a failure to stderr, with the model's name unless it is clear; the same error is printed once.

    Args:
        failure: The model and its error.
        before: What was printed before.
        alone: Whether the command is about this model alone.
    """
    error = failure.error
    if any((str(error), error.hint) == (str(each.error), each.error.hint) for each in before):
        return
    # An error in a file or on the command line concerns all models.
    is_clear = alone or isinstance(error, UsageError) or error.where == failure.model
    print_error(error, as_json=False, model=None if is_clear else failure.model)


def _most_serious(codes: Iterable[int]) -> int:
    return max(codes, key=_LEAST_SERIOUS_FIRST.index, default=0)


def _exit_with(code: int) -> None:
    if code:
        raise typer.Exit(code)

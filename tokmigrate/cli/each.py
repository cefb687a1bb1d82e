"""One command over several models: each is asked, each result shown when it is there, each failure told."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from tokmigrate.cli.output import print_error, print_json, trace
from tokmigrate.cli.streams import is_lost
from tokmigrate.errors import TokmigrateError, UsageError

if TYPE_CHECKING:
    from tokmigrate.settings import ModelEntry

T = TypeVar("T")

_LEAST_SERIOUS_FIRST = (0, 3, 2, 1, 5, 4)


@dataclass(frozen=True)
class Failed:
    """A model, and why a command failed on it."""

    model: str
    error: TokmigrateError


def most_serious(codes: Iterable[int]) -> int:
    """Return the exit code that a command over several models ends with; 0 where there are none."""
    return max(codes, key=_LEAST_SERIOUS_FIRST.index, default=0)


def always_fine(_: object) -> int:
    """Return 0: that there is a result is all that was asked."""
    return 0


def show_each(
    entries: Sequence[ModelEntry],
    act: Callable[[ModelEntry], T],
    render: Callable[[T], None],
    code: Callable[[T], int] = always_fine,
) -> None:
    """Act on each model, and render its result or tell its error at once.

    Args:
        entries: The models.
        act: What is done with each.
        render: Shows a result.
        code: The exit code that a result stands for.

    Raises:
        Exit: With the most serious code, where that is not 0.
    """
    codes: list[int] = []
    failed: list[Failed] = []
    for entry in entries:
        try:
            done = act(entry)
            render(done)
            codes.append(code(done))
        except TokmigrateError as error:
            tell(Failed(entry.name, error), failed, alone=len(entries) == 1)
            failed.append(Failed(entry.name, error))
    _leave(most_serious([*codes, *(each.error.exit_code for each in failed)]))


def document_each(
    command: str,
    entries: Sequence[ModelEntry],
    act: Callable[[ModelEntry], T],
    content: Callable[[T], dict[str, Any]],
    code: Callable[[T], int] = always_fine,
    **more: object,
) -> None:
    """Act on each model, and print one document with all results and all errors.

    Args:
        command: Its name.
        entries: The models.
        act: What is done with each.
        content: What the document holds of a result.
        code: The exit code that a result stands for.
        more: What else the document holds.

    Raises:
        Exit: With the most serious code, where that is not 0.
    """
    codes: list[int] = []
    models: list[dict[str, Any]] = []
    failed: list[Failed] = []
    for entry in entries:
        try:
            done = act(entry)
            models.append(content(done))
            codes.append(code(done))
        except TokmigrateError as error:
            failed.append(Failed(entry.name, error))
    print_several(command, models, failed, **more)
    _leave(most_serious([*codes, *(each.error.exit_code for each in failed)]))


def print_several(command: str, models: list[dict[str, Any]] | None, failed: Sequence[Failed], **more: object) -> None:
    """Print the document of a command over several models; `error` is the most serious one, the first of its kind.

    Args:
        command: Its name.
        models: What it says of those that it is done with; None where it does not go by models.
        failed: The others.
        more: What else it says.
    """
    from tokmigrate.report.json import document, error_document  # noqa: PLC0415

    content = {**({} if models is None else {"models": models}), **more}
    if not failed:
        print_json(document(command, **content))
        return
    worst = most_serious(each.error.exit_code for each in failed)
    first = next(each.error for each in failed if each.error.exit_code == worst)
    told = [{"model": each.model, "error": error_document(each.error)["error"]} for each in failed]
    for each in failed:
        trace(each.error)
    print_json({**error_document(first), "command": command, "failed": told, **content})
    if is_lost(sys.stdout):
        for place, each in enumerate(failed):
            tell(each, failed[:place], alone=len(failed) == 1)


def failed_absent(entries: Iterable[ModelEntry]) -> Iterator[Failed]:
    """Yield a failure for each model that is not here."""
    for entry in entries:
        try:
            entry.here()
        except TokmigrateError as error:
            yield Failed(entry.name, error)


def failed_interrupted(entries: Iterable[ModelEntry]) -> Iterator[Failed]:
    """Yield a failure for each model of which a change was interrupted."""
    from tokmigrate.audit.run_status import refuse_interrupted  # noqa: PLC0415

    for entry in entries:
        try:
            refuse_interrupted(entry)
        except TokmigrateError as error:
            yield Failed(entry.name, error)


def leave_with(failed: Sequence[Failed], *, told: bool) -> None:
    """End a command with the most serious of these failures; without any, go on.

    Args:
        failed: The failures.
        told: Whether they were told already.

    Raises:
        Exit: With its code.
    """
    for place, each in enumerate(failed):
        if not told:
            tell(each, failed[:place], alone=False)
    _leave(most_serious(each.error.exit_code for each in failed))


def tell(failure: Failed, before: Iterable[Failed], *, alone: bool) -> None:
    """Write an error to stderr, with the model's name unless it is clear; the same one is told once.

    Args:
        failure: The model and its error.
        before: What was told already.
        alone: Whether the command is about this model alone.
    """
    error = failure.error
    if any((str(error), error.hint) == (str(each.error), each.error.hint) for each in before):
        return
    # What is wrong in a file or on the command line is wrong for all models.
    is_clear = alone or isinstance(error, UsageError) or error.where == failure.model
    print_error(error, as_json=False, model=None if is_clear else failure.model)


def _leave(code: int) -> None:
    if code:
        raise typer.Exit(code)

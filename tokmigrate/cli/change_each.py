"""Several models changed by one command: all are planned and verified first, and none is changed unless all can be.

Then one after the other. The first that fails ends it, unless the others are to be gone on with; what was done, what
failed and what was not tried is summed up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from tokmigrate.cli.each import Failed, document_each, most_serious, print_several, show_each, tell
from tokmigrate.cli.output import say_aside
from tokmigrate.cli.streams import changes_something
from tokmigrate.errors import AlreadyThereError, TokmigrateError

if TYPE_CHECKING:
    from tokmigrate.settings import ModelEntry

A = TypeVar("A")
T = TypeVar("T")


@dataclass(frozen=True)
class _Changes:
    """What became of several models, by their names.

    Args:
        there: Those that were where they should be already.
        done: Those that were changed.
        failed: Those that could not be planned or verified; those that failed on the way.
        not_tried: The others.
    """

    there: tuple[Failed, ...]
    done: tuple[str, ...]
    failed: tuple[Failed, ...]
    not_tried: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """What the command ends with."""
        return most_serious(each.error.exit_code for each in self.failed)


def change_each(
    entries: Sequence[ModelEntry],
    accept: Callable[[ModelEntry], A],
    act: Callable[[ModelEntry, A | None], T],
    render: Callable[[T], None],
    *,
    keep_going: bool,
) -> None:
    """Change each model and render what was done, or change none.

    Args:
        entries: The models.
        accept: Raises what the change of a model would be refused for, and returns what was verified; changes nothing.
        act: Changes a model, given what was verified.
        render: Shows what was done.
        keep_going: Whether to go on with the other models where one fails.

    Raises:
        Exit: A model failed.
    """
    changes_something()
    if len(entries) == 1:
        show_each(entries, lambda entry: act(entry, None), render)
        return
    changes = _carried_out(entries, accept, act, render, keep_going=keep_going)
    for each in changes.there:
        say_aside(f"note: {each.model}: {each.error.message}")
    for place, each in enumerate(changes.failed):
        tell(each, changes.failed[:place], alone=False)
    if changes.failed:
        say_aside(_summary(changes))
        raise typer.Exit(changes.exit_code)


def document_changes(
    command: str,
    entries: Sequence[ModelEntry],
    accept: Callable[[ModelEntry], A],
    act: Callable[[ModelEntry, A | None], T],
    content: Callable[[T], dict[str, Any]],
    *,
    keep_going: bool,
) -> None:
    """Change each model, or none, and print one document.

    Args:
        command: The command's name.
        entries: The models.
        accept: Raises what the change of a model would be refused for, and returns what was verified; changes nothing.
        act: Changes a model, given what was verified.
        content: What the document holds of what was done.
        keep_going: Whether to go on with the other models where one fails.

    Raises:
        Exit: A model failed.
    """
    changes_something()
    if len(entries) == 1:
        document_each(command, entries, lambda entry: act(entry, None), content)
        return
    done: list[dict[str, Any]] = []
    changes = _carried_out(entries, accept, act, lambda each: done.append(content(each)), keep_going=keep_going)
    print_several(command, done, changes.failed, not_tried=list(changes.not_tried))
    if changes.failed:
        raise typer.Exit(changes.exit_code)


def _carried_out(
    entries: Sequence[ModelEntry],
    accept: Callable[[ModelEntry], A],
    act: Callable[[ModelEntry, A | None], T],
    take: Callable[[T], None],
    *,
    keep_going: bool,
) -> _Changes:
    left: list[tuple[ModelEntry, A]] = []
    there: list[Failed] = []
    failed: list[Failed] = []
    for entry in entries:
        try:
            left.append((entry, accept(entry)))
        except AlreadyThereError as error:
            there.append(Failed(entry.name, error))
        except TokmigrateError as error:
            failed.append(Failed(entry.name, error))
    if len(there) == len(entries):
        # There is nothing to do for any of them, which is refused as for one.
        return _Changes((), (), tuple(there), ())
    done: list[str] = []
    while left and (keep_going or not failed):
        entry, accepted = left.pop(0)
        try:
            take(act(entry, accepted))
            done.append(entry.name)
        except TokmigrateError as error:
            failed.append(Failed(entry.name, error))
    return _Changes(tuple(there), tuple(done), tuple(failed), tuple(entry.name for entry, _ in left))


def _summary(changes: _Changes) -> str:
    parts = {
        "done": changes.done,
        "failed": [each.model for each in changes.failed],
        "not tried": changes.not_tried,
    }
    return "; ".join(f"{what}: {', '.join(names) or 'none'}" for what, names in parts.items())

"""The results of a command: text or one JSON document, an error for each model that failed, and one exit code."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import typer

from tokmigrate.cli import output
from tokmigrate.commands import fleet, library_check
from tokmigrate.errors import AlreadyThereError, TokmigrateError, UsageError
from tokmigrate.render import terminal
from tokmigrate.render.verbosity import is_quiet

if TYPE_CHECKING:
    from rich.console import RenderableType

    from tokmigrate.commands.library_check import Accepted, Verifications
    from tokmigrate.events import OnProgress
    from tokmigrate.settings import ModelEntry

Failures = dict[str, TokmigrateError]
"""The errors that a command ended with on models, by name."""

_LEAST_SERIOUS_FIRST = (0, 3, 2, 1, 5, 4)


@dataclass(frozen=True)
class Result:
    """What a command prints: the content of a JSON document, or lines and tables, the notes to stderr and first."""

    content: dict[str, Any]
    text: Iterable[RenderableType] = ()
    notes: Iterable[RenderableType] = ()
    exit_code: int = 0

    def print(self) -> None:
        """Print notes and text."""
        for part in () if is_quiet() else self.notes:
            if isinstance(part, str):
                output.echo_err(part)
            else:
                terminal.print_rich(part, stderr=True)
        for part in self.text:
            if isinstance(part, str):
                output.echo(part)
            else:
                terminal.print_rich(part)


@dataclass
class ModelResults:
    """The results of a command that goes through models: each is printed as it comes, or one document holds all."""

    command: str
    entries: Sequence[ModelEntry]
    as_json: bool
    failures: Failures = field(default_factory=dict, init=False)
    _contents: list[dict[str, Any]] = field(default_factory=list, init=False)
    _codes: list[int] = field(default_factory=list, init=False)

    def add(self, result: Result) -> None:
        """Print the result of a model, or keep it for the document."""
        if self.as_json:
            self._contents.append(result.content)
        else:
            result.print()
        self._codes.append(result.exit_code)

    @contextmanager
    def keep_error(self, entry: ModelEntry) -> Iterator[None]:
        """Print the error that the work on a model ends with, or keep it for the document, and go on."""
        try:
            yield
        except TokmigrateError as error:
            if not self.as_json:
                _print_failure(entry.name, error, self.failures.values(), alone=len(self.entries) == 1)
            self.failures[entry.name] = error

    def finish(self, **more: object) -> None:
        """Print the document, which holds `more` too; raise Exit with the most serious code, if that is not 0."""
        if self.as_json:
            _print_document(self.command, {"models": self._contents, **more}, self.failures)
        _exit_with(self.failures, self._codes)


@dataclass
class ChangeResults(ModelResults, ABC):
    """A command that plans and verifies the change of each model before it makes the first, and its results.

    If one model cannot be changed, none is. Models are changed in order; unless `keep_going`, the first that fails ends
    the command.
    """

    keep_going: bool
    _already_there: Failures = field(default_factory=dict, init=False)
    _accepted: dict[str, Accepted | None] = field(default_factory=dict, init=False)
    _tried: set[str] = field(default_factory=set, init=False)
    verifications: Verifications = field(init=False)

    def __post_init__(self) -> None:
        """Prepare to verify models that are alike once."""
        self.verifications = library_check.Verifications(len(self.entries))

    @abstractmethod
    def accept(self, entry: ModelEntry, on_progress: OnProgress) -> Accepted | None:
        """Plan the change of a model, and verify it with the libraries; those that are alike once."""

    @abstractmethod
    def change(self, entry: ModelEntry, accepted: Accepted | None, on_progress: OnProgress) -> Result:
        """Change a model; what was accepted is not verified again."""

    def _change_accepted(self, entry: ModelEntry, on_progress: OnProgress) -> Result:
        return self.change(entry, self._accepted.get(entry.name), on_progress)

    def _estimate_bytes(self, entry: ModelEntry) -> int:
        accepted = self._accepted.get(entry.name)
        return accepted.bytes_to_write if accepted else 0

    def run(self, jobs: int) -> None:
        """Accept and change the models, `jobs` at a time; a model alone is accepted when it is changed."""
        output.declare_changes()
        entries = self.entries
        with terminal.progress() as on_progress:
            if len(entries) > 1:
                for entry, accepted in fleet.each_model(entries, self.accept, jobs, on_progress):
                    with self.keep_error(entry):
                        self._accepted[entry.name] = accepted()
                entries = [entry for entry in entries if entry.name in self._accepted]
                if self.failures and not self.keep_going:
                    return
            for entry, changed in fleet.each_model(
                entries,
                self._change_accepted,
                jobs,
                on_progress,
                keep_going=self.keep_going,
                bytes_to_write=self._estimate_bytes,
            ):
                self._tried.add(entry.name)
                with self.keep_error(entry):
                    self.add(changed())

    @contextmanager
    def keep_error(self, entry: ModelEntry) -> Iterator[None]:
        """Do the same; one of several models that needs no change is no failure."""
        with super().keep_error(entry):
            try:
                yield
            except AlreadyThereError as error:
                if len(self.entries) == 1:
                    raise
                self._already_there[entry.name] = error

    def finish(self, **more: object) -> None:
        """Do the same, and say which models were changed, failed and not tried."""
        if len(self._already_there) == len(self.entries):
            # Exit as for a single model.
            self.failures = self._already_there
            if not self.as_json:
                _print_failures(self.failures)
        elif not self.as_json:
            for model, error in self._already_there.items():
                output.echo_note(f"note: {model}: {error.message}")
        failed = list(self.failures)
        not_tried = [name for name in self._accepted if name not in self._tried]
        if failed and len(self.entries) > 1 and not self.as_json:
            others = {*failed, *not_tried, *self._already_there}
            done = [entry.name for entry in self.entries if entry.name not in others]
            parts = {"done": done, "failed": failed, "not tried": not_tried}
            output.echo_err("; ".join(f"{what}: {', '.join(names) or 'none'}" for what, names in parts.items()))
        super().finish(not_tried=not_tried, **more)


def print_result(command: str, result: Result, as_json: bool, failures: Failures | None = None) -> None:
    """Print the result of a command that has one for all models, and those that it could not cover; raise Exit."""
    failures = failures or {}
    if as_json:
        _print_document(command, result.content, failures)
    else:
        result.print()
        _print_failures(failures)
    _exit_with(failures, [result.exit_code])


def find_failures(entries: Iterable[ModelEntry], check: Callable[[ModelEntry], object]) -> Failures:
    """Return the errors that a check raises for models."""
    failures: Failures = {}
    for entry in entries:
        try:
            check(entry)
        except TokmigrateError as error:
            failures[entry.name] = error
    return failures


def _print_document(command: str, content: dict[str, Any], failures: Failures) -> None:
    """Print the document of a command; `error` is the most serious one of the failures, the first of its kind."""
    if not failures:
        output.print_json(output.document(command, **content))
        return
    code = _most_serious(failures)
    worst = next(error for error in failures.values() if error.exit_code == code)
    failed = [{"model": model, "error": output.error_document(error)["error"]} for model, error in failures.items()]
    for error in failures.values():
        output.print_traceback(error)
    output.print_json({**output.error_document(worst), "command": command, "failed": failed, **content})
    if output.is_lost(sys.stdout):
        _print_failures(failures)


def _print_failures(failures: Failures) -> None:
    before: list[TokmigrateError] = []
    for model, error in failures.items():
        _print_failure(model, error, before, alone=False)
        before.append(error)


def _print_failure(model: str, error: TokmigrateError, before: Collection[TokmigrateError], *, alone: bool) -> None:
    """Write an error to stderr, with the model's name unless it is clear; the same error or topic is printed once."""
    if any((str(error), error.hint) == (str(each), each.hint) for each in before):
        return
    # An error in a file or on the command line concerns all models.
    is_clear = alone or isinstance(error, UsageError) or error.where == model
    names_topic = error.topic not in {each.topic for each in before}
    output.print_error(error, as_json=False, model=None if is_clear else model, names_topic=names_topic)


def _exit_with(failures: Failures, codes: Iterable[int]) -> None:
    code = _most_serious(failures, codes)
    if code:
        raise typer.Exit(code)


def _most_serious(failures: Failures, codes: Iterable[int] = ()) -> int:
    codes = [0, *codes, *(error.exit_code for error in failures.values())]
    return max(codes, key=_LEAST_SERIOUS_FIRST.index)

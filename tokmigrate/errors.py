"""The one tree of errors that tokmigrate raises, each with an exit code."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

EXIT_CODES: Mapping[int, str] = {
    0: "done",
    1: "failed, or found what it looks for",
    2: "a command line or a file is wrong",
    3: "migrations are pending",
    4: "drift or tampering",
    5: "locked, or recovery needed",
    130: "stopped with Ctrl-C, SIGTERM or SIGHUP",
}
"""What each exit code of the command line means."""


class TokmigrateError(Exception):
    """Something that a user can understand and act upon.

    Args:
        message: What is wrong.
        where: The file, `file:line:column`, tensor, token or revision that it is about.
        hint: What to do next, perhaps with lines for a file below it.
    """

    exit_code: ClassVar[int] = 1
    topic: ClassVar[str] = "internal"
    """What `tokmigrate explain` calls errors of this class."""

    def __init_subclass__(cls) -> None:
        """Name the topic; a class of another module, such as a plug-in, has the topic of its base class."""
        if cls.__module__ == __name__:
            cls.topic = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", cls.__name__.removesuffix("Error")).lower()

    def __init__(self, message: str, *, where: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.where}: {self.message}" if self.where else self.message


class UsageError(TokmigrateError):
    """A file or a command line that cannot be meant like this."""

    exit_code = 2


@dataclass(frozen=True)
class Problem:
    """One fault in a text file; `line` and `column` count from 1."""

    path: str
    line: int
    column: int
    message: str
    hint: str | None = None

    def __str__(self) -> str:
        text = f"{self.path}:{self.line}:{self.column}: {self.message}"
        return f"{text} ({self.hint})" if self.hint else text


class FileProblems(UsageError):  # noqa: N818 - it holds several
    """All that is wrong in one or more text files, in their order."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda each: (each.path, each.line, each.column)))
        super().__init__("\n".join(str(problem) for problem in self.problems))


class UnknownNameError(UsageError):
    """A name that nothing answers to."""


class PluginError(UsageError):
    """A plug-in of another distribution that cannot be used."""


class HistoryError(UsageError):
    """The chain of migrations is broken, forked or circular."""


class ModelError(TokmigrateError):
    """A model directory that cannot be worked on."""


class MissingModelError(ModelError):
    """A model whose directory is not there."""


class WeightsError(ModelError):
    """A weight file that breaks the rules of its format."""


class TokenizerError(ModelError):
    """A tokenizer that is missing, damaged, or of a kind that cannot be changed safely."""


class OutOfStepError(ModelError):
    """Two files of one model that contradict each other."""


class UnexplainedTensorError(ModelError):
    """A tensor with an axis of vocabulary size that no rule matches."""


class OperationError(TokmigrateError):
    """An operation that cannot be applied to this model."""


class StorageError(TokmigrateError):
    """The filesystem will not do it."""


class VerificationError(TokmigrateError):
    """The candidate is not what the plan says."""


class LimitError(TokmigrateError):
    """The libraries need more memory, CPU time or output than a worker may have."""


class UndoError(TokmigrateError):
    """The undo data is missing or damaged."""


class AlreadyThereError(UndoError):
    """A model that is where a downgrade would bring it."""


class DriftError(TokmigrateError):
    """A migration or a model that was edited outside tokmigrate."""

    exit_code = 4


class FormatError(DriftError):
    """A file that another version of tokmigrate wrote, in a format that this one does not read."""


class StalePlanError(TokmigrateError):
    """A plan that does not fit the model, the migrations or the state any more."""


class BusyError(TokmigrateError):
    """Another process works on the model."""

    exit_code = 5


class RecoveryNeededError(BusyError):
    """An interrupted change must be recovered first."""


class StoppedError(TokmigrateError):
    """Ctrl-C, SIGTERM or SIGHUP; the code is the one that a shell expects then."""

    exit_code = 130


def error_types(root: type[TokmigrateError] = TokmigrateError) -> Iterator[type[TokmigrateError]]:
    """Yield each class of the tree, without those that a module keeps to itself."""
    yield root
    for child in root.__subclasses__():
        if child.__module__ == __name__:
            yield from error_types(child)


def name_explanation(topic: str) -> str:
    """Return the line that names what explains an error or a rule."""
    return f"more: tokmigrate explain {topic}"


def suggest(word: str, known: Iterable[str]) -> str | None:
    """Return a hint that names the known word nearest to `word`, or None."""
    matches = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"did you mean '{in_one_line(matches[0])}'?" if matches else None


def in_one_line(text: str) -> str:
    """Return a text for a hint, with the line breaks of its author."""
    return text.replace("\n", "\\n")

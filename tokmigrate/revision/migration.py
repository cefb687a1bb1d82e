"""One migration, as a value, with what it asks of the model before it (`preconditions:`) and after it (`verify:`)."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from traceback import walk_tb
from types import FrameType, ModuleType
from typing import Annotated, Any, Self

from pydantic import Field, PrivateAttr, ValidationError

from tokmigrate.errors import FileProblems, OperationError, Problem, TokmigrateError, suggest
from tokmigrate.init import InitSpec
from tokmigrate.model.documents.state import ModelState
from tokmigrate.model.worker.corpora import Corpus
from tokmigrate.model.worker.corpus_files import CorpusFile, read_blocks
from tokmigrate.operations.operation import Item, Operation
from tokmigrate.operations.registry import operation_types
from tokmigrate.settings import ModelEntry
from tokmigrate.strict_yaml.validation import Closed, messages


class _Condition(Item):
    def as_written(self) -> dict[str, Any]:
        fields = self.model_dump(mode="json")
        return {self.name: fields[self.shorthand] if self.shorthand else fields}


class TokenAbsent(_Condition):
    """No token has this text yet."""

    name = "token_absent"
    shorthand = "token"

    token: str = Field(min_length=1, description="The text of the token.")

    def find_fault(self, state: ModelState) -> str | None:
        """Return why it does not hold in a state, None where it does."""
        number = state.tokenizer.ids.get(self.token)
        return None if number is None else f"the token '{self.token}' is there, with id {number}"


class TokenPresent(_Condition):
    """A token has this text."""

    name = "token_present"
    shorthand = "token"

    token: str = Field(min_length=1, description="The text of the token.")

    def find_fault(self, state: ModelState) -> str | None:
        return None if self.token in state.tokenizer.ids else f"there is no token '{self.token}'"


class ModelType(_Condition):
    """The model's config.json says that it is of this type."""

    name = "model_type"
    shorthand = "model_type"

    model_type: str = Field(min_length=1, description="The `model_type` of config.json.")

    def find_fault(self, state: ModelState) -> str | None:
        found = state.traits.model_type
        return None if found == self.model_type else f"the model is of type '{found}', not '{self.model_type}'"


class SingleToken(_Condition):
    """The text is encoded as exactly one token, the one that has this text."""

    name = "single_token"
    shorthand = "text"

    text: str = Field(min_length=1, description="The text to encode, without the tokens put around a text.")

    def find_fault(self, tokens: tuple[str, ...]) -> str | None:
        """Return why it does not hold for the tokens that its text is encoded as, None where it does."""
        return _tokens_fault(self.text, tokens, (self.text,))


class Encodes(_Condition):
    """The text is encoded as exactly these tokens."""

    name = "encodes"

    text: str = Field(description="The text to encode, without the tokens put around a text.")
    tokens: tuple[str, ...] = Field(description="The tokens as the vocabulary writes them.")

    def find_fault(self, tokens: tuple[str, ...]) -> str | None:
        return _tokens_fault(self.text, tokens, self.tokens)


class _CorpusCheck(_Condition):
    corpus: str = Field(
        min_length=1,
        description="A file beside the migration: a text in each line, or JSON Lines (`.jsonl`) with a `text` each.",
    )
    _data: bytes = PrivateAttr(b"")

    def with_corpus(self, attachments: Mapping[str, bytes]) -> Self:
        """Return the check with its texts; `attachments` has the bytes of its file."""
        found = self.model_copy()
        found._data = attachments[self.corpus]
        return found

    @contextmanager
    def open_corpus(self) -> Iterator[Corpus]:
        """Give the texts as they were when the migration was read."""
        with tempfile.NamedTemporaryFile(prefix="tokmigrate-", suffix=Path(self.corpus).name) as file:
            file.write(self._data)
            file.flush()
            yield Corpus(self.corpus, (CorpusFile(file.name, self.corpus),))

    def read_texts(self) -> tuple[str, ...]:
        """Return the texts; raises FileProblems for what is none."""
        with self.open_corpus() as corpus:
            return tuple(text for file in corpus.files for block in read_blocks(file) for _, text in block.texts)


class TokensPerByteAtMost(_CorpusCheck):
    """Text has at most so many tokens per byte of UTF-8; those that the tokenizer puts around a text do not count."""

    name = "tokens_per_byte_at_most"

    value: float = Field(gt=0, description="The largest number of tokens per byte.")

    def find_fault(self, tokens: int, text_bytes: int) -> str | None:
        """Return why it does not hold where the texts have so many tokens, None where it does."""
        if not text_bytes:
            return f"{self.corpus} has no text"
        found = tokens / text_bytes
        return None if found <= self.value else f"{self.corpus} has {found:.4f} tokens per byte, more than {self.value}"


class KlAtMost(_CorpusCheck):
    """The predictions on text without new tokens stay near those before: the mean KL of the next token is at most this.

    It is the KL of `tokmigrate evaluate`, of added and of removed rows together. `upgrade` runs the model as it is and
    with all pending migrations, and refuses these where it is more. `test` and `verify` leave it out.
    """

    name = "kl_at_most"

    nats: float = Field(ge=0, description="The largest mean KL, in nats.")


def _tokens_fault(text: str, tokens: tuple[str, ...], wanted: tuple[str, ...]) -> str | None:
    return None if tokens == wanted else f"'{text}' is tokenized as {list(tokens)}, not as {list(wanted)}"


Precondition = TokenAbsent | TokenPresent | ModelType
TextCheck = SingleToken | Encodes
CorpusCheck = TokensPerByteAtMost | KlAtMost
Check = TextCheck | CorpusCheck

PRECONDITIONS: Mapping[str, type[Precondition]] = {kind.name: kind for kind in (TokenAbsent, TokenPresent, ModelType)}
CHECKS: Mapping[str, type[Check]] = {kind.name: kind for kind in (SingleToken, Encodes, TokensPerByteAtMost, KlAtMost)}


class Replaced(Closed):
    """A migration that became part of another one.

    Its operations keep its name and its `init:`, so that random rows come from the same seed.
    """

    revision: Annotated[str, Field(pattern=r"^[0-9a-z_]{4,40}$", description="Its id.")]
    checksum: str = Field(min_length=1, description="What identified its contents.")
    operations: int = Field(ge=0, description="How many of the operations come from it, in their order.")
    init: InitSpec | None = Field(default=None, description="The `init:` of its file.")


@dataclass(frozen=True)
class PlannedOperation:
    """An operation of a migration, its `file:line:column`, and the migration that it was squashed from, if any."""

    operation: Operation
    place: str
    origin: Replaced | None = None


class Recorder:
    """The `op` of `def upgrade(op)`: each method is an operation, its arguments are the fields."""

    def __init__(self, tokenizer: object, code: str, shown: str) -> None:
        self.tokenizer = tokenizer
        self._code = code
        self._shown = shown
        self._recorded: list[PlannedOperation] = []

    def __getattr__(self, name: str) -> Callable[..., None]:
        kinds = operation_types()
        if name not in kinds:
            hint = suggest(name, kinds) or "known are " + ", ".join(kinds)
            raise OperationError(f"there is no operation '{name}'", hint=hint)

        def record(*values: object, **fields: object) -> None:
            operation = _build_operation(kinds[name], values, fields)
            self._recorded.append(PlannedOperation(operation, self._place(sys._getframe(1))))

        return record

    def _place(self, frame: FrameType | None) -> str:
        while frame is not None and frame.f_code.co_filename != self._code:
            frame = frame.f_back
        if frame is None:
            return self._shown
        line, _, column, _ = list(frame.f_code.co_positions())[frame.f_lasti // 2]
        return f"{self._shown}:{line or frame.f_lineno}:{(column or 0) + 1}"


def _record(source: str, path: Path, shown: str, tokenizer: object) -> tuple[PlannedOperation, ...]:
    module = ModuleType(path.stem)
    module.__file__ = str(path)
    recorder = Recorder(tokenizer, str(path), shown)
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)  # noqa: S102 - it is the user's own code
        module.__dict__["upgrade"](recorder)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # the tokenizers library panics with a BaseException
        raise _explain(error, path, shown) from error
    return tuple(recorder._recorded)


def _build_operation(kind: type[Operation], values: tuple[object, ...], fields: dict[str, Any]) -> Operation:
    if values:
        if kind.shorthand is None or len(values) > 1 or kind.shorthand in fields:
            raise OperationError(f"{kind.name} takes its fields by name", hint=f"op.{kind.name}(field=…)")
        fields = {kind.shorthand: values[0], **fields}
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        hint = f"`tokmigrate explain {kind.name}` lists its fields"
        raise OperationError(f"{kind.name}: " + "; ".join(messages(error)), hint=hint) from error


def _explain(error: BaseException, path: Path, shown: str) -> OperationError:
    lines = [line for frame, line in walk_tb(error.__traceback__) if frame.f_code.co_filename == str(path)]
    where = f"{shown}:{lines[-1]}" if lines else shown
    if isinstance(error, TokmigrateError):
        return OperationError(error.message, where=where, hint=error.hint)
    hint = "correct the migration; with --debug the traceback is printed"
    return OperationError(f"upgrade(op) failed with {type(error).__name__}: {error}", where=where, hint=hint)


@dataclass(frozen=True)
class Migration:
    """What a migration file says.

    Args:
        down_revision: The id of the one before; None for the first.
        models: Names or tags of the models that it is for; `*` for all.
        checks: What has to hold after it, its `verify:`.
        shown: The name that messages give its file, relative to the workspace; `path` is the absolute one.
        number: The digits that its file name begins with, or nothing.
        operations: What it does; empty for a Python migration, which says so only for a given model.
        attachments: The bytes of the files that it refers to, by the names used there.
        data: The bytes of its file; none of one that is not a file yet.
        source: The text of a Python migration; None for YAML.
        replaces: The migrations that were squashed into it, in order; the last one had its id.
    """

    revision: str
    down_revision: str | None
    message: str
    author: str | None
    models: tuple[str, ...]
    init: InitSpec | None = field(repr=False)
    preconditions: tuple[Precondition, ...] = field(repr=False)
    checks: tuple[Check, ...] = field(repr=False)
    path: Path = field(repr=False)
    shown: str
    number: str
    checksum: str = field(repr=False)
    operations: tuple[PlannedOperation, ...] = field(default=(), repr=False)
    attachments: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    data: bytes = field(default=b"", repr=False)
    source: str | None = field(default=None, repr=False)
    replaces: tuple[Replaced, ...] = field(default=(), repr=False)

    def applies_to(self, entry: ModelEntry) -> bool:
        """Return whether the migration is for this model: by its name, one of its tags, or `*`."""
        return not {"*", entry.name, *entry.tags}.isdisjoint(self.models)

    def record_operations(self, tokenizer: object) -> tuple[PlannedOperation, ...]:
        """Return what it does to a model with this tokenizer before it, the `op.tokenizer` of a Python migration.

        Raises OperationError where its code fails, or refers to a file that it does not declare.
        """
        if self.source is None:
            return self.operations
        operations = _record(self.source, self.path, self.shown, tokenizer)
        for planned in operations:
            files = {*self.attachments, *(f"{name.rpartition('/')[0]}/" for name in self.attachments)}
            folders = (f"{name.rstrip('/')}/" for name in planned.operation.directories())
            for name in (*planned.operation.references(), *folders):
                if name not in files:
                    message = f"the migration does not declare the file '{name}'"
                    hint = f"write 'files = [\"{name}\"]' at the top, so that the checksum covers it"
                    raise OperationError(message, where=planned.place, hint=hint)
        return with_listed(operations, self.attachments, self.shown)


def with_listed(
    operations: Iterable[PlannedOperation], attachments: Mapping[str, bytes], shown: str
) -> tuple[PlannedOperation, ...]:
    """Return the operations of the migration file `shown` with what their files list.

    Raises:
        FileProblems: All that is wrong in these files.
    """
    found: list[PlannedOperation] = []
    problems: list[Problem] = []
    for planned in operations:
        # A directory that another operation names is among the attachments by its files alone.
        missing = [name for name in planned.operation.references() if name not in attachments]
        problems += (
            Problem(str(Path(shown).parent / name), 1, 1, "this is a directory and not a file", "name a file")
            for name in missing
        )
        if missing:
            continue
        try:
            found.append(replace(planned, operation=planned.operation.with_listed(attachments)))
        except FileProblems as error:
            problems += (replace(each, path=str(Path(shown).parent / each.path)) for each in error.problems)
    if problems:
        raise FileProblems(problems)
    return tuple(found)

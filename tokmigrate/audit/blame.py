"""Who changed a token, when and why, in every model that is known."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import chain
from pathlib import Path

from tokmigrate.apply.kept_objects import Objects
from tokmigrate.audit.run_status import read_snapshot
from tokmigrate.audit.token_history import TokenHistory, read_token_histories
from tokmigrate.audit.training import TokenTraining, training_on_record
from tokmigrate.errors import UnknownNameError, suggest
from tokmigrate.files import has_directory
from tokmigrate.git import LineAuthor, read_line_author
from tokmigrate.model.documents.state import Made
from tokmigrate.model.snapshot import Snapshot
from tokmigrate.model.tokenizer.byte_level import is_byte_level, text_of_letters
from tokmigrate.model.tokenizer.tokenizer_json import FILE
from tokmigrate.operations.operation import TokenChanges
from tokmigrate.revision.history import History
from tokmigrate.revision.migration import Migration
from tokmigrate.settings import ModelEntry, Workspace
from tokmigrate.state.database import open_state_if_present
from tokmigrate.state.ledger import State
from tokmigrate.state.objects import ObjectStore
from tokmigrate.state.queries import Readable
from tokmigrate.state.rows import AppliedRow, ModelRow, RunRow, TokenEvent, TokenEventType, TokenRow
from tokmigrate.state.transfer import ImportedLedger, read_imported
from tokmigrate.strict_yaml.reading import read


@dataclass(frozen=True)
class SourceLocation:
    """Where something stands in a migration file, and what the operation there does, as far as that is known."""

    path: Path
    shown: str
    line: int | None = None
    does: str | None = None

    def __str__(self) -> str:
        return self.shown if self.line is None else f"{self.shown}:{self.line}"


@dataclass(frozen=True)
class BlameEvent:
    """An event of a token, with who caused it and where it is written.

    Args:
        location: Where the migration says so; None where it does not, or its file is not here, or was `edited` since.
        author: Who wrote that line, or why that is not known; None without a line.
    """

    row: TokenRow
    run: RunRow | None
    message: str
    location: SourceLocation | None
    edited: bool
    author: LineAuthor | str | None


@dataclass(frozen=True)
class BlameToken:
    """A token with its history.

    Args:
        names: The texts that it had, the first one first.
        token: Its text now, None where it is removed.
        initialised_by: The migration that initialised its row, None for a row of the baseline or a removed token.
        added: Whether a migration added it; None where the ledger here does not have it.
    """

    names: tuple[str, ...]
    token: str | None
    id: int | None
    initialised_by: str | None
    added: bool | None
    training: TokenTraining | None
    events: tuple[BlameEvent, ...]


@dataclass(frozen=True)
class BlameModel:
    """A model of the workspace or of an imported ledger.

    Args:
        path: Where it is; of an imported ledger on the host of its last run.
        revision: Its revision, None at `base`; of an imported ledger what it had when that was imported.
        ledger: The imported ledger that has it, and `host` that of its last run there; None for one of this workspace.
        same_as: Of an imported ledger the names that this workspace has for the same model, known by its lineage.
    """

    model: str
    path: str
    revision: str | None
    lineage: str | None
    ledger: str | None = None
    host: str | None = None
    same_as: tuple[str, ...] = ()


@dataclass(frozen=True)
class BlameResult:
    """The tokens of a model that have or had a text or an id; none where it never had one."""

    model: BlameModel
    tokens: tuple[BlameToken, ...]


def blame_text(workspace: Workspace, entries: Sequence[ModelEntry], text: str) -> tuple[BlameResult, ...]:
    """Return for each model, those of imported ledgers too, the tokens that have or had a text.

    The text is as the vocabulary writes it; or with escapes such as `\\n`; or, of a byte-level tokenizer, as people
    write it. A model that is not here is skipped. If `entries` are not all of the workspace, then of imported ledgers
    only what is the same model as one of them.

    Raises UnknownNameError where no model ever had it, ModelError where none of the models is here.
    """
    indexes = _read_indexes(workspace, entries)
    plain = _unescape(text)
    given, unescaped = [frozenset([text])] * len(indexes), [frozenset([plain])] * len(indexes)
    for texts in (given, unescaped, [index.tokens_that_read(plain) for index in indexes]):
        found = tuple(index.find(wanted) for index, wanted in zip(indexes, texts, strict=True))
        if any(each.tokens for each in found):
            return found
    known = dict.fromkeys(name for index in indexes for name in index.names)
    raise UnknownNameError(
        f"no model has or had a token '{text}'",
        where=", ".join(index.model.model for index in indexes),
        hint=suggest(text, known) or "`tokmigrate blame --id N` asks by id; write a text as the vocabulary has it",
    )


def blame_id(workspace: Workspace, entries: Sequence[ModelEntry], number: int) -> tuple[BlameResult, ...]:
    """Return for each model the tokens that have or had an id; raise UnknownNameError where no model knows it."""
    indexes = _read_indexes(workspace, entries)
    found = tuple(index.find_id(number) for index in indexes)
    if not any(each.tokens for each in found):
        rows = {index.model.model: index.snapshot.state.rows for index in indexes if index.snapshot}
        spare = [name for name, count in rows.items() if number < count]
        hint = ", ".join(f"{name} has ids up to {count - 1}" for name, count in rows.items())
        reason = f"the row {number} of {spare[0]} has no token and had none" if spare else ""
        raise UnknownNameError(reason or f"no model has the id {number}", where=", ".join(rows), hint=hint)
    return found


def _read_indexes(workspace: Workspace, entries: Sequence[ModelEntry]) -> list[_BlameIndex]:
    state = open_state_if_present(workspace.state, workspace.root)
    history = History.read(workspace)
    objects = ObjectStore(workspace.objects)
    own = [_index_model(state, history, entry, objects) for entry in entries if has_directory(entry.path)]
    if entries and not own:
        entries[0].here()
    names: defaultdict[str | None, list[str]] = defaultdict(list)
    for each in own:
        names[each.model.lineage].append(each.model.model)
    imported = [
        _index_imported(history, ledger, model, tuple(names[model.lineage]))
        for ledger in (read_imported(state) if state else ())
        for model in ledger.list_models()
    ]
    is_all = len(entries) == len(workspace.models)
    return own + [each for each in imported if is_all or each.model.same_as]


def _unescape(text: str) -> str:
    """Return the text that escapes stand for, as messages show tokens."""
    try:
        return text.encode("latin-1", "backslashreplace").decode("unicode_escape")
    except UnicodeDecodeError:
        return text


@dataclass(frozen=True)
class _BlameIndex:
    """The token histories of one model, with what the migrations, Git and the model itself tell.

    `snapshot` is None where the model is on another machine.
    """

    model: BlameModel
    history: History
    snapshot: Snapshot | None = None
    training: Mapping[int, TokenTraining] = field(default_factory=dict)
    histories: tuple[TokenHistory, ...] = ()
    runs: Mapping[str, RunRow] = field(default_factory=dict)
    applied: Mapping[str, AppliedRow] = field(default_factory=dict)
    author_of: Callable[[Path, int], LineAuthor | str] = field(default_factory=lambda: cache(read_line_author))

    def with_ledger(self, ledger: Readable, row: ModelRow) -> _BlameIndex:
        return replace(
            self,
            histories=read_token_histories(ledger.token_events(row)),
            runs={run.id: run for run in ledger.runs(row, None)},
            applied={each.record.revision: each for each in ledger.list_applications(row)},
        )

    @property
    def ids(self) -> Mapping[str, int]:
        if self.snapshot is not None:
            return self.snapshot.state.tokenizer.ids
        last = {each.token: each.events[-1].event.token_id for each in self.histories if each.events}
        return {token: number for token, number in last.items() if token is not None and number is not None}

    @property
    def names(self) -> Iterator[str]:
        return chain(self.ids, *(history.names for history in self.histories))

    def tokens_that_read(self, text: str) -> frozenset[str]:
        """Return the tokens of a byte-level tokenizer that stand for a text as people write it."""
        if self.snapshot is None or not is_byte_level(self.snapshot.state.documents[FILE]):
            return frozenset()
        return frozenset(token for token in self.names if text_of_letters(token) == text)

    def find(self, texts: frozenset[str]) -> BlameResult:
        return self._result([each for each in self.histories if texts.intersection(each.names)], texts)

    def find_id(self, number: int) -> BlameResult:
        texts = frozenset(token for token, known in self.ids.items() if known == number)
        return self._result([each for each in self.histories if number in each.ids or each.token in texts], texts)

    def _result(self, found: list[TokenHistory], texts: frozenset[str]) -> BlameResult:
        """Return these tokens, and those with the texts that the ledger does not name, with who caused each event."""
        without = sorted(texts.intersection(self.ids) - {history.token for history in found})
        found += [TokenHistory((text,), (), added=False, token=text) for text in without]
        return BlameResult(self.model, tuple(map(self._blame_token, found)))

    def _blame_token(self, history: TokenHistory) -> BlameToken:
        token = history.token if history.token in self.ids else None
        number = self.ids[token] if token is not None else None
        made = None if number is None or self.snapshot is None else self.snapshot.state.lineage.row(number)
        initialised_by = made.revision if isinstance(made, Made) else None
        return BlameToken(
            history.names,
            token,
            number,
            initialised_by,
            None if not history.events and initialised_by else history.added,
            None if number is None else self.training.get(number),
            tuple(map(self._explain, history.events)),
        )

    def _explain(self, row: TokenRow) -> BlameEvent:
        applied, run = self.applied.get(row.event.revision), self.runs.get(row.run_id)
        migration = self.history.by_revision.get(row.event.revision)
        message = applied.record.message if applied else ""
        if migration is None:
            return BlameEvent(row, run, message, None, False, None)
        edited = applied is not None and applied.record.checksum != migration.checksum
        is_in_file = row.event.event not in (TokenEventType.REVERTED, TokenEventType.TRAINED)
        location = _locate_event(migration, row.event) if is_in_file and not edited else None
        author = self.author_of(location.path, location.line) if location and location.line is not None else None
        return BlameEvent(row, run, message or migration.message, location, edited, author)


def _index_model(state: State | None, history: History, entry: ModelEntry, objects: Objects) -> _BlameIndex:
    """Return the index of a model of this workspace, whose undo data is in `objects`."""
    snapshot = read_snapshot(entry)
    lineage = snapshot.stamp.lineage if snapshot.stamp else None
    model = BlameModel(entry.name, str(entry.path), snapshot.revision, lineage)
    training = {token.id: token for token in training_on_record(state, snapshot, objects)}
    index = _BlameIndex(model, history, snapshot, training)
    row = state.model_at(snapshot.directory, snapshot.generation) if state else None
    return index.with_ledger(state, row) if state and row else index


def _index_imported(history: History, ledger: ImportedLedger, row: ModelRow, same_as: tuple[str, ...]) -> _BlameIndex:
    """Return the index of a model of an imported ledger; `same_as` are its names in this workspace."""
    applied = ledger.list_applied(row)
    revision = applied[-1].record.revision if applied else None
    run = next(iter(ledger.runs(row, 1)), None)
    host = run.provenance.host if run else None
    model = BlameModel(row.name, row.path, revision, row.lineage or None, ledger.id, host, same_as)
    return _BlameIndex(model, history).with_ledger(ledger, row)


def _locate_event(migration: Migration, event: TokenEvent) -> SourceLocation:
    """Return where a migration does what an event records: the line with the token, else the only operation for it."""
    texts = frozenset(text for text in (event.token, event.old_token) if text is not None)
    if migration.source is not None:
        return SourceLocation(migration.path, migration.shown, _line_of_python(migration.source, texts))
    operations = [planned.operation for planned in migration.operations]
    changes = [operation.token_changes() for operation in operations]
    # An operation that does not say what it does to tokens may have done it.
    able = (
        [number for number, each in enumerate(changes) if each and event.token in _tokens(each, event.event)]
        or [number for number, each in enumerate(changes) if each is None or _tokens(each, event.event)]
        or [number for number, each in enumerate(changes) if each is None or not each.keeps_tokens]
    )
    tree = read(migration.path, migration.shown)
    places = {number: tree.at(("operations", number)).root.places() for number in able}
    lines = {number: next((line for text, line, _ in places[number] if text in texts), None) for number in able}
    found = [number for number in able if lines[number] is not None] or (able if len(able) == 1 else [])
    if not found:
        return SourceLocation(migration.path, migration.shown)
    operation = operations[found[0]]
    line = lines[found[0]] or tree.key_place(("operations", found[0], operation.name))[0]
    return SourceLocation(migration.path, migration.shown, line, operation.describe())


def _tokens(changes: TokenChanges, event: TokenEventType) -> tuple[str, ...]:
    """Return the tokens to which an operation does what an event records."""
    tokens: dict[TokenEventType, tuple[str, ...]] = {
        TokenEventType.ADDED: (*(token.content for token in changes.added), *changes.extended),
        TokenEventType.RENAMED: tuple(changes.renamed.values()),
        TokenEventType.MOVED: (*changes.moved, *changes.removed),
        TokenEventType.REMOVED: changes.removed,
        TokenEventType.REINITIALISED: changes.reinitialised,
    }
    return tokens.get(event, ())


def _line_of_python(source: str, texts: frozenset[str]) -> int | None:
    module = ast.parse(source)
    for node in ast.walk(module):
        if isinstance(node, ast.Constant) and node.value in texts:
            return node.lineno
    found = (node for node in module.body if isinstance(node, ast.FunctionDef) and node.name == "upgrade")
    return next((node.lineno for node in found), None)

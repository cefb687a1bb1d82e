"""Who did what to a token, when and why: the ledger, the migrations, Git and the model, put together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from tokmigrate.audit.births import births
from tokmigrate.audit.git_lines import Written, written_by
from tokmigrate.audit.lives import Life, lives
from tokmigrate.audit.places import Place, place_of
from tokmigrate.audit.training import TokenTraining, training_of
from tokmigrate.errors import UnknownNameError, nearest
from tokmigrate.model.byte_letters import is_byte_level, text_of_letters
from tokmigrate.model.snapshot import Snapshot, take_snapshot
from tokmigrate.model.state import Made
from tokmigrate.model.tokenizer import FILE
from tokmigrate.revision.history import History
from tokmigrate.settings import ModelEntry, Workspace
from tokmigrate.state.database import open_state_if_present
from tokmigrate.state.ledger import State
from tokmigrate.state.rows import AppliedRow, Happened, ModelRow, OperationRow, TokenRow


@dataclass(frozen=True)
class Event:
    """What befell a token, with what is known around it.

    Args:
        row: The row of the ledger.
        operation: The run that did it.
        message: The migration's message, as it was recorded.
        place: Where the migration says so; None where it does not, or its file is not here.
        edited: Whether the file was edited since.
        written: Who wrote that line, or why that is not known; None without a line.
    """

    row: TokenRow
    operation: OperationRow | None
    message: str
    place: Place | None
    edited: bool
    written: Written | str | None


@dataclass(frozen=True)
class BlamedToken:
    """A token, what became of it and how.

    Args:
        names: The texts that it had, the first one first.
        token: Its text now, None where it is gone.
        id: Its id now.
        begun_by: The migration that began its row, None where that is a row of the baseline or it is gone.
        added: Whether a migration added it; None where the ledger here does not have it.
        training: Whether it was trained since its row began.
        events: What befell it, the earliest first.
    """

    names: tuple[str, ...]
    token: str | None
    id: int | None
    begun_by: str | None
    added: bool | None
    training: TokenTraining | None
    events: tuple[Event, ...]


@dataclass(frozen=True)
class BlamedModel:
    """The tokens of a model that a name or an id stood for at some time.

    Args:
        model: The model's name.
        revision: Its revision, None at `base`.
        lineage: Its lineage, None at `base`.
        tokens: The tokens; none where it never had one.
    """

    model: str
    revision: str | None
    lineage: str | None
    tokens: tuple[BlamedToken, ...]


def blame_text(workspace: Workspace, entries: Sequence[ModelEntry], text: str) -> tuple[BlamedModel, ...]:
    """Return for each model the tokens that have or had a text.

    Args:
        workspace: The workspace.
        entries: The models.
        text: The text as the vocabulary writes it; or with escapes such as `\\n`; or, of a byte-level tokenizer,
            as people write it.

    Raises:
        UnknownNameError: No model ever had it.
    """
    ledgers = [_Ledger.of(workspace, entry) for entry in entries]
    plain = _unescaped(text)
    readings: tuple[Callable[[_Ledger], frozenset[str]], ...] = (
        lambda _: frozenset([text]),
        lambda _: frozenset([plain]),
        lambda ledger: ledger.written_in_letters(plain),
    )
    for reading in readings:
        found = tuple(ledger.blamed(ledger.named(reading(ledger))) for ledger in ledgers)
        if any(each.tokens for each in found):
            return found
    known = dict.fromkeys(name for ledger in ledgers for name in ledger.names)
    raise UnknownNameError(
        f"no model has or had a token '{text}'",
        where=", ".join(entry.name for entry in entries),
        hint=nearest(text, known) or "`tokmigrate blame --id N` asks by id; a text is written as the vocabulary has it",
    )


def blame_id(workspace: Workspace, entries: Sequence[ModelEntry], number: int) -> tuple[BlamedModel, ...]:
    """Return for each model the tokens that have or had an id; raises UnknownNameError where no model knows it."""
    ledgers = [_Ledger.of(workspace, entry) for entry in entries]
    found = tuple(ledger.blamed(ledger.numbered(number)) for ledger in ledgers)
    if not any(each.tokens for each in found):
        rows = {ledger.entry.name: ledger.snapshot.state.rows for ledger in ledgers}
        spare = [name for name, count in rows.items() if number < count]
        told = ", ".join(f"{name} has ids up to {count - 1}" for name, count in rows.items())
        reason = (
            f"the row {number} of {spare[0]} has no token and had none" if spare else f"no model has the id {number}"
        )
        raise UnknownNameError(reason, where=", ".join(rows), hint=told)
    return found


@dataclass(frozen=True)
class _Ledger:
    """All that is known of the tokens of one model."""

    entry: ModelEntry
    snapshot: Snapshot
    lives: tuple[Life, ...]
    training: Mapping[int, TokenTraining]
    explain: Callable[[TokenRow], Event]

    @staticmethod
    def of(workspace: Workspace, entry: ModelEntry) -> _Ledger:
        snapshot = take_snapshot(entry)
        state = open_state_if_present(workspace.state, workspace.root)
        model = state.model_at(snapshot.directory) if state else None
        rows = state.token_events(model) if state and model else ()
        training = {token.id: token for token in training_of(snapshot, births(rows))}
        explain = _explaining(History.read(workspace), state, model)
        return _Ledger(entry, snapshot, lives(rows), training, explain)

    @property
    def names(self) -> Iterator[str]:
        """Every text that a token has or had."""
        yield from self.snapshot.state.tokenizer.ids
        for life in self.lives:
            yield from life.names

    def written_in_letters(self, text: str) -> frozenset[str]:
        """Return the tokens of a byte-level tokenizer that stand for a text as people write it."""
        state = self.snapshot.state
        if not is_byte_level(state.documents[FILE]):
            return frozenset()
        return frozenset(token for token in self.names if text_of_letters(token) == text)

    def named(self, texts: frozenset[str]) -> tuple[Life, ...]:
        """Return the lives of the tokens that have or had one of these texts."""
        found = [life for life in self.lives if texts.intersection(life.names)]
        told = {life.token for life in found}
        untold = [text for text in sorted(texts - told) if text in self.snapshot.state.tokenizer.ids]
        return (*found, *(Life((text,), (), added=False, token=text) for text in untold))

    def numbered(self, number: int) -> tuple[Life, ...]:
        """Return the lives of the tokens that have or had this id."""
        text = self.snapshot.state.tokenizer.texts.get(number)
        found = [life for life in self.lives if number in life.ids or (text is not None and life.token == text)]
        if text is not None and all(life.token != text for life in found):
            found.append(Life((text,), (), added=False, token=text))
        return tuple(found)

    def blamed(self, found: Iterable[Life]) -> BlamedModel:
        """Return these lives with what is known around them."""
        stamp = self.snapshot.stamp
        tokens = tuple(self._blamed(life) for life in found)
        return BlamedModel(self.entry.name, self.snapshot.revision, stamp.lineage if stamp else None, tokens)

    def _blamed(self, life: Life) -> BlamedToken:
        ids = self.snapshot.state.tokenizer.ids
        token = life.token if life.token in ids else None
        number = ids[token] if token is not None else None
        made = None if number is None else self.snapshot.state.lineage.row(number)
        begun_by = made.revision if isinstance(made, Made) else None
        return BlamedToken(
            life.names,
            token,
            number,
            begun_by,
            None if not life.events and begun_by else life.added,
            None if number is None else self.training.get(number),
            tuple(self.explain(row) for row in life.events),
        )


def _explaining(history: History, state: State | None, model: ModelRow | None) -> Callable[[TokenRow], Event]:
    """Return what tells of an event who did it, and where it is written."""
    runs = {row.id: row for row in state.operations(model, None)} if state and model else {}
    records: dict[str, AppliedRow] = {}
    for row in state.applied_ever(model) if state and model else ():
        records[row.record.revision] = row
    line = cache(written_by)

    def explain(row: TokenRow) -> Event:
        record = records.get(row.event.revision)
        migration = history.by_revision.get(row.event.revision)
        message = record.record.message if record else ""
        if migration is None:
            return Event(row, runs.get(row.operation_id), message, None, False, None)
        edited = record is not None and record.record.checksum != migration.checksum
        is_done = row.event.event not in (Happened.REVERTED, Happened.TRAINED)
        place = place_of(migration, row.event) if is_done and not edited else None
        written = line(place.path, place.line) if place and place.line is not None else None
        return Event(row, runs.get(row.operation_id), message or migration.message, place, edited, written)

    return explain


def _unescaped(text: str) -> str:
    """Return the text that escapes stand for, as messages show tokens."""
    try:
        return text.encode("latin-1", "backslashreplace").decode("unicode_escape")
    except UnicodeDecodeError:
        return text

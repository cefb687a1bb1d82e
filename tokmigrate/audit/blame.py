"""Who did what to a token, when and why: the ledger, the migrations, Git and the model, put together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from tokmigrate.audit.git_lines import Written, written_by
from tokmigrate.audit.lives import Life, lives
from tokmigrate.audit.places import Place, place_of
from tokmigrate.audit.training import TokenTraining, training_on_record
from tokmigrate.errors import UnknownNameError, nearest
from tokmigrate.model.byte_letters import is_byte_level, text_of_letters
from tokmigrate.model.snapshot import Snapshot, take_snapshot
from tokmigrate.model.state import Made
from tokmigrate.model.tokenizer import FILE
from tokmigrate.revision.history import History
from tokmigrate.settings import ModelEntry, Workspace
from tokmigrate.state.database import open_state_if_present
from tokmigrate.state.imports import ImportedLedger, imported_ledgers
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
        revision: Its revision, None at `base`; of an imported ledger what it had when that was imported.
        lineage: Its lineage, None at `base`.
        ledger: The ledger that was imported and tells of it, None for a model of this workspace.
        path: Where the model is; of an imported ledger on the host of its last run.
        host: That host, None for a model of this workspace.
        tokens: The tokens; none where it never had one.
    """

    model: str
    revision: str | None
    lineage: str | None
    ledger: str | None
    path: str
    host: str | None
    tokens: tuple[BlamedToken, ...]


def blame_text(workspace: Workspace, entries: Sequence[ModelEntry], text: str) -> tuple[BlamedModel, ...]:
    """Return for each model, those of imported ledgers too, the tokens that have or had a text.

    Args:
        workspace: The workspace.
        entries: The models.
        text: The text as the vocabulary writes it; or with escapes such as `\\n`; or, of a byte-level tokenizer,
            as people write it.

    Raises:
        UnknownNameError: No model ever had it.
    """
    ledgers = _ledgers(workspace, entries)
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
        where=", ".join(ledger.name for ledger in ledgers),
        hint=nearest(text, known) or "`tokmigrate blame --id N` asks by id; a text is written as the vocabulary has it",
    )


def blame_id(workspace: Workspace, entries: Sequence[ModelEntry], number: int) -> tuple[BlamedModel, ...]:
    """Return for each model the tokens that have or had an id; raises UnknownNameError where no model knows it."""
    ledgers = _ledgers(workspace, entries)
    found = tuple(ledger.blamed(ledger.numbered(number)) for ledger in ledgers)
    if not any(each.tokens for each in found):
        rows = {ledger.name: ledger.snapshot.state.rows for ledger in ledgers if ledger.snapshot}
        spare = [name for name, count in rows.items() if number < count]
        told = ", ".join(f"{name} has ids up to {count - 1}" for name, count in rows.items())
        reason = (
            f"the row {number} of {spare[0]} has no token and had none" if spare else f"no model has the id {number}"
        )
        raise UnknownNameError(reason, where=", ".join(rows), hint=told)
    return found


@dataclass(frozen=True)
class _Ledger:
    """All that is known of the tokens of one model; of one on another machine only what its ledger says."""

    name: str
    path: str
    host: str | None
    ledger: str | None
    snapshot: Snapshot | None
    lineage: str | None
    revision: str | None
    lives: tuple[Life, ...]
    training: Mapping[int, TokenTraining]
    explain: Callable[[TokenRow], Event]

    @property
    def ids(self) -> Mapping[str, int]:
        """The ids of the tokens that it has."""
        if self.snapshot is not None:
            return self.snapshot.state.tokenizer.ids
        known: dict[str, int] = {}
        for life in self.lives:
            number = life.events[-1].event.token_id if life.events else None
            if life.token is not None and number is not None:
                known[life.token] = number
        return known

    @property
    def names(self) -> Iterator[str]:
        """Every text that a token has or had."""
        yield from self.ids
        for life in self.lives:
            yield from life.names

    def written_in_letters(self, text: str) -> frozenset[str]:
        """Return the tokens of a byte-level tokenizer that stand for a text as people write it."""
        if self.snapshot is None or not is_byte_level(self.snapshot.state.documents[FILE]):
            return frozenset()
        return frozenset(token for token in self.names if text_of_letters(token) == text)

    def named(self, texts: frozenset[str]) -> tuple[Life, ...]:
        """Return the lives of the tokens that have or had one of these texts."""
        found = [life for life in self.lives if texts.intersection(life.names)]
        told = {life.token for life in found}
        untold = [text for text in sorted(texts - told) if text in self.ids]
        return (*found, *(Life((text,), (), added=False, token=text) for text in untold))

    def numbered(self, number: int) -> tuple[Life, ...]:
        """Return the lives of the tokens that have or had this id."""
        text = next((token for token, known in self.ids.items() if known == number), None)
        found = [life for life in self.lives if number in life.ids or (text is not None and life.token == text)]
        if text is not None and all(life.token != text for life in found):
            found.append(Life((text,), (), added=False, token=text))
        return tuple(found)

    def blamed(self, found: Iterable[Life]) -> BlamedModel:
        """Return these lives with what is known around them."""
        tokens = tuple(self._blamed(life) for life in found)
        return BlamedModel(self.name, self.revision, self.lineage, self.ledger, self.path, self.host, tokens)

    def _blamed(self, life: Life) -> BlamedToken:
        token = life.token if life.token in self.ids else None
        number = self.ids[token] if token is not None else None
        made = None if number is None or self.snapshot is None else self.snapshot.state.lineage.row(number)
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


def _ledgers(workspace: Workspace, entries: Sequence[ModelEntry]) -> list[_Ledger]:
    state = open_state_if_present(workspace.state, workspace.root)
    history = History.read(workspace)
    own = [_own(state, history, entry) for entry in entries]
    others = imported_ledgers(state) if state else ()
    return own + [_foreign(history, ledger, model) for ledger in others for model in ledger.models]


def _own(state: State | None, history: History, entry: ModelEntry) -> _Ledger:
    snapshot = take_snapshot(entry)
    model = state.model_at(snapshot.directory) if state else None
    rows = state.token_events(model) if state and model else ()
    runs = state.operations(model, None) if state and model else ()
    applied = state.applied_ever(model) if state and model else ()
    training = {token.id: token for token in training_on_record(state, snapshot)}
    lineage = snapshot.stamp.lineage if snapshot.stamp else None
    explain = _explaining(history, runs, applied)
    return _Ledger(
        entry.name, str(entry.path), None, None, snapshot, lineage, snapshot.revision, lives(rows), training, explain
    )


def _foreign(history: History, ledger: ImportedLedger, model: ModelRow) -> _Ledger:
    applied = [row for row in ledger.applied if row.model_id == model.id]
    in_force = sorted((row.record for row in applied if row.reverted_by is None), key=lambda record: record.position)
    explain = _explaining(history, ledger.operations, applied)
    events = [row for row in ledger.tokens if row.model_id == model.id]
    revision = in_force[-1].revision if in_force else None
    host = next((row.who.host for row in reversed(ledger.operations) if row.model_id == model.id), None)
    return _Ledger(
        model.name, model.path, host, ledger.id, None, model.lineage or None, revision, lives(events), {}, explain
    )


def _explaining(
    history: History, runs: Iterable[OperationRow], applied: Iterable[AppliedRow]
) -> Callable[[TokenRow], Event]:
    """Return what tells of an event who did it, and where it is written."""
    by_id = {row.id: row for row in runs}
    records = {row.record.revision: row for row in applied}
    line = cache(written_by)

    def explain(row: TokenRow) -> Event:
        record = records.get(row.event.revision)
        migration = history.by_revision.get(row.event.revision)
        message = record.record.message if record else ""
        if migration is None:
            return Event(row, by_id.get(row.operation_id), message, None, False, None)
        edited = record is not None and record.record.checksum != migration.checksum
        is_done = row.event.event not in (Happened.REVERTED, Happened.TRAINED)
        place = place_of(migration, row.event) if is_done and not edited else None
        written = line(place.path, place.line) if place and place.line is not None else None
        return Event(row, by_id.get(row.operation_id), message or migration.message, place, edited, written)

    return explain


def _unescaped(text: str) -> str:
    """Return the text that escapes stand for, as messages show tokens."""
    try:
        return text.encode("latin-1", "backslashreplace").decode("unicode_escape")
    except UnicodeDecodeError:
        return text

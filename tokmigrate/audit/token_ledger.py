"""All that is known of the tokens of one model: its ledger, the migrations, Git, and the model itself if it is here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache

from tokmigrate.audit.blamed import BlamedModel, BlamedToken, Event, Subject
from tokmigrate.audit.git_lines import written_by
from tokmigrate.audit.lives import Life, lives
from tokmigrate.audit.places import place_of
from tokmigrate.audit.training import TokenTraining, training_on_record
from tokmigrate.audit.under_way import reading
from tokmigrate.change.undo_record import Objects
from tokmigrate.model.documents.state import Made
from tokmigrate.model.formats.byte_letters import is_byte_level, text_of_letters
from tokmigrate.model.snapshot import Snapshot, take_snapshot
from tokmigrate.model.tokenizer.tokenizer_json import FILE
from tokmigrate.revision.history import History
from tokmigrate.settings import ModelEntry
from tokmigrate.state.imports import ImportedLedger
from tokmigrate.state.ledger import State
from tokmigrate.state.rows import AppliedRow, Happened, ModelRow, OperationRow, TokenRow


@dataclass(frozen=True)
class TokenLedger:
    """The tokens of one model.

    Args:
        subject: The model.
        snapshot: The model as it is; None where it is on another machine.
        lives: The lives that its ledger tells of.
        training: What became of the tokens whose rows migrations began, by id.
        explain: Tells of an event who did it, and where it is written.
    """

    subject: Subject
    snapshot: Snapshot | None
    lives: tuple[Life, ...]
    training: Mapping[int, TokenTraining]
    explain: Callable[[TokenRow], Event]

    @staticmethod
    def here(state: State | None, history: History, entry: ModelEntry, objects: Objects) -> TokenLedger:
        """Return what is known of a model of this workspace, whose undo data is in `objects`."""
        with reading(entry):
            snapshot = take_snapshot(entry)
        model = state.model_at(snapshot.directory, snapshot.generation) if state else None
        rows = state.token_events(model) if state and model else ()
        runs = state.operations(model, None) if state and model else ()
        applied = state.applied_ever(model) if state and model else ()
        lineage = snapshot.stamp.lineage if snapshot.stamp else None
        subject = Subject(entry.name, str(entry.path), snapshot.revision, lineage)
        training = {token.id: token for token in training_on_record(state, snapshot, objects)}
        return TokenLedger(subject, snapshot, lives(rows), training, _explaining(history, runs, applied))

    @staticmethod
    def imported(history: History, ledger: ImportedLedger, model: ModelRow, same_as: tuple[str, ...]) -> TokenLedger:
        """Return what an imported ledger tells of a model of its own.

        Args:
            history: The migrations of this workspace.
            ledger: The ledger.
            model: The model.
            same_as: The names that this workspace has for the same model.
        """
        applied = [row for row in ledger.applied if row.model_id == model.id]
        in_force = [row.record for row in applied if row.reverted_by is None]
        revision = max(in_force, key=lambda record: record.position).revision if in_force else None
        host = next((row.who.host for row in reversed(ledger.operations) if row.model_id == model.id), None)
        subject = Subject(model.name, model.path, revision, model.lineage or None, ledger.id, host, same_as)
        events = [row for row in ledger.tokens if row.model_id == model.id]
        return TokenLedger(subject, None, lives(events), {}, _explaining(history, ledger.operations, applied))

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
        return BlamedModel(self.subject, tokens)

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

"""Which tokens of a model were trained since a migration initialised their rows: ledger and undo data against the disk.

The lineage in the stamp names for every row the migration that initialised it, and follows moves, renames and
downgrades; the ledger has the fingerprint of the row. A row with other numbers moved; whether it was trained is a
comparison with rows of tokens that no text had (`model.weights.movement`), which the undo data keeps as they were.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache, cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from tokmigrate.apply.kept_objects import Objects
from tokmigrate.apply.new_rows import InitRows
from tokmigrate.apply.undo_record import read_init_rows
from tokmigrate.audit.token_history import InitRecord, RowKey, read_init_records
from tokmigrate.model.documents.stamp import Stamp
from tokmigrate.model.documents.state import Made
from tokmigrate.model.formats.dtype import Matrix, to_float64
from tokmigrate.model.snapshot import Snapshot
from tokmigrate.model.weights.movement import (
    Movement,
    Places,
    RowFingerprint,
    RowFingerprints,
    Tracked,
    embeddings,
    find_movements,
    format_fingerprints,
    parse_fingerprints,
)
from tokmigrate.model.weights.tensor_rows import BLOCK_BYTES, TensorRows
from tokmigrate.model.weights.vocabulary_tensor import VocabularyTensor
from tokmigrate.state import transfer
from tokmigrate.state.rows import AppliedRow, ModelRow, Status, TokenEvent, TokenEventType
from tokmigrate.vocabulary.ids import cut_runs, expand, is_tombstone, runs
from tokmigrate.vocabulary.row_edit import Side

if TYPE_CHECKING:
    from tokmigrate.state.ledger import State
    from tokmigrate.state.queries import Readable


class Training(StrEnum):
    """How a row changed since its init."""

    TRAINED = "trained"
    MOVED = "moved"
    UNTRAINED = "untrained"
    GIVEN = "given"
    PARTLY = "partly"
    UNKNOWN = "unknown"


TO_TRAIN = (Training.UNTRAINED, Training.MOVED)
"""The rows that are still to be trained."""


@dataclass(frozen=True)
class TokenTraining:
    """A token whose row a migration initialised.

    Args:
        token: Its text now; `initial_text` the one that it had then.
        sides: How its row changed in the input embeddings, and in those of the output unless tied.
        figures: How far its row moved on each side, where the initial row is on record.
        why: Why that is not known of a side, None where it is known of all.
        fingerprint: The fingerprint of its rows now, as `format_fingerprints` writes it.
        known_trained: Whether the ledger has recorded that it was trained.
        provenance: Of a row that was trained elsewhere and given by a file, how the file says it was learned.
    """

    token: str
    id: int
    revision: str
    initial_text: str
    sides: Mapping[Side, Training]
    figures: Mapping[Side, Movement] = field(default_factory=dict)
    why: str | None = None
    fingerprint: str = field(default="", repr=False)
    known_trained: bool = False
    provenance: Mapping[str, Any] | None = None

    @property
    def training(self) -> Training:
        """Of both sides together; `partly` where one side was trained and another is known not to be.

        An occurrence trains the input row, so what is not known of the output's does not count.
        """
        found = set(self.sides.values())
        if len(found) == 1:
            return next(iter(found))
        first = self.sides.get("input", Training.UNKNOWN)
        if first is Training.UNKNOWN:
            return first
        if Training.UNKNOWN in found:
            return first if first in (Training.TRAINED, Training.GIVEN) else Training.MOVED
        if Training.TRAINED in found:
            return Training.PARTLY
        return Training.MOVED if Training.MOVED in found else Training.UNTRAINED

    @property
    def is_to_train(self) -> bool:
        """Whether a row of it is still to be trained."""
        return not {*TO_TRAIN}.isdisjoint(self.sides.values())

    @property
    def was_trained(self) -> bool:
        """Whether its token occurred in training: its input row, or the row that both sides share, was trained here."""
        return self.sides.get("input") is Training.TRAINED and self.provenance is None


@dataclass(frozen=True)
class OnRecord:
    """What is on record of the rows that migrations initialised in one model, and the undo record of each revision."""

    init_records: Mapping[RowKey, InitRecord]
    undo: Mapping[str, str]
    objects: Objects

    def fingerprints(self, made: Made) -> RowFingerprints:
        """Return the fingerprints of a row that a migration initialised; none where they are not on record."""
        record = self.init_records.get((made.revision, made.label))
        return self._parse(record.fingerprint) if record else {}

    @cached_property
    def _parse(self) -> Callable[[str], RowFingerprints]:
        # Many rows may have been initialised alike.
        return cache(parse_fingerprints)


def undo_digests(rows: Iterable[AppliedRow]) -> dict[str, str]:
    """Return the undo record of each revision, of its last application that has one; the earliest row comes first."""
    return {row.record.revision: row.record.undo for row in rows if row.record.undo is not None}


def list_initialised_tokens(snapshot: Snapshot) -> Iterator[tuple[str, int, Made]]:
    """Yield each token (no placeholders) whose row a migration initialised, with its id and origin in the lineage."""
    texts = snapshot.state.tokenizer.texts
    for number, recipe in snapshot.state.lineage.recipes():
        if number in texts and isinstance(recipe, Made) and recipe.revision and not is_tombstone(texts[number]):
            yield texts[number], number, recipe


@dataclass(frozen=True)
class _Row:
    """The fingerprint of a row now, and whether it is as it was initialised, None where that is not known."""

    now: RowFingerprint
    is_same: bool | None

    @staticmethod
    def of(raw: bytes, now: RowFingerprint, then: RowFingerprint | None) -> _Row:
        """Compare a row, stored as `raw`, with the fingerprint on record, if there is one."""
        if then is None:
            return _Row(now, None)
        return _Row(now, now == then if now.dtype == then.dtype else then.still_is(raw, now.dtype))


def training_of(snapshot: Snapshot, known: OnRecord) -> tuple[TokenTraining, ...]:
    """Return each token whose row a migration initialised, by id; only those rows and the ones to compare are read."""
    initialised = tuple(list_initialised_tokens(snapshot))
    if not initialised:
        return ()
    rows: dict[int, dict[Side, _Row]] = {number: {} for _, number, _ in initialised}
    matrices = embeddings(snapshot.tensors)
    marks = {number: known.fingerprints(made) for _, number, made in initialised}
    for side, tensor in matrices.items():
        for number, raw in _read_rows(snapshot, tensor, rows):
            rows[number][side] = _Row.of(raw, RowFingerprint.of(raw, tensor.dtype), marks[number].get(side))
    changed = {
        made.revision for _, number, made in initialised if any(row.is_same is False for row in rows[number].values())
    }
    movements: dict[Side, dict[int, Movement]] = {side: {} for side in matrices}
    # Which rows a migration left is not on record, or not here, for some.
    for revision in sorted(changed & known.undo.keys()):
        for side, held in read_init_rows(known.undo[revision], known.objects).items():
            if side in matrices:
                movements[side] |= _movements(snapshot, matrices[side], side, revision, held, known)
    return tuple(
        _compare(
            token,
            number,
            made,
            known.init_records.get((made.revision, made.label)),
            marks[number],
            rows[number],
            {side: found[number] for side, found in movements.items() if number in found},
        )
        for token, number, made in initialised
    )


def _movements(
    snapshot: Snapshot, tensor: VocabularyTensor, side: Side, revision: str, held: InitRows, known: OnRecord
) -> dict[int, Movement]:
    """Return how the rows that a migration initialised moved in one matrix, by their ids now."""
    state = snapshot.state
    texts = state.tokenizer.texts
    new = {
        number: held.new[made.label]
        for number, made in state.lineage.recipes()
        if isinstance(made, Made)
        and made.revision == revision
        and made.label in held.new
        # The record of another run of the migration may hold other rows.
        and known.fingerprints(made).get(side) in (None, held.mark(made.label))
    }
    recorded = {**held.spare, **held.sample}
    origins = sorted(recorded)
    kept = {
        start + origin - piece.start: recorded[origin]
        for start, piece in state.lineage.copied_rows()
        for origin in origins[bisect_left(origins, piece.start) : bisect_left(origins, piece.stop)]
    }
    places = {**kept, **new}
    stop = tensor.window.ids(state.rows)
    numbers = sorted(number for number in places if number < stop)
    if not any(number in new for number in numbers):
        return {}
    tied = side == "input" and state.traits.tied
    with snapshot.weights.open_rows(tensor.name, tensor.axis) as rows:
        tracked = Tracked(
            then=_RecordedRows(held, [places[number] for number in numbers]),
            now=_StoredRows(rows, numbers),
            # Without a token now, and when they were recorded.
            is_absent=np.array([n not in texts and (n in new or state.lineage.row(n) in held.spare) for n in numbers]),
            is_sample=np.array([number in kept and number in texts for number in numbers]),
        )
        judged = find_movements(tracked, is_output=tied or side == "output")
    return {number: movement for number, movement in zip(numbers, judged, strict=True) if number in new}


@dataclass(frozen=True)
class _RecordedRows:
    """Rows of an undo record, by their order in `places`."""

    held: InitRows
    places: Sequence[int]

    def __getitem__(self, chosen: Places, /) -> Matrix:
        return np.stack([to_float64(self.held.row(self.places[number]), self.held.dtype) for number in chosen])


@dataclass(frozen=True)
class _StoredRows:
    """Rows of a matrix as it is, by their order in `numbers`."""

    rows: TensorRows
    numbers: Sequence[int]

    def __getitem__(self, chosen: Places, /) -> Matrix:
        return np.stack([self.rows.row(self.numbers[number]) for number in chosen])


def training_on_record(state: State | None, snapshot: Snapshot, objects: Objects) -> tuple[TokenTraining, ...]:
    """Return each token whose row a migration initialised, by id, by what the state has of the model and its copies."""
    if state is None:
        return training_of(snapshot, OnRecord({}, {}, objects))
    model = state.model_at(snapshot.directory, snapshot.generation)
    known = _read_on_record(state, model, objects)
    if any((made.revision, made.label) not in known.init_records for _, _, made in list_initialised_tokens(snapshot)):
        other = _read_on_record(*_find_elsewhere(state, snapshot.stamp), objects)
        known = OnRecord({**other.init_records, **known.init_records}, {**other.undo, **known.undo}, objects)
    return training_of(snapshot, known)


def _read_on_record(state: Readable, model: ModelRow | None, objects: Objects) -> OnRecord:
    if model is None:
        return OnRecord({}, {}, objects)
    events = (row.event for row in state.token_rows(model))
    return OnRecord(read_init_records(events), undo_digests(state.list_applications(model)), objects)


def _find_elsewhere(state: State, stamp: Stamp | None) -> tuple[Readable, ModelRow | None]:
    """Return a model of which this one is a copy, as a run that is on record left it, and the ledger that has it.

    A generation is the digest of all that a run wrote: a run that left this generation wrote these rows.
    """
    if stamp is None:
        return state, None
    for ledger in chain([state], transfer.read_imported(state)):
        for model in ledger.list_models():
            applied = (row for row in ledger.runs(model, None) if row.status is Status.APPLIED)
            if any(row.generation_after == stamp.generation for row in applied):
                return ledger, model
    return state, None


def list_trained_events(found: Iterable[TokenTraining]) -> tuple[TokenEvent, ...]:
    """Return the events that the ledger still lacks: the tokens that were trained, each once."""
    return tuple(
        TokenEvent(
            token.revision,
            TokenEventType.TRAINED,
            token.token,
            token.id,
            token.id,
            token.initial_text if token.initial_text != token.token else None,
            row_fingerprint=token.fingerprint,
        )
        for token in found
        if token.was_trained and not token.known_trained
    )


def _read_rows(snapshot: Snapshot, tensor: VocabularyTensor, wanted: Iterable[int]) -> Iterator[tuple[int, bytes]]:
    stop = tensor.window.ids(snapshot.state.rows)
    numbers = [number for number in wanted if number < stop]
    with snapshot.weights.open_rows(tensor.name, tensor.axis) as rows:
        for part in cut_runs(runs(numbers), max(1, BLOCK_BYTES // max(1, tensor.row_bytes))):
            octets = rows.read_runs(part).tobytes()
            starts = range(0, len(octets), tensor.row_bytes)
            for number, at in zip(expand(part), starts, strict=True):
                yield number, octets[at : at + tensor.row_bytes]


def _compare(
    token: str,
    number: int,
    made: Made,
    record: InitRecord | None,
    marks: RowFingerprints,
    rows: Mapping[Side, _Row],
    movements: Mapping[Side, Movement],
) -> TokenTraining:
    sides: dict[Side, Training] = {}
    reasons: list[str | None] = []
    provenance: Mapping[str, Any] | None = None
    for side, row in rows.items():
        same = row.is_same
        movement = movements.get(side)
        is_given = record is not None and side in record.from_file
        told = record.from_file[side] if record and is_given else None
        sides[side] = Training.UNKNOWN
        if told and same is not None:
            sides[side], provenance = Training.TRAINED, provenance or told
        elif same:
            sides[side] = Training.UNTRAINED
        elif same is False and movement is not None:
            # By value it can be the same as before: 0.0 equals -0.0.
            sides[side] = Training(movement.kind)
            reasons.append(movement.why)
        elif same is False:
            reasons.append("it moved, and the undo data here does not have its initial row")
        elif record is None:
            reasons.append("the ledger here does not have the migration that initialised its row")
        elif side not in marks:
            reasons.append("the ledger has no fingerprint of its initial row")
        else:
            reasons.append(f"its row was initialised in {marks[side].dtype}, which {row.now.dtype} cannot represent")
        if is_given and sides[side] in (Training.UNTRAINED, Training.MOVED):
            sides[side] = Training.GIVEN
    return TokenTraining(
        token,
        number,
        made.revision,
        made.label,
        sides,
        movements,
        next(filter(None, reasons), None),
        format_fingerprints({side: row.now for side, row in rows.items()}),
        bool(record and record.known_trained),
        provenance,
    )

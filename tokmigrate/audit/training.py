"""Which tokens of a model were trained since a migration began their rows: the ledger and undo data against the disk.

The lineage in the stamp says of every row which migration began it, and follows moves, renamings and the way
back; the ledger has what the row was then. A row with other numbers moved; whether it was trained is a comparison
with rows of tokens that no text had (`model.weights.movement`), for which the undo data keeps the rows as they were.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from tokmigrate.audit.births import Birth, Key, births
from tokmigrate.change.init_rows import InitRows
from tokmigrate.change.undo_record import Objects, init_rows_of
from tokmigrate.model.documents.stamp import Stamp
from tokmigrate.model.documents.state import Made
from tokmigrate.model.documents.tombstones import is_tombstone
from tokmigrate.model.formats.dtype import to_float64
from tokmigrate.model.snapshot import Snapshot
from tokmigrate.model.weights.birth_marks import BirthMark, BirthMarks, embeddings, parsed, written
from tokmigrate.model.weights.movement import Movement, Tracked, input_movements, output_movements
from tokmigrate.model.weights.tensor_rows import TensorRows
from tokmigrate.model.weights.vocabulary_tensor import VocabularyTensor
from tokmigrate.state.imports import imported_ledgers
from tokmigrate.state.ledger import State
from tokmigrate.state.rows import AppliedRow, Happened, OperationRow, Status, TokenEvent
from tokmigrate.vocabulary.recipes import Side


class Training(StrEnum):
    """What became of a row since its init."""

    TRAINED = "trained"
    MOVED = "moved"
    UNTRAINED = "untrained"
    GIVEN = "given"
    PARTLY = "partly"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class TokenTraining:
    """A token whose row a migration began.

    Args:
        token: Its text now.
        id: Its id now.
        revision: The migration.
        began_as: The text that it had then.
        sides: What became of its row in the input embeddings, and in those of the output unless tied.
        figures: How far its row moved on each side, where the row as it was is on record.
        why: Why that is not known of a side, None where it is known of all.
        marks: Its rows as they are now, as `model.birth_marks` writes them.
        known_trained: Whether the ledger says already that it was trained.
    """

    token: str
    id: int
    revision: str
    began_as: str
    sides: Mapping[Side, Training]
    figures: Mapping[Side, Movement] = field(default_factory=dict)
    why: str | None = None
    marks: str = field(default="", repr=False)
    known_trained: bool = False

    @property
    def training(self) -> Training:
        """What became of it altogether; `partly` where one side was trained and another is known not to be.

        An occurrence trains the input row, so what is not known of the output's does not count.
        """
        found = set(self.sides.values())
        if len(found) == 1:
            return next(iter(found))
        first = self.sides.get("input", Training.UNKNOWN)
        if first is Training.UNKNOWN:
            return first
        if Training.TRAINED in found:
            return Training.TRAINED if Training.UNKNOWN in found else Training.PARTLY
        if first is Training.GIVEN and Training.UNKNOWN in found:
            return first
        return Training.MOVED if found & {Training.MOVED, Training.UNKNOWN} else Training.UNTRAINED

    @property
    def was_trained(self) -> bool:
        """Whether its token occurred in training: its input row, or the row that both sides share, was trained."""
        return self.sides.get("input") is Training.TRAINED


@dataclass(frozen=True)
class OnRecord:
    """What is on record of the rows that migrations began in one model.

    Args:
        births: The rows, by revision and label.
        undo: The undo record of each revision.
        objects: Where undo records are.
    """

    births: Mapping[Key, Birth]
    undo: Mapping[str, str]
    objects: Objects

    def marks(self, made: Made) -> BirthMarks:
        """Return the marks of a row that a migration began; none where they are not on record."""
        birth = self.births.get((made.revision, made.label))
        return parsed(birth.marks) if birth else {}

    def init_rows(self, revision: str) -> Mapping[Side, InitRows]:
        """Return the rows as a migration left them; none where that is not on record, or not here."""
        digest = self.undo.get(revision)
        return init_rows_of(digest, self.objects) if digest is not None else {}


def undo_digests(rows: Iterable[AppliedRow]) -> dict[str, str]:
    """Return the undo record of each revision, of its last application that has one.

    Args:
        rows: The applications on record, the earliest first.
    """
    return {row.record.revision: row.record.undo for row in rows if row.record.undo is not None}


def begun_tokens(snapshot: Snapshot) -> Iterator[tuple[str, int, Made]]:
    """Yield each token whose row a migration began, with its id and what the lineage knows of the row.

    The placeholder of a removed token is none that could be trained.
    """
    texts = snapshot.state.tokenizer.texts
    for number, recipe in snapshot.state.lineage.fresh():
        if number in texts and isinstance(recipe, Made) and recipe.revision and not is_tombstone(texts[number]):
            yield texts[number], number, recipe


def training_of(snapshot: Snapshot, known: OnRecord) -> tuple[TokenTraining, ...]:
    """Return each token whose row a migration began, by id; only those rows and the ones to compare are read.

    Args:
        snapshot: The model.
        known: What is on record of its rows.
    """
    begun = tuple(begun_tokens(snapshot))
    if not begun:
        return ()
    rows: dict[int, dict[Side, tuple[bytes, str]]] = {number: {} for _, number, _ in begun}
    matrices = embeddings(snapshot.tensors)
    for side, tensor in matrices.items():
        for number, raw in _read(snapshot, tensor, rows):
            rows[number][side] = (raw, tensor.dtype)
    changed = {
        made.revision
        for _, number, made in begun
        for side, mark in known.marks(made).items()
        if side in rows[number] and mark.still_is(*rows[number][side]) is False
    }
    movements: dict[Side, dict[int, Movement]] = {side: {} for side in matrices}
    for revision in sorted(changed):
        for side, held in known.init_rows(revision).items():
            if side in matrices:
                movements[side] |= _movements(snapshot, matrices[side], side, revision, held, known)
    return tuple(
        _compared(
            token,
            number,
            made,
            known.births.get((made.revision, made.label)),
            rows[number],
            {side: found[number] for side, found in movements.items() if number in found},
        )
        for token, number, made in begun
    )


def _movements(
    snapshot: Snapshot, tensor: VocabularyTensor, side: Side, revision: str, held: InitRows, known: OnRecord
) -> dict[int, Movement]:
    """Return how the rows that a migration began moved in one matrix, by their ids now."""
    state = snapshot.state
    texts = state.tokenizer.texts
    new = {
        number: held.new[made.label]
        for number, made in state.lineage.fresh()
        if isinstance(made, Made)
        and made.revision == revision
        and made.label in held.new
        # The record of another run of the migration may hold other rows.
        and known.marks(made).get(side, held.mark(made.label)) == held.mark(made.label)
    }
    recorded = {**held.spare, **held.sample}
    origins = sorted(recorded)
    kept = {
        start + origin - piece.start: recorded[origin]
        for start, piece in state.lineage.kept()
        for origin in origins[bisect_left(origins, piece.start) : bisect_left(origins, piece.stop)]
    }
    spare = {number for number in (*new, *kept) if number not in texts}
    places = {**kept, **new}
    now = dict(_read(snapshot, tensor, places))
    numbers = list(now)
    if not any(number in new for number in numbers):
        return {}
    tracked = Tracked(
        then=np.stack([to_float64(held.rows[places[number]], held.dtype) for number in numbers]),
        now=np.stack([to_float64(now[number], tensor.dtype) for number in numbers]),
        is_absent=np.array([number in spare and _had_none(held, state.lineage.row(number)) for number in numbers]),
        is_sample=np.array([number in kept and number in texts for number in numbers]),
    )
    tied = side == "input" and snapshot.state.traits.tied
    judged = output_movements(tracked) if tied or side == "output" else input_movements(tracked)
    return {number: movement for number, movement in zip(numbers, judged, strict=True) if number in new}


def _had_none(held: InitRows, origin: object) -> bool:
    """Return whether a row had no token when it was recorded."""
    return origin in held.spare if isinstance(origin, int) else isinstance(origin, Made)


def training_on_record(state: State | None, snapshot: Snapshot, objects: Objects) -> tuple[TokenTraining, ...]:
    """Return each token whose row a migration began, by id, as `training_of` does.

    Args:
        state: The workspace's state, None where it was never made.
        snapshot: The model.
        objects: Where undo records are.
    """
    if state is None:
        return training_of(snapshot, OnRecord({}, {}, objects))
    model = state.model_at(snapshot.directory, snapshot.generation)
    known = dict(births(row.event for row in state.token_rows(model))) if model else {}
    undo = undo_digests(state.applied_ever(model)) if model else {}
    if any((made.revision, made.label) not in known for _, _, made in begun_tokens(snapshot)):
        elsewhere, undo_elsewhere = _on_record_elsewhere(state, snapshot.stamp)
        known, undo = {**elsewhere, **known}, {**undo_elsewhere, **undo}
    return training_of(snapshot, OnRecord(known, undo, objects))


def _on_record_elsewhere(state: State, stamp: Stamp | None) -> tuple[Mapping[Key, Birth], Mapping[str, str]]:
    """Return the births of a copy that was migrated elsewhere, by a run that is on record, and the undo records.

    A generation is the digest of all that a run wrote: one that left this very generation wrote these rows.
    """
    if stamp is None:
        return {}, {}
    for model in state.known_models():
        if any(_left(row, stamp) for row in state.operations(model, None)):
            events = (row.event for row in state.token_rows(model))
            return births(events), undo_digests(state.applied_ever(model))
    for ledger in imported_ledgers(state):
        for row in ledger.operations:
            if _left(row, stamp):
                found = (event.event for event in ledger.tokens if event.model_id == row.model_id)
                applied = (each for each in ledger.applied if each.model_id == row.model_id)
                return births(found), undo_digests(applied)
    return {}, {}


def _left(row: OperationRow, stamp: Stamp) -> bool:
    return row.status is Status.APPLIED and row.generation_after == stamp.generation


def trained_events(found: Iterable[TokenTraining]) -> tuple[TokenEvent, ...]:
    """Return what the ledger is still to be told: the tokens that were trained, each once."""
    return tuple(
        TokenEvent(
            token.revision,
            Happened.TRAINED,
            token.token,
            token.id,
            token.id,
            token.began_as if token.began_as != token.token else None,
            row_digest=token.marks,
        )
        for token in found
        if token.was_trained and not token.known_trained
    )


def _read(snapshot: Snapshot, tensor: VocabularyTensor, wanted: Iterable[int]) -> Iterator[tuple[int, bytes]]:
    shard, entry = snapshot.weights.tensor(tensor.name)
    there = tensor.window.ids(snapshot.state.rows)
    place = snapshot.weights.path(shard), shard.extent(entry)[0]
    with TensorRows(*place, tensor.geometry, tensor.dtype) as rows:
        for number in wanted:
            if number < there:
                yield number, rows.read_run(number, number + 1).tobytes()


def _compared(
    token: str,
    number: int,
    made: Made,
    birth: Birth | None,
    rows: Mapping[Side, tuple[bytes, str]],
    movements: Mapping[Side, Movement],
) -> TokenTraining:
    now: BirthMarks = {side: BirthMark.of(raw, dtype) for side, (raw, dtype) in rows.items()}
    marks = parsed(birth.marks) if birth else {}
    sides: dict[Side, Training] = {}
    reasons: list[str] = []
    for side, (raw, dtype) in rows.items():
        mark = marks.get(side)
        same = mark.still_is(raw, dtype) if mark else None
        movement = movements.get(side) if same is False else None
        if same is None:
            sides[side] = Training.UNKNOWN
            reasons.append(_reason(birth, mark, dtype))
        elif same:
            sides[side] = Training.UNTRAINED
        elif movement is None:
            sides[side] = Training.UNKNOWN
            reasons.append("it moved, and the undo data here does not have what its row was")
        else:
            # By value it can be the same as before: a zero has two signs.
            sides[side] = Training(movement.kind)
            reasons += [movement.why] if movement.why else []
        if birth and side in birth.given and sides[side] in (Training.UNTRAINED, Training.MOVED):
            sides[side] = Training.GIVEN
    return TokenTraining(
        token,
        number,
        made.revision,
        made.label,
        sides,
        movements,
        reasons[0] if reasons else None,
        written(now),
        bool(birth and birth.known_trained),
    )


def _reason(birth: Birth | None, mark: BirthMark | None, dtype: str) -> str:
    if birth is None:
        return "the ledger here does not have the migration that began its row"
    if mark is None:
        return "the ledger does not have what its row was"
    return f"its row began in {mark.dtype}, and {dtype} cannot hold what it was"

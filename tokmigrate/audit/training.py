"""Which tokens of a model were trained since a migration began their rows: the ledger against the disk.

The lineage in the stamp says of every row which migration began it, and follows moves, renamings and the way
back; the ledger has what the row was then. A row that is no longer what it was counts as trained, whatever
changed it: an optimizer's weight decay too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from tokmigrate.audit.births import Birth, Key, births
from tokmigrate.model.documents.stamp import Stamp
from tokmigrate.model.documents.state import Made
from tokmigrate.model.documents.tombstones import is_tombstone
from tokmigrate.model.snapshot import Snapshot
from tokmigrate.model.weights.birth_marks import BirthMark, BirthMarks, embeddings, parsed, written
from tokmigrate.model.weights.tensor_rows import TensorRows
from tokmigrate.model.weights.vocabulary_tensor import VocabularyTensor
from tokmigrate.state.imports import imported_ledgers
from tokmigrate.state.ledger import State
from tokmigrate.state.rows import Happened, OperationRow, Status, TokenEvent
from tokmigrate.vocabulary.recipes import Side


class Training(StrEnum):
    """What became of a row since it was begun."""

    TRAINED = "trained"
    UNTRAINED = "untrained"
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
        why: Why that is not known of a side, None where it is known of all.
        marks: Its rows as they are now, as `model.birth_marks` writes them.
        known_trained: Whether the ledger says already that it was trained.
    """

    token: str
    id: int
    revision: str
    began_as: str
    sides: Mapping[Side, Training]
    why: str | None = None
    marks: str = field(default="", repr=False)
    known_trained: bool = False

    @property
    def training(self) -> Training:
        """What became of it altogether; `partly` where one side was trained and another not."""
        found = set(self.sides.values())
        if len(found) == 1:
            return next(iter(found))
        return Training.PARTLY if Training.TRAINED in found else Training.UNKNOWN

    @property
    def was_trained(self) -> bool:
        """Whether any of its rows was."""
        return Training.TRAINED in self.sides.values()


def begun_tokens(snapshot: Snapshot) -> Iterator[tuple[str, int, Made]]:
    """Yield each token whose row a migration began, with its id and what the lineage knows of the row.

    The placeholder of a removed token is none that could be trained.
    """
    texts = snapshot.state.tokenizer.texts
    for number, recipe in snapshot.state.lineage.fresh():
        if number in texts and isinstance(recipe, Made) and recipe.revision and not is_tombstone(texts[number]):
            yield texts[number], number, recipe


def training_of(snapshot: Snapshot, known: Mapping[Key, Birth]) -> tuple[TokenTraining, ...]:
    """Return each token whose row a migration began, by id; only those rows are read.

    Args:
        snapshot: The model.
        known: What the ledger says of its rows.
    """
    begun = tuple(begun_tokens(snapshot))
    if not begun:
        return ()
    rows: dict[int, dict[Side, tuple[bytes, str]]] = {number: {} for _, number, _ in begun}
    for side, tensor in embeddings(snapshot.tensors).items():
        for number, raw in _read(snapshot, tensor, rows):
            rows[number][side] = (raw, tensor.dtype)
    return tuple(
        _compared(token, number, made, known.get((made.revision, made.label)), rows[number])
        for token, number, made in begun
    )


def training_on_record(state: State | None, snapshot: Snapshot) -> tuple[TokenTraining, ...]:
    """Return each token whose row a migration began, by id, as `training_of` does.

    Args:
        state: The workspace's state, None where it was never made.
        snapshot: The model.
    """
    if state is None:
        return training_of(snapshot, {})
    model = state.model_at(snapshot.directory, snapshot.generation)
    known = dict(births(row.event for row in state.token_events(model))) if model else {}
    if any((made.revision, made.label) not in known for _, _, made in begun_tokens(snapshot)):
        known = {**_births_elsewhere(state, snapshot.stamp), **known}
    return training_of(snapshot, known)


def _births_elsewhere(state: State, stamp: Stamp | None) -> Mapping[Key, Birth]:
    """Return the births of a copy that was migrated elsewhere, by a run that is on record.

    A generation is the digest of all that a run wrote: one that left this very generation wrote these rows.
    """
    if stamp is None:
        return {}
    for model in state.known_models():
        if any(_left(row, stamp) for row in state.operations(model, None)):
            return births(row.event for row in state.token_events(model))
    for ledger in imported_ledgers(state):
        for row in ledger.operations:
            if _left(row, stamp):
                return births(event.event for event in ledger.tokens if event.model_id == row.model_id)
    return {}


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
    token: str, number: int, made: Made, birth: Birth | None, rows: Mapping[Side, tuple[bytes, str]]
) -> TokenTraining:
    now: BirthMarks = {side: BirthMark.of(raw, dtype) for side, (raw, dtype) in rows.items()}
    marks = parsed(birth.marks) if birth else {}
    sides: dict[Side, Training] = {}
    reasons: list[str] = []
    for side, (raw, dtype) in rows.items():
        mark = marks.get(side)
        same = mark.still_is(raw, dtype) if mark else None
        if same is None:
            sides[side] = Training.UNKNOWN
            reasons.append(_reason(birth, mark, dtype))
        else:
            sides[side] = Training.UNTRAINED if same else Training.TRAINED
    return TokenTraining(
        token,
        number,
        made.revision,
        made.label,
        sides,
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

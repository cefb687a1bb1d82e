"""At which revision is a model that another program wrote, as far as its files can tell?

Tokens that are added, removed or renamed show that a migration was applied. Settings do not: another program may have
set them just so, and to set them again changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from tokmigrate.errors import OperationError, TokmigrateError
from tokmigrate.formatting import format_list
from tokmigrate.model.documents.semantic_diff import differences, without_ignorable
from tokmigrate.model.documents.state import Made, ModelState
from tokmigrate.operations.base import Context, NewToken, Operation, TokenChanges
from tokmigrate.revision.migration import Migration, PlannedOperation
from tokmigrate.vocabulary.row_edit import CopiedRows, NewRow, RowEdit, join_pieces

_NOT_AT = "the model is not at that revision: "


@dataclass(frozen=True)
class Detected:
    """What a model has of migrations that it is recorded without.

    Args:
        revisions: The migrations of which something is there, in order.
        there: What that is.
        reached: The revision up to which all is there, None where a part is.
        missing: What is not there of the last of them, None where all is.
    """

    revisions: tuple[str, ...]
    there: tuple[str, ...]
    reached: str | None
    missing: str | None

    def __str__(self) -> str:
        done = f"{' and '.join(self.revisions)} {'does' if len(self.revisions) == 1 else 'do'}"
        there = format_list(self.there, separator="; ")
        if self.missing is None:
            return f"what {done} is there: {there}"
        return f"part of what {done} is there: {there}; but {self.missing}"


def verify_at_revision(state: ModelState, migrations: Sequence[Migration]) -> ModelState:
    """Return the state with the lineage that it has after the migrations, once its files agree with that.

    Args:
        state: The model as it is, without a lineage.
        migrations: The migrations up to the stated revision.

    Raises:
        OperationError: What one of them does is not there, or cannot be seen in the files.
    """
    tokens = _Tokens()
    expected = state
    for migration in migrations:
        for planned in migration.recorded(state.tokenizer):
            source = planned.origin or migration
            context = Context(source.revision, source.init, migration.attachments)
            tokens.follow(planned.operation, context)
            expected = _expect(expected, planned, context)
    for reason in tokens.missing(state):
        raise _not_at(migrations[-1].shown, reason)
    other = without_ignorable(differences(expected.documents, state.documents))
    if other:
        raise _not_at(migrations[-1].shown, f"it differs from what they leave in {other[0]}")
    if expected.rows != state.rows:
        raise _not_at(migrations[-1].shown, f"it would have {expected.rows} rows, and has {state.rows}")
    made = tokens.made(state)
    pieces = join_pieces(NewRow(made[row]) if row in made else CopiedRows(row, row + 1) for row in range(state.rows))
    baseline = tuple(_baseline_tokens(state, made))
    return replace(
        state, lineage=RowEdit(state.rows, pieces), baseline_tokens=baseline, init=expected.init, touched=frozenset()
    )


def detect_revision(state: ModelState, applied: Sequence[Migration], later: Sequence[Migration]) -> Detected | None:
    """Return what a model has of migrations that it is recorded without, None if nothing.

    Args:
        state: The model.
        applied: The migrations that are recorded, in order.
        later: Those that follow.
    """
    detection = _Detection(state)
    found: dict[str, tuple[str, ...]] = {}
    for migration in later:
        try:
            operations = [planned.operation for planned in migration.recorded(state.tokenizer)]
        except TokmigrateError:
            # Python that cannot be run on this model tells nothing of it.
            continue
        there = tuple(dict.fromkeys(mark for each in operations for mark in detection.of(each.token_changes())))
        if there:
            found[migration.revision] = there
    if not found:
        return None
    last = next(place for place, migration in enumerate(later) if migration.revision == tuple(found)[-1])
    missing: str | None = None
    try:
        verify_at_revision(state, (*applied, *later[: last + 1]))
    except TokmigrateError as error:
        missing = error.message.removeprefix(_NOT_AT)
    marks_there = tuple(mark for there in found.values() for mark in there)
    return Detected(tuple(found), marks_there, None if missing else later[last].revision, missing)


@dataclass(frozen=True)
class _Token:
    """What migrations leave of one token: how its row was made, its flags, its id; None for what they do not say."""

    made: Made | None = None
    flags: NewToken | None = None
    id: int | None = None


@dataclass
class _Tokens:
    """What migrations leave of tokens, followed through renamings."""

    known: dict[str, _Token] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)

    def follow(self, operation: Operation, context: Context) -> None:
        """Follow the tokens through an operation."""
        changes = operation.token_changes() or TokenChanges()
        for new in () if changes.may_exist else changes.added:
            self._set(new.content, _Token(Made(context.revision, new.content), new))
        for old, text in changes.renamed.items():
            self._set(text, self.known.pop(old, _Token()))
            self.gone.add(old)
        for token in changes.removed:
            self.known.pop(token, None)
            # Ids may have closed up.
            self.known = {other: replace(held, id=None) for other, held in self.known.items()}
            self.gone.add(token)
        for token, number in changes.moved.items():
            self._set(token, replace(self.known.get(token, _Token()), id=number))
        for token in changes.reinitialised:
            self._set(token, replace(self.known.get(token, _Token()), made=Made(context.revision, token)))

    def missing(self, state: ModelState) -> Iterator[str]:
        """Yield what of it is not so in a model."""
        ids = state.tokenizer.ids
        yield from (f"the token '{token}' is still there" for token in self.gone if token in ids)
        for token, held in self.known.items():
            if token not in ids:
                yield f"the token '{token}' is not there"
            elif held.id is not None and ids[token] != held.id:
                yield f"the token '{token}' has id {ids[token]} instead of {held.id}"
            elif held.flags and state.tokenizer.token(token) != replace(held.flags.to_added_token(), content=token):
                yield f"the token '{token}' has other flags"

    def made(self, state: ModelState) -> dict[int, Made]:
        """Return how rows were made, by row."""
        return {state.tokenizer.ids[token]: held.made for token, held in self.known.items() if held.made}

    def _set(self, token: str, held: _Token) -> None:
        self.known[token] = held
        self.gone.discard(token)


@dataclass
class _Detection:
    """Effects of migrations that a model has, though it is recorded without them."""

    state: ModelState
    removed: set[str] = field(default_factory=set)
    added: set[str] = field(default_factory=set)

    def of(self, changes: TokenChanges | None) -> Iterator[str]:
        """Yield what of an operation is there, and expect all of it from then on."""
        if changes is None:
            return
        yield from self._find_added([] if changes.may_exist else [token.content for token in changes.added])
        yield from self._find_added(changes.renamed.values())
        yield from self._find_removed((*changes.renamed, *changes.removed))

    def _find_added(self, tokens: Iterable[str]) -> Iterator[str]:
        for token in tokens:
            if token in self.state.tokenizer.ids and token not in self.removed:
                yield f"the token '{token}' is there"
            self.added.add(token)

    def _find_removed(self, tokens: Iterable[str]) -> Iterator[str]:
        for token in tokens:
            if token not in self.state.tokenizer.ids and token not in self.added:
                yield f"the token '{token}' is gone"
            self.removed.add(token)


def _expect(state: ModelState, planned: PlannedOperation, context: Context) -> ModelState:
    try:
        return planned.operation.expected(state, context)
    except TokmigrateError as error:
        reason = error.message
        if planned.operation.token_changes() is None:
            reason = f"what {planned.operation.name} does to tokens is not known, and {reason}"
        raise _not_at(planned.place, reason) from error


def _baseline_tokens(state: ModelState, made: dict[int, Made]) -> Iterator[tuple[int, int]]:
    start = None
    for row in range(state.rows + 1):
        inside = row in state.tokenizer.texts and row not in made and row < state.rows
        if inside and start is None:
            start = row
        if not inside and start is not None:
            yield start, row
            start = None


def _not_at(where: str, reason: str) -> OperationError:
    return OperationError(
        f"{_NOT_AT}{reason}",
        where=where,
        hint="`tokmigrate upgrade` brings it there; `stamp --from DIR` stamps a copy of a model that was there",
    )

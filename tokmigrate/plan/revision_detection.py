"""At which revision is a model that another program wrote, as far as its files can tell?

Tokens that are added, removed or renamed show that a migration was applied. Settings do not: another program may have
set them just so, and to set them again changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from tokmigrate.errors import OperationError, TokmigrateError
from tokmigrate.formatting import format_list
from tokmigrate.model.documents.semantic_diff import differences, without_ignorable
from tokmigrate.model.documents.state import Made, ModelState
from tokmigrate.operations.operation import Context, NewToken, TokenChanges
from tokmigrate.revision.migration import Migration
from tokmigrate.vocabulary.ids import runs
from tokmigrate.vocabulary.row_edit import RowEdit

_NOT_AT = "the model is not at that revision: "


@dataclass(frozen=True)
class Detected:
    """What a model has of migrations that it is recorded without.

    All is there up to the revision `reached`; it is None where a part of the last one is `missing`.
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
    """Return the state with the lineage that it has after the migrations up to a revision, once its files agree.

    Raises OperationError where what one of them does is not there, or cannot be seen in the files.
    """
    tokens = _Tokens()
    expected = state
    for migration in migrations:
        for planned in migration.record_operations(state.tokenizer):
            source = planned.origin or migration
            context = Context(source.revision, source.init, migration.attachments)
            tokens.follow(planned.operation.token_changes_in(state), context)
            try:
                expected = planned.operation.expected(expected, context)
            except TokmigrateError as error:
                reason = error.message
                if planned.operation.token_changes() is None:
                    reason = f"what {planned.operation.name} does to tokens is not known, and {reason}"
                raise _not_at(planned.place, reason) from error
    for reason in tokens.find_missing(state):
        raise _not_at(migrations[-1].shown, reason)
    other = without_ignorable(differences(expected.documents, state.documents))
    if other:
        raise _not_at(migrations[-1].shown, f"it differs from what they leave in {other[0]}")
    if expected.rows != state.rows:
        raise _not_at(migrations[-1].shown, f"it would have {expected.rows} rows, and has {state.rows}")
    made = {state.tokenizer.ids[token]: held.made for token, held in tokens.known.items() if held.made}
    return replace(
        state,
        lineage=RowEdit.of(state.rows, (made.get(row, row) for row in range(state.rows))),
        baseline_tokens=runs(sorted(row for row in state.tokenizer.texts if row < state.rows and row not in made)),
        init=expected.init,
        touched=frozenset(),
    )


def detect_revision(state: ModelState, applied: Sequence[Migration], later: Sequence[Migration]) -> Detected | None:
    """Return what a model has of `later` migrations, which it is recorded without, None if nothing."""
    marks: dict[int, tuple[str, ...]] = {}
    there_before, gone_before = _list_tokens_after(state, applied)
    added: set[str] = set()
    removed: set[str] = set()
    for place, migration in enumerate(later):
        try:
            operations = [planned.operation for planned in migration.record_operations(state.tokenizer)]
        except TokmigrateError:
            # Python that cannot be run on this model tells nothing of it.
            continue
        found: list[str] = []
        for changes in filter(None, (each.token_changes() for each in operations)):
            new = [] if changes.may_exist else [token.content for token in changes.added]
            for token in (*new, *changes.renamed.values()):
                if token in state.tokenizer.ids and token not in removed | there_before:
                    found.append(f"the token '{token}' is there")
                added.add(token)
            for token in (*changes.renamed, *changes.removed):
                if token not in state.tokenizer.ids and token not in added | gone_before:
                    found.append(f"the token '{token}' is gone")
                removed.add(token)
        if found:
            marks[place] = tuple(dict.fromkeys(found))
    if not marks:
        return None
    last = max(marks)
    missing: str | None = None
    try:
        verify_at_revision(state, (*applied, *later[: last + 1]))
    except TokmigrateError as error:
        missing = error.message.removeprefix(_NOT_AT)
    there = tuple(mark for found_there in marks.values() for mark in found_there)
    revisions = tuple(later[place].revision for place in marks)
    return Detected(revisions, there, None if missing else revisions[-1], missing)


def _list_tokens_after(state: ModelState, applied: Sequence[Migration]) -> tuple[set[str], set[str]]:
    """Return the tokens that applied migrations leave and that they remove: these tell nothing of later migrations."""
    there: set[str] = set()
    gone: set[str] = set()
    for migration in applied:
        with suppress(TokmigrateError):
            for planned in migration.record_operations(state.tokenizer):
                changes = planned.operation.token_changes()
                if changes is not None:
                    new = {*(token.content for token in changes.added), *changes.renamed.values()}
                    old = {*changes.renamed, *changes.removed}
                    there, gone = (there - old) | new, (gone | old) - new
    return there, gone


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

    def follow(self, changes: TokenChanges | None, context: Context) -> None:
        """Follow the tokens through an operation that does this to them, None where it is not known."""
        if changes is None:
            self._forget_ids()
            return
        if changes.vocabulary is not None:
            self.known = {
                token: replace(self.known.get(token, _Token()), id=None, flags=None) for token in changes.vocabulary
            }
            self.gone -= changes.vocabulary
        for new in () if changes.may_exist else changes.added:
            self._set(new.content, _Token(Made(context.revision, new.content), new))
        for old, text in changes.renamed.items():
            self._set(text, self.known.pop(old, _Token()))
            self.gone.add(old)
        for token in changes.removed:
            self.known.pop(token, None)
            self._forget_ids()
            self.gone.add(token)
        for text in changes.extended:
            self._set(text, _Token(Made(context.revision, text)))
        for token, number in changes.moved.items():
            self._set(token, replace(self.known.get(token, _Token()), id=number))
        for token in changes.reinitialised:
            self._set(token, replace(self.known.get(token, _Token()), made=Made(context.revision, token)))

    def find_missing(self, state: ModelState) -> Iterator[str]:
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

    def _forget_ids(self) -> None:
        """Forget the ids: they may have closed up."""
        self.known = {token: replace(held, id=None) for token, held in self.known.items()}

    def _set(self, token: str, held: _Token) -> None:
        self.known[token] = held
        self.gone.discard(token)


def _not_at(where: str, reason: str) -> OperationError:
    return OperationError(
        f"{_NOT_AT}{reason}",
        where=where,
        hint="`tokmigrate upgrade` brings it there; `stamp --from DIR` stamps a copy of a model that was there",
    )

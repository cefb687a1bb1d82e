"""Is a model where migrations lead, as far as its files can tell? Asked of one that another program wrote."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from tokmigrate.errors import OperationError, TokmigrateError
from tokmigrate.model.documents.state import Made, ModelState
from tokmigrate.model.semantics.semantic_diff import differences, without_ignorable
from tokmigrate.operations.add_role_tokens import AddRoleTokens
from tokmigrate.operations.add_tokens import AddTokens, NewToken
from tokmigrate.operations.base import Context, Operation
from tokmigrate.operations.move_tokens import MoveTokens
from tokmigrate.operations.reinit_tokens import ReinitTokens
from tokmigrate.operations.remove_tokens import RemoveTokens
from tokmigrate.operations.rename_tokens import RenameTokens
from tokmigrate.revision.migration import Migration
from tokmigrate.vocabulary.rows import Fresh, Kept, RowEdit, joined

_NOT_AT = "the model is not at that revision: "


@dataclass(frozen=True)
class _Trace:
    """What migrations leave of one token: which began its row, its flags, its id; None for what they do not say."""

    made: Made | None = None
    flags: NewToken | None = None
    id: int | None = None


@dataclass
class _Traced:
    """What migrations leave of tokens, followed through renamings."""

    tokens: dict[str, _Trace] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)

    def set(self, token: str, trace: _Trace) -> None:
        self.tokens[token] = trace
        self.gone.discard(token)

    def rename(self, old: str, new: str) -> None:
        self.set(new, self.tokens.pop(old, _Trace()))
        self.gone.add(old)

    def remove(self, token: str) -> None:
        self.tokens.pop(token, None)
        # Ids may have closed up.
        self.tokens = {other: replace(trace, id=None) for other, trace in self.tokens.items()}
        self.gone.add(token)


def taken_as(state: ModelState, migrations: Sequence[Migration]) -> ModelState:
    """Return the state with the lineage that it would have after the migrations, after checking that it may be so.

    Args:
        state: The model as it is, without a lineage.
        migrations: The migrations up to the revision that it is said to be at.

    Raises:
        OperationError: What one of them does is not there, or cannot be told from the files.
    """
    traced = _Traced()
    folded = state
    for migration in migrations:
        context = Context(migration.revision, migration.init, migration.attachments)
        for planned in migration.recorded(state.tokenizer):
            try:
                folded = _followed(folded, planned.operation, context, traced)
            except TokmigrateError as error:
                raise _absent(planned.place, error.message) from error
    for reason in _missing(state, traced):
        raise _absent(migrations[-1].shown, reason)
    other = without_ignorable(differences(folded.documents, state.documents))
    if other:
        raise _absent(migrations[-1].shown, f"it differs from what they leave in {other[0]}")
    if folded.rows != state.rows:
        raise _absent(migrations[-1].shown, f"it would have {folded.rows} rows, and has {state.rows}")
    ids = {state.tokenizer.ids[token]: trace.made for token, trace in traced.tokens.items() if trace.made}
    pieces = joined(Fresh(ids[row]) if row in ids else Kept(row, row + 1) for row in range(state.rows))
    tokens = tuple((start, stop) for start, stop in _known(state, ids))
    return replace(
        state, lineage=RowEdit(state.rows, pieces), baseline_tokens=tokens, init=folded.init, touched=frozenset()
    )


def absence(state: ModelState, migrations: Sequence[Migration]) -> str | None:
    """Return why a model cannot be at the revision that migrations lead to, None where it may be there."""
    try:
        taken_as(state, migrations)
    except TokmigrateError as error:
        return error.message.removeprefix(_NOT_AT)
    return None


def _followed(state: ModelState, operation: Operation, context: Context, traced: _Traced) -> ModelState:
    """Return the state in which an operation's settings hold; what it does to tokens is traced."""
    match operation:
        case AddTokens() if operation.existing == "refuse":
            for new in operation.tokens:
                traced.set(new.content, _Trace(Made(context.revision, new.content), new))
        case AddRoleTokens():
            for token in operation.form().tokens:
                if operation.existing == "refuse":
                    made = Made(context.revision, token)
                    traced.set(token, _Trace(made, NewToken(content=token, special=True)))
            return operation.model_copy(update={"existing": "reuse"}).apply(state, context)
        case RenameTokens():
            for old, renamed in operation.tokens.items():
                traced.rename(old, renamed)
        case RemoveTokens():
            for token in operation.tokens:
                traced.remove(token)
        case MoveTokens():
            for token, number in operation.tokens.items():
                traced.set(token, replace(traced.tokens.get(token, _Trace()), id=number))
        case ReinitTokens():
            for token in operation.tokens:
                held = traced.tokens.get(token, _Trace())
                traced.set(token, replace(held, made=Made(context.revision, token)))
        case _:
            return operation.apply(state, context)
    return state


def _missing(state: ModelState, traced: _Traced) -> Iterator[str]:
    ids = state.tokenizer.ids
    yield from (f"the token '{token}' is still there" for token in traced.gone if token in ids)
    for token, trace in traced.tokens.items():
        if token not in ids:
            yield f"the token '{token}' is not there"
        elif trace.id is not None and ids[token] != trace.id:
            yield f"the token '{token}' has id {ids[token]} instead of {trace.id}"
        elif trace.flags and state.tokenizer.token(token) != replace(trace.flags.added(), content=token):
            yield f"the token '{token}' has other flags"


def _known(state: ModelState, made: dict[int, Made]) -> Iterator[tuple[int, int]]:
    start = None
    for row in range(state.rows + 1):
        inside = row in state.tokenizer.texts and row not in made and row < state.rows
        if inside and start is None:
            start = row
        if not inside and start is not None:
            yield start, row
            start = None


def _absent(where: str, reason: str) -> OperationError:
    return OperationError(
        f"{_NOT_AT}{reason}",
        where=where,
        hint="`tokmigrate upgrade` brings it there; `stamp --from DIR` takes on a copy of a model that was there",
    )

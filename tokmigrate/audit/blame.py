"""Who did what to a token, when and why, in every model that is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tokmigrate.audit.blamed import BlamedModel
from tokmigrate.audit.token_ledger import TokenLedger
from tokmigrate.errors import UnknownNameError, nearest
from tokmigrate.files import has_directory
from tokmigrate.revision.history import History
from tokmigrate.settings import ModelEntry, Workspace
from tokmigrate.state.database import open_state_if_present
from tokmigrate.state.imports import imported_ledgers
from tokmigrate.state.objects import ObjectStore


def blame_text(workspace: Workspace, entries: Sequence[ModelEntry], text: str) -> tuple[BlamedModel, ...]:
    """Return for each model, those of imported ledgers too, the tokens that have or had a text.

    Args:
        workspace: The workspace.
        entries: The models; one that is not here is passed over. If they are not all of the workspace, then of
            imported ledgers only what is the same model as one of them.
        text: The text as the vocabulary writes it; or with escapes such as `\\n`; or, of a byte-level tokenizer,
            as people write it.

    Raises:
        UnknownNameError: No model ever had it.
        ModelError: None of the models is here.
    """
    ledgers = _ledgers(workspace, entries)
    plain = _unescaped(text)
    readings: tuple[Callable[[TokenLedger], frozenset[str]], ...] = (
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
        where=", ".join(ledger.subject.model for ledger in ledgers),
        hint=nearest(text, known) or "`tokmigrate blame --id N` asks by id; a text is written as the vocabulary has it",
    )


def blame_id(workspace: Workspace, entries: Sequence[ModelEntry], number: int) -> tuple[BlamedModel, ...]:
    """Return for each model the tokens that have or had an id; raises UnknownNameError where no model knows it."""
    ledgers = _ledgers(workspace, entries)
    found = tuple(ledger.blamed(ledger.numbered(number)) for ledger in ledgers)
    if not any(each.tokens for each in found):
        rows = {ledger.subject.model: ledger.snapshot.state.rows for ledger in ledgers if ledger.snapshot}
        spare = [name for name, count in rows.items() if number < count]
        told = ", ".join(f"{name} has ids up to {count - 1}" for name, count in rows.items())
        reason = (
            f"the row {number} of {spare[0]} has no token and had none" if spare else f"no model has the id {number}"
        )
        raise UnknownNameError(reason, where=", ".join(rows), hint=told)
    return found


def _ledgers(workspace: Workspace, entries: Sequence[ModelEntry]) -> list[TokenLedger]:
    state = open_state_if_present(workspace.state, workspace.root)
    history = History.read(workspace)
    objects = ObjectStore(workspace.objects)
    own = [TokenLedger.here(state, history, entry, objects) for entry in entries if has_directory(entry.path)]
    if entries and not own:
        entries[0].here()
    of_all = len(entries) == len(workspace.models)
    names: dict[str | None, tuple[str, ...]] = {}
    for each in own:
        names[each.subject.lineage] = (*names.get(each.subject.lineage, ()), each.subject.model)
    others = [
        TokenLedger.imported(history, ledger, model, names.get(model.lineage, ()))
        for ledger in (imported_ledgers(state) if state else ())
        for model in ledger.models
    ]
    return own + [each for each in others if of_all or each.subject.same_as]


def _unescaped(text: str) -> str:
    """Return the text that escapes stand for, as messages show tokens."""
    try:
        return text.encode("latin-1", "backslashreplace").decode("unicode_escape")
    except UnicodeDecodeError:
        return text

"""What `blame` tells of a token: what befell it, in which model, and what is known around it."""

from __future__ import annotations

from dataclasses import dataclass

from tokmigrate.audit.git_lines import Written
from tokmigrate.audit.places import Place
from tokmigrate.audit.training import TokenTraining
from tokmigrate.state.rows import OperationRow, TokenRow


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
class Subject:
    """A model that is asked about.

    Args:
        model: Its name.
        path: Where it is; of an imported ledger on the host of its last run.
        revision: Its revision, None at `base`; of an imported ledger what it had when that was imported.
        lineage: Its lineage, None at `base`.
        ledger: The ledger that was imported and tells of it, None for a model of this workspace.
        host: The host of its last run there, None for a model of this workspace.
        same_as: Of an imported ledger the names that this workspace has for the same model, known by its lineage.
    """

    model: str
    path: str
    revision: str | None
    lineage: str | None
    ledger: str | None = None
    host: str | None = None
    same_as: tuple[str, ...] = ()


@dataclass(frozen=True)
class BlamedModel:
    """The tokens of a model that a name or an id stood for at some time; none where it never had one."""

    subject: Subject
    tokens: tuple[BlamedToken, ...]

"""Transactions of the state database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from tokmigrate.errors import BusyError, DriftError, StorageError, TokmigrateError

_WRITERS_LOCK = 0x746F6B6D69677261
"""The key of the PostgreSQL advisory lock that writers hold, one at a time."""


_ON_DISK = "check the free space, the permissions and the file; a backup can be put in its place"
_SERVER = "check that the server runs, and `state:` in tokmigrate.yaml or $TOKMIGRATE_STATE"


@dataclass(frozen=True)
class Database:
    """An open database, and the only two ways to touch it: to read and to write.

    Args:
        engine: Its SQLAlchemy engine.
        workspace: The folder that relative paths and the Git commit are taken from.
        moves_with: The workspace that it lies in, and moves with; None where it lies elsewhere.
    """

    engine: Engine
    workspace: Path
    moves_with: Path | None = None

    @property
    def place(self) -> str:
        """Where the database is, without a password."""
        url = self.engine.url
        return str(url.database) if self.is_sqlite else url.render_as_string()

    @property
    def is_sqlite(self) -> bool:
        """Whether it is a file of SQLite's."""
        return self.engine.dialect.name == "sqlite"

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Give a connection that sees one moment of the database; it must not write.

        Raises BusyError where writers do not let it in, StorageError where the database is damaged.
        """
        with _explain(self.place, self.is_sqlite), self.engine.connect() as connection:
            if not self.is_sqlite:
                # By default PostgreSQL lets each statement see a later moment than the one before.
                connection.execution_options(isolation_level="REPEATABLE READ")
            with connection.begin():
                yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Give a connection that alone may write until it is done; all it did counts, or nothing.

        Raises BusyError where other writers do not finish, StorageError where it cannot be written.
        """
        with _explain(self.place, self.is_sqlite), self.engine.connect() as connection:
            alone = connection.execution_options(writes=True)
            with alone.begin():
                if not self.is_sqlite:
                    alone.execute(text(f"SELECT pg_advisory_xact_lock({_WRITERS_LOCK})"))
                yield alone


@contextmanager
def _explain(place: str, is_file: bool) -> Iterator[None]:
    """Turn errors of the database, and of values in it, into ours; our own pass."""
    try:
        yield
    except TokmigrateError:
        raise
    except ValueError as error:
        raise DriftError(
            f"a row of the state cannot be read: {error}",
            where=place,
            hint="`tokmigrate log --verify-chain` names the run; put a backup of the state in its place",
        ) from error
    except DBAPIError as error:
        cause = str(error.orig)
        if "database is locked" in cause or "lock timeout" in cause:
            raise BusyError(
                "another process writes to the state database and does not finish",
                where=place,
                hint="wait for it, or end it, then try again",
            ) from error
        raise StorageError(
            f"the state database cannot be used: {' '.join(cause.split())}",
            where=place,
            hint=_ON_DISK if is_file else _SERVER,
        ) from error
    except SQLAlchemyError as error:
        raise StorageError(
            f"the state database cannot be used: {error}",
            where=place,
            hint="check `state` in tokmigrate.yaml",
        ) from error

"""Opening the state database, and making it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy

from tokmigrate.errors import StorageError, UsageError
from tokmigrate.files import check_writable, exists, storage_errors
from tokmigrate.formats import STATE, check_version
from tokmigrate.settings.reading import SQLITE_FILE
from tokmigrate.state import ledger, schema

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection, Engine

    from tokmigrate.state.ledger import State

_WRITER_WAITS_MS = 30_000
_READER_WAITS_MS = 2_000
_VERSION = "schema_version"
_WORKSPACE = "workspace"
"""The key of the path from the folder of the database to the workspace; databases that lie in none have no such key."""


def open_state(url: str, workspace: Path | None = None) -> State:
    """Open the state database at a SQLAlchemy URL; it is made where it is not there yet.

    `workspace` is the folder of a relative SQLite path. Raises UsageError for a URL that cannot be meant, StorageError
    where the database cannot be made or read, FormatError where it has another schema than that of today.
    """
    state = _state(url, workspace, _WRITER_WAITS_MS)
    file = _file(state)
    if file is not None:
        with storage_errors("make the folder of the state database", file.parent):
            file.parent.mkdir(parents=True, exist_ok=True)
    held = _read_meta(state)
    if not held:
        with state.begin_write() as connection:
            # Another process may have made it meanwhile.
            held = _meta_in(connection)
            if not held:
                # No look at what is there: a table of the same name belongs to another application.
                schema.metadata.create_all(connection, checkfirst=False)
                held = {_VERSION: str(STATE.version)}
                path = _path_to_workspace(state)
                if path is not None:
                    held[_WORKSPACE] = path
                connection.execute(
                    sqlalchemy.insert(schema.meta), [{"key": key, "value": value} for key, value in held.items()]
                )
    return _check(state, held)


def open_state_if_present(url: str, workspace: Path | None = None) -> State | None:
    """Open the state database to read it, or return None where it was never made.

    It waits two seconds for another process, `open_state` thirty; else it raises what that raises.
    """
    if _lacks_file(url, workspace):
        return None
    state = _state(url, workspace, _READER_WAITS_MS)
    held = _read_meta(state)
    return _check(state, held) if held else None


@dataclass(frozen=True)
class StateAccess:
    """Which database the state is, and the version of its schema; None where the first upgrade will make it."""

    kind: str
    place: str
    version: int | None


def try_state(url: str, workspace: Path | None = None) -> StateAccess:
    """Return which state can be read and written; nothing is written.

    Raises what `open_state` raises, and StorageError where it may be read only.
    """
    state = _state(url, workspace, _READER_WAITS_MS)
    held = _read_meta(state)
    if held:
        _check(state, held)
    file = _file(state)
    if file is not None:
        # SQLite keeps its journal beside the file.
        check_writable(file.parent)
    if file is None or exists(file):
        with state.begin_write() as connection:
            if held and not state.is_sqlite:
                may_insert = sqlalchemy.func.has_table_privilege(schema.runs.name, "INSERT")
                if not connection.scalar(sqlalchemy.select(may_insert)):
                    raise StorageError(
                        "the state may be read only", where=state.place, hint="use a user that may write"
                    )
    return StateAccess("SQLite" if state.is_sqlite else "PostgreSQL", state.place, STATE.version if held else None)


def _lacks_file(url: str, workspace: Path | None) -> bool:
    """Return whether the state is a file of SQLite that is not there; SQLAlchemy is not loaded to say so."""
    match = SQLITE_FILE.fullmatch(url)
    if match is None or match[1] != "sqlite:///" or match[2] in ("", ":memory:") or match[2].startswith("file:"):
        return False
    return not exists((workspace or Path()) / match[2])


def _state(url: str, workspace: Path | None, timeout_ms: int) -> State:
    folder = (workspace or Path()).resolve()
    try:
        parsed = sqlalchemy.make_url(url)
        backend = parsed.get_backend_name()
        if backend == "sqlite":
            return ledger.State(_sqlite_engine(_absolute(parsed, folder), timeout_ms), folder)
        if backend == "postgresql":
            return ledger.State(sqlalchemy.create_engine(parsed, pool_pre_ping=True), folder)
    except ImportError as error:
        hint = 'pip install "tokmigrate[postgres]", or install the driver that the URL names'
        raise UsageError(f"the state database cannot be opened: {error}", where="state", hint=hint) from error
    except (sqlalchemy.exc.ArgumentError, sqlalchemy.exc.NoSuchModuleError) as error:
        hint = "write `sqlite:///.tokmigrate/state.db`, or a PostgreSQL URL whose driver is installed"
        raise UsageError(f"the state database cannot be opened: {error}", where="state", hint=hint) from error
    raise UsageError(f"the state cannot be kept in '{backend}'", where="state", hint="use a SQLite or a PostgreSQL URL")


def _absolute(url: URL, folder: Path) -> URL:
    if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
        raise sqlalchemy.exc.ArgumentError("a SQLite state needs the plain path of a file")
    return url.set(database=str(folder / url.database))


@lru_cache(maxsize=8)
def _sqlite_engine(url: URL, timeout_ms: int) -> Engine:
    """Return the engine of a database, the same one each time: it remembers the SQL of its statements."""
    # One connection for each transaction: nothing open is carried over a fork.
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)

    @sqlalchemy.event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver must not begin transactions of its own
        for pragma in (f"busy_timeout={timeout_ms}", "journal_mode=DELETE", "synchronous=EXTRA", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @sqlalchemy.event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("writes", False)
        # A state that was opened to be read is written as well where a tag goes.
        connection.exec_driver_sql(f"PRAGMA busy_timeout={_WRITER_WAITS_MS if writes else timeout_ms}")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _file(state: State) -> Path | None:
    database = state.engine.url.database
    return Path(database) if state.is_sqlite and database else None


def _path_to_workspace(state: State) -> str | None:
    """Return the path from the folder of the database to the workspace that it lies in, None where it lies in none."""
    file = _file(state)
    if file is None:
        return None
    # A folder that links elsewhere may be shared, and does not move with the workspace.
    folder, root = Path(os.path.realpath(file.parent)), Path(os.path.realpath(state.workspace))
    return os.path.relpath(root, folder) if folder.is_relative_to(root) else None


def _check(state: State, held: Mapping[str, str]) -> State:
    """Return the state with the workspace that it moves with, as was settled when it was made."""
    version = held.get(_VERSION)
    check_version(STATE, int(version) if version is not None and version.isdecimal() else version, state.place)
    file, path = _file(state), held.get(_WORKSPACE)
    if file is None or path is None:
        return state
    return replace(state, moves_with=Path(os.path.realpath(Path(os.path.realpath(file.parent)) / path)))


def _read_meta(state: State) -> dict[str, str]:
    file = _file(state)
    if file is not None and not exists(file):
        return {}
    with state.begin_read() as connection:
        return _meta_in(connection)


def _meta_in(connection: Connection) -> dict[str, str]:
    if not sqlalchemy.inspect(connection).has_table(schema.meta.name):
        return {}
    return {row.key: row.value for row in connection.execute(sqlalchemy.select(schema.meta))}

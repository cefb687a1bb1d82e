"""The tables of the state, and the types of their columns.

`runs`, `applied`, `token_events`, `token_moves` and `migration_texts` are the ledger: rows are only ever added. A row
of `runs` is fixed when the run ends, and then has its hash (see `tokmigrate.state.hash_chain`); `applied.reverted_by`
is set once. SQLite refuses anything else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, partial
from typing import Any

import sqlalchemy as sa
from sqlalchemy.types import TypeDecorator

from tokmigrate.state.rows import Status

# A token may hold NUL (PostgreSQL refuses it), a path half a surrogate pair (UTF-8 has none).
_UNSTORABLE = re.compile(r"[\\\x00\ud800-\udfff]")
_ESCAPED = re.compile(r"\\u([0-9a-f]{4})")
_TYPES = {int: "an integer", float: "a number", str: "a text"}
_BATCH = 1000

Stored = dict[str, Any]
"""The columns of a row, each as it is stored."""


class _Coded(TypeDecorator[Any]):
    """A value that is stored as text; None is NULL. `decode` raises ValueError for what `encode` never returns."""

    impl = sa.Text
    cache_ok = True

    def __init__(self, encode: Callable[[Any], str], decode: Callable[[str], Any]) -> None:
        super().__init__()
        self.encode = encode
        self.decode = decode

    def process_bind_param(self, value: Any, dialect: sa.Dialect) -> str | None:  # noqa: ARG002
        """Return what is stored for `value`."""
        return None if value is None else self.encode(value)

    def process_result_value(self, value: str | None, dialect: sa.Dialect) -> Any:  # noqa: ARG002
        """Return what `value` stands for."""
        return None if value is None else self.decode(value)


def canonical_json(value: Any) -> str:
    """Return `value` as the one JSON text that equal values share."""
    return _CANONICAL.encode(value)


# One for all: `json.dumps` makes a new one at each call.
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)


def _escape(text: str) -> str:
    return _UNSTORABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _unescape(stored: str) -> str:
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), stored)


def _read_json(is_shape: Callable[[Any], bool], shape: str, stored: str) -> Any:
    found = json.loads(stored)
    if not is_shape(found):
        raise ValueError(f"{stored[:40]!r} is not {shape}")
    return found


def _is_object(found: Any) -> bool:
    return isinstance(found, dict)


def _is_texts(found: Any) -> bool:
    return isinstance(found, list) and all(isinstance(each, str) for each in found)


def _is_text_by_name(found: Any) -> bool:
    return isinstance(found, dict) and _is_texts([*found.values()])


def _format_instant(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


# Any Python string; a backslash, NUL and a lone surrogate are stored as `\uXXXX`.
EXACT_TEXT = _Coded(_escape, _unescape)
# A moment in UTC as ISO 8601 text, which sorts by time.
INSTANT = _Coded(_format_instant, datetime.fromisoformat)
# JSON values as canonical text.
OBJECT = _Coded(canonical_json, partial(_read_json, _is_object, "an object"))
TEXTS = _Coded(canonical_json, partial(_read_json, _is_texts, "a list of texts"))
TEXT_BY_NAME = _Coded(canonical_json, partial(_read_json, _is_text_by_name, "an object of texts"))

metadata = sa.MetaData()

# `schema_version`, and, if the database is inside a workspace, the path to it: `workspace`.
meta = sa.Table(
    "meta",
    metadata,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)

models = sa.Table(
    "models",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", EXACT_TEXT, nullable=False),
    sa.Column("path", EXACT_TEXT, nullable=False, unique=True),
    sa.Column("lineage", sa.Text, nullable=False),
    sa.Column("created", INSTANT, nullable=False),
)

# The shards of a model that tokmigrate last read or wrote as a whole, each with what the filesystem said of it and its
# digest. Only a hint: a database without this table, or without a row, is as good.
known_files = sa.Table(
    "known_files",
    metadata,
    sa.Column("model_id", sa.ForeignKey("models.id"), primary_key=True),
    sa.Column("files", TEXT_BY_NAME, nullable=False),
)

runs = sa.Table(
    "runs",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("number", sa.Integer, nullable=False, unique=True),
    sa.Column("model_id", sa.ForeignKey("models.id"), nullable=False, index=True),
    sa.Column("direction", sa.Text, nullable=False),
    sa.Column("from_revision", sa.Text),
    sa.Column("to_revision", sa.Text),
    sa.Column("revisions", TEXTS, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("generation_before", sa.Text),
    sa.Column("generation_after", sa.Text),
    sa.Column("user_name", EXACT_TEXT, nullable=False),
    sa.Column("host", EXACT_TEXT, nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("tool_version", sa.Text, nullable=False),
    sa.Column("libraries", TEXT_BY_NAME, nullable=False),
    sa.Column("git_commit", sa.Text),
    sa.Column("started", INSTANT, nullable=False),
    sa.Column("finished", INSTANT),
    sa.Column("duration_s", sa.Float),
    sa.Column("error", EXACT_TEXT),
    # What finishing the run records, from PREPARED to its end.
    sa.Column("outcome", OBJECT),
    # Its place in the hash chain, from its end on.
    sa.Column("chain_position", sa.Integer, unique=True),
    sa.Column("previous_hash", sa.Text),
    sa.Column("hash", sa.Text),
)

# Written as literals: a partial index cannot hold bound parameters.
_active = runs.c.status.in_([sa.literal_column(f"'{status}'") for status in Status if status.active])
sa.Index("one_active_run", runs.c.model_id, unique=True, sqlite_where=_active, postgresql_where=_active)

applied = sa.Table(
    "applied",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("model_id", sa.ForeignKey("models.id"), nullable=False),
    sa.Column("run_id", sa.ForeignKey("runs.id"), nullable=False, index=True),
    sa.Column("origin", sa.Text, nullable=False),
    sa.Column("position", sa.Integer, nullable=False),
    sa.Column("revision", sa.Text, nullable=False),
    sa.Column("checksum", sa.Text, nullable=False),
    sa.Column("message", EXACT_TEXT, nullable=False),
    sa.Column("undo_record", sa.Text),
    sa.Column("digests_before", TEXT_BY_NAME, nullable=False),
    sa.Column("digests_after", TEXT_BY_NAME, nullable=False),
    sa.Column("applied_at", INSTANT, nullable=False),
    sa.Column("reverted_by", sa.ForeignKey("runs.id")),
)

_in_force = applied.c.reverted_by.is_(None)
for _name, _column in {"applied_once": applied.c.revision, "one_at_a_position": applied.c.position}.items():
    sa.Index(_name, applied.c.model_id, _column, unique=True, sqlite_where=_in_force, postgresql_where=_in_force)


def _events_table(name: str, *columns: sa.Column[Any]) -> sa.Table:
    return sa.Table(
        name,
        metadata,
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("model_id", sa.ForeignKey("models.id"), nullable=False, index=True),
        sa.Column("run_id", sa.ForeignKey("runs.id"), nullable=False, index=True),
        sa.Column("revision", sa.Text, nullable=False),
        sa.Column("event_type", sa.Text, nullable=False),
        *columns,
        sa.Column("recorded_at", INSTANT, nullable=False),
    )


token_events = _events_table(
    "token_events",
    sa.Column("token", EXACT_TEXT, nullable=False),
    sa.Column("token_id", sa.Integer),
    sa.Column("old_id", sa.Integer),
    sa.Column("old_token", EXACT_TEXT),
    sa.Column("init", OBJECT),
    sa.Column("row_fingerprint", sa.Text),
)

# The tokens that one migration moves as far, from their ids before: `start` up to, not including, `stop`.
token_moves = _events_table(
    "token_moves",
    sa.Column("start", sa.Integer, nullable=False),
    sa.Column("stop", sa.Integer, nullable=False),
    sa.Column("shift", sa.Integer, nullable=False),
    sa.Column("tokens", TEXTS, nullable=False),
    # The last number in `token_events` before it: the two tables are read in one order.
    sa.Column("after_event", sa.Integer, nullable=False),
)

tags = sa.Table(
    "tags",
    metadata,
    sa.Column("name", EXACT_TEXT, primary_key=True),
    sa.Column("revision", sa.Text, nullable=False),
)

# A ledger of another workspace as `log --export` writes it, the latest that was imported.
imported_ledgers = sa.Table(
    "imported_ledgers",
    metadata,
    sa.Column("ledger", sa.Text, primary_key=True),
    sa.Column("source", EXACT_TEXT, nullable=False),
    sa.Column("imported_by", EXACT_TEXT, nullable=False),
    sa.Column("imported_at", INSTANT, nullable=False),
    sa.Column("export", sa.Text, nullable=False),
)

migration_texts = sa.Table(
    "migration_texts",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("revision", sa.Text, nullable=False, index=True),
    sa.Column("checksum", sa.Text, nullable=False),
    sa.Column("file", EXACT_TEXT, nullable=False),
    sa.Column("text", EXACT_TEXT, nullable=False),
    sa.Column("attachments", TEXT_BY_NAME, nullable=False),
    sa.Column("recorded_at", INSTANT, nullable=False),
)

OF_RUNS = (applied, token_events, token_moves)
"""The tables whose rows belong to a run, and are vouched for by its hash."""

LEDGER = (runs, *OF_RUNS, migration_texts)


def _guard(table: sa.Table, name: str, occasion: str) -> None:
    """Let SQLite refuse an occasion that tokmigrate never causes."""
    sa.event.listen(
        table,
        "after_create",
        sa.DDL(  # type: ignore[no-untyped-call]
            f"CREATE TRIGGER {table.name}_{name} BEFORE {occasion} "
            "BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END"
        ).execute_if(dialect="sqlite"),
    )


for _table in LEDGER:
    _guard(_table, "kept", f"DELETE ON {_table.name}")
for _table in (*OF_RUNS, migration_texts):
    _fixed = ", ".join(column.name for column in _table.columns if column.name != "reverted_by")
    _guard(_table, "fixed", f"UPDATE OF {_fixed} ON {_table.name}")
_guard(runs, "fixed", "UPDATE ON runs WHEN OLD.hash IS NOT NULL")
_guard(applied, "reverted_once", "UPDATE OF reverted_by ON applied WHEN OLD.reverted_by IS NOT NULL")


def read_stored(
    connection: sa.Connection,
    table: sa.Table,
    *wanted: sa.ColumnElement[bool],
    order: sa.ColumnElement[Any] | None = None,
    limit: int | None = None,
) -> Iterator[Stored]:
    """Yield the rows of a table, each value as it is stored: one that cannot be read is found, and not raised.

    By default all rows are sorted by `number`, or else by the first column.
    """
    columns = list(table.columns)
    if order is None:
        order = table.columns["number"] if "number" in table.columns else columns[0]
    is_coded = {each.key: isinstance(each.type, TypeDecorator) for each in columns}
    raw = (sa.type_coerce(each, sa.Text()).label(each.key) if is_coded[each.key] else each for each in columns)
    query = sa.select(*raw).where(*wanted).order_by(order).limit(limit)
    names = table.columns.keys()
    for values in connection.execute(query, execution_options={"yield_per": _BATCH}):
        yield dict(zip(names, values, strict=True))


def read_highest(connection: sa.Connection, column: sa.Column[int]) -> int:
    """Return the highest number in a column, 0 without any."""
    # Text sorts behind all numbers. What else the last row holds does not matter.
    for row in read_stored(connection, column.table, column.is_not(None), order=column.desc(), limit=1):
        return int(_decode_value(_describe_column(column), row))
    return 0


def insert_stored(connection: sa.Connection, table: sa.Table, rows: Sequence[Stored]) -> None:
    """Add rows whose values are as they are stored."""
    if rows:
        as_stored = sa.Table(table.name, sa.MetaData(), *(sa.Column(each.name) for each in table.columns))
        connection.execute(sa.insert(as_stored), rows)


def decode(table: sa.Table, stored: Stored) -> dict[str, Any]:
    """Return the values that a stored row stands for; ValueError where a column holds what is never written into it."""
    return {column.name: _decode_value(column, stored) for column in _describe_columns(table)}


@dataclass(frozen=True)
class _Stored:
    """How the values of a column are stored: what SQLAlchemy works out at each question is asked once."""

    table: str
    key: str
    name: str
    nullable: bool
    wanted: type
    decode: Callable[[Any], Any] | None


@cache
def _describe_columns(table: sa.Table) -> tuple[_Stored, ...]:
    return tuple(map(_describe_column, table.columns))


def _describe_column(column: sa.Column[Any]) -> _Stored:
    kind = column.type
    return _Stored(
        column.table.name,
        next(iter(column.table.primary_key)).name,
        column.name,
        bool(column.nullable),
        kind.python_type if isinstance(kind, sa.Integer | sa.Float) else str,
        kind.decode if isinstance(kind, _Coded) else None,
    )


def _decode_value(column: _Stored, stored: Stored) -> Any:
    value = stored[column.name]
    if value is None and column.nullable:
        return None
    try:
        if type(value) is column.wanted:
            return column.decode(value) if column.decode else value
        fault = f"{value!r:.40} is not {_TYPES[column.wanted]}"
    except ValueError as error:
        fault = str(error)
    raise ValueError(f"{column.table}, row {stored[column.key]}, {column.name}: {fault}")

"""The tables of the state, and the types of their columns.

`runs`, `applied`, `token_events`, `token_moves` and `migration_texts` are the ledger: rows are only ever added. A row
of `runs` is fixed when the run ends, and then has its hash (see `tokmigrate.state.hash_chain`); `applied.reverted_by`
is set once. SQLite refuses anything else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Literal

from sqlalchemy import (
    DDL,
    Column,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    event,
    literal_column,
)
from sqlalchemy.types import TypeDecorator

from tokmigrate.state.rows import Status

# A token may hold NUL (PostgreSQL refuses it), a path half a surrogate pair (UTF-8 has none).
_UNSTORABLE = re.compile(r"[\\\x00\ud800-\udfff]")
_ESCAPED = re.compile(r"\\u([0-9a-f]{4})")


_SHAPES = {"texts": "a list of texts", "text by name": "an object of texts", "object": "an object"}


class ExactText(TypeDecorator[str]):
    r"""Any Python string; a backslash, NUL and a lone surrogate are stored as `\uXXXX`."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        """Return what is stored for `value`."""
        if value is None:
            return None
        return _UNSTORABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        """Return the string that `value` stands for."""
        if value is None:
            return None
        return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), value)


class CanonicalJson(TypeDecorator[Any]):
    """A JSON value as text: sorted keys, no spaces, ASCII only; None is NULL.

    Args:
        of: Whether the column holds a list of texts, an object of texts, or an object of any values.
    """

    impl = Text
    cache_ok = True

    def __init__(self, of: Literal["texts", "text by name", "object"]) -> None:
        super().__init__()
        self.of = of

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:  # noqa: ARG002
        """Return what is stored for `value`."""
        return None if value is None else canonical_json(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:  # noqa: ARG002
        """Return the JSON value that `value` stands for; raises ValueError where the column never holds such a one."""
        if value is None:
            return None
        found = json.loads(value)
        if not _is_shape(found, self.of):
            raise ValueError(f"{value[:40]!r} is not {_SHAPES[self.of]}")
        return found


def _is_shape(found: Any, of: str) -> bool:
    if of == "texts":
        return isinstance(found, list) and _are_texts(found)
    return isinstance(found, dict) and (of == "object" or _are_texts(found.values()))


def _are_texts(values: Iterable[Any]) -> bool:
    return all(isinstance(each, str) for each in values)


class Instant(TypeDecorator[datetime]):
    """A moment in UTC as ISO 8601 text with microseconds, which sorts by time."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        """Return what is stored for `value`, which must know its time zone."""
        return None if value is None else value.astimezone(UTC).isoformat(timespec="microseconds")

    def process_result_value(self, value: str | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Return the moment that `value` stands for."""
        return None if value is None else datetime.fromisoformat(value)


def canonical_json(value: Any) -> str:
    """Return `value` as the one JSON text that equal values share."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


metadata = MetaData()

# `schema_version`, and and, if the database is inside a workspace, the path to it: `workspace`.
meta = Table(
    "meta",
    metadata,
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
)

models = Table(
    "models",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", ExactText, nullable=False),
    Column("path", ExactText, nullable=False, unique=True),
    Column("lineage", Text, nullable=False),
    Column("created", Instant, nullable=False),
)

runs = Table(
    "runs",
    metadata,
    Column("id", Text, primary_key=True),
    Column("number", Integer, nullable=False, unique=True),
    Column("model_id", ForeignKey("models.id"), nullable=False, index=True),
    Column("direction", Text, nullable=False),
    Column("from_revision", Text),
    Column("to_revision", Text),
    Column("revisions", CanonicalJson("texts"), nullable=False),
    Column("status", Text, nullable=False),
    Column("generation_before", Text),
    Column("generation_after", Text),
    Column("user_name", ExactText, nullable=False),
    Column("host", ExactText, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("tool_version", Text, nullable=False),
    Column("libraries", CanonicalJson("text by name"), nullable=False),
    Column("git_commit", Text),
    Column("started", Instant, nullable=False),
    Column("finished", Instant),
    Column("duration_s", Float),
    Column("error", ExactText),
    # What finishing the run records, from PREPARED to its end.
    Column("outcome", CanonicalJson("object")),
    # Its place in the hash chain, from its end on.
    Column("chain_position", Integer, unique=True),
    Column("previous_hash", Text),
    Column("hash", Text),
)

# Written as literals: a partial index cannot hold bound parameters.
_active = runs.c.status.in_([literal_column(f"'{status}'") for status in Status if status.active])
Index(
    "one_active_run",
    runs.c.model_id,
    unique=True,
    sqlite_where=_active,
    postgresql_where=_active,
)

applied = Table(
    "applied",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("model_id", ForeignKey("models.id"), nullable=False),
    Column("run_id", ForeignKey("runs.id"), nullable=False, index=True),
    Column("origin", Text, nullable=False),
    Column("position", Integer, nullable=False),
    Column("revision", Text, nullable=False),
    Column("checksum", Text, nullable=False),
    Column("message", ExactText, nullable=False),
    Column("undo_record", Text),
    Column("digests_before", CanonicalJson("text by name"), nullable=False),
    Column("digests_after", CanonicalJson("text by name"), nullable=False),
    Column("applied_at", Instant, nullable=False),
    Column("reverted_by", ForeignKey("runs.id")),
)

_in_force = applied.c.reverted_by.is_(None)
Index(
    "applied_once",
    applied.c.model_id,
    applied.c.revision,
    unique=True,
    sqlite_where=_in_force,
    postgresql_where=_in_force,
)
Index(
    "one_at_a_position",
    applied.c.model_id,
    applied.c.position,
    unique=True,
    sqlite_where=_in_force,
    postgresql_where=_in_force,
)

token_events = Table(
    "token_events",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("model_id", ForeignKey("models.id"), nullable=False, index=True),
    Column("run_id", ForeignKey("runs.id"), nullable=False, index=True),
    Column("revision", Text, nullable=False),
    Column("event_type", Text, nullable=False),
    Column("token", ExactText, nullable=False),
    Column("token_id", Integer),
    Column("old_id", Integer),
    Column("old_token", ExactText),
    Column("init", CanonicalJson("object")),
    Column("row_fingerprint", Text),
    Column("recorded_at", Instant, nullable=False),
)

# The tokens that one migration moves as far, from their ids before: `start` up to, not including, `stop`.
token_moves = Table(
    "token_moves",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("model_id", ForeignKey("models.id"), nullable=False, index=True),
    Column("run_id", ForeignKey("runs.id"), nullable=False, index=True),
    Column("revision", Text, nullable=False),
    Column("event_type", Text, nullable=False),
    Column("start", Integer, nullable=False),
    Column("stop", Integer, nullable=False),
    Column("shift", Integer, nullable=False),
    Column("tokens", CanonicalJson("texts"), nullable=False),
    # The last number in `token_events` before it: the two tables are read in one order.
    Column("after_event", Integer, nullable=False),
    Column("recorded_at", Instant, nullable=False),
)

tags = Table(
    "tags",
    metadata,
    Column("name", ExactText, primary_key=True),
    Column("revision", Text, nullable=False),
)

# A ledger of another workspace as `log --export jsonl` writes it, the latest that was imported.
imported_ledgers = Table(
    "imported_ledgers",
    metadata,
    Column("ledger", Text, primary_key=True),
    Column("source", ExactText, nullable=False),
    Column("imported_by", ExactText, nullable=False),
    Column("imported_at", Instant, nullable=False),
    Column("export", Text, nullable=False),
)

migration_texts = Table(
    "migration_texts",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("revision", Text, nullable=False, index=True),
    Column("checksum", Text, nullable=False),
    Column("file", ExactText, nullable=False),
    Column("text", ExactText, nullable=False),
    Column("attachments", CanonicalJson("text by name"), nullable=False),
    Column("recorded_at", Instant, nullable=False),
)

OF_RUNS = (applied, token_events, token_moves)
"""The tables whose rows belong to a run, and are vouched for by its hash."""

LEDGER = (runs, *OF_RUNS, migration_texts)


def _guard(table: Table, name: str, occasion: str) -> None:
    """Let SQLite refuse an occasion that tokmigrate never causes."""
    event.listen(
        table,
        "after_create",
        DDL(  # type: ignore[no-untyped-call]
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

"""The tables of the state.

`applied`, `tokens`, `moves`, `imported`, `endings`, `identities` and `migration_texts` are the ledger: rows are only
ever added, `applied.reverted_by` is set once, and each row carries the hash of the one before it. `endings` vouches for
what is set later: the runs that ended, and what they took back; `identities` vouches for `models`. `chains` holds the
length and last hash of each, so that rows missing at the end are noticed.
"""

from __future__ import annotations

from sqlalchemy import (
    DDL,
    Column,
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

from tokmigrate.state.columns import CanonicalJson, ExactText, Instant
from tokmigrate.state.rows import Status

SCHEMA_VERSION = 1

metadata = MetaData()

meta = Table(
    "meta",
    metadata,
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
)

chains = Table(
    "chains",
    metadata,
    Column("name", Text, primary_key=True),
    Column("length", Integer, nullable=False),
    Column("head", Text, nullable=False),
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

operations = Table(
    "operations",
    metadata,
    Column("id", Text, primary_key=True),
    Column("number", Integer, nullable=False, unique=True),
    Column("model_id", ForeignKey("models.id"), nullable=False, index=True),
    Column("direction", Text, nullable=False),
    Column("from_revision", Text),
    Column("to_revision", Text),
    Column("revisions", CanonicalJson, nullable=False),
    Column("status", Text, nullable=False),
    Column("generation_before", Text),
    Column("generation_after", Text),
    Column("who", ExactText, nullable=False),
    Column("host", ExactText, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("tool_version", Text, nullable=False),
    Column("libraries", CanonicalJson, nullable=False),
    Column("git_commit", Text),
    Column("started", Instant, nullable=False),
    Column("finished", Instant),
    Column("duration_s", Float),
    Column("error", ExactText),
    Column("payload", CanonicalJson),
)

# Written as literals: a partial index cannot hold bound parameters.
_active = operations.c.status.in_([literal_column(f"'{status}'") for status in Status if status.active])
Index(
    "one_active_operation",
    operations.c.model_id,
    unique=True,
    sqlite_where=_active,
    postgresql_where=_active,
)

applied = Table(
    "applied",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("model_id", ForeignKey("models.id"), nullable=False),
    Column("operation_id", ForeignKey("operations.id"), nullable=False),
    Column("origin", Text, nullable=False),
    Column("position", Integer, nullable=False),
    Column("revision", Text, nullable=False),
    Column("checksum", Text, nullable=False),
    Column("message", ExactText, nullable=False),
    Column("undo", Text),
    Column("digests_before", CanonicalJson, nullable=False),
    Column("digests_after", CanonicalJson, nullable=False),
    Column("applied_at", Instant, nullable=False),
    Column("reverted_by", ForeignKey("operations.id")),
    Column("previous_hash", Text, nullable=False),
    Column("hash", Text, nullable=False),
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

tokens = Table(
    "tokens",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("model_id", ForeignKey("models.id"), nullable=False, index=True),
    Column("operation_id", ForeignKey("operations.id"), nullable=False),
    Column("revision", Text, nullable=False),
    Column("event", Text, nullable=False),
    Column("token", ExactText, nullable=False),
    Column("token_id", Integer),
    Column("old_id", Integer),
    Column("old_token", ExactText),
    Column("init", CanonicalJson),
    Column("row_digest", Text),
    Column("recorded_at", Instant, nullable=False),
    Column("previous_hash", Text, nullable=False),
    Column("hash", Text, nullable=False),
)

# The tokens that one migration moves as far, from their ids before: `start` up to, not including, `stop`.
moves = Table(
    "moves",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("model_id", ForeignKey("models.id"), nullable=False, index=True),
    Column("operation_id", ForeignKey("operations.id"), nullable=False),
    Column("revision", Text, nullable=False),
    Column("event", Text, nullable=False),
    Column("start", Integer, nullable=False),
    Column("stop", Integer, nullable=False),
    Column("shift", Integer, nullable=False),
    Column("texts", CanonicalJson, nullable=False),
    # How many rows `tokens` had before it: the two tables are told in one order.
    Column("after_token", Integer, nullable=False),
    Column("recorded_at", Instant, nullable=False),
    Column("previous_hash", Text, nullable=False),
    Column("hash", Text, nullable=False),
)

tags = Table(
    "tags",
    metadata,
    Column("name", ExactText, primary_key=True),
    Column("revision", Text, nullable=False),
)

# A row of another ledger is kept as it is stored there; one that changed there is kept again, and the last counts.
imported = Table(
    "imported",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("ledger", Text, nullable=False, index=True),
    Column("table_name", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("content", CanonicalJson, nullable=False),
    Column("source", ExactText, nullable=False),
    Column("imported_by", ExactText, nullable=False),
    Column("imported_at", Instant, nullable=False),
    Column("previous_hash", Text, nullable=False),
    Column("hash", Text, nullable=False),
)

endings = Table(
    "endings",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("operation_id", ForeignKey("operations.id"), nullable=False, unique=True),
    Column("digest", Text, nullable=False),
    Column("reverted", CanonicalJson, nullable=False),
    Column("previous_hash", Text, nullable=False),
    Column("hash", Text, nullable=False),
)

identities = Table(
    "identities",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("model_id", ForeignKey("models.id"), nullable=False, index=True),
    Column("name", ExactText, nullable=False),
    Column("path", ExactText, nullable=False),
    Column("lineage", Text, nullable=False),
    Column("created", Instant, nullable=False),
    Column("recorded_at", Instant, nullable=False),
    Column("previous_hash", Text, nullable=False),
    Column("hash", Text, nullable=False),
)

migration_texts = Table(
    "migration_texts",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("revision", Text, nullable=False, index=True),
    Column("checksum", Text, nullable=False),
    Column("file", ExactText, nullable=False),
    Column("text", ExactText, nullable=False),
    Column("attachments", CanonicalJson, nullable=False),
    Column("recorded_at", Instant, nullable=False),
    Column("previous_hash", Text, nullable=False),
    Column("hash", Text, nullable=False),
)

LEDGER = (applied, tokens, moves, imported, endings, identities, migration_texts)
LATER = (moves, imported, endings, identities, migration_texts)
"""The tables that older databases lack; they are made when such a one is opened to be written."""

SET_ONCE = {"reverted_by"}


def _guard(table: Table, name: str, occasion: str) -> None:
    """Let SQLite refuse an occasion that no program of ours brings about."""
    event.listen(
        table,
        "after_create",
        DDL(  # type: ignore[no-untyped-call]
            f"CREATE TRIGGER {table.name}_{name} BEFORE {occasion} "
            "BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END"
        ).execute_if(dialect="sqlite"),
    )


for _table in LEDGER:
    _fixed = ", ".join(column.name for column in _table.columns if column.name not in SET_ONCE)
    _guard(_table, "kept", f"DELETE ON {_table.name}")
    _guard(_table, "fixed", f"UPDATE OF {_fixed} ON {_table.name}")
_guard(applied, "reverted_once", "UPDATE OF reverted_by ON applied WHEN OLD.reverted_by IS NOT NULL")

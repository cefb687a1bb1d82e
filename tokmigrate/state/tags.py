"""Names that are given to revisions. They are no part of the ledger: a tag may be moved, and be taken away."""

from __future__ import annotations

from sqlalchemy import Connection, delete, insert, select, update

from tokmigrate.state.schema import tags


def set_tag_in(connection: Connection, name: str, revision: str) -> str | None:
    """Let a tag stand for a revision, and return the one that it stood for, None where it is new."""
    before = _stands_for(connection, name)
    if before is None:
        connection.execute(insert(tags).values(name=name, revision=revision))
    else:
        connection.execute(update(tags).where(tags.c.name == name).values(revision=revision))
    return before


def delete_tag_in(connection: Connection, name: str) -> str | None:
    """Take a tag away, and return the revision that it stood for, None where there is none of this name."""
    before = _stands_for(connection, name)
    connection.execute(delete(tags).where(tags.c.name == name))
    return before


def _stands_for(connection: Connection, name: str) -> str | None:
    return connection.execute(select(tags.c.revision).where(tags.c.name == name)).scalar()

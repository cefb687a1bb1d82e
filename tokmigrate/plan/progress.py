"""Which migrations a model has, which it lacks, and which were edited since it got them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tokmigrate.errors import DriftError, UsageError, suggest
from tokmigrate.formatting import format_list
from tokmigrate.model.snapshot import Snapshot
from tokmigrate.revision.migration import Migration


@dataclass(frozen=True)
class Progress:
    """How far a model is along a chain of migrations.

    Args:
        chain: The migrations for the model, from the first on.
        applied: Those that it has; a squashed one stands for all that it replaces.
        edited: Those of them whose files hold something else than was applied.
    """

    chain: tuple[Migration, ...]
    applied: tuple[Migration, ...]
    edited: tuple[Migration, ...]

    @property
    def pending(self) -> tuple[Migration, ...]:
        """The migrations that the model lacks."""
        applied = {migration.revision for migration in self.applied}
        return tuple(migration for migration in self.chain if migration.revision not in applied)

    def check_order(self) -> None:
        """Raise DriftError where a migration that the model lacks stands before one that it has."""
        for migration, found in zip(self.chain, self.applied, strict=False):
            if migration != found:
                raise DriftError(
                    f"migration {migration.revision} precedes migrations that the model has",
                    where=migration.shown,
                    hint="let its `models:` leave this model out, and write a new migration of it after the head",
                )

    def refuse_pending(self, model: str) -> None:
        """Raise UsageError where a model whose rows are to be learned as it is lacks migrations."""
        if self.pending:
            names = format_list([migration.revision for migration in self.pending])
            hint = "`tokmigrate upgrade` applies it: rows that are learned come after it"
            raise UsageError(f"migrations are pending: {names}", where=model, hint=hint)


def compute_progress(snapshot: Snapshot, chain: Sequence[Migration]) -> Progress:
    """Return how far a model is along a chain of migrations.

    Raises DriftError where the model has a revision that is not among them, or is in the middle of a squashed one.
    """
    known = {migration.revision: migration for migration in chain}
    squashed = {migration.replaces[0].revision: migration for migration in chain if migration.replaces}
    applied: list[Migration] = []
    edited: list[Migration] = []
    left = list(snapshot.applied)
    while left:
        revision, checksum = left.pop(0)
        migration = squashed.get(revision)
        if migration is not None and checksum == migration.replaces[0].checksum:
            _take_replaced(snapshot, migration, left)
            applied.append(migration)
            continue
        migration = known.get(revision)
        if migration is None:
            raise DriftError(
                f"the model has revision {revision}, which is not among the migrations",
                where=str(snapshot.directory),
                hint=suggest(revision, known)
                or f"`tokmigrate restore {revision}` puts its file back where it was applied here; or fetch its branch",
            )
        applied.append(migration)
        if migration.checksum != checksum:
            edited.append(migration)
    return Progress(tuple(chain), tuple(applied), tuple(edited))


def edited_revisions(snapshot: Snapshot, migrations: Iterable[Migration]) -> frozenset[str]:
    """Return the revisions of a model whose files hold something else than was applied; files may be missing."""
    # A squashed migration has the id of the last one that it replaces.
    checksums = {each.revision: {each.checksum, *(old.checksum for old in each.replaces)} for each in migrations}
    return frozenset(revision for revision, own in snapshot.applied if own not in checksums.get(revision, {own}))


def _take_replaced(snapshot: Snapshot, migration: Migration, left: list[tuple[str, str]]) -> None:
    """Take the revisions after the first of those that `migration` replaces off what is left of a model's."""
    where = str(snapshot.directory)
    last = migration.replaces[0].revision
    for replaced in migration.replaces[1:]:
        if not left or left[0][0] != replaced.revision:
            raise DriftError(
                f"the model is at {last}, in the middle of what {migration.shown} replaces",
                where=where,
                hint="with the migrations as they were before the squash, "
                f"`tokmigrate upgrade {migration.revision}` or go down to {migration.down_revision or 'base'}; "
                "then come back to these",
            )
        if left[0][1] != replaced.checksum:
            raise DriftError(
                f"the model has another {replaced.revision} than the one that {migration.shown} replaces",
                where=where,
                hint="use the migrations that it was upgraded with",
            )
        last, _ = left.pop(0)


def check_progress(snapshot: Snapshot, chain: Sequence[Migration]) -> Progress:
    """Return how far a model is, as `compute_progress` does; raises DriftError also where a migration was edited."""
    progress = compute_progress(snapshot, chain)
    if progress.edited:
        migration = progress.edited[0]
        raise DriftError(
            f"migration {migration.revision} was edited after it was applied",
            where=migration.shown,
            hint=f"`tokmigrate show {migration.revision}` shows what was changed, and "
            f"`tokmigrate restore {migration.revision}` puts it back, where it was applied here; "
            "say what you want in a new migration",
        )
    return progress

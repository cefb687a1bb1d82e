"""All migrations of a workspace and how they follow each other."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from tokmigrate.errors import (
    FileProblems,
    HistoryError,
    Problem,
    RecoveryNeededError,
    StorageError,
    UnknownNameError,
    suggest,
)
from tokmigrate.files import entries, exists, has_directory, has_file
from tokmigrate.revision.migration import Migration
from tokmigrate.revision.names import resolve
from tokmigrate.revision.python_file import python_migration
from tokmigrate.revision.yaml_file import yaml_migration
from tokmigrate.settings import FILE_NAME, ModelEntry, Workspace
from tokmigrate.strict_yaml.reading import read_bytes

Files = Mapping[Path, bytes | None]
"""The bytes of files of one directory after a change, None for a removed one."""


def journal_path(workspace: Workspace) -> Path:
    """Return the file that is there while several files of the migrations are being written."""
    return workspace.root / ".tokmigrate" / "migrations.journal"


def refuse_unfinished(workspace: Workspace) -> None:
    """Raise RecoveryNeededError where a command was interrupted while it wrote files of the migrations."""
    if exists(journal_path(workspace)):
        raise RecoveryNeededError(
            "a command was interrupted while it wrote the migrations, and some of them are as before, some as after",
            where=str(workspace.migrations),
            hint="run `tokmigrate recover`, which finishes it",
        )


def refuse_taken(path: Path, files: Files) -> None:
    """Raise StorageError where a new file would take the place of one that is not among `files`."""
    if path not in files and exists(path):
        raise StorageError("a file with this name exists already", where=str(path), hint="rename it first")


_KINDS = {".yaml": yaml_migration, ".yml": yaml_migration, ".py": python_migration}


@dataclass(frozen=True)
class History:
    """Migrations that hold together: one base, no cycle, no id twice; but maybe several heads.

    They are in the order of their file names; `models` are those of the workspace.
    """

    migrations: tuple[Migration, ...]
    directory: Path
    models: tuple[str, ...] = ()

    @staticmethod
    def read(workspace: Workspace) -> History:
        """Return the history in the migrations directory, without files whose names begin with `_` or `.`.

        Raises FileProblems with all that is wrong in all files, HistoryError where they do not hold together, and
        RecoveryNeededError where a command was interrupted while it wrote them.
        """
        history = History.of(_read_migrations(workspace, {}), workspace.migrations)
        return replace(history, models=tuple(workspace.models))

    @staticmethod
    def read_with(workspace: Workspace, files: Files) -> History:
        """Return the history once these files are written, which they are not yet, with as many bases as there are."""
        return History._of_branches(_read_migrations(workspace, files), workspace.migrations)

    @staticmethod
    def read_files(workspace: Workspace) -> tuple[Migration, ...]:
        """Return the migrations of all files, also of those that do not hold together; raises FileProblems."""
        return tuple(_read_migrations(workspace, {}))

    @staticmethod
    def of(migrations: list[Migration], directory: Path) -> History:
        """Return the history of these migrations; raises HistoryError where they do not hold together."""
        history = History._of_branches(migrations, directory)
        _refuse_several_bases(history)
        return history

    @staticmethod
    def _of_branches(migrations: list[Migration], directory: Path) -> History:
        history = History(tuple(sorted(migrations, key=lambda each: each.path.name)), directory)
        _refuse_duplicates(history)
        _refuse_strangers(history)
        _refuse_cycles(history)
        return history

    @cached_property
    def by_revision(self) -> Mapping[str, Migration]:
        return {migration.revision: migration for migration in self.migrations}

    @property
    def base(self) -> Migration | None:
        return next((each for each in self.migrations if each.down_revision is None), None)

    @property
    def heads(self) -> tuple[Migration, ...]:
        """The migrations that none follows, in the order of their file names."""
        followed = {migration.down_revision for migration in self.migrations}
        return tuple(each for each in self.migrations if each.revision not in followed)

    def order(self) -> tuple[Migration, ...]:
        """Return all migrations, each after the one that it follows; branches by file name."""
        after: defaultdict[str | None, list[Migration]] = defaultdict(list)
        for migration in self.migrations:
            after[migration.down_revision].append(migration)
        ordered: list[Migration] = []
        waiting = after[None][::-1]
        while waiting:
            ordered.append(waiting.pop())
            waiting += after[ordered[-1].revision][::-1]
        return tuple(ordered)

    def chain(self) -> tuple[Migration, ...]:
        """Return the migrations from base to head; raises HistoryError where there are several heads."""
        heads = self.heads
        if len(heads) > 1:
            names = " and ".join(f"{each.revision} ({each.shown})" for each in heads)
            raise HistoryError(
                f"the history has {len(heads)} heads: {names}",
                where=heads[-1].shown,
                hint="`tokmigrate rebase` puts the one that no model has yet after the other, by its down_revision",
            )
        return self.lineage(heads[0].revision) if heads else ()

    def chain_for(self, entry: ModelEntry) -> tuple[Migration, ...]:
        """Return the migrations of the chain that are for a model."""
        return tuple(migration for migration in self.chain() if migration.applies_to(entry))

    def lineage(self, revision: str | None) -> tuple[Migration, ...]:
        """Return the migrations from base to `revision`, both included; none for base itself (None)."""
        line: list[Migration] = []
        while revision is not None:
            line.append(self.get(revision))
            revision = line[-1].down_revision
        return tuple(reversed(line))

    def get(self, revision: str) -> Migration:
        """Return the migration with this id; raises UnknownNameError where there is none."""
        try:
            return self.by_revision[revision]
        except KeyError:
            raise UnknownNameError(
                f"no migration file has the revision '{revision}'",
                where=str(self.directory),
                hint=suggest(revision, self.by_revision) or "is its file missing? fetch it, or switch the branch",
            ) from None

    def resolve(
        self, name: str, current: str | None = None, tags: Mapping[str, str | None] | None = None
    ) -> str | None:
        """Return the id of the revision that `name` means, None for base; see `naming.resolve`."""
        return resolve(name, self.migrations, self.chain, current, tags or {}, self.models)


def _read_migrations(workspace: Workspace, files: Files) -> list[Migration]:
    refuse_unfinished(workspace)
    migrations: list[Migration] = []
    problems: list[Problem] = []
    folder = os.path.relpath(workspace.migrations, workspace.root)
    for path in sorted({*migration_files(workspace), *filter(is_migration, files)}, key=str):
        shown = os.path.normpath(os.path.join(folder, path.name))  # noqa: PTH118 - a text, quicker than a path
        if path not in files and not has_file(path):
            problems.append(_no_file(path, shown))
            continue
        try:
            data = files[path] if path in files else read_bytes(path, shown)
            if data is not None:
                migrations.append(_KINDS[path.suffix](data, path, shown, workspace.root))
        except FileProblems as error:
            problems += error.problems
    if problems:
        raise FileProblems(problems)
    return migrations


def read_migration(workspace: Workspace, path: Path) -> Migration:
    """Return the migration of one file, whatever the others hold; raises FileProblems where it is wrong."""
    shown = os.path.relpath(path, workspace.root)
    return _KINDS[path.suffix](read_bytes(path, shown), path, shown, workspace.root)


def _no_file(path: Path, shown: str) -> Problem:
    if has_directory(path):
        return Problem(shown, 1, 1, "a folder, and no migration file", "let its name begin with _")
    if path.is_symlink():
        return Problem(shown, 1, 1, "a dangling link", "fix or remove it")
    return Problem(shown, 1, 1, "neither a file nor a link to one", "remove it")


def migration_files(workspace: Workspace) -> tuple[Path, ...]:
    """Return all that is named like a migration file in the migrations directory, by name; raises FileProblems."""
    directory = workspace.migrations
    if not has_directory(directory):
        raise FileProblems([_no_directory(workspace)])
    return tuple(path for path in entries(directory) if is_migration(path))


def _no_directory(workspace: Workspace) -> Problem:
    what = "is a file" if exists(workspace.migrations) else "does not exist"
    line, column = workspace.migrations_at or (1, 1)
    hint = "correct the path, or make the folder"
    return Problem(
        str(workspace.root / FILE_NAME),
        line,
        column,
        f"the folder of the migrations {what}: {workspace.migrations}",
        hint if workspace.migrations_at else "create it, or correct `migrations:`",
    )


def is_migration(path: Path) -> bool:
    """Return whether a file is named like a migration."""
    return path.suffix in _KINDS and not path.name.startswith(("_", "."))


def _refuse_duplicates(history: History) -> None:
    files: defaultdict[str, list[str]] = defaultdict(list)
    for migration in history.migrations:
        files[migration.revision].append(migration.shown)
    twice = [f"'{revision}' by {' and '.join(names)}" for revision, names in files.items() if len(names) > 1]
    if twice:
        hint = "give a copied file an id of its own: 'tokmigrate revision' makes one"
        raise HistoryError("a revision id is used twice: " + "; ".join(twice), hint=hint)


def _refuse_strangers(history: History) -> None:
    known = history.by_revision
    lost = [each for each in history.migrations if each.down_revision is not None and each.down_revision not in known]
    if lost:
        strays = "; ".join(f"{each.shown} follows '{each.down_revision}'" for each in lost)
        followed = str(lost[0].down_revision)
        squashed = {old.revision: each for each in history.migrations for old in each.replaces}
        if followed in squashed:
            into = squashed[followed]
            hint = f"it was squashed into {into.shown}: write 'down_revision: {into.revision}'"
        else:
            hint = suggest(followed, known) or (
                "is a file missing? fetch it, or switch the branch; "
                f"one that was applied here is put back by `tokmigrate restore {followed}`"
            )
        raise HistoryError(f"no file has the revision that is followed: {strays}", where=lost[0].shown, hint=hint)


def _refuse_several_bases(history: History) -> None:
    bases = [migration for migration in history.migrations if migration.down_revision is None]
    if len(bases) > 1:
        names = " and ".join(f"{each.shown} ({each.revision})" for each in bases)
        raise HistoryError(
            f"{len(bases)} migrations follow nothing: {names}",
            where=bases[1].shown,
            hint="only the first migration has no down_revision; `tokmigrate rebase` lets the others follow it",
        )


def _refuse_cycles(history: History) -> None:
    reached = {migration.revision for migration in history.order()}
    circling = [migration for migration in history.migrations if migration.revision not in reached]
    if circling:
        # Branches off a cycle are unreachable too; walking down far enough ends on the cycle itself.
        current = circling[0]
        for _ in circling:
            current = history.by_revision[str(current.down_revision)]
        cycle = [current]
        while cycle[-1].down_revision != current.revision:
            cycle.append(history.by_revision[str(cycle[-1].down_revision)])
        names = ", ".join(sorted(each.shown for each in cycle))
        raise HistoryError(
            f"these migrations follow each other in a circle: {names}",
            where=min(each.shown for each in cycle),
            hint="correct the down_revision of one of them",
        )

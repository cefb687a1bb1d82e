"""Migrations as they were applied: the ledger keeps their text, so an edited or deleted file can be put back."""

from __future__ import annotations

import difflib
import itertools
import os
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3

from tokmigrate.apply.durable import write_durably
from tokmigrate.audit.ledger_check import refuse_edited_text
from tokmigrate.commands.file_transaction import write_files
from tokmigrate.commands.tag import list_tags
from tokmigrate.errors import (
    DriftError,
    FileProblems,
    TokmigrateError,
    UndoError,
    UnknownNameError,
    UsageError,
    suggest,
)
from tokmigrate.files import read_if_present, storage_errors
from tokmigrate.model.documents.stamp import read_stamp
from tokmigrate.revision.history import History, migration_files, read_migration, refuse_unfinished
from tokmigrate.revision.migration import Migration
from tokmigrate.revision.names import RecordedName, resolve
from tokmigrate.revision.yaml_file import attachment_path
from tokmigrate.settings import Workspace
from tokmigrate.state.database import open_state_if_present
from tokmigrate.state.ledger import State
from tokmigrate.state.objects import ObjectStore
from tokmigrate.state.rows import MigrationText

LARGEST_KEPT = 16 << 20
"""The bytes of an attachment up to which it is kept; of a larger one the digest is."""


@dataclass(frozen=True)
class Restored:
    """A migration that was put back: the diff, the attachments that differed, and where the edited file is."""

    revision: str
    file: Path
    diff: tuple[str, ...]
    attachments: tuple[Path, ...]
    kept_as: Path | None = None


def record_texts(workspace: Workspace, state: State, wanted: Iterable[tuple[str, str]]) -> None:
    """Record the texts and attachments of migrations, named by revision and checksum, that are not on record yet.

    Those of edited files are left out.
    """
    missing = set(wanted) - state.texts_on_record()
    if not missing:
        return
    objects = ObjectStore(workspace.objects)
    texts: list[MigrationText] = []
    for migration in History.read(workspace).migrations:
        if (migration.revision, migration.checksum) in missing:
            for data in migration.attachments.values():
                if len(data) <= LARGEST_KEPT:
                    objects.put(data)
            digests = {name: blake3(data).hexdigest() for name, data in migration.attachments.items()}
            text = migration.data.decode("utf-8")
            texts.append(MigrationText(migration.revision, migration.checksum, migration.path.name, text, digests))
    state.keep_migration_texts(texts)


def diff_since_applied(workspace: Workspace, migration: Migration) -> tuple[str, ...]:
    """Return the lines in which a migration differs from what models have, as far as that is on record."""
    in_force = _list_checksums(workspace, migration.revision)
    if migration.replaces or not in_force or migration.checksum in in_force:
        return ()
    texts = _read_texts(workspace, migration.revision)
    return _diff(_choose_applied(texts, in_force), migration.shown, migration.data) if texts else ()


def restore(workspace: Workspace, name: str) -> Restored:
    """Put a migration back as it was applied, with its attachments; an edited file is kept beside it.

    The file need not hold together: it is found by its revision, or by the name that it had.

    Raises:
        UnknownNameError: No text of that name is on record.
        UsageError: It was squashed, or another migration has its file.
        UndoError: An attachment was too large to be kept, or was lost, and is not there as it was.
        DriftError: The text was edited in the ledger.
    """
    refuse_unfinished(workspace)
    text = _find_text(workspace, name)
    path = _find_place(workspace, text)
    now, then = read_if_present(path), text.text.encode("utf-8")
    recorded = dict(_read_attachments(workspace, text, path))
    refuse_edited_text(text, {name: data for name, (_, data) in recorded.items()})
    attachments = {target: data for target, data in recorded.values() if read_if_present(target) != data}
    diff = () if now == then else _diff(text, os.path.relpath(path, workspace.root), now or b"")
    kept: dict[Path, bytes] = {}
    if diff and now is not None:
        # A name that no file has, and that no command takes for a migration.
        names = (path.with_name(f"{path.name}.edited{number or ''}") for number in itertools.count())
        kept[next(free for free in names if not free.exists())] = now
    for target, data in (*kept.items(), *attachments.items()):
        with storage_errors("make the directory", target.parent):
            target.parent.mkdir(parents=True, exist_ok=True)
        write_durably(target, data)
    write_files(workspace, {path: then})
    return Restored(text.revision, path, diff, tuple(attachments), next(iter(kept), None))


def _list_checksums(workspace: Workspace, revision: str) -> frozenset[str]:
    found: set[str] = set()
    for entry in workspace.models.values():
        # `check` tells what is wrong with a stamp.
        with suppress(TokmigrateError):
            stamp = read_stamp(entry.path)
            found.update(checksum for name, checksum in (stamp.applied if stamp else ()) if name == revision)
    return frozenset(found)


def _read_texts(workspace: Workspace, revision: str | None = None) -> tuple[MigrationText, ...]:
    state = open_state_if_present(workspace.state, workspace.root)
    return state.migration_texts(revision) if state else ()


def _choose_applied(texts: Sequence[MigrationText], in_force: Collection[str]) -> MigrationText:
    """Return the text of a migration that the models have, the latest where they have none of them."""
    return next((text for text in reversed(texts) if text.checksum in in_force), texts[-1])


def _find_text(workspace: Workspace, name: str) -> MigrationText:
    texts = _read_texts(workspace)
    files = {text.revision: text.file for text in texts}
    names = [RecordedName(revision, file) for revision, file in files.items()]
    try:
        revision = resolve(name, names, lambda: names, None, list_tags(workspace))
    except UnknownNameError as error:
        hint = suggest(name, files) or "take the file from Git, or run this in the workspace where it was applied"
        raise UnknownNameError(f"no text is on record here of what was applied: {error.message}", hint=hint) from error
    if revision is None:
        raise UsageError(f"'{name}' has no file", hint="name a revision: `tokmigrate history` lists them")
    own = [text for text in texts if text.revision == revision]
    return _choose_applied(own, _list_checksums(workspace, revision))


def _find_place(workspace: Workspace, text: MigrationText) -> Path:
    """Return the file that a migration belongs into: the one that has its revision, else the one that it had."""
    recorded = workspace.migrations / Path(text.file).name
    own = re.compile(rf"^\{{?\s*[\"']?revision[\"']?\s*[:=]\s*[\"']?{text.revision}\b", re.MULTILINE)
    place: Path | None = None
    for path in migration_files(workspace):
        try:
            migration = read_migration(workspace, path)
        except FileProblems:
            data = (read_if_present(path) or b"").decode("utf-8", "replace")
            if place is None and (own.search(data) or path == recorded):
                place = path
            continue
        if any(replaced.revision == text.revision for replaced in migration.replaces):
            message = f"{text.revision} was squashed into {migration.shown}, and models that have it need no other file"
            hint = "if that file was edited, take it from Git"
            raise UsageError(message, where=migration.shown, hint=hint)
        if migration.revision == text.revision:
            place = path
        elif path == recorded and place is None:
            message = f"the file that {text.revision} had belongs to {migration.revision} now"
            hint = "rename that file first"
            raise UsageError(message, where=migration.shown, hint=hint)
    return place or recorded


def _read_attachments(
    workspace: Workspace, text: MigrationText, path: Path
) -> Iterator[tuple[str, tuple[Path, bytes]]]:
    """Yield the attachments of a migration by name, each with its path and what it held when it was applied."""
    objects = ObjectStore(workspace.objects)
    for name, digest in text.attachments.items():
        target = attachment_path(path, name, workspace.root)
        if target is None:
            hint = "restore the migration and that file from Git or a backup"
            where = f"the text of {text.revision} on record"
            raise DriftError(f"'{name}' is outside the workspace", where=where, hint=hint)
        data = read_if_present(target)
        if data is None or blake3(data).hexdigest() != digest:
            if not objects.has(digest):
                raise UndoError(
                    f"{text.revision} needs this file as it was, and it is not kept: it was larger than "
                    f"{LARGEST_KEPT >> 20} MiB, or .tokmigrate/objects is lost",
                    where=str(target),
                    hint=f"put it back from a backup first: its BLAKE3 digest is {digest}",
                )
            data = objects.get(digest)
        yield name, (target, data)


def _diff(text: MigrationText, shown: str, now: bytes) -> tuple[str, ...]:
    lines: Sequence[str] = now.decode("utf-8", "replace").splitlines()
    found = difflib.unified_diff(text.text.splitlines(), lines, f"{text.file} as it was applied", shown, lineterm="")
    # Line ends alone are a difference too.
    return tuple(found) or ("only line ends differ",)

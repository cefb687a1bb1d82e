"""One migration in place of several: its text, and what the lock pins for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import yaml

from tokmigrate.errors import HistoryError
from tokmigrate.revision.lock_file import Lock, LockTrack, PinnedIds, build_locked
from tokmigrate.revision.migration import Migration, Replaced
from tokmigrate.revision.new_file import dump_written_fields, format_header


def squash_migrations(migrations: Sequence[Migration], message: str, path: Path, shown: str) -> Migration:
    """Return one migration that does what several do, without its checksum.

    It has the id of the last one, since it leads to the same state. The preconditions are those of the first: what
    the others ask is about states that no model is in any more. All checks are kept, as one run of all makes them.

    Raises HistoryError where one of them cannot become part of another.
    """
    first, last = migrations[0], migrations[-1]
    for each in migrations:
        reasons = {
            "what a Python migration does is known only for a given model": each.source is not None,
            "others were squashed into it already": bool(each.replaces),
            f"it is for other models than {first.revision}": set(each.models) != set(first.models),
        }
        reason = next((reason for reason, holds in reasons.items() if holds), None)
        if reason:
            raise HistoryError(f"{each.revision} cannot be squashed: {reason}", where=each.shown, hint="leave it out")
    replaces = [
        Replaced(revision=each.revision, checksum=each.checksum, operations=len(each.operations), init=each.init)
        for each in migrations
    ]
    operations = [
        replace(planned, origin=origin)
        for each, origin in zip(migrations, replaces, strict=True)
        for planned in each.operations
    ]
    return Migration(
        revision=last.revision,
        down_revision=first.down_revision,
        message=message,
        author=None,
        models=first.models,
        init=None,
        preconditions=first.preconditions,
        checks=tuple(dict.fromkeys(check for each in migrations for check in each.checks)),
        path=path,
        shown=shown,
        number=last.number,
        checksum="",
        operations=tuple(operations),
        attachments={name: held for each in migrations for name, held in each.attachments.items()},
        replaces=tuple(replaces),
    )


def format_squashed(migration: Migration) -> str:
    """Return the text of a squashed migration."""
    head = format_header(migration.revision, migration.down_revision, migration.message, migration.models)
    replaces = [each.model_dump(mode="json", exclude_defaults=True) for each in migration.replaces]
    operations = (planned.operation for planned in migration.operations)
    body = {
        "replaces": replaces,
        "preconditions": [each.as_written() for each in migration.preconditions],
        "operations": [{each.name: dump_written_fields(each)} for each in operations],
        "verify": [each.as_written() for each in migration.checks],
    }
    given = {name: items for name, items in body.items() if items or name == "operations"}
    return head + yaml.safe_dump(given, allow_unicode=True, sort_keys=False, width=100)


def squash_lock(lock: Lock, migration: Migration, proven: Mapping[str, PinnedIds]) -> Lock:
    """Return the lock with a squashed migration in place of those that it replaces.

    `proven` is what it gives, by the fingerprint of a base tokenizer that it was tried on.
    """
    old = {replaced.revision for replaced in migration.replaces}
    place = next(index for index, locked in enumerate(lock.revisions) if locked.revision in old)
    kept = [locked for locked in lock.revisions if locked.revision not in old]
    kept.insert(place, build_locked(migration))
    tokens = {token for pinned in proven.values() for _, token in pinned.new_ids}
    tracks = [_track(track, migration, proven.get(track.fingerprint), tokens) for track in lock.tracks]
    return Lock(tuple(kept), tuple(track for track in tracks if track.pins))


def _track(track: LockTrack, migration: Migration, exact: PinnedIds | None, tokens: set[str]) -> LockTrack:
    order = [replaced.revision for replaced in migration.replaces]
    inside = [pinned for pinned in track.pins if pinned.revision in order]
    if not inside:
        return track
    start = track.pins.index(inside[0])
    before, behind = track.pins[:start], track.pins[start + len(inside) :]
    if [pinned.revision for pinned in inside] != order:
        return LockTrack(track.fingerprint, before)
    if exact is None:
        changes = [planned.operation.token_changes() for planned in migration.operations]
        # A token that got an id on the way has it at the end too, if it is still there.
        if not all(each is not None and each.keeps_ids for each in changes):
            return LockTrack(track.fingerprint, before)
        given = {token: number for pinned in inside for number, token in pinned.new_ids if token in tokens}
        pairs = sorted((number, token) for token, number in given.items())
        exact = PinnedIds(migration.revision, inside[-1].fingerprint, tuple(pairs))
    return LockTrack(track.fingerprint, (*before, exact, *behind))

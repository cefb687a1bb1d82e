"""The results of commands on the lock, as text and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from tokmigrate.formatting import format_count, format_list
from tokmigrate.render.escape import escape_quoted

if TYPE_CHECKING:
    from tokmigrate.commands.lock import LockUpdate
    from tokmigrate.commands.rebase import Rebased
    from tokmigrate.commands.squash import Squashed
    from tokmigrate.revision.lock_file import Lock, PinnedIds, Valid

_SHORT = 12
_MANY = 8


def lock_update_lines(done: LockUpdate, shown: str) -> Iterator[str]:
    """Yield the changes of the lock."""
    before, after = _pins(done.before), _pins(done.after)
    yield (
        f"{shown} is up to date: {_size(done.after)}"
        if done.before == done.after
        else f"wrote {shown}: {_size(done.after)}"
    )
    for change, revision in _changes(done.before, done.after):
        yield f"  {change} {revision}"
    for (base, revision), pinned in after.items():
        if before.get((base, revision)) != pinned:
            ids = [f"{escape_quoted(token)} id {number}" for number, token in pinned.new_ids]
            yield f"  on tokenizer {base[:_SHORT]} {revision} gives {format_list(ids, _MANY) or 'no new token'}"
    for base, revision in before:
        if (base, revision) not in after:
            yield f"  on tokenizer {base[:_SHORT]} nothing is pinned for {revision} any more"
    yield from (f"note: {note}" for note in done.notes)


def lock_update_content(done: LockUpdate, file: str) -> dict[str, Any]:
    """Return the changes of the lock as JSON."""
    return {
        "lock": file,
        "written": done.before != done.after,
        "changes": [{"change": change, "revision": name} for change, name in _changes(done.before, done.after)],
        **_lock_content(done.after),
        "notes": done.notes,
    }


def rebase_lines(done: Rebased, shown: str) -> Iterator[str]:
    """Yield the moved migrations and the changes of the lock."""
    if done.restored:
        source = "both sides of the merge" if done.conflict else "Git"
        yield f"{shown} could not be read, so it is restored from {source}"
    if done.onto is None:
        yield "one head: no migration has to move"
    for each in done.moved:
        name = each.migration.shown
        now = f", now {each.path.name}" if each.path != each.migration.path else ""
        if done.onto is None:
            yield f"its number was taken: {name} is now {each.path.name}"
        elif each is done.moved[0]:
            yield f"moved {each.migration.revision} behind {done.onto} ({name}{now})"
        else:
            yield f"  with it {each.migration.revision} ({name}{now})"
    if done.shared:
        yield f"check this: both branches change or read {', '.join(done.shared)}"
    if done.relocked is None:
        yield f"{shown} is left as it is: there are still several heads; next: `tokmigrate rebase` again"
        return
    yield from lock_update_lines(done.relocked, shown)
    if done.conflict:
        folder = shown.rpartition("/")[0] or "."
        yield f"next: `git add {folder}`, then go on with `git commit` or `git rebase --continue`"


def rebase_content(done: Rebased, file: str) -> dict[str, Any]:
    """Return the moved migrations and the changes of the lock as JSON."""
    return {
        "onto": done.onto,
        "moved": [{"revision": each.migration.revision, "file": each.path} for each in done.moved],
        "shared": done.shared,
        "conflict": done.conflict,
        "restored": done.restored,
        **(lock_update_content(done.relocked, file) if done.relocked else {"lock": file, "written": False}),
    }


def squash_lines(done: Squashed) -> Iterator[str]:
    """Yield the result of squashing migrations."""
    names = ", ".join(migration.shown for migration in done.replaced)
    yield f"wrote {done.migration.shown}: {done.migration.revision} in place of {names}"
    yield f"the same result on {_format_trials(done.trials)}: files, rows and their origins, defaults"
    if done.dropped:
        dropped = format_count(done.dropped, "precondition")
        yield f"note: {dropped} of later ones left out: they ask about states in between"
    if done.lock is None:
        yield "note: there is no lock: `tokmigrate lock` writes it"


def squash_content(done: Squashed) -> dict[str, Any]:
    """Return the result of squashing migrations as JSON."""
    return {
        "revision": done.migration.revision,
        "file": done.migration.path,
        "replaced": [{"revision": each.revision, "file": each.shown} for each in done.replaced],
        "models": list(done.trials),
        "tried_on": [{"model": model, "subject": subject} for model, subject in done.trials.items()],
        "dropped_preconditions": done.dropped,
        "lock": _lock_content(done.lock) if done.lock else None,
    }


def _format_trials(trials: Mapping[str, str]) -> str:
    names = [model for model, subject in trials.items() if subject == "model"]
    dummies = [model for model, subject in trials.items() if subject == "dummy"]
    if dummies:
        are, their = ("a dummy model", "its") if len(dummies) == 1 else ("dummy models", "their")
        names.append(f"{are} of {', '.join(dummies)} ({their} weights are not here)")
    return ", ".join(names)


def _lock_content(lock: Lock) -> dict[str, Any]:
    return {
        "head": lock.head,
        "revisions": [{"revision": locked.revision, "checksum": locked.checksum} for locked in lock.revisions],
        "tokenizers": [
            {
                "fingerprint": track.fingerprint,
                "ids": [
                    {
                        "revision": pinned.revision,
                        "fingerprint": pinned.fingerprint,
                        "new_ids": [{"token": token, "id": number} for number, token in pinned.new_ids],
                    }
                    for pinned in track.pins
                ],
            }
            for track in lock.tracks
        ],
    }


def valid_lines(valid: Valid) -> Iterator[str]:
    """Yield what `validate` found right."""
    yield f"valid: {_size(valid.lock)}; the head is {valid.lock.head}"
    for base, revisions in valid.unpinned:
        yield (
            f"note: no ids are pinned on tokenizer {base[:_SHORT]} for {', '.join(revisions)}: "
            "`tokmigrate lock` adds them where a model with it is"
        )


def valid_content(valid: Valid) -> dict[str, Any]:
    """Return what `validate` found right as JSON."""
    unpinned = [{"fingerprint": base, "revisions": names} for base, names in valid.unpinned]
    return {**_lock_content(valid.lock), "unpinned": unpinned}


def _size(lock: Lock) -> str:
    bases = format_count(len(lock.tracks), "base tokenizer") if lock.tracks else "no base tokenizers"
    return f"{format_count(len(lock.revisions), 'migration')}, ids for {bases}"


def _changes(before: Lock | None, after: Lock) -> Iterator[tuple[str, str]]:
    old = {locked.revision: locked.checksum for locked in before.revisions} if before else {}
    new = {locked.revision: locked.checksum for locked in after.revisions}
    for revision, checksum in new.items():
        if old.get(revision) != checksum:
            yield "changed" if revision in old else "new", revision
    yield from (("gone", revision) for revision in old if revision not in new)


def _pins(lock: Lock | None) -> dict[tuple[str, str], PinnedIds]:
    return {
        (track.fingerprint, pinned.revision): pinned for track in (lock.tracks if lock else ()) for pinned in track.pins
    }

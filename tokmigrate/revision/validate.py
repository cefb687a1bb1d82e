"""Whether migrations and lock agree, as CI asks it: no model is needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tokmigrate.errors import FileProblems, HistoryError, Problem
from tokmigrate.revision.history import History
from tokmigrate.revision.lock_file import REWRITE, Lock, lock_shown, read_lock
from tokmigrate.revision.migration import Migration
from tokmigrate.settings import Workspace


@dataclass(frozen=True)
class Valid:
    """The migrations up to the head, their lock, and by base tokenizer the revisions without pinned ids."""

    chain: tuple[Migration, ...]
    lock: Lock
    unpinned: tuple[tuple[str, tuple[str, ...]], ...]


def validate(workspace: Workspace) -> Valid:
    """Check the order of the migrations, their single head, their checksums and the ids that are pinned.

    Raises FileProblems with all that is wrong, or HistoryError where the files do not hold together.
    """
    problems: list[Problem] = []
    history = History.read(workspace)
    shown = lock_shown(workspace)
    chain: tuple[Migration, ...] = ()
    lock = Lock()
    try:
        chain = history.chain()
    except HistoryError as error:
        problems.append(Problem(error.where or shown, 1, 1, error.message, error.hint))
    try:
        held = read_lock(workspace)
        if held is None and history.migrations:
            problems.append(Problem(shown, 1, 1, "there is no lock", "`tokmigrate lock` writes it"))
        lock = held or lock
    except FileProblems as error:
        problems += error.problems
    problems = problems or [*_order_problems(lock, chain, shown), *_id_problems(lock, shown)]
    if problems:
        raise FileProblems(problems)
    order = [migration.revision for migration in chain]
    unpinned: list[tuple[str, tuple[str, ...]]] = []
    for track in lock.tracks:
        last = order.index(track.revisions[-1]) if track.pins else -1
        left = tuple(migration.revision for migration in chain[last + 1 :] if "*" in migration.models)
        unpinned += [(track.fingerprint, left)] if left else []
    return Valid(chain, lock, tuple(unpinned))


def _order_problems(lock: Lock, chain: Sequence[Migration], shown: str) -> Iterator[Problem]:
    files = {migration.revision: migration for migration in chain}
    known = {locked.revision: locked for locked in lock.revisions}
    for migration in chain:
        if migration.revision not in known:
            yield Problem(migration.shown, 1, 1, f"the lock does not have revision {migration.revision}", REWRITE)
        elif known[migration.revision].checksum != migration.checksum:
            hint = f"put it back as it was; or, where no model has it yet, {REWRITE}"
            yield Problem(migration.shown, 1, 1, f"{migration.revision} was edited since it was locked", hint)
    for locked in lock.revisions:
        if locked.revision not in files:
            message = f"no migration file has revision {locked.revision}"
            yield Problem(shown, locked.line, 1, message, f"put its file back; or {REWRITE}")
    both = [locked for locked in lock.revisions if locked.revision in files]
    order = [migration.revision for migration in chain if migration.revision in known]
    for locked, wanted in zip(both, order, strict=True):
        if locked.revision != wanted:
            message = f"the lock has {locked.revision} where {wanted} follows by the migrations"
            yield Problem(shown, locked.line, 1, message, REWRITE)
            return


def _id_problems(lock: Lock, shown: str) -> Iterator[Problem]:
    order = {locked.revision: place for place, locked in enumerate(lock.revisions)}
    for track in lock.tracks:
        last = -1
        for pinned in track.pins:
            place = order.get(pinned.revision, -1)
            if place <= last:
                yield Problem(shown, pinned.line, 1, f"ids of {pinned.revision} are pinned out of order", REWRITE)
            last = place
            numbers = {number for number, _ in pinned.new_ids}
            tokens = {token for _, token in pinned.new_ids}
            if min(len(numbers), len(tokens)) < len(pinned.new_ids):
                yield Problem(shown, pinned.line, 1, f"{pinned.revision} pins an id, or a token, twice", REWRITE)

"""Make two branches of a history linear: the migrations that no model has follow the others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from tokmigrate.commands.file_transaction import write_files
from tokmigrate.commands.lock import LockUpdate, compute_lock_update
from tokmigrate.commands.models import AppliedModels, applied_models_by_revision, refuse_applied
from tokmigrate.commands.tag import list_tags
from tokmigrate.errors import FileProblems, HistoryError, TokmigrateError
from tokmigrate.git import list_published_files, read_merge_sides
from tokmigrate.revision import lock_file, reparent
from tokmigrate.revision.history import History
from tokmigrate.revision.lock_file import Lock
from tokmigrate.revision.reparent import Branch, Reparented
from tokmigrate.settings import ModelEntry, Workspace


@dataclass(frozen=True)
class Rebased:
    """One line out of two branches.

    Args:
        onto: The new down revision; None where nothing had to be moved.
        shared: What one branch changes and the other changes or reads, or why that is not known.
        conflict: Whether Git had left a conflict in the lock.
        restored: Whether the lock could not be read, so that what Git has was taken.
        relocked: The changes of the lock; None where there are still several heads.
    """

    onto: str | None
    moved: tuple[Reparented, ...]
    shared: tuple[str, ...]
    conflict: bool
    restored: bool
    relocked: LockUpdate | None


def rebase(
    workspace: Workspace, entries: Sequence[ModelEntry], revision: str | None = None, onto: str | None = None
) -> Rebased:
    """Put a branch after another head, and write the lock, which may hold a conflict.

    The branch is that of `revision`, or else the one that no model and no upstream branch of Git has; `onto` is by
    default the other head. Raises HistoryError where a model has a migration of it, or it is ambiguous.
    """
    history = History.read_with(workspace, {})
    tags = list_tags(workspace)
    ids = {name: history.resolve(name, None, tags) for name in (revision, onto) if name is not None}
    locks = _read_locks(workspace)
    behind: str | None = None
    shared: tuple[str, ...] = ()
    if len(history.heads) > 1:
        branch, other = _choose_branches(workspace, history, revision, onto, ids)
        behind, moved = other.head.revision, reparent.reparent_branch(branch, other.head)
        try:
            shared = reparent.find_conflicts(branch.migrations, other.migrations)
        except TokmigrateError as error:
            shared = (str(error),)
    else:
        moved = reparent.renumber_files(history.chain())
    files = reparent.list_reparented_files(moved)
    line = History.read_with(workspace, files)
    done = _update_lock(workspace, line, entries, locks.held, behind) if len(line.heads) < 2 else None
    write_files(workspace, {**files, **(lock_file.lock_files(workspace, done.after) if done else {})})
    return Rebased(behind, moved, shared, locks.conflict, locks.restored, done)


def _choose_branches(
    workspace: Workspace, history: History, revision: str | None, onto: str | None, ids: Mapping[str, str | None]
) -> tuple[Branch, Branch]:
    """Return the branch that is moved, and the one that it goes behind; `ids` are those of the names."""
    found = reparent.branches(history)
    where = applied_models_by_revision(workspace)
    if revision is not None:
        branch = next((each for each in found if ids[revision] in each.revisions), None)
        if branch is None:
            raise HistoryError(f"'{revision}' is not a migration of a single branch", hint=_format_branches(found))
    else:
        branch = _find_movable(workspace, found, where)
    refuse_applied(branch.migrations, where)
    others = [each for each in found if each is not branch]
    if onto is not None:
        others = [each for each in others if each.head.revision == ids[onto]]
        if not others:
            raise HistoryError(f"'{onto}' is not another head", hint="`tokmigrate heads` shows them")
    if len(others) > 1:
        raise HistoryError(
            "there are several heads that it could go behind", hint=f"name one with --onto: {_format_branches(others)}"
        )
    return branch, others[0]


def _find_movable(workspace: Workspace, found: Sequence[Branch], where: AppliedModels) -> Branch:
    """Return the branch that no model has and that is not published; raises HistoryError where not exactly one is."""
    free = [branch for branch in found if where.keys().isdisjoint(branch.revisions)]
    if not free:
        refuse_applied(found[-1].migrations, where)
    published = list_published_files(workspace.migrations) or frozenset()
    own = [branch for branch in found if published.isdisjoint(each.path.name for each in branch.migrations)]
    free = [branch for branch in free if branch in own] or free
    if len(free) > 1:
        raise HistoryError(
            "either branch could go after the other, and nothing says which one is yours",
            hint=f"name the one to move, `tokmigrate rebase REVISION`: {_format_branches(free)}",
        )
    if own and free[0] not in own:
        head, first = own[0].head, own[0].migrations[0]
        raise HistoryError(
            f"{free[0].head.revision} is published, and a model has {head.revision}: neither is yours to move",
            where=head.shown,
            hint=f"`tokmigrate downgrade {first.down_revision or 'base'}` first, then `tokmigrate rebase`; or name "
            "the one that moves",
        )
    return free[0]


def _format_branches(found: Sequence[Branch]) -> str:
    return " or ".join(f"{branch.head.revision} ({branch.head.shown})" for branch in found)


@dataclass(frozen=True)
class _KnownLocks:
    """What the lock says: on either side of a conflict as far as it can be read, or as Git has it."""

    held: tuple[Lock, ...] = ()
    conflict: bool = False
    restored: bool = False


def _read_locks(workspace: Workspace) -> _KnownLocks:
    text = lock_file.read_lock_text(workspace)
    if text is None:
        return _KnownLocks()
    sides = lock_file.conflict_sides(text)
    if sides[0] != sides[1]:
        return _KnownLocks(_parse_readable(sides), conflict=True)
    try:
        return _KnownLocks((lock_file.parse_lock(text, lock_file.lock_shown(workspace)),))
    except FileProblems as error:
        held = _parse_readable(read_merge_sides(lock_file.lock_path(workspace)))
        if not held:
            hint = "Git has no complete one either: delete it, then `tokmigrate rebase` recreates it"
            raise FileProblems([replace(problem, hint=hint) for problem in error.problems]) from error
        return _KnownLocks(held, conflict=len(held) > 1, restored=True)


def _parse_readable(texts: Iterable[str]) -> tuple[Lock, ...]:
    locks: list[Lock] = []
    for text in texts:
        # Where lines of one side did not touch those of the other, Git gave them to both: that is not a lock any more.
        with suppress(FileProblems):
            locks.append(lock_file.parse_lock(text, ""))
    return tuple(locks)


def _update_lock(
    workspace: Workspace, history: History, entries: Sequence[ModelEntry], locks: Sequence[Lock], onto: str | None
) -> LockUpdate:
    """Return the lock with what its sides pin for the migrations that stayed, and what the moved ones give now."""
    chain = history.chain()
    known: Lock | None = None
    for lock in locks:
        known = lock_file.lock_of(chain, known, lock.keep_valid(chain).tracks)
    before = next((lock for lock in locks if lock.head == onto), locks[0] if locks else None)
    try:
        done = compute_lock_update(workspace, history, entries, known)
    except TokmigrateError as error:
        # The order is settled all the same; what is wrong with a migration or a model shows again in a plan.
        done = compute_lock_update(workspace, history, (), known)
        done = replace(done, notes=(*done.notes, f"no new ids are pinned: {error}"))
    return replace(done, before=before)

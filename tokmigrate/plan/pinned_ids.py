"""The ids that a plan gives against those that the lock pins."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tokmigrate.model.snapshot import Snapshot
from tokmigrate.plan.steps import Step
from tokmigrate.revision.lock import Lock, LockTrack, PinnedIds, check_fingerprint, check_new_ids
from tokmigrate.revision.migration import Migration


def compute_pins(steps: Sequence[Step]) -> Iterator[tuple[str, PinnedIds]]:
    """Yield for each step the fingerprint of the tokenizer before it, and the ids that it gives."""
    here, document = "", None
    for step in steps:
        before, after = step.before.tokenizer, step.after.tokenizer
        # A digest of all tokens takes its time, and many migrations leave the file as it is.
        if before.document is not document:
            here = before.fingerprint
        reached = here if after.document is before.document else after.fingerprint
        new = ((number, token) for token, number in after.ids.items() if token not in before.ids)
        yield here, PinnedIds(step.migration.revision, reached, tuple(sorted(new)))
        here, document = reached, after.document


def track_before(snapshot: Snapshot, applied: Sequence[Migration], lock: Lock | None) -> LockTrack | None:
    """Return the way that a model has come; None where the lock does not know it.

    Args:
        snapshot: The model as it is.
        applied: The migrations that it has.
        lock: What is pinned.
    """
    if not applied:
        return LockTrack(snapshot.state.tokenizer.fingerprint)
    come = tuple(migration.revision for migration in applied)
    base = snapshot.stamp.tokenizer if snapshot.stamp else None
    for track in lock.tracks if lock else ():
        if track.revisions[: len(come)] == come:
            pins = track.pins[: len(come)]
            here = snapshot.state.tokenizer.fingerprint
            # A stamp that does not name its base says no more than what the tokenizer is now.
            if track.fingerprint == base or (base is None and pins[-1].fingerprint == here):
                return LockTrack(track.fingerprint, pins)
    return None


def track_after(before: LockTrack, steps: Sequence[Step]) -> LockTrack:
    """Return the way of a model with the steps of a plan after it."""
    return LockTrack(before.fingerprint, (*before.pins, *(pinned for _, pinned in compute_pins(steps))))


def check_pins(lock: Lock, before: LockTrack, steps: Sequence[Step]) -> tuple[str, ...]:
    """Check the ids of a plan, and return the revisions that nothing is pinned for.

    Args:
        lock: The part of the lock that holds for the migrations.
        before: The way that the model has come.
        steps: What the plan does.

    Raises:
        DriftError: An id is not the one that the lock pins.
    """
    come = list(before.revisions)
    expected = before.pins[-1].fingerprint if before.pins else before.fingerprint
    open_ones: list[str] = []
    for here, found in compute_pins(steps):
        come.append(found.revision)
        pinned = lock.find_pins(before.fingerprint, come)
        if pinned is None:
            open_ones.append(found.revision)
            continue
        check_new_ids(pinned, found)
        # Tokens that were changed outside tokmigrate are not due to this migration.
        if here == expected:
            check_fingerprint(pinned, found)
        expected = pinned.fingerprint
    return tuple(open_ones)

"""Whether a plan keeps what the workspace's lock promises."""

from __future__ import annotations

from collections.abc import Sequence

from tokmigrate.plan.promises import check_promises, track_before
from tokmigrate.plan.upgrade import Plan
from tokmigrate.revision.history import History
from tokmigrate.revision.lock_file import read_lock
from tokmigrate.revision.migration import Migration
from tokmigrate.settings import Workspace

_LOCK = "`tokmigrate lock` writes it"


def kept_promises(workspace: Workspace, history: History, applied: Sequence[Migration], plan: Plan) -> tuple[str, ...]:
    """Check the ids of a plan against the lock, and return what a user should know of it.

    A workspace without a lock has promised nothing. A migration that is another one than the lock knows binds
    nothing either, but is told of: it is `validate` that refuses it.

    Raises:
        DriftError: An id would come out otherwise than the lock promises.
        FileProblems: The lock is damaged, or has conflict markers.
    """
    lock = read_lock(workspace)
    if lock is None:
        return ()
    held = lock.holding(history.chain())
    known = {locked.revision for locked in held.revisions}
    strange = [step.migration.revision for step in plan.steps if step.migration.revision not in known]
    before = track_before(plan.snapshot, applied, held)
    unpromised = check_promises(held, before, plan.steps) if before else [s.migration.revision for s in plan.steps]
    if strange:
        return (f"the lock does not know {', '.join(strange)} as it is now: {_LOCK}",)
    if unpromised:
        return (f"the lock promises no ids for this tokenizer in {', '.join(unpromised)}: {_LOCK}",)
    return ()

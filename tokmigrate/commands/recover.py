"""Finish what an interrupted change of a model left behind."""

from __future__ import annotations

from tokmigrate.apply.publish import RecoveryOutcome
from tokmigrate.apply.workarea import WorkArea
from tokmigrate.audit.run_status import is_in_progress
from tokmigrate.commands.session import model_session
from tokmigrate.events import OnProgress, no_progress
from tokmigrate.files import exists
from tokmigrate.settings import ModelEntry, Workspace
from tokmigrate.state.database import open_state_if_present


def recover_model(
    workspace: Workspace, entry: ModelEntry, lock_timeout_s: float = 0.0, on_progress: OnProgress = no_progress
) -> RecoveryOutcome:
    """Finish what an interrupted change of a model left behind, and say what was found."""
    if not is_in_progress(entry):
        entry.here()
    if not exists(WorkArea(entry.path).root) and open_state_if_present(workspace.state, workspace.root) is None:
        return RecoveryOutcome.NOTHING
    with model_session(workspace, entry, lock_timeout_s, on_progress) as (_, _, found):
        return found

"""The audit's questions about the models of a workspace; nothing here writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tokmigrate.audit.lora import trainable_indices
from tokmigrate.audit.training import Training, training_on_record
from tokmigrate.model.snapshot import take_snapshot
from tokmigrate.settings import ModelEntry, Workspace
from tokmigrate.state.database import open_state_if_present


@dataclass(frozen=True)
class LoraRows:
    """The rows of a model that a LoRA run is still to train.

    Args:
        model: Its name.
        indices: Their ids by layer, as peft's `trainable_token_indices` has them.
        unknown: How many tokens have a row of which it is not known whether it was trained.
        why: Why that is not known, of the first of them.
    """

    model: str
    indices: Mapping[str, list[int]]
    unknown: int
    why: str | None


def lora_rows(workspace: Workspace, entry: ModelEntry) -> LoraRows:
    """Return the rows of a model that migrations began and nobody has trained since."""
    snapshot = take_snapshot(entry)
    tokens = training_on_record(open_state_if_present(workspace.state, workspace.root), snapshot)
    open_questions = [token for token in tokens if Training.UNKNOWN in token.sides.values()]
    why = next((token.why for token in open_questions), None)
    return LoraRows(entry.name, trainable_indices(snapshot, tokens), len(open_questions), why)

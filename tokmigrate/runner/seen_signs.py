"""What is to be done with a model that has what migrations do, though nothing says that it was there."""

from __future__ import annotations

from tokmigrate.plan.signs import Signs
from tokmigrate.settings import ModelEntry, Workspace


def way_to_take_on(workspace: Workspace, entry: ModelEntry, signs: Signs) -> str:
    """Return how such a model is taken on, as commands."""
    own = workspace.models.get(entry.name)
    within = entry.path.is_relative_to(workspace.root)
    path = entry.path.relative_to(workspace.root) if within else entry.path
    name = entry.name if own is not None and own.path == entry.path else str(path)
    copy = (
        f"`tokmigrate stamp --from MODEL --model {name}` as a copy of the model that it was made of, with its way back"
    )
    if signs.reached is None:
        return f"complete it by hand, or take its tokenizer from a model that was upgraded; then {copy}"
    return f"`tokmigrate stamp {signs.reached} --model {name}` takes it on there, {copy}"

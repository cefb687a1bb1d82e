"""A model whose directory is not there."""

from __future__ import annotations

from pathlib import Path

from tokmigrate.errors import MissingModelError


def missing_model(directory: Path) -> MissingModelError:
    """Return the error for a model whose directory is not there."""
    return MissingModelError(
        "the model is missing: no such directory",
        where=str(directory),
        hint="put it back, or correct its path in tokmigrate.yaml",
    )

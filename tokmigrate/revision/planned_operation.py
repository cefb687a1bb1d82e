"""An operation with its place and the migration that it came from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from tokmigrate.init import InitSpec
from tokmigrate.operations.base import Operation


class Replaced(BaseModel):
    """A migration that became part of another one.

    Its operations keep its name and its `init:`, so that random rows come from the same seed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    revision: Annotated[str, Field(pattern=r"^[0-9a-z_]{4,40}$", description="Its id.")]
    checksum: str = Field(min_length=1, description="What identified its contents.")
    operations: int = Field(ge=0, description="How many of the operations come from it, in their order.")
    init: InitSpec | None = Field(default=None, description="The `init:` of its file.")


@dataclass(frozen=True)
class PlannedOperation:
    """An operation of a migration.

    Args:
        operation: What is to be done.
        place: Where the migration says so, `file:line:column`.
        origin: The migration that it came from, where it is one that others were squashed into.
    """

    operation: Operation
    place: str
    origin: Replaced | None = None

"""What a squashed migration says of one that it stands for."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from tokmigrate.initialise import InitSpec


class Replaced(BaseModel):
    """A migration that became part of another one.

    Its operations keep its name and its `init:`, so that rows start as they did: random ones from the same seed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    revision: Annotated[str, Field(pattern=r"^[0-9a-z_]{4,40}$", description="Its id.")]
    checksum: str = Field(min_length=1, description="What identified its contents.")
    operations: int = Field(ge=0, description="How many of the operations come from it, in their order.")
    init: InitSpec | None = Field(default=None, description="The `init:` of its file.")

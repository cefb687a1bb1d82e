"""What every operation is: frozen data, and a pure function from one model state to the next."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar, Literal

from blake3 import blake3
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from tokmigrate.initialise import InitSpec
from tokmigrate.model.documents.state import ModelState


class RiskLevel(StrEnum):
    """How much an operation can do to a trained model."""

    SAFE = "safe"
    CAUTION = "caution"
    BREAKING = "breaking"


@dataclass(frozen=True)
class Risk:
    """A risk class with its reason."""

    level: RiskLevel
    reason: str


@dataclass(frozen=True)
class Attachment:
    """A file that a migration refers to."""

    path: str
    data: bytes

    @property
    def digest(self) -> str:
        """The BLAKE3 digest of the file, as hex."""
        return blake3(self.data).hexdigest()


@dataclass(frozen=True)
class Context:
    """What an operation may know besides the model.

    Args:
        revision: The revision that it belongs to.
        init: The `init:` of the migration file.
        attachments: The files that the migration refers to, by the name used there.
    """

    revision: str
    init: InitSpec | None = None
    attachments: Mapping[str, Attachment] = field(default_factory=dict)

    def data(self) -> dict[str, bytes]:
        """Return the bytes of each attachment."""
        return {name: attachment.data for name, attachment in self.attachments.items()}


class Fields(BaseModel):
    """A mapping in a migration file: frozen, and closed to unknown names."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Operation(Fields, ABC):
    """A change of a model's vocabulary; subclasses add the fields that a migration file gives."""

    name: ClassVar[str]
    shorthand: ClassVar[str | None] = None
    """The field that a single value stands for."""
    keeps_reachable: ClassVar[bool] = False
    """Whether `apply` itself sees to it that text can still produce every token that it could produce."""

    acknowledge: Literal["breaking"] | None = Field(
        default=None, description="Says that a breaking change is meant; needed where the risk is `breaking`."
    )

    @abstractmethod
    def apply(self, state: ModelState, context: Context) -> ModelState:
        """Return the state after this operation; raises OperationError where it cannot be."""

    @abstractmethod
    def risk(self, before: ModelState, after: ModelState) -> Risk:
        """Return how risky it was to get from `before` to `after`."""

    def references(self) -> tuple[str, ...]:
        """Return the files that the operation refers to, relative to the migration file."""
        return ()


def _listed(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


AsTuple = BeforeValidator(_listed)
"""Marks a tuple field that a list in a file fills."""

"""What a change needs of the store of undo data, which the state implements."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol


class Objects(Protocol):
    """Where undo data is kept."""

    def get(self, digest: str) -> bytes:
        """Return the bytes of a digest."""
        ...


class NewObjects(Protocol):
    """Undo data that is kept together."""

    def put(self, data: bytes) -> str:
        """Keep bytes and return their digest."""
        ...


class ObjectKeeper(Protocol):
    """What keeps undo data."""

    def open_batch(self) -> AbstractContextManager[NewObjects]:
        """Give what keeps many objects, durably when the context ends."""
        ...

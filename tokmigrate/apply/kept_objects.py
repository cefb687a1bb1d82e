"""What a change needs of the store of undo data, which the state implements."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Protocol


class Objects(Protocol):
    """Where undo data is kept."""

    def get(self, digest: str) -> bytes:
        """Return the bytes of a digest."""
        ...

    def open(self, digest: str) -> StoredBytes:
        """Give the bytes of a digest to be read from any place, for which they are not all held in memory."""
        ...

    def require(self, digest: str) -> None:
        """Raise UndoError where nothing has that digest."""
        ...


class StoredBytes(Protocol):
    """Bytes that are kept."""

    @property
    def size(self) -> int:
        """How many they are."""
        ...

    def read(self, begin: int, size: int) -> bytes:
        """Return `size` bytes from `begin` on; fewer where there are not so many."""
        ...


class NewObjects(Protocol):
    """Undo data that is kept together."""

    def put(self, data: bytes) -> str:
        """Keep bytes and return their digest."""
        ...

    def put_parts(self, parts: Iterable[bytes]) -> str:
        """Keep parts, joined, as `put` does; they are not all held in memory."""
        ...


class ObjectKeeper(Protocol):
    """What keeps undo data."""

    def open_batch(self) -> AbstractContextManager[NewObjects]:
        """Give what keeps many objects, durably when the context ends."""
        ...

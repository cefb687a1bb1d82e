"""The last values of pure functions: models of a command that have something in common share the work on it."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, Generic, TypeVar
from weakref import WeakSet

Value = TypeVar("Value")


@dataclass
class _Entry(Generic[Value]):
    key: object
    lock: Lock = field(default_factory=Lock)
    values: list[Value] = field(default_factory=list)


class Memo(Generic[Value]):
    """Keeps the last values by what they follow from; threads that ask for the same one wait for the first of them."""

    def __init__(self, most: int, is_same: Callable[[Any, Any], bool] = operator.eq) -> None:
        """`most` values are kept; `is_same` compares what they follow from, which need not be hashable."""
        self._most = most
        self._is_same = is_same
        self._lock = Lock()
        self._entries: list[_Entry[Value]] = []
        _MEMOS.add(self)

    def get(self, key: object, compute: Callable[[], Value]) -> Value:
        """Return the value that is kept for a key, else compute it; an error is not kept."""
        with self._lock:
            entry = next((each for each in self._entries if self._is_same(each.key, key)), None) or _Entry[Value](key)
            others = [each for each in self._entries if each is not entry]
            # The oldest goes before the new one is computed: memory never holds one more.
            self._entries = [*others, entry][-self._most :]
        with entry.lock:
            if not entry.values:
                entry.values.append(compute())
            return entry.values[0]

    def clear(self) -> None:
        """Forget all values."""
        with self._lock:
            self._entries = []


_MEMOS: WeakSet[Memo[Any]] = WeakSet()


_CLEAR: list[Callable[[], None]] = []


def forget_with_all(clear: Callable[[], None]) -> None:
    """Have `forget_all` call what clears another cache too."""
    _CLEAR.append(clear)


def forget_all() -> None:
    """Forget what is kept in this process: of a large vocabulary that is hundreds of megabytes."""
    for memo in _MEMOS:
        memo.clear()
    for clear in _CLEAR:
        clear()

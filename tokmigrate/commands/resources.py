"""What the work on a model takes, and whether that much is free: with `-j N` a further model waits for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Condition

from tokmigrate.apply.publish import free_bytes, margin_bytes
from tokmigrate.errors import StorageError
from tokmigrate.settings import ModelEntry

_WORKER_BYTES = 512 << 20
"""What a process that has imported transformers takes."""
_TIMES_DOCUMENTS = 32
"""How much more a tokenizer takes than its file has bytes: parsed, before and after a change, with its tables."""
_DOCUMENTS = (".json", ".model", ".txt")
_POLL_S = 0.2


@dataclass(frozen=True)
class Need:
    """The memory that the work on a model takes, and the space on the filesystem of that number."""

    memory: int
    space: int
    device: int

    @staticmethod
    def of(entry: ModelEntry, bytes_to_write: int) -> Need:
        """Return an estimate of what the work on a model takes; nothing of one that cannot be looked at."""
        documents = device = 0
        with suppress(OSError):
            device = entry.path.stat().st_dev
            documents = sum(path.stat().st_size for path in entry.path.iterdir() if path.suffix in _DOCUMENTS)
        space = bytes_to_write + margin_bytes(bytes_to_write) if bytes_to_write else 0
        return Need(_WORKER_BYTES + _TIMES_DOCUMENTS * documents, space, device)


class Admission:
    """Lets as many models be worked on as memory and space suffice for, and always one."""

    def __init__(self, is_over: Callable[[], bool]) -> None:
        """`is_over` says whether nobody waits any more."""
        self._is_over = is_over
        self._changed = Condition()
        self._running: list[Need] = []
        # Before any of them took something.
        self._memory = free_memory()
        self._space: dict[int, int | None] = {}

    @contextmanager
    def admit(self, entry: ModelEntry, bytes_to_write: int) -> Iterator[None]:
        """Wait until there is enough for a model, of which so many bytes will be written beside it."""
        need = Need.of(entry, bytes_to_write)
        with self._changed:
            while self._running and not self._suffices(entry.path, need) and not self._is_over():
                self._changed.wait(_POLL_S)
            self._space.setdefault(need.device, _free_space(entry.path))
            self._running.append(need)
        try:
            yield
        finally:
            with self._changed:
                self._running.remove(need)
                self._changed.notify_all()

    def _suffices(self, path: Path, need: Need) -> bool:
        memory = need.memory + sum(each.memory for each in self._running)
        space = need.space + sum(each.space for each in self._running if each.device == need.device)
        now = _free_space(path) if need.space else None
        before = self._space.get(need.device, now)
        return (
            _is_within(need.memory, free_memory())
            and _is_within(memory, self._memory)
            and _is_within(need.space, now)
            and _is_within(space, before)
        )


def _is_within(needed: int, free: int | None) -> bool:
    return free is None or needed <= free


def _free_space(path: Path) -> int | None:
    try:
        return free_bytes(path)
    except StorageError:
        # The work on the model says it better.
        return None


def free_memory() -> int | None:
    """Return the bytes of memory that processes may still take, of the machine or the container, None if unknown."""
    found: list[int] = []
    with suppress(OSError, ValueError, KeyError):
        found.append(_read_figures(Path("/proc/meminfo"))["MemAvailable"] * 1024)
    with suppress(OSError, ValueError, KeyError):
        group = Path("/sys/fs/cgroup", Path("/proc/self/cgroup").read_text("utf-8").rpartition(":")[2].strip("/\n"))
        most, taken = (int((group / f"memory.{name}").read_text("utf-8")) for name in ("max", "current"))
        # The page cache counts as taken, and is given back.
        found.append(most - taken + _read_figures(group / "memory.stat")["inactive_file"])
    return min(found, default=None)


def _read_figures(path: Path) -> dict[str, int]:
    """Return the figures of a file of the kernel by their names."""
    words = (line.replace(":", "").split() for line in path.read_text("utf-8").splitlines())
    return {name: int(figure) for name, figure, *_ in words}

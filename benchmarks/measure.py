"""What a command costs: time, CPU, memory and bytes, with its child processes."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median


@dataclass(frozen=True)
class Cost:
    """What one run took.

    Args:
        seconds: Wall time.
        cpu: CPU seconds of all processes.
        memory: Peak resident memory of the largest process, in MB.
        read: MB that system calls read, or that the disk delivered where that is more (files that are mapped).
        written: MB that system calls wrote, or that went to the disk.
        allocated: The most that the filesystem's free space fell meanwhile, in MB.
    """

    seconds: float
    cpu: float
    memory: float
    read: float
    written: float
    allocated: float


def run(words: Sequence[str], directory: Path, environment: Mapping[str, str] | None = None) -> Cost:
    """Run a command that must work, and return what it cost.

    Raises:
        SystemExit: The command failed; its output is shown.
    """
    # Installed packages have their compiled files.
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    # What the run before left to be written or freed is not of this one.
    subprocess.run(("/bin/sync", "-f", directory), check=True)
    stop, lowest = threading.Event(), [_free(directory)]
    before = lowest[0]

    def watch() -> None:
        while not stop.wait(0.02):
            lowest[0] = min(lowest[0], _free(directory))

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    try:
        with subprocess.Popen(
            list(words),
            cwd=directory,
            env={**inherited, **(environment or {})},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        ) as child:
            said = child.stderr.read() if child.stderr else b""
            # The process stays a zombie until its counters have been read.
            os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
            seconds = time.perf_counter() - start
            counters = dict(line.split(": ") for line in Path(f"/proc/{child.pid}/io").read_text().splitlines())
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
    finally:
        stop.set()
        watcher.join()
    if child.returncode:
        raise SystemExit(f"{' '.join(words)} failed: {said.decode()}")
    count = {name: int(value) / 1e6 for name, value in counters.items()}
    return Cost(
        seconds,
        usage.ru_utime + usage.ru_stime,
        usage.ru_maxrss / 1024,
        max(count["rchar"], count["read_bytes"]),
        max(count["wchar"], count["write_bytes"]),
        (before - lowest[0]) / 1e6,
    )


def _free(directory: Path) -> int:
    status = os.statvfs(directory)
    return status.f_bfree * status.f_frsize


def middle(costs: Sequence[Cost]) -> Cost:
    """Return the median of each figure."""
    rows = [asdict(cost) for cost in costs]
    return Cost(**{name: median(row[name] for row in rows) for name in rows[0]})


def ratio(costs: Sequence[Cost], others: Sequence[Cost]) -> float:
    """Return the median of the wall times' ratios, pair by pair."""
    return median(cost.seconds / other.seconds for cost, other in zip(costs, others, strict=True))

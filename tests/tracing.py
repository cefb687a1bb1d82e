"""A command under strace, which lists its system calls, refuses one of them, or kills it there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

from workspaces import Workspace

CALLS = (
    *("rename", "renameat", "renameat2", "link", "linkat", "unlink", "unlinkat", "rmdir", "mkdir", "mkdirat"),
    *("fsync", "fdatasync", "write", "pwrite64", "ftruncate", "copy_file_range"),
    *("utimensat", "fchown", "lchown", "chown", "fchmod", "fchmodat", "chmod"),
)
"""The calls that change something on the disk."""


def strace(*arguments: str) -> list[str]:
    # A number of a call that this machine does not have is left out by the question mark.
    traced = ",".join(f"?{call}" for call in CALLS)
    # With the filter strace 6.1 injects errors and no signals.
    fast = [] if any(":signal=" in argument for argument in arguments) else ["--seccomp-bpf"]
    return ["strace", "-f", "-qq", *fast, "-e", f"trace={traced}", *arguments]


def strace_works() -> bool:
    if shutil.which("strace") is None:
        return False
    done = subprocess.run([*strace("-o", os.devnull), "true"], capture_output=True, check=False)
    return done.returncode == 0


def points(place: Workspace, words: list[str], scratch: Path) -> list[tuple[str, int]]:
    """Return the calls of one run of the main process: the name, and the how manieth of its name."""
    calls = scratch / "calls"
    done = place.run_process(*words, before=tuple(strace("-o", str(calls))))
    assert done.returncode == 0, done.stderr
    lines = calls.read_text("utf-8").splitlines()
    main_process = lines[0].split()[0]
    seen: Counter[str] = Counter()
    found: list[tuple[str, int]] = []
    for line in lines:
        match = re.match(rf"{main_process} +(\w+)\(", line)
        if match and match[1] in CALLS:
            seen[match[1]] += 1
            found.append((match[1], seen[match[1]]))
    return found

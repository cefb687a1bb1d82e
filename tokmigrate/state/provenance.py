"""Who made a change, with which programs, from which commit."""

from __future__ import annotations

import getpass
import os
import platform
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from pathlib import Path

from tokmigrate import __version__
from tokmigrate.git import ask_git

LIBRARIES = ("transformers", "tokenizers", "torch", "safetensors", "numpy")
_GIT_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Provenance:
    """The author of a run, with the versions of tokmigrate, Python and libraries, and the commit of the workspace."""

    user: str
    host: str
    pid: int
    tool_version: str = __version__
    libraries: dict[str, str] = field(default_factory=dict)
    git_commit: str | None = None


def identify(workspace: Path) -> Provenance:
    """Return who runs this process, and at which commit `workspace` is."""
    return Provenance(
        user=_user(),
        host=socket.gethostname(),
        pid=os.getpid(),
        libraries=dict(library_versions()),
        git_commit=git_commit(workspace),
    )


@cache
def library_versions() -> Mapping[str, str]:
    """Return the installed versions by name, without importing a library."""
    versions = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def git_commit(folder: Path) -> str | None:
    """Return the commit that `folder` is at, or None outside Git, without Git, or where it hangs."""
    found = ask_git(folder, "rev-parse", "--verify", "HEAD", timeout_s=_GIT_TIMEOUT_S).output
    return found.strip() or None if found else None


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return str(os.getuid())

"""A PostgreSQL server of a test's own, where the machine has one."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_USER = "postgres"


def _program(name: str) -> str | None:
    found = [str(path) for path in sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))]
    return shutil.which(name) or (found[-1] if found else None)


@contextmanager
def server() -> Iterator[str]:
    """Give the URL of an empty database; skips where there is no PostgreSQL or no driver."""
    initdb, control = _program("initdb"), _program("pg_ctl")
    if initdb is None or control is None:
        pytest.skip("PostgreSQL is not installed")
    if importlib.util.find_spec("psycopg") is None:
        pytest.skip("psycopg is not installed")
    # It refuses to run as root.
    runs_as = ["runuser", "-u", _USER, "--"] if os.getuid() == 0 else []
    if runs_as and subprocess.run(["id", _USER], capture_output=True, check=False).returncode != 0:
        pytest.skip("root cannot run PostgreSQL, and there is no user for it")
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    try:
        if runs_as:
            shutil.chown(folder, _USER)
        data, options = folder / "data", f"-c listen_addresses='' -k {folder} -c fsync=off"
        quiet = {"stdout": subprocess.DEVNULL, "cwd": folder, "timeout": 60}
        subprocess.run([*runs_as, initdb, "-A", "trust", "-U", _USER, "-N", "-D", data], check=True, **quiet)  # type: ignore[call-overload]
        subprocess.run(
            [*runs_as, control, "-D", data, "-l", folder / "log", "-o", options, "-w", "start"], check=True, **quiet
        )  # type: ignore[call-overload]
        try:
            yield f"postgresql+psycopg://{_USER}@/postgres?host={folder}"
        finally:
            subprocess.run([*runs_as, control, "-D", data, "-m", "immediate", "stop"], check=False, **quiet)  # type: ignore[call-overload]
    finally:
        shutil.rmtree(folder, ignore_errors=True)

"""Chromium without a window, for tests of pages."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def browsed(path: Path, *arguments: str, fragment: str = "") -> str:
    """Open a page in Chromium, wait for its script, and return what Chromium prints."""
    if CHROMIUM is None:
        pytest.skip("no Chromium: apt-get install chromium")
    profile = path.parent / "profile"
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        f"--user-data-dir={profile}",
    ]
    done = subprocess.run(
        [*command, "--virtual-time-budget=20000", *arguments, path.as_uri() + fragment],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout

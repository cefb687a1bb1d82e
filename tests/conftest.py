"""What holds for all tests."""

from __future__ import annotations

import os

# pytest-xdist sets it for its own output; a command that runs in a test writes into a pipe, which has no width.
os.environ.pop("COLUMNS", None)

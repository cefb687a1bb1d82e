"""What holds for all tests."""

from __future__ import annotations

import gc
import os

from hypothesis import settings

# pytest-xdist sets it for its own output; a command that runs in a test writes into a pipe, which has no width.
os.environ.pop("COLUMNS", None)

# Each process of pytest-xdist has a core; threads of torch that wait for one another would take it from the others.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# As the command line does: collections would take a tenth of the time.
gc.set_threshold(400_000)

# How long an example takes depends on what else the machine does.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")
